// LayerNorm of a residual sum: y = LN(r + dropout(x + b)). The derivation is in ops/norm.py.
#include "common.h"

namespace igla {

// x, residual, sum, y [rows, width]; x_bias, weight, bias [width]; statistics [rows, 2] mean and
// 1/deviation.
template <class T>
void forward(const T* x, const Acc<T>* x_bias, const T* residual, const Acc<T>* weight,
             const Acc<T>* bias, T* sum, T* y, Acc<T>* statistics, int64_t rows, int64_t width,
             double epsilon, Dropout told) {
  using A = Acc<T>;
#pragma omp parallel
  {
    std::unique_ptr<A[]> buffer(new A[width]);
    A* s = buffer.get();
    const Dropout dropout = told;  // a copy of the thread's own, or the loops do not vectorize
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      const T *in = x + row * width, *r = residual + row * width;
      T* kept = sum + row * width;
      uint32_t element = uint32_t(row * width);
      if (dropout.active()) {
        SIMD for (int i = 0; i < width; i++)
          s[i] = (load(in[i]) + x_bias[i]) * A(dropout.factor(element + i)) + load(r[i]);
      } else {
        SIMD for (int i = 0; i < width; i++)
          s[i] = load(in[i]) + x_bias[i] + load(r[i]);
      }
      // From here on the sum is what the backward pass will read: rounded to T.
      A total = 0;
      SIMD_SUM(total) for (int i = 0; i < width; i++) {
        store(kept[i], s[i]);
        s[i] = load(kept[i]);
        total += s[i];
      }
      A mean = total / width, squares = 0;
      SIMD_SUM(squares) for (int i = 0; i < width; i++)
        squares += (s[i] - mean) * (s[i] - mean);
      A inverse = 1 / std::sqrt(squares / width + A(epsilon));
      statistics[2 * row] = mean;
      statistics[2 * row + 1] = inverse;
      T* out = y + row * width;
      SIMD for (int i = 0; i < width; i++)
        store(out[i], (s[i] - mean) * inverse * weight[i] + bias[i]);
    }
  }
}

// dy, sum, dsum, dx [rows, width] (dx null: there was no dropout, and it equals dsum); sums [3,
// width] of the columns: dx_bias, dweight, dbias.
template <class T>
void backward(const T* dy, const T* sum, const Acc<T>* statistics, const Acc<T>* weight, T* dsum,
              T* dx, Acc<T>* sums, int64_t rows, int64_t width, Dropout told) {
  using A = Acc<T>;
  std::unique_ptr<A[]> shares(new A[3 * width * omp_get_max_threads()]());
#pragma omp parallel
  {
    std::unique_ptr<A[]> buffer(new A[2 * width]);
    A *g = buffer.get(), *normal = g + width;
    A* my_dx_bias = shares.get() + 3 * width * omp_get_thread_num();
    A *my_dweight = my_dx_bias + width, *my_dbias = my_dweight + width;
    const Dropout dropout = told;
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      const T *upper = dy + row * width, *s = sum + row * width;
      A mean = statistics[2 * row], inverse = statistics[2 * row + 1];
      A sum_g = 0, sum_gn = 0;
      SIMD_SUM(sum_g, sum_gn) for (int i = 0; i < width; i++) {
        A d = load(upper[i]);
        normal[i] = (load(s[i]) - mean) * inverse;
        g[i] = d * weight[i];
        my_dweight[i] += d * normal[i];
        my_dbias[i] += d;
        sum_g += g[i];
        sum_gn += g[i] * normal[i];
      }
      sum_g /= width;
      sum_gn /= width;
      T* out = dsum + row * width;
      SIMD for (int i = 0; i < width; i++) {
        g[i] = (g[i] - sum_g - normal[i] * sum_gn) * inverse;
        store(out[i], g[i]);
      }
      if (dx) {
        T* branch = dx + row * width;
        uint32_t element = uint32_t(row * width);
        SIMD for (int i = 0; i < width; i++) {
          g[i] *= A(dropout.factor(element + i));
          store(branch[i], g[i]);
        }
      }
      SIMD for (int i = 0; i < width; i++)
        my_dx_bias[i] += g[i];
    }
    sum_shares(shares.get(), sums, 3 * width);
  }
}

}  // namespace igla

#define DEFINE(T, suffix)                                                                         \
  KERNEL void norm_forward_##suffix(const T* x, const igla::Acc<T>* x_bias, const T* residual,    \
                                    const igla::Acc<T>* weight, const igla::Acc<T>* bias, T* sum, \
                                    T* y, igla::Acc<T>* statistics, int64_t rows, int64_t width,  \
                                    double epsilon, double p, uint64_t seed) {                    \
    igla::forward(x, x_bias, residual, weight, bias, sum, y, statistics, rows, width, epsilon,    \
                  igla::Dropout(p, seed));                                                        \
  }                                                                                               \
  KERNEL void norm_backward_##suffix(                                                             \
      const T* dy, const T* sum, const igla::Acc<T>* statistics, const igla::Acc<T>* weight,      \
      T* dsum, T* dx, igla::Acc<T>* sums, int64_t rows, int64_t width, double p, uint64_t seed) { \
    igla::backward(dy, sum, statistics, weight, dsum, dx, sums, rows, width,                      \
                   igla::Dropout(p, seed));                                                       \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
