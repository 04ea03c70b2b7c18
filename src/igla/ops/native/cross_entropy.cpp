// Softmax, its loss and its gradient over very many classes. The derivation is in
// ops/cross_entropy.py.
#include "common.h"

namespace igla {

// The first class up to which the weights add up to more than `wanted`; the last if none.
template <class A>
inline int64_t draw(const A* weights, int64_t classes, A wanted) {
  constexpr int64_t kBlock = 256;
  int64_t start = 0;
  A before = 0;
  for (; start + kBlock < classes; start += kBlock) {
    A sum = 0;
    SIMD_SUM(sum) for (int64_t c = start; c < start + kBlock; c++)
      sum += weights[c];
    if (before + sum > wanted) break;
    before += sum;
  }
  for (int64_t c = start; c < classes; c++) {
    before += weights[c];
    if (before > wanted) return c;
  }
  return classes - 1;
}

// logits [rows, classes], bias [classes] or none, targets [rows], chances [rows] in [0, 1) or none.
// Writes the losses [rows], the class that each chance draws [rows], and the gradients of the
// logits over them.
template <class T>
void softmax_gradient(T* logits, const Acc<T>* bias, const int64_t* targets, const Acc<T>* chances,
                      Acc<T>* losses, int64_t* drawn, int64_t rows, int64_t classes) {
  using A = Acc<T>;
#pragma omp parallel
  {
    std::unique_ptr<A[]> buffer(new A[classes]);
    A* z = buffer.get();
    Share share(rows);
    for (int64_t row = share.first; row < share.last; row++) {
      T* line = logits + row * classes;
      A largest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : largest)
      for (int64_t c = 0; c < classes; c++) {
        z[c] = load(line[c]) + (bias ? bias[c] : A(0));
        largest = z[c] > largest ? z[c] : largest;
      }
      const A target = z[targets[row]];
      SIMD_SUM(sum) for (int64_t c = 0; c < classes; c++) {
        z[c] = exponential(z[c] - largest);
        sum += z[c];
      }
      losses[row] = largest + std::log(sum) - target;
      if (chances) drawn[row] = draw(z, classes, chances[row] * sum);
      const A inverse = 1 / sum;
      const A at_target = z[targets[row]] * inverse - 1;
      SIMD for (int64_t c = 0; c < classes; c++)
        store(line[c], z[c] * inverse);
      store(line[targets[row]], at_target);
    }
  }
}

}  // namespace igla

#define DEFINE(T, suffix)                                                                       \
  KERNEL void softmax_gradient_##suffix(                                                        \
      T* logits, const igla::Acc<T>* bias, const int64_t* targets, const igla::Acc<T>* chances, \
      igla::Acc<T>* losses, int64_t* drawn, int64_t rows, int64_t classes) {                    \
    igla::softmax_gradient(logits, bias, targets, chances, losses, drawn, rows, classes);       \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
