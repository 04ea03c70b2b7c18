// Matrix products for processors with AVX-512: x·Wᵀ, x·W and xᵀ·y. Not those of bf16 where there is
// AMX, which multiplies them several times as fast and which torch's library knows how to use.
//
// Tiles and panels are those of panels.h. Nothing is compiled for a shape and nothing kept between
// calls but a buffer for each thread, so a shape never seen before costs no more than others.
#include "panels.h"

#ifdef __AVX512F__
#include <algorithm>
#include <numeric>
#include <vector>

namespace igla {

// Rows of which a product over rows packs at once: a panel of them fits the second-level cache.
constexpr int64_t kChunk = 2048;

// Widened, up to 16 elements at a time; what is masked out is zero.
inline __m512 load_row(const float* in, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, in); }
inline void store_row(float* out, __mmask16 mask, __m512 x) { _mm512_mask_storeu_ps(out, mask, x); }

// 16 words of a panel: those of row `k` of x [inner, width] and, for bf16, of the row after it.
inline __m512i pair_rows(const float* x, int64_t, int64_t, int64_t, __mmask16 mask) {
  return _mm512_maskz_loadu_epi32(mask, x);
}

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
inline void store_row(bf16* out, __mmask16 mask, __m512 x) {
  _mm256_mask_storeu_epi16(out, mask, (__m256i)_mm512_cvtneps_pbh(x));
}
inline __m512i pair_rows(const bf16* x, int64_t stride, int64_t k, int64_t inner, __mmask16 mask) {
  __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x));
  __mmask16 odd_mask = k + 1 < inner ? mask : 0;
  __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(odd_mask, x + stride));
  return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}
#endif

// Room for `count` words, this thread's, until it asks again.
inline Word* room(int64_t count) {
  static thread_local std::vector<Word> words;
  if (int64_t(words.size()) < count) words.resize(count);
  return words.data();
}

// `columns` columns of x [inner, ·], row by row.
template <class T>
void pack_columns(const T* x, int64_t stride, int64_t inner, int64_t columns, Word* panel) {
  for (int64_t k = 0; k < inner; k += kPerWord<T>, x += stride * kPerWord<T>, panel += kColumns)
    for (int v = 0; v < kVectors; v++)
      _mm512_storeu_si512(panel + v * kLanes, pair_rows(x + v * kLanes, stride, k, inner,
                                                        first_lanes(columns - v * kLanes)));
}

// 16 rows of 16 words, of which the masks leave some: rows become columns.
inline void transpose(const Word* in, int64_t stride, int64_t rows, __mmask16 mask, Word* out) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i++)
    a[i] = i < rows ? _mm512_maskz_loadu_epi32(mask, in + i * stride) : _mm512_setzero_si512();
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; j++) {
      b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    a[j] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0x88);
    a[j + 8] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0xdd);
  }
  for (int k = 0; k < 16; k++)
    if (mask >> k & 1) _mm512_storeu_si512(out + k * kColumns, a[k]);
}

// `rows` rows of w [·, inner] as columns.
template <class T>
void pack_rows(const T* w, int64_t stride, int64_t inner, int64_t rows, Word* panel) {
  int64_t length = words<T>(inner), step = stride / kPerWord<T>;
  for (int64_t k = 0; k < length; k += kLanes)
    for (int v = 0; v < kColumns; v += kLanes)
      transpose(words_of(w) + v * step + k, step, rows - v, first_lanes(length - k),
                panel + k * kColumns + v);
}

// Tiles of y = y·carry + left·panel: up to kRows rows, and columns up to a number of vectors.
template <class T, class Out, int Vectors = kVectors>
inline void tile_of(int64_t rows, const Word* left, int64_t row_step, int64_t word_step,
                    const Word* panel, int64_t inner, Out* y, int64_t stride, int64_t columns,
                    bool carry) {
  auto begin = [=](int i, int v) {
    if constexpr (std::is_same_v<Out, float>)
      if (carry) return load_row(y + i * stride + v * kLanes, first_lanes(columns - v * kLanes));
    return _mm512_setzero_ps();
  };
  auto end = [=](int i, int v, __m512 sum) {
    store_row(y + i * stride + v * kLanes, first_lanes(columns - v * kLanes), sum);
  };
  panel_rows<T, Vectors>(rows, left, row_step, word_step, panel, inner, begin, end);
}

// y [rows, columns] = x [rows, inner] · B, where pack(first column, columns, panel) packs a panel
// of B. The panels are shared out among the threads, and cut between rows so that they come out
// even.
template <class T, class Pack>
void product(const T* x, T* y, int64_t rows, int64_t inner, int64_t columns, Pack pack) {
  int64_t panels = (columns + kColumns - 1) / kColumns, length = words<T>(inner);
#pragma omp parallel
  {
    int64_t threads = omp_get_num_threads(), cuts = threads / std::gcd(panels, threads);
    int64_t height = (rows + cuts * kRows - 1) / (cuts * kRows) * kRows;
    Word* panel = room(length * kColumns);
    Share share(panels * cuts);
    for (int64_t task = share.first; task < share.last; task++) {
      int64_t first = task / cuts * kColumns, width = std::min<int64_t>(kColumns, columns - first);
      if (task == share.first || task % cuts == 0) pack(first, width, panel);
      int64_t begin = task % cuts * height, end = std::min(rows, begin + height);
      for (int64_t i = begin; i < end; i += kRows)
        tile_of<T, T>(std::min<int64_t>(kRows, end - i), words_of(x + i * inner),
                      inner / kPerWord<T>, int64_t(1), panel, length, y + i * columns + first,
                      columns, width, false);
    }
  }
}

// times_transposed for as few rows as fill so many vectors, by yᵀ = w·xᵀ: now x is the side that is
// packed, and w, which is larger, is read once and in order.
template <int Vectors, class T>
void few_rows(const T* x, const T* w, T* y, int64_t rows, int64_t inner, int64_t columns) {
  Word* panel = room(words<T>(inner) * kColumns);
  pack_rows(x, inner, inner, rows, panel);
#pragma omp parallel
  {
    Share share((columns + kRows - 1) / kRows);
    for (int64_t first = share.first * kRows; first < share.last * kRows; first += kRows) {
      float sums[kRows][kColumns];
      int64_t height = std::min<int64_t>(kRows, columns - first);
      tile_of<T, float, Vectors>(height, words_of(w + first * inner), inner / kPerWord<T>,
                                 int64_t(1), panel, words<T>(inner), sums[0], int64_t(kColumns),
                                 rows, false);
      for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < height; i++) store(y[row * columns + first + i], sums[i][row]);
    }
  }
}

// y [rows, columns] = x [rows, inner] · wᵀ, w [columns, inner]; inner is even for bf16.
template <class T>
void times_transposed(const T* x, const T* w, T* y, int64_t rows, int64_t inner, int64_t columns) {
  if (rows <= kLanes) return few_rows<1>(x, w, y, rows, inner, columns);
  if (rows <= 2 * kLanes) return few_rows<2>(x, w, y, rows, inner, columns);
  if (rows <= 3 * kLanes) return few_rows<3>(x, w, y, rows, inner, columns);
  product(x, y, rows, inner, columns, [=](int64_t first, int64_t width, Word* panel) {
    pack_rows(w + first * inner, inner, inner, width, panel);
  });
}

// y [rows, columns] = x [rows, inner] · w, w [inner, columns]; inner is even for bf16.
template <class T>
void times(const T* x, const T* w, T* y, int64_t rows, int64_t inner, int64_t columns) {
  product(x, y, rows, inner, columns, [=](int64_t first, int64_t width, Word* panel) {
    pack_columns(w + first, columns, inner, width, panel);
  });
}

// z [rows, columns] = xᵀ · y, x [inner, rows], y [inner, columns]. Both sides are packed in panels,
// kChunk rows at a time; where that is not all of them, `sums` holds z until it is whole.
template <class T>
void transposed_times(const T* x, const T* y, T* z, int64_t inner, int64_t rows, int64_t columns) {
  int64_t left_panels = (rows + kColumns - 1) / kColumns;
  int64_t right_panels = (columns + kColumns - 1) / kColumns;
  int64_t size = words<T>(std::min(inner, kChunk)) * kColumns;
  bool chunked = inner > kChunk;
  Word* left = room((left_panels + right_panels) * size + (chunked ? rows * columns : 0));
  Word* right = left + left_panels * size;
  float* sums = reinterpret_cast<float*>(right + right_panels * size);
#pragma omp parallel
  for (int64_t from = 0; from < std::max<int64_t>(inner, 1); from += kChunk) {
    int64_t length = std::min(inner - from, kChunk);
#pragma omp for
    for (int64_t p = 0; p < left_panels + right_panels; p++) {
      int64_t first = (p < left_panels ? p : p - left_panels) * kColumns;
      if (p < left_panels)
        pack_columns(x + from * rows + first, rows, length, rows - first, left + p * size);
      else
        pack_columns(y + from * columns + first, columns, length, columns - first, left + p * size);
    }
    Share share(left_panels * right_panels);
    auto add_to = [&](auto* out) {
      for (int64_t task = share.first; task < share.last; task++) {
        int64_t l = task / right_panels, r = task % right_panels;
        for (int64_t i = 0; i < std::min<int64_t>(kColumns, rows - l * kColumns); i += kRows)
          tile_of<T, std::decay_t<decltype(*out)>>(
              std::min<int64_t>(kRows, rows - l * kColumns - i), left + l * size + i, int64_t(1),
              int64_t(kColumns), right + r * size, words<T>(length),
              out + (l * kColumns + i) * columns + r * kColumns, columns, columns - r * kColumns,
              from > 0);
      }
    };
    if (chunked)
      add_to(sums);
    else
      add_to(z);
#pragma omp barrier
  }
  if (!chunked) return;
#pragma omp parallel for simd
  for (int64_t i = 0; i < rows * columns; i++) store(z[i], sums[i]);
}

}  // namespace igla

#define PRODUCTS(T, suffix)                                                                        \
  KERNEL void times_transposed_##suffix(const T* x, const T* w, T* y, int64_t rows, int64_t inner, \
                                        int64_t columns) {                                         \
    igla::times_transposed(x, w, y, rows, inner, columns);                                         \
  }                                                                                                \
  KERNEL void times_##suffix(const T* x, const T* w, T* y, int64_t rows, int64_t inner,            \
                             int64_t columns) {                                                    \
    igla::times(x, w, y, rows, inner, columns);                                                    \
  }                                                                                                \
  KERNEL void transposed_times_##suffix(const T* x, const T* y, T* z, int64_t inner, int64_t rows, \
                                        int64_t columns) {                                         \
    igla::transposed_times(x, y, z, inner, rows, columns);                                         \
  }

PRODUCTS(float, f32)
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
PRODUCTS(igla::bf16, bf16)
#endif
#endif
