// Attention within packed sequences, forward and backward (see attention.h).
#include "attention.h"

namespace igla {

// Scores and gradients of weights to weights (after dropout) and gradients of scores. along: of
// each query the sum of dO * O, which is that of dP * P.
template <class A>
inline void weigh_back(A* weights, A* gradients, int64_t ld, int64_t keys, uint32_t element,
                       const Dropout& dropout, const A* log_sums, const A* along) {
  uint32_t elements[kLanesOf<A>];
  SIMD for (int i = 0; i < kLanesOf<A>; i++)
    elements[i] = element + uint32_t(i) * uint32_t(keys);
  for (int64_t j = 0; j < keys; j++) {
    A *w = weights + j * ld, *dw = gradients + j * ld;
    if (dropout.active()) {
      SIMD for (int i = 0; i < kLanesOf<A>; i++) {
        A p = exponential(w[i] - log_sums[i]);
        A kept = A(dropout.factor(elements[i] + uint32_t(j)));
        w[i] = p * kept;
        dw[i] = p * (dw[i] * kept - along[i]);
      }
    } else {
      SIMD for (int i = 0; i < kLanesOf<A>; i++) {
        A p = exponential(w[i] - log_sums[i]);
        w[i] = p;
        dw[i] = p * (dw[i] - along[i]);
      }
    }
  }
}

template <class T>
void forward(const Heads<T>& all, T* out, Acc<T>* log_sums) {
#pragma omp parallel
  {
    Room<Acc<T>> room;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < all.batch * all.kv_heads; task++)
      attend(all, task, room, out, log_sums);
  }
}

// Strides of dq, dk and dv are those of q, k and v.
template <class T>
void backward(const Heads<T>& all, const T* dout, const T* out, const Acc<T>* log_sums, T* dq,
              T* dk, T* dv) {
  using A = Acc<T>;
  const int64_t width = all.width, ld = padded<A>(width), total = all.cu_queries[all.batch];
  const int64_t out_stride = all.heads * width, groups = all.heads / all.kv_heads;
  const A scale = 1 / std::sqrt(A(width));
#pragma omp parallel
  {
    Room<A> room;
    const Dropout dropout = all.dropout;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < all.batch * all.kv_heads; task++) {
      Part<T> part(all, task);
      const int64_t keys = part.keys;
      room.reserve(4 * keys * ld + kQueryBlock * (5 * ld + 2 * keys + 2) + 64 * 13);
      A *k = room.take(keys * ld), *v = room.take(keys * ld);
      A *k_sums = room.take(keys * ld), *v_sums = room.take(keys * ld);
      A *q = room.take(kQueryBlock * ld), *qt = room.take(ld * kQueryBlock);
      A *upper = room.take(kQueryBlock * ld), *uppert = room.take(ld * kQueryBlock);
      A* q_sums = room.take(kQueryBlock * ld);
      A *weights = room.take(keys * kQueryBlock), *dweights = room.take(keys * kQueryBlock);
      A *sums = room.take(kQueryBlock), *along = room.take(kQueryBlock);
      widen(part.k, all.kv_stride, part.k_bias, A(1), k, keys, width);
      widen(part.v, all.kv_stride, part.v_bias, A(1), v, keys, width);
      std::fill(k_sums, k_sums + keys * ld, A(0));
      std::fill(v_sums, v_sums + keys * ld, A(0));
      for (int64_t group = 0; group < groups; group++)
        for (int64_t begin = 0; begin < part.queries; begin += kQueryBlock) {
          const Block<T> block(all, part, task, group, begin);
          const int64_t rows = block.rows, ldq = block.ldq, seen = block.keys();
          const int64_t place = block.token * out_stride + block.head * width;
          const int64_t panel = block.first * ld;
          widen(block.q, all.q_stride, block.q_bias, scale, q, rows, width);
          widen<A>(dout + place, out_stride, nullptr, A(1), upper, rows, width);
          transpose(q, qt, rows, width);
          transpose(upper, uppert, rows, width);
          std::fill(weights, weights + seen * ldq, A(0));
          std::fill(dweights, dweights + seen * ldq, A(0));
          multiply(k + panel, ld, 1, qt, ldq, weights, ldq, seen, rows, width);
          multiply(v + panel, ld, 1, uppert, ldq, dweights, ldq, seen, rows, width);
          block.mask(all, weights);
          for (int64_t i = 0; i < rows; i++) {
            const T* o = out + place + i * out_stride;
            A sum = 0;
            SIMD_SUM(sum) for (int d = 0; d < width; d++)
              sum += upper[i * ld + d] * load(o[d]);
            along[i] = sum;
            sums[i] = log_sums[block.head * total + block.token + i];
          }
          std::fill(along + rows, along + ldq, A(0));
          std::fill(sums + rows, sums + ldq, A(0));
          for (int64_t i = 0; i < rows; i += kLanesOf<A>)
            weigh_back(weights + i, dweights + i, ldq, seen, block.element + uint32_t(i * keys),
                       dropout, sums + i, along + i);
          block.hide(all, weights, 0);
          block.hide(all, dweights, 0);
          std::fill(q_sums, q_sums + rows * ld, A(0));
          multiply(dweights, 1, ldq, k + panel, ld, q_sums, ld, rows, width, seen);
          multiply(dweights, ldq, 1, q, ld, k_sums + panel, ld, seen, width, rows);
          multiply(weights, ldq, 1, upper, ld, v_sums + panel, ld, seen, width, rows);
          narrow(q_sums, scale, dq + block.token * all.q_stride + block.head * width, all.q_stride,
                 rows, width);
        }
      const int64_t place = part.first_key * all.kv_stride + part.head * width;
      narrow(k_sums, A(1), dk + place, all.kv_stride, keys, width);
      narrow(v_sums, A(1), dv + place, all.kv_stride, keys, width);
    }
  }
}

}  // namespace igla

#define HEADS(T)                                                                               \
  const T *q, const T *k, const T *v, const igla::Acc<T>*bias, int64_t q_stride,               \
      int64_t kv_stride, const int64_t *cu_queries, const int64_t *cu_keys, int64_t batch,     \
      int64_t heads, int64_t kv_heads, int64_t width, double p, uint64_t seed, int64_t window, \
      const igla::Acc<T>*slopes
#define GIVEN              \
  {q,                      \
   k,                      \
   v,                      \
   bias,                   \
   q_stride,               \
   kv_stride,              \
   cu_queries,             \
   cu_keys,                \
   batch,                  \
   heads,                  \
   kv_heads,               \
   width,                  \
   igla::Dropout(p, seed), \
   window,                 \
   slopes}

#define DEFINE(T, suffix)                                                                      \
  KERNEL void attention_forward_##suffix(HEADS(T), T* out, igla::Acc<T>* log_sums) {           \
    igla::forward<T>(GIVEN, out, log_sums);                                                    \
  }                                                                                            \
  KERNEL void attention_backward_##suffix(HEADS(T), const T* dout, const T* out,               \
                                          const igla::Acc<T>* log_sums, T* dq, T* dk, T* dv) { \
    igla::backward<T>(GIVEN, dout, out, log_sums, dq, dk, dv);                                 \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
