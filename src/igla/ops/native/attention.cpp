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

template <class T, bool Paired>
void forward_by(const Heads<T>& all, T* out, Acc<T>* log_sums) {
#pragma omp parallel
  {
    Room<Acc<T>> room;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < all.batch * all.kv_heads; task++)
      attend<T, Paired>(all, task, room, out, log_sums);
  }
}

// Strides of dq, dk and dv are those of q, k and v.
template <class T, bool Paired>
void backward_by(const Heads<T>& all, const T* dout, const T* out, const Acc<T>* log_sums, T* dq,
                 T* dk, T* dv) {
  using A = Acc<T>;
  const int64_t width = all.width, ld = padded<A>(width), total = all.cu_queries[all.batch];
  const int64_t ldc = padded<A>(cells<Paired>(width));
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
      room.reserve(5 * (keys + 1) * ld + kQueryBlock * (8 * ld + 3 * keys + 4) + 64 * 20);
      auto cells_of = [&](int64_t size) { return room.template take<Cell<T, Paired>>(size); };
      Cell<T, Paired>*k = cells_of(keys * ldc), *v = cells_of(keys * ldc);
      Cell<T, Paired>*q = cells_of(kQueryBlock * ldc), *qt = cells_of(ldc * kQueryBlock);
      Cell<T, Paired>*upper = cells_of(kQueryBlock * ldc), *uppert = cells_of(ldc * kQueryBlock);
      // Of pairs alone.
      Cell<T, Paired>*k_pairs = cells_of(cells<Paired>(keys) * ld),
              *q_pairs = cells_of(kQueryBlock * ld);
      Cell<T, Paired>*upper_pairs = cells_of(kQueryBlock * ld),
              *w_pairs = cells_of(keys * kQueryBlock);
      A *k_sums = room.take(keys * ld), *v_sums = room.take(keys * ld);
      A* q_sums = room.take(kQueryBlock * ld);
      A *weights = room.take(keys * kQueryBlock), *dweights = room.take(keys * kQueryBlock);
      A *sums = room.take(kQueryBlock), *along = room.take(kQueryBlock);
      take_rows<T, Paired>(part.k, all.kv_stride, part.k_bias, A(1), k, ldc, keys, width);
      take_rows<T, Paired>(part.v, all.kv_stride, part.v_bias, A(1), v, ldc, keys, width);
      const Cell<T, Paired>* k_over = over_rows<T, Paired>(k, ldc, k_pairs, keys, width);
      std::fill(k_sums, k_sums + keys * ld, A(0));
      std::fill(v_sums, v_sums + keys * ld, A(0));
      for (int64_t group = 0; group < groups; group++)
        for (int64_t begin = 0; begin < part.queries; begin += kQueryBlock) {
          const Block<T> block(all, part, task, group, begin);
          const int64_t rows = block.rows, ldq = block.ldq, seen = block.keys();
          const int64_t place = block.token * out_stride + block.head * width;
          const int64_t panel = block.first * ld;
          const auto left = [&](const Cell<T, Paired>* from) {
            return Left<Cell<T, Paired>>{from + block.first * ldc, ldc, 1, cells<Paired>(width)};
          };
          take_rows<T, Paired>(block.q, all.q_stride, block.q_bias, A(1), q, ldc, rows, width);
          take_rows<T, Paired>(dout + place, out_stride, nullptr, A(1), upper, ldc, rows, width);
          transpose(q, qt, rows, ldc);
          transpose(upper, uppert, rows, ldc);
          std::fill(weights, weights + seen * ldq, A(0));
          std::fill(dweights, dweights + seen * ldq, A(0));
          multiply(left(k), qt, ldq, weights, ldq, seen, rows);
          multiply(left(v), uppert, ldq, dweights, ldq, seen, rows);
          block.mask(all, scale, weights);
          for (int64_t i = 0; i < rows; i++) {
            const T *d_line = dout + place + i * out_stride, *line = out + place + i * out_stride;
            A sum = 0;
            SIMD_SUM(sum) for (int d = 0; d < width; d++)
              sum += load(d_line[d]) * load(line[d]);
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
          multiply(over_keys<T, Paired>(dweights, ldq, w_pairs, seen, rows),
                   k_over + cells<Paired>(block.first) * ld, ld, q_sums, ld, rows, width);
          multiply(over_queries<T, Paired>(dweights, ldq, w_pairs, seen, rows),
                   over_rows<T, Paired>(q, ldc, q_pairs, rows, width), ld, k_sums + panel, ld, seen,
                   width);
          multiply(over_queries<T, Paired>(weights, ldq, w_pairs, seen, rows),
                   over_rows<T, Paired>(upper, ldc, upper_pairs, rows, width), ld, v_sums + panel,
                   ld, seen, width);
          narrow(q_sums, scale, dq + block.token * all.q_stride + block.head * width, all.q_stride,
                 rows, width);
        }
      const int64_t place = part.first_key * all.kv_stride + part.head * width;
      narrow(k_sums, scale, dk + place, all.kv_stride, keys, width);
      narrow(v_sums, A(1), dv + place, all.kv_stride, keys, width);
    }
  }
}

template <class T>
void forward(const Heads<T>& all, T* out, Acc<T>* log_sums) {
  if constexpr (kHasPairs<T>)
    if (!all.bias) return forward_by<T, true>(all, out, log_sums);
  forward_by<T, false>(all, out, log_sums);
}

template <class T>
void backward(const Heads<T>& all, const T* dout, const T* out, const Acc<T>* log_sums, T* dq,
              T* dk, T* dv) {
  if constexpr (kHasPairs<T>)
    if (!all.bias) return backward_by<T, true>(all, dout, out, log_sums, dq, dk, dv);
  backward_by<T, false>(all, dout, out, log_sums, dq, dk, dv);
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
