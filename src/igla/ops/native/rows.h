// What is computed row by row between the products of a whole model, in float32.
#pragma once

#include "gelu.h"

namespace igla {

inline void normalize(const float* x, const float* weight, const float* bias, float eps, float* y,
                      int64_t width) {
  float mean = 0, square = 0;
  if (bias) {
    SIMD_SUM(mean) for (int64_t i = 0; i < width; i++)
      mean += x[i];
    mean /= width;
  }
  SIMD_SUM(square) for (int64_t i = 0; i < width; i++)
    square += (x[i] - mean) * (x[i] - mean);
  float scale = 1 / std::sqrt(square / width + eps);
  SIMD for (int64_t i = 0; i < width; i++)
    y[i] = (x[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0.0f);
}

// SiLU, GELU, GELU by tanh, ReLU, its square, tanh: by the numbers that infer/native_decoder.py and
// infer/native_encoder.py know them by.
inline float activate(int64_t function, float x) {
  float value, slope;
  switch (function) {
    case 0:
      return x / (1 + exponential(-x));
    case 1:
      Exact::at(x, value, slope);
      return value;
    case 2:
      Tanh::at(x, value, slope);
      return value;
    case 3:
      return x > 0 ? x : 0;
    case 4:
      return x > 0 ? x * x : 0;
    default:
      return 1 - 2 / (exponential(2 * x) + 1);
  }
}

template <int Function>
inline void activate_all(float* up, const float* gate, int64_t count) {
  if (gate) SIMD
    for (int64_t i = 0; i < count; i++) up[i] *= activate(Function, gate[i]);
  else SIMD
    for (int64_t i = 0; i < count; i++) up[i] = activate(Function, up[i]);
}

inline void activate_by(int64_t function, float* up, const float* gate, int64_t count) {
  switch (function) {
    case 0:
      return activate_all<0>(up, gate, count);
    case 1:
      return activate_all<1>(up, gate, count);
    case 2:
      return activate_all<2>(up, gate, count);
    case 3:
      return activate_all<3>(up, gate, count);
    case 4:
      return activate_all<4>(up, gate, count);
    default:
      return activate_all<5>(up, gate, count);
  }
}

}  // namespace igla
