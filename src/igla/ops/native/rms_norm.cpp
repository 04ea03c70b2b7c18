// RMSNorm, of rows or of the sums of two. The derivation is in ops/rms_norm.py.
#include "common.h"

namespace igla {

// x, residual, sum, y [rows, width] (residual and sum null: the norm is of x itself); weight
// [width]; inverses [rows] of the root mean squares.
template <class T>
void rms_forward(const T* x, const T* residual, const Acc<T>* weight, T* sum, T* y,
                 Acc<T>* inverses, int64_t rows, int64_t width, double epsilon) {
  using A = Acc<T>;
#pragma omp parallel
  {
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      const T* s = x + row * width;
      if (residual) {
        T* kept = sum + row * width;
        SIMD for (int i = 0; i < width; i++)
          store(kept[i], load(s[i]) + load(residual[row * width + i]));
        s = kept;  // rounded to T: what the backward pass will read
      }
      A squares = 0;
      SIMD_SUM(squares) for (int i = 0; i < width; i++)
        squares += load(s[i]) * load(s[i]);
      const A inverse = 1 / std::sqrt(squares / width + A(epsilon));
      inverses[row] = inverse;
      T* out = y + row * width;
      SIMD for (int i = 0; i < width; i++)
        store(out[i], load(s[i]) * inverse * weight[i]);
    }
  }
}

// dy, beside, s, ds [rows, width]; beside: the gradient that the sum has from elsewhere, or null;
// dweight [width].
template <class T>
void rms_backward(const T* dy, const T* beside, const T* s, const Acc<T>* inverses,
                  const Acc<T>* weight, T* ds, Acc<T>* dweight, int64_t rows, int64_t width) {
  using A = Acc<T>;
  std::unique_ptr<A[]> shares(new A[width * omp_get_max_threads()]());
#pragma omp parallel
  {
    A* mine = shares.get() + width * omp_get_thread_num();
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      const T *upper = dy + row * width, *in = s + row * width;
      const A inverse = inverses[row];
      A along = 0;
      SIMD_SUM(along) for (int i = 0; i < width; i++) {
        A d = load(upper[i]), n = load(in[i]) * inverse;
        mine[i] += d * n;
        along += d * weight[i] * n;
      }
      along /= width;
      T* out = ds + row * width;
      if (beside) {
        const T* more = beside + row * width;
        SIMD for (int i = 0; i < width; i++) {
          A n = load(in[i]) * inverse;
          store(out[i], (load(upper[i]) * weight[i] - n * along) * inverse + load(more[i]));
        }
      } else {
        SIMD for (int i = 0; i < width; i++) {
          A n = load(in[i]) * inverse;
          store(out[i], (load(upper[i]) * weight[i] - n * along) * inverse);
        }
      }
    }
    sum_shares(shares.get(), dweight, width);
  }
}

}  // namespace igla

#define DEFINE(T, suffix)                                                                        \
  KERNEL void rms_forward_##suffix(const T* x, const T* residual, const igla::Acc<T>* weight,    \
                                   T* sum, T* y, igla::Acc<T>* inverses, int64_t rows,           \
                                   int64_t width, double epsilon) {                              \
    igla::rms_forward(x, residual, weight, sum, y, inverses, rows, width, epsilon);              \
  }                                                                                              \
  KERNEL void rms_backward_##suffix(const T* dy, const T* beside, const T* s,                    \
                                    const igla::Acc<T>* inverses, const igla::Acc<T>* weight,    \
                                    T* ds, igla::Acc<T>* dweight, int64_t rows, int64_t width) { \
    igla::rms_backward(dy, beside, s, inverses, weight, ds, dweight, rows, width);               \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
