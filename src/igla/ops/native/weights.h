// Matrices of weights kept in fewer bits, and y = x·Wᵀ for few rows of x.
//
// Decoding reads every weight once for each forward, and a row or two of activations: what it costs
// is the bytes of the weights. So they stay as they are kept until they are in a register, and
// activations are float32.
//
// Every result is summed in one fixed order, whatever else is computed beside it: a row's is the
// same to the bit alone, in a batch, and as part of a prompt.
#pragma once

#include <algorithm>
#include <vector>

#include "common.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace igla {

// 16 numbers; the compiler makes of them what registers the processor has.
typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kStep = 32;  // weights of a row that are read at a time

enum Kind : int64_t { kFloat32, kBf16, kInt8, kInt4 };

// A matrix [columns, inner] as Python describes it (ops/weights.py), inner a multiple of 32.
//   int8  scales [columns]; weight = scale * integer
//   int4  scales [columns, inner / 32]; 16 bytes hold 32 weights, the first 16 in the low halves;
//         weight = scale * (half - 8)
struct Weights {
  int64_t kind;
  const void* data;
  const float* scales;
  const float* bias;  // [columns] or null
};

// 16 small numbers widened. GCC takes vectors of unlike widths apart, number by number, so they are
// spelt out for AVX-512.
#ifdef __AVX512F__
inline Ints widened(const int8_t* at) {
  return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)at));
}
inline Ints widened(const uint8_t* at) {
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)at));
}
inline Ints widened(const uint16_t* at) {
  return (Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at));
}
inline Floats as_floats(Ints x) { return (Floats)_mm512_cvtepi32_ps((__m512i)x); }
// scale * (half - 8) for the lowest four bits of each number.
struct Levels {
  __m512 table;
  explicit Levels(float scale)
      : table(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7) * scale) {}
  Floats at(Ints halves) const { return (Floats)_mm512_permutexvar_ps((__m512i)halves, table); }
};
#else
template <class T>
inline Ints widened(const T* at) {
  Ints to;
  SIMD for (int i = 0; i < 16; i++)
    to[i] = at[i];
  return to;
}
inline Floats as_floats(Ints x) { return __builtin_convertvector(x, Floats); }
struct Levels {
  float scale;
  explicit Levels(float scale) : scale(scale) {}
  Floats at(Ints halves) const { return as_floats((halves & 15) - 8) * scale; }
};
#endif

// Each kind's 32 weights of a row from the k-th on, which take so many bytes.
struct Float32Rows {
  static constexpr bool kScaled = false;
  static constexpr int64_t kBytes = 128;
  static void load(const Weights& w, int64_t row, int64_t inner, int64_t k, Floats& low,
                   Floats& high) {
    const float* at = (const float*)w.data + row * inner + k;
    low = *(const Floats*)at;
    high = *(const Floats*)(at + 16);
  }
};

struct Bf16Rows {
  static constexpr bool kScaled = false;
  static constexpr int64_t kBytes = 64;
  static void load(const Weights& w, int64_t row, int64_t inner, int64_t k, Floats& low,
                   Floats& high) {
    const uint16_t* at = (const uint16_t*)w.data + row * inner + k;
    low = (Floats)(widened(at) << 16);
    high = (Floats)(widened(at + 16) << 16);
  }
};

struct Int8Rows {
  static constexpr bool kScaled = true;
  static constexpr int64_t kBytes = 32;
  static void load(const Weights& w, int64_t row, int64_t inner, int64_t k, Floats& low,
                   Floats& high) {
    const int8_t* at = (const int8_t*)w.data + row * inner + k;
    low = as_floats(widened(at));
    high = as_floats(widened(at + 16));
  }
};

struct Int4Rows {
  static constexpr bool kScaled = false;
  static constexpr int64_t kBytes = 16;
  static void load(const Weights& w, int64_t row, int64_t inner, int64_t k, Floats& low,
                   Floats& high) {
    // Of a number without a sign: to divide one with a sign takes several steps, which cost as much
    // as the arithmetic here.
    uint64_t place = row * inner + k;
    const uint8_t* at = (const uint8_t*)w.data + place / 2;
    Levels levels(w.scales[place / kStep]);
    Ints both = widened(at);
    low = levels.at(both);
    high = levels.at(both >> 4);
  }
};

// The sum of 16 numbers, by halves.
inline float sum_of(Floats x) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)x);
#else
  float a[16];
  std::memcpy(a, &x, sizeof(a));
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) a[i] += a[i + width];
  return a[0];
#endif
}

// Where weights come from. A core reads memory the fastest as one stream, column after column: four
// columns at a time took up to twice as long. What is in its cache already is read several columns
// at a time, so that a row of x in a register serves them all.
enum Source : int64_t { kMemory, kCache };

// Columns at a time.
template <class Rows, int S, Source From>
constexpr int kAtOnce = From == kMemory && (S > 2 || Rows::kBytes > 16) ? 1
                        : S <= 2                                        ? 8
                        : S <= 6                                        ? 4
                                                                        : 3;
// Bytes ahead that are asked for; the processor's own prefetching falls behind where several rows
// are computed, or few bytes are many weights.
template <class Rows, int S>
constexpr int64_t kAhead = S > 1                ? 2048
                           : Rows::kBytes >= 64 ? 512
                                                : 8192;

// Rows of x and where their products go.
struct Lines {
  const float* x;
  int64_t x_stride;
  float* y;
  int64_t y_stride;
  bool add;

  Lines from(int64_t row) const {
    return {x + row * x_stride, x_stride, y + row * y_stride, y_stride, add};
  }
};

// y[s][c] (+)= x[s] · w[c] + bias for R columns from `column` on and S rows.
template <class Rows, int R, int S, Source From>
inline void weight_tile(const Weights& w, int64_t column, int64_t inner, const Lines& lines) {
  Floats sums[R][S] = {};
  for (int64_t k = 0; k < inner; k += kStep) {
    Floats low[R], high[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      Rows::load(w, column + r, inner, k, low[r], high[r]);
      if (From == kMemory) {
        int64_t place = ((column + r) * inner + k) / kStep * Rows::kBytes;
        const char* next = (const char*)w.data + place + kAhead<Rows, S>;
        __builtin_prefetch(next);
        if (Rows::kBytes > 64) __builtin_prefetch(next + 64);
      }
    }
#pragma GCC unroll 8
    for (int s = 0; s < S; s++) {
      Floats left = *(const Floats*)(lines.x + s * lines.x_stride + k);
      Floats right = *(const Floats*)(lines.x + s * lines.x_stride + k + 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) sums[r][s] += low[r] * left;
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) sums[r][s] += high[r] * right;
    }
  }
  for (int r = 0; r < R; r++)
    for (int s = 0; s < S; s++) {
      float sum = sum_of(sums[r][s]);
      float bias = w.bias ? w.bias[column + r] : 0.0f;
      // Fused by name: left to the compiler it is fused in some of these functions and not in
      // others.
      sum = Rows::kScaled ? std::fma(sum, w.scales[column + r], bias) : sum + bias;
      float& to = lines.y[s * lines.y_stride + column + r];
      to = lines.add ? to + sum : sum;
    }
}

// Columns [first, last) for up to 8 rows of x.
template <class Rows, Source From, int S = 8>
inline void weight_rows(const Weights& w, int64_t first, int64_t last, int64_t inner, int64_t rows,
                        const Lines& lines) {
  if constexpr (S > 1)
    if (rows < S) return weight_rows<Rows, From, S - 1>(w, first, last, inner, rows, lines);
  constexpr int R = kAtOnce<Rows, S, From>;
  int64_t column = first;
  for (; column + R <= last; column += R) weight_tile<Rows, R, S, From>(w, column, inner, lines);
  for (; column < last; column++) weight_tile<Rows, 1, S, From>(w, column, inner, lines);
}

// Lines that lie a whole number of kilobytes apart have to share a few places of the cache; this
// lays them otherwise, until the thread calls it again.
inline Lines spread(const Lines& lines, int64_t rows, int64_t inner) {
  static thread_local std::vector<float> copy;
  int64_t apart = inner + 16;
  if (int64_t(copy.size()) < rows * apart) copy.resize(rows * apart);
  for (int64_t s = 0; s < rows; s++)
    std::copy_n(lines.x + s * lines.x_stride, inner, copy.data() + s * apart);
  return {copy.data(), apart, lines.y, lines.y_stride, lines.add};
}

template <class Rows>
inline void weight_product(const Weights& w, Source from, int64_t first, int64_t last,
                           int64_t inner, int64_t rows, Lines lines) {
  if (!rows) return;  // nobody wants logits while a prompt is read
  if (rows > 2 && inner % 256 == 0) lines = spread(lines, rows, inner);
  // So many columns at a time that they stay near for all rows.
  int64_t width = rows <= 8 ? last - first : std::max<int64_t>(24, 8192 / inner / 24 * 24);
  for (int64_t begin = first; begin < last; begin += width) {
    int64_t end = std::min(last, begin + width);
    auto run = from == kMemory ? weight_rows<Rows, kMemory> : weight_rows<Rows, kCache>;
    run(w, begin, end, inner, std::min<int64_t>(8, rows), lines);
    for (int64_t s = 8; s < rows; s += 8)
      weight_rows<Rows, kCache>(w, begin, end, inner, std::min<int64_t>(8, rows - s),
                                lines.from(s));
  }
}

// The calling thread's share of y [rows, columns] (+)= x [rows, inner] · Wᵀ + bias.
inline void multiply(const Weights& w, Source from, const float* x, int64_t rows, int64_t inner,
                     float* y, int64_t columns, bool add) {
  const Lines lines{x, inner, y, columns, add};
  Share share((columns + 7) / 8);
  int64_t first = share.first * 8, last = std::min(columns, share.last * 8);
  switch (w.kind) {
    case kFloat32:
      return weight_product<Float32Rows>(w, from, first, last, inner, rows, lines);
    case kBf16:
      return weight_product<Bf16Rows>(w, from, first, last, inner, rows, lines);
    case kInt8:
      return weight_product<Int8Rows>(w, from, first, last, inner, rows, lines);
    case kInt4:
      return weight_product<Int4Rows>(w, from, first, last, inner, rows, lines);
  }
}

}  // namespace igla
