// GELU and its derivative. The derivation is in ops/feed_forward.py.
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

// x [rows, width], bias [width]: y = F(x + bias).
template <class F, class T>
void forward(const T* x, const Acc<T>* bias, T* y, int64_t rows, int64_t width) {
  using A = Acc<T>;
#pragma omp parallel
  {
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      const T* in = x + row * width;
      T* out = y + row * width;
      SIMD for (int i = 0; i < width; i++) {
        A value, slope;
        F::at(load(in[i]) + bias[i], value, slope);
        store(out[i], value);
      }
    }
  }
}

// x, dy [rows, width], bias [width]: writes y again, dx over dy, and the columns' sums of dx.
template <class F, class T>
void backward(const T* x, const Acc<T>* bias, T* dy, T* y, Acc<T>* column_sums, int64_t rows,
              int64_t width) {
  using A = Acc<T>;
  std::unique_ptr<A[]> shares(new A[width * omp_get_max_threads()]());
#pragma omp parallel
  {
    A* mine = shares.get() + width * omp_get_thread_num();
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      const T* in = x + row * width;
      T *upper = dy + row * width, *out = y + row * width;
      SIMD for (int i = 0; i < width; i++) {
        A value, slope;
        F::at(load(in[i]) + bias[i], value, slope);
        A d = load(upper[i]) * slope;
        store(out[i], value);
        store(upper[i], d);
        mine[i] += d;
      }
    }
    sum_shares(shares.get(), column_sums, width);
  }
}

template <class T>
void column_sums(const T* x, Acc<T>* sums, int64_t rows, int64_t width) {
  using A = Acc<T>;
  std::unique_ptr<A[]> shares(new A[width * omp_get_max_threads()]());
#pragma omp parallel
  {
    A* mine = shares.get() + width * omp_get_thread_num();
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      SIMD for (int64_t i = 0; i < width; i++)
        mine[i] += load(x[row * width + i]);
    }
    sum_shares(shares.get(), sums, width);
  }
}

}  // namespace igla

#define DEFINE_KIND(F, name, T, suffix)                                                          \
  KERNEL void name##_forward_##suffix(const T* x, const igla::Acc<T>* bias, T* y, int64_t rows,  \
                                      int64_t width) {                                           \
    igla::forward<igla::F>(x, bias, y, rows, width);                                             \
  }                                                                                              \
  KERNEL void name##_backward_##suffix(const T* x, const igla::Acc<T>* bias, T* dy, T* y,        \
                                       igla::Acc<T>* column_sums, int64_t rows, int64_t width) { \
    igla::backward<igla::F>(x, bias, dy, y, column_sums, rows, width);                           \
  }

#define DEFINE(T, suffix)                                                                         \
  DEFINE_KIND(Exact, gelu, T, suffix)                                                             \
  DEFINE_KIND(Tanh, gelu_tanh, T, suffix)                                                         \
  KERNEL void column_sums_##suffix(const T* x, igla::Acc<T>* sums, int64_t rows, int64_t width) { \
    igla::column_sums(x, sums, rows, width);                                                      \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
