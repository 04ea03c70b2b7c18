// Attention within packed sequences, forward and backward. The derivation is in ops/attention.py.
//
// One task is one head of one sequence. Its queries, keys and values are widened into panels that
// stay in the core's cache; queries go through in blocks, so that the weights of a block alone, and
// never those of a whole long sequence, are in memory.
#include "common.h"

#include <algorithm>

namespace igla {

constexpr int64_t kQueryBlock = 64;

template <class A>
struct Vector {
  static constexpr int64_t lanes = 64 / sizeof(A);
  typedef A type __attribute__((vector_size(64), aligned(sizeof(A)), may_alias));
};

template <class A>
inline int64_t padded(int64_t n) {
  return (n + Vector<A>::lanes - 1) / Vector<A>::lanes * Vector<A>::lanes;
}

// C[R, V vectors] += A[R, k] * B[k, V vectors]; A(r, l) = a[r * row + l * column].
template <class A, int R, int V>
inline __attribute__((always_inline)) void tile(const A* a, int64_t row, int64_t column,
                                                const A* b, int64_t ldb, A* c, int64_t ldc,
                                                int64_t k) {
  using Vec = typename Vector<A>::type;
  Vec sums[R][V];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) sums[r][v] = *(const Vec*)(c + r * ldc + v * Vector<A>::lanes);
  for (int64_t l = 0; l < k; l++) {
    Vec right[V];
    for (int v = 0; v < V; v++) right[v] = *(const Vec*)(b + l * ldb + v * Vector<A>::lanes);
    for (int r = 0; r < R; r++) {
      A left = a[r * row + l * column];
      for (int v = 0; v < V; v++) sums[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) *(Vec*)(c + r * ldc + v * Vector<A>::lanes) = sums[r][v];
}

template <class A, int V>
inline void strip(const A* a, int64_t row, int64_t column, const A* b, int64_t ldb, A* c,
                  int64_t ldc, int64_t m, int64_t k) {
  int64_t i = 0;
  for (; i + 8 <= m; i += 8)
    tile<A, 8, V>(a + i * row, row, column, b, ldb, c + i * ldc, ldc, k);
  if (i + 4 <= m) {
    tile<A, 4, V>(a + i * row, row, column, b, ldb, c + i * ldc, ldc, k);
    i += 4;
  }
  if (i + 2 <= m) {
    tile<A, 2, V>(a + i * row, row, column, b, ldb, c + i * ldc, ldc, k);
    i += 2;
  }
  if (i < m) tile<A, 1, V>(a + i * row, row, column, b, ldb, c + i * ldc, ldc, k);
}

// C[m, n] += A[m, k] * B[k, n]; rows of B and C are padded to whole vectors.
template <class A>
inline void multiply(const A* a, int64_t row, int64_t column, const A* b, int64_t ldb, A* c,
                     int64_t ldc, int64_t m, int64_t n, int64_t k) {
  constexpr int64_t lanes = Vector<A>::lanes;
  int64_t j = 0;
  for (; j + lanes < n; j += 2 * lanes) strip<A, 2>(a, row, column, b + j, ldb, c + j, ldc, m, k);
  if (j < n) strip<A, 1>(a, row, column, b + j, ldb, c + j, ldc, m, k);
}

// A panel of `rows` rows of a head, widened: [rows, padded width].
template <class A, class T>
inline void widen(const T* from, int64_t stride, A* to, int64_t rows, int64_t width) {
  int64_t ld = padded<A>(width);
  for (int64_t i = 0; i < rows; i++) {
    SIMD for (int64_t d = 0; d < width; d++) to[i * ld + d] = load(from[i * stride + d]);
    for (int64_t d = width; d < ld; d++) to[i * ld + d] = 0;
  }
}

// The same, transposed: [width, padded rows], from a panel of widen().
template <class A>
inline void transpose(const A* from, A* to, int64_t rows, int64_t width) {
  int64_t in = padded<A>(width), out = padded<A>(rows);
  for (int64_t d = 0; d < width; d++) {
    for (int64_t i = 0; i < rows; i++) to[d * out + i] = from[i * in + d];
    for (int64_t i = rows; i < out; i++) to[d * out + i] = 0;
  }
}

template <class A, class T>
inline void narrow(const A* from, T* to, int64_t stride, int64_t rows, int64_t width) {
  int64_t ld = padded<A>(width);
  for (int64_t i = 0; i < rows; i++)
    SIMD for (int64_t d = 0; d < width; d++) store(to[i * stride + d], from[i * ld + d]);
}

// What both passes are told. Strides are those between tokens, in elements; heads lie side by side.
template <class T>
struct Heads {
  const T *q, *k, *v;
  int64_t q_stride, kv_stride;
  const int64_t *cu_queries, *cu_keys;
  int64_t batch, heads, width;
  Dropout dropout;
};

// The part of a task: one head of one sequence.
template <class T>
struct Part {
  int64_t head, first_query, queries, first_key, keys;
  const T *q, *k, *v;
  uint32_t seed_low;

  Part(const Heads<T>& all, int64_t task) {
    int64_t sequence = task / all.heads;
    head = task % all.heads;
    first_query = all.cu_queries[sequence];
    queries = all.cu_queries[sequence + 1] - first_query;
    first_key = all.cu_keys[sequence];
    keys = all.cu_keys[sequence + 1] - first_key;
    q = all.q + first_query * all.q_stride + head * all.width;
    k = all.k + first_key * all.kv_stride + head * all.width;
    v = all.v + first_key * all.kv_stride + head * all.width;
    seed_low = mixed(uint32_t(task));
  }

  // The number of a weight for dropout: distinct within a task, and scattered between tasks.
  uint32_t element(int64_t query) const { return seed_low + uint32_t(query * keys); }
};

// Room of one thread, grown on demand.
template <class A>
class Room {
 public:
  A* take(int64_t size) {
    size = padded<A>(size);
    A* start = store_.get() + used_;
    used_ += size;
    return start;
  }
  void reserve(int64_t size) {
    if (size > size_) {
      store_.reset(new A[size + Vector<A>::lanes]);
      size_ = size;
    }
    used_ = 0;
  }

 private:
  std::unique_ptr<A[]> store_;
  int64_t size_ = 0, used_ = 0;
};

// out [queries, heads * width]; log_sums [heads, queries]: log of the sum of e^score.
template <class T>
void forward(const Heads<T>& all, T* out, Acc<T>* log_sums) {
  using A = Acc<T>;
  const int64_t width = all.width, ld = padded<A>(width), total = all.cu_queries[all.batch];
  const A scale = 1 / std::sqrt(A(width));
#pragma omp parallel
  {
    Room<A> room;
    const Dropout dropout = all.dropout;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < all.batch * all.heads; task++) {
      Part<T> part(all, task);
      const int64_t keys = part.keys, ldk = padded<A>(keys);
      room.reserve(2 * keys * ld + width * ldk + kQueryBlock * (ldk + 2 * ld) + 64 * 6);
      A *k = room.take(keys * ld), *v = room.take(keys * ld), *kt = room.take(width * ldk);
      A *q = room.take(kQueryBlock * ld), *weights = room.take(kQueryBlock * ldk);
      A* o = room.take(kQueryBlock * ld);
      widen(part.k, all.kv_stride, k, keys, width);
      widen(part.v, all.kv_stride, v, keys, width);
      transpose(k, kt, keys, width);
      for (int64_t begin = 0; begin < part.queries; begin += kQueryBlock) {
        int64_t rows = std::min(kQueryBlock, part.queries - begin);
        widen(part.q + begin * all.q_stride, all.q_stride, q, rows, width);
        std::fill(weights, weights + rows * ldk, A(0));
        multiply(q, ld, 1, kt, ldk, weights, ldk, rows, keys, width);
        for (int64_t i = 0; i < rows; i++) {
          A* w = weights + i * ldk;
          A largest = w[0];
          SIMD_MAX(largest) for (int64_t j = 0; j < keys; j++)
            largest = w[j] > largest ? w[j] : largest;
          A sum = 0;
          SIMD_SUM(sum) for (int64_t j = 0; j < keys; j++) {
            w[j] = exponential((w[j] - largest) * scale);
            sum += w[j];
          }
          log_sums[part.head * total + part.first_query + begin + i] =
              largest * scale + std::log(sum);
          A inverse = 1 / sum;
          uint32_t element = part.element(begin + i);
          if (dropout.active()) {
            SIMD for (int64_t j = 0; j < keys; j++)
              w[j] *= inverse * A(dropout.factor(element + uint32_t(j)));
          } else {
            SIMD for (int64_t j = 0; j < keys; j++) w[j] *= inverse;
          }
        }
        std::fill(o, o + rows * ld, A(0));
        multiply(weights, ldk, 1, v, ld, o, ld, rows, width, keys);
        narrow(o, out + (part.first_query + begin) * all.heads * width + part.head * width,
               all.heads * width, rows, width);
      }
    }
  }
}

// Strides of dq, dk and dv are those of q, k and v.
template <class T>
void backward(const Heads<T>& all, const T* dout, const T* out, const Acc<T>* log_sums, T* dq,
              T* dk, T* dv) {
  using A = Acc<T>;
  const int64_t width = all.width, ld = padded<A>(width), total = all.cu_queries[all.batch];
  const int64_t out_stride = all.heads * width;
  const A scale = 1 / std::sqrt(A(width));
#pragma omp parallel
  {
    Room<A> room;
    const Dropout dropout = all.dropout;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < all.batch * all.heads; task++) {
      Part<T> part(all, task);
      const int64_t keys = part.keys, ldk = padded<A>(keys);
      room.reserve(4 * keys * ld + 2 * width * ldk + kQueryBlock * (2 * ldk + 4 * ld) + 64 * 12);
      A *k = room.take(keys * ld), *v = room.take(keys * ld);
      A *kt = room.take(width * ldk), *vt = room.take(width * ldk);
      A *k_sums = room.take(keys * ld), *v_sums = room.take(keys * ld);
      A *q = room.take(kQueryBlock * ld), *upper = room.take(kQueryBlock * ld);
      A *o = room.take(kQueryBlock * ld), *q_sums = room.take(kQueryBlock * ld);
      A *weights = room.take(kQueryBlock * ldk), *dweights = room.take(kQueryBlock * ldk);
      widen(part.k, all.kv_stride, k, keys, width);
      widen(part.v, all.kv_stride, v, keys, width);
      transpose(k, kt, keys, width);
      transpose(v, vt, keys, width);
      std::fill(k_sums, k_sums + keys * ld, A(0));
      std::fill(v_sums, v_sums + keys * ld, A(0));
      for (int64_t begin = 0; begin < part.queries; begin += kQueryBlock) {
        const int64_t rows = std::min(kQueryBlock, part.queries - begin);
        const int64_t place = (part.first_query + begin) * out_stride + part.head * width;
        widen(part.q + begin * all.q_stride, all.q_stride, q, rows, width);
        widen(dout + place, out_stride, upper, rows, width);
        widen(out + place, out_stride, o, rows, width);
        std::fill(weights, weights + rows * ldk, A(0));
        std::fill(dweights, dweights + rows * ldk, A(0));
        multiply(q, ld, 1, kt, ldk, weights, ldk, rows, keys, width);
        multiply(upper, ld, 1, vt, ldk, dweights, ldk, rows, keys, width);
        for (int64_t i = 0; i < rows; i++) {
          A *w = weights + i * ldk, *dw = dweights + i * ldk;
          A log_sum = log_sums[part.head * total + part.first_query + begin + i];
          A along = 0;  // sum of dO * O, which is the sum of dP * P
          SIMD_SUM(along) for (int64_t d = 0; d < width; d++)
            along += upper[i * ld + d] * o[i * ld + d];
          uint32_t element = part.element(begin + i);
          if (dropout.active()) {
            SIMD for (int64_t j = 0; j < keys; j++) {
              A p = exponential(w[j] * scale - log_sum);
              A kept = A(dropout.factor(element + uint32_t(j)));
              w[j] = p * kept;
              dw[j] = p * (dw[j] * kept - along) * scale;
            }
          } else {
            SIMD for (int64_t j = 0; j < keys; j++) {
              A p = exponential(w[j] * scale - log_sum);
              w[j] = p;
              dw[j] = p * (dw[j] - along) * scale;
            }
          }
        }
        std::fill(q_sums, q_sums + rows * ld, A(0));
        multiply(dweights, ldk, 1, k, ld, q_sums, ld, rows, width, keys);
        multiply(dweights, 1, ldk, q, ld, k_sums, ld, keys, width, rows);
        multiply(weights, 1, ldk, upper, ld, v_sums, ld, keys, width, rows);
        narrow(q_sums, dq + (part.first_query + begin) * all.q_stride + part.head * width,
               all.q_stride, rows, width);
      }
      const int64_t place = part.first_key * all.kv_stride + part.head * width;
      narrow(k_sums, dk + place, all.kv_stride, keys, width);
      narrow(v_sums, dv + place, all.kv_stride, keys, width);
    }
  }
}

}  // namespace igla

#define DEFINE(T, suffix)                                                                          \
  KERNEL void attention_forward_##suffix(                                                          \
      const T* q, const T* k, const T* v, int64_t q_stride, int64_t kv_stride,                     \
      const int64_t* cu_queries, const int64_t* cu_keys, int64_t batch, int64_t heads,             \
      int64_t width, double p, uint64_t seed, T* out, igla::Acc<T>* log_sums) {                    \
    igla::forward<T>({q, k, v, q_stride, kv_stride, cu_queries, cu_keys, batch, heads, width,      \
                      igla::Dropout(p, seed)},                                                     \
                     out, log_sums);                                                               \
  }                                                                                                \
  KERNEL void attention_backward_##suffix(                                                         \
      const T* q, const T* k, const T* v, int64_t q_stride, int64_t kv_stride,                     \
      const int64_t* cu_queries, const int64_t* cu_keys, int64_t batch, int64_t heads,             \
      int64_t width, double p, uint64_t seed, const T* dout, const T* out,                         \
      const igla::Acc<T>* log_sums, T* dq, T* dk, T* dv) {                                         \
    igla::backward<T>({q, k, v, q_stride, kv_stride, cu_queries, cu_keys, batch, heads, width,     \
                       igla::Dropout(p, seed)},                                                    \
                      dout, out, log_sums, dq, dk, dv);                                            \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
