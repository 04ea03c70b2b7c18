// Dropout of a tensor. See ops/dropout.py.
#include "common.h"

namespace igla {

template <class T>
void masked(const T* x, T* y, int64_t size, Dropout told) {
#pragma omp parallel
  {
    const Dropout dropout = told;
    Share share(size);
    SIMD for (int64_t i = share.first; i < share.last; i++)
      store(y[i], load(x[i]) * Acc<T>(dropout.factor(uint32_t(i))));
  }
}

}  // namespace igla

#define DEFINE(T, suffix)                                                                 \
  KERNEL void dropout_##suffix(const T* x, T* y, int64_t size, double p, uint64_t seed) { \
    igla::masked(x, y, size, igla::Dropout(p, seed));                                     \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
