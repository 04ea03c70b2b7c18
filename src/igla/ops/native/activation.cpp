// GELU and its derivative. The derivation is in ops/feed_forward.py.
#include "gelu.h"

namespace igla {

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
