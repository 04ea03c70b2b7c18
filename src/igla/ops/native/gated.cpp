// The gates of feed-forward parts. The derivation is in ops/gated.py.
#include "gelu.h"

namespace igla {

// x * sigmoid(x), and its derivative.
struct Silu {
  template <class A>
  static inline void at(A x, A& value, A& slope) {
    A sigmoid = 1 / (1 + exponential(-x));
    value = x * sigmoid;
    slope = sigmoid + value * (1 - sigmoid);
  }
};

// gate, up, y [size]: y = F(gate) * up.
template <class F, class T>
void gated_forward(const T* gate, const T* up, T* y, int64_t size) {
  using A = Acc<T>;
#pragma omp parallel
  {
    Share share(size);
    SIMD for (int64_t i = share.first; i < share.last; i++) {
      A value, slope;
      F::at(load(gate[i]), value, slope);
      store(y[i], value * load(up[i]));
    }
  }
}

template <class F, class T>
void gated_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t size) {
  using A = Acc<T>;
#pragma omp parallel
  {
    Share share(size);
    SIMD for (int64_t i = share.first; i < share.last; i++) {
      A value, slope, d = load(dy[i]);
      F::at(load(gate[i]), value, slope);
      store(dgate[i], d * load(up[i]) * slope);
      store(dup[i], d * value);
    }
  }
}

}  // namespace igla

#define DEFINE_GATE(F, name, T, suffix)                                                           \
  KERNEL void name##_forward_##suffix(const T* gate, const T* up, T* y, int64_t size) {           \
    igla::gated_forward<igla::F>(gate, up, y, size);                                              \
  }                                                                                               \
  KERNEL void name##_backward_##suffix(const T* gate, const T* up, const T* dy, T* dgate, T* dup, \
                                       int64_t size) {                                            \
    igla::gated_backward<igla::F>(gate, up, dy, dgate, dup, size);                                \
  }

#define DEFINE(T, suffix)              \
  DEFINE_GATE(Silu, swiglu, T, suffix) \
  DEFINE_GATE(Exact, geglu, T, suffix) \
  DEFINE_GATE(Tanh, geglu_tanh, T, suffix)

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
