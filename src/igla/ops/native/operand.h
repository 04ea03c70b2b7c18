// Products with weights in panels whose left side is rounded to what the weights are in, row by
// row, so that no row's result hangs on others. Sums and results are float32.
#pragma once

#include "panels.h"

#ifdef __AVX512F__
#include <algorithm>

namespace igla {

// A matrix [columns, inner] as ops/panels.py describes it, and its bias. Of bytes, weight = scale *
// byte, and lift is scale * the sum of a column's bytes. The three are filled up to whole panels.
struct PackedMatrix {
  const Word* panels;
  const float *bias, *scale, *lift;
};

// A product's left side: numbers as they are, or rounded.
template <class T>
struct Operand {
  T* rows;
  int64_t width;

  static int64_t size(int64_t count, int64_t width) { return words<T>(count * width); }
  Operand(float* memory, int64_t, int64_t width)
      : rows(reinterpret_cast<T*>(memory)), width(width) {}

  void put(const float* x, int64_t row) const {
    SIMD for (int64_t i = 0; i < width; i++)
      store(rows[row * width + i], x[i]);
  }
  // 16 sums as results.
  __m512 finished(__m512 sum, int64_t, const PackedMatrix& w, int64_t column) const {
    return sum + _mm512_loadu_ps(w.bias + column);
  }
};

// Number = low + step * byte, over each row's own range.
template <>
struct Operand<uint8_t> {
  uint8_t* rows;
  int64_t width;
  float *low, *step;

  static int64_t size(int64_t count, int64_t width) {
    return words<uint8_t>(count * width) + 2 * count;
  }
  Operand(float* memory, int64_t count, int64_t width)
      : rows(reinterpret_cast<uint8_t*>(memory + 2 * count)),
        width(width),
        low(memory),
        step(memory + count) {}

  void put(const float* x, int64_t row) const {
    float least = x[0], most = x[0], broken = 0;
    IGLA_PRAGMA(omp simd reduction(min : least) reduction(max : most) reduction(+ : broken))
    for (int64_t i = 0; i < width; i++) {
      least = x[i] < least ? x[i] : least;
      most = x[i] > most ? x[i] : most;
      broken += x[i] - x[i];  // no number, if one of them is none or infinite
    }
    float range = most - least, inverse = range > 1e-30f ? 255 / range : 0;
    low[row] = least + broken;
    step[row] = range / 255;
    uint8_t* to = rows + row * width;
    SIMD for (int64_t i = 0; i < width; i++)
      to[i] = uint8_t(int32_t((x[i] - least) * inverse + 0.5f));
  }
  __m512 finished(__m512i sum, int64_t row, const PackedMatrix& w, int64_t column) const {
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(low[row]), _mm512_loadu_ps(w.lift + column),
                               _mm512_loadu_ps(w.bias + column));
    __m512 scale = _mm512_set1_ps(step[row]) * _mm512_loadu_ps(w.scale + column);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, y);
  }
};

// y [rows, columns] (+)= x · Wᵀ + bias, by one thread.
template <class T>
void multiply(const PackedMatrix& w, const Operand<T>& x, int64_t rows, float* y, int64_t columns,
              bool add) {
  const int64_t length = words<T>(x.width), tiles = (rows + kRows - 1) / kRows;
  const int64_t height = tiles ? (rows + tiles - 1) / tiles : 0;
  const Word* panel = w.panels;
  for (int64_t first = 0; first < columns; first += kColumns, panel += length * kColumns)
    for (int64_t i = 0; i < rows; i += height)
      panel_rows<T>(
          std::min(height, rows - i), words_of(x.rows + i * x.width), length, int64_t(1), panel,
          length, [](int, int) { return SumOf<T>{}; },
          [&](int r, int v, SumOf<T> sum) {
            const int64_t column = first + v * kLanes;
            const __mmask16 mask = first_lanes(columns - column);
            float* to = y + (i + r) * columns + column;
            __m512 result = x.finished(sum, i + r, w, column);
            if (add) result += _mm512_maskz_loadu_ps(mask, to);
            _mm512_mask_storeu_ps(to, mask, result);
          });
}

}  // namespace igla
#endif
