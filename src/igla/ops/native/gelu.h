// GELU's value and derivative at a point. The derivation is in ops/feed_forward.py.
#pragma once

#include "common.h"

namespace igla {

// The standard normal distribution's share below x and its density there. erf by Abramowitz &
// Stegun 7.1.26, |error| <= 1.5e-7; its exponential is that of the density, so the derivative comes
// with it.
inline void normal(float x, float& below, float& density) {
  float z = std::fabs(x) * 0.707106781f;
  float e = exponential(-z * z);
  float t = 1.0f / (1.0f + 0.3275911f * z);
  float series = 1.061405429f;
  series = series * t - 1.453152027f;
  series = series * t + 1.421413741f;
  series = series * t - 0.284496736f;
  series = series * t + 0.254829592f;
  float tail = 0.5f * series * t * e;
  below = x < 0 ? tail : 1.0f - tail;
  density = 0.398942280f * e;
}
inline void normal(double x, double& below, double& density) {
  below = 0.5 * std::erfc(-x * 0.70710678118654752440);
  density = 0.39894228040143267794 * std::exp(-0.5 * x * x);
}

// A value and its derivative.
struct Exact {
  template <class A>
  static inline void at(A x, A& value, A& slope) {
    A below, density;
    normal(x, below, density);
    value = x * below;
    slope = below + x * density;
  }
};

// 0.5 x (1 + tanh u) = x * sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3)
struct Tanh {
  template <class A>
  static inline void at(A x, A& value, A& slope) {
    A cubic = A(0.044715) * x * x;
    A u = A(1.5957691216057308) * x * (1 + cubic);
    A sigmoid = 1 / (1 + exponential(-u));
    value = x * sigmoid;
    slope = sigmoid + x * sigmoid * (1 - sigmoid) * A(1.5957691216057308) * (1 + 3 * cubic);
  }
};

}  // namespace igla
