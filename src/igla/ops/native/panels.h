// Tiles of a product with packed panels, for processors with AVX-512.
//
// As in Goto & van de Geijn 2008: the right side is packed, a panel of 48 columns at a time, so
// that it is read in order, and a tile of 8 × 48 results stays in 24 of the 32 registers until its
// sum is whole. All is counted in words of 32 bits along the inner dimension: a float, two bf16 or
// four bytes, which the processor multiplies and adds in one go.
#pragma once

#include "common.h"

#ifdef __AVX512F__
#include <immintrin.h>

namespace igla {

typedef uint32_t Word __attribute__((may_alias));
constexpr int kLanes = 16, kVectors = 3, kColumns = kLanes * kVectors, kRows = 8;

template <class T>
constexpr int kPerWord = sizeof(Word) / sizeof(T);

template <class T>
constexpr int64_t words(int64_t elements) {
  return (elements + kPerWord<T> - 1) / kPerWord<T>;
}

template <class T>
const Word* words_of(const T* elements) {
  return reinterpret_cast<const Word*>(elements);
}

inline __mmask16 first_lanes(int64_t count) {
  return count >= kLanes ? 0xffff : count <= 0 ? 0 : __mmask16((1u << count) - 1);
}

// What 16 sums of products of T are kept in.
template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, uint8_t>, __m512i, __m512>;

inline void multiply_add(__m512& sum, Word left, __m512i right, float*) {
  sum = _mm512_fmadd_ps(_mm512_set1_ps(bits_as<float>(left)), (__m512)right, sum);
}
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
inline void multiply_add(__m512& sum, Word left, __m512i right, bf16*) {
  sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(int(left)), (__m512bh)right);
}
#endif
#ifdef __AVX512VNNI__
// The left bytes are without a sign, the right ones with. By its name: the intrinsic calls the
// vector it adds to by another type than this, and GCC 12 copies each sum to memory and back.
inline void multiply_add(__m512i& sum, Word left, __m512i right, uint8_t*) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(_mm512_set1_epi32(int(left))), "v"(right));
}
#endif

// One tile of left·panel: `Rows` rows, and columns up to a number of vectors. The left side's word
// of row i and inner word k stands at left[i * row_step + k * word_step]. begin(i, v) gives what
// the sum of row i and vector v begins with, end(i, v, sum) takes it.
template <class T, int Rows, int Vectors, class Begin, class End>
inline __attribute__((always_inline)) void panel_tile(const Word* left, int64_t row_step,
                                                      int64_t word_step, const Word* panel,
                                                      int64_t inner, Begin begin, End end) {
  SumOf<T> sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; v++) sums[i][v] = begin(i, v);
  for (int64_t k = 0; k < inner; k++, left += word_step, panel += kColumns) {
    __m512i right[Vectors];
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; v++) right[v] = _mm512_loadu_si512(panel + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; i++)
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; v++)
        multiply_add(sums[i][v], left[i * row_step], right[v], static_cast<T*>(nullptr));
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; v++) end(i, v, sums[i][v]);
}

// The same for any number of rows up to kRows.
template <class T, int Vectors = kVectors, int Rows = kRows, class... Rest>
inline void panel_rows(int64_t rows, Rest... rest) {
  if constexpr (Rows > 0) {
    if (rows == Rows)
      panel_tile<T, Rows, Vectors>(rest...);
    else
      panel_rows<T, Vectors, Rows - 1>(rows, rest...);
  }
}

}  // namespace igla
#endif
