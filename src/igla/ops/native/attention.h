// Attention within packed sequences, a task at a time. The derivation is in ops/attention.py, that
// of causal attention in ops/causal_attention.py.
//
// One task is one head of keys and values of one sequence, with the heads of queries that it
// serves. They are widened into panels that stay in the core's cache; queries go through in blocks,
// so that the weights of a block alone, and never those of a whole long sequence, are in memory.
// Causal blocks read the keys alone that some query of theirs attends to, and what others of the
// block do not is taken out of the scores. Weights lie transposed, [keys, queries]:
// what is computed for each query (the largest score, the sum, their gradient) then runs along
// vectors of queries and not across them. The last vector is padded; nobody reads what is computed
// there.
//
// Products of bf16 are those of pairs where the processor has them: two neighbours along the inner
// dimension are multiplied and both products added in one go, in float32. Weights and their
// gradients are rounded to bf16 for that, as in Dao et al. 2022. Not where there are biases: a
// gradient of scores sums to 0 over the keys, and what rounding leaves of that would be multiplied
// by the bias that all keys have in common.
#pragma once

#include "common.h"

#include <algorithm>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace igla {

constexpr int64_t kQueryBlock = 64;

// The widest vectors that the processor has, and as many rows of a tile as leave its sums in
// registers: 8 x 2 of 32, or 4 x 2 of 16.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kTileRows = 8;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kTileRows = 4;
#else
constexpr int kVectorBytes = 16, kTileRows = 4;
#endif

template <class A>
struct Vector {
  static constexpr int64_t lanes = kVectorBytes / sizeof(A);
  typedef A type __attribute__((vector_size(kVectorBytes), aligned(sizeof(A)), may_alias));
};

template <class A>
constexpr int kLanesOf = int(Vector<A>::lanes);

template <class A>
inline int64_t padded(int64_t n) {
  return (n + Vector<A>::lanes - 1) / Vector<A>::lanes * Vector<A>::lanes;
}

// What products read, as wide as what they sum in: a number, or a pair of bf16.
typedef uint32_t Pair __attribute__((may_alias));
#ifdef __AVX512BF16__
template <class T>
constexpr bool kHasPairs = std::is_same_v<T, bf16>;
#else
template <class T>
constexpr bool kHasPairs = false;
#endif
template <class T, bool Paired>
using Cell = std::conditional_t<Paired, Pair, Acc<T>>;
template <bool Paired>
constexpr int64_t cells(int64_t numbers) {
  return Paired ? (numbers + 1) / 2 : numbers;
}

template <class Vec, class A>
inline void multiply_add(Vec& sum, A left, Vec right) {
  sum += left * right;
}
#ifdef __AVX512BF16__
inline void multiply_add(Vector<float>::type& sum, Pair left, Vector<Pair>::type right) {
  sum = (Vector<float>::type)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(left)),
                                              (__m512bh)right);
}
#endif

// C[R, V vectors] += A[R, k] * B[k, V vectors], k counted in cells;
// A(r, l) = a[r * row + l * column].
template <class A, int R, int V, class C>
inline __attribute__((always_inline)) void tile(const C* a, int64_t row, int64_t column, const C* b,
                                                int64_t ldb, A* c, int64_t ldc, int64_t k) {
  using Vec = typename Vector<A>::type;
  using Cells = typename Vector<C>::type;
  Vec sums[R][V];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) sums[r][v] = *(const Vec*)(c + r * ldc + v * Vector<A>::lanes);
  for (int64_t l = 0; l < k; l++) {
    Cells right[V];
    for (int v = 0; v < V; v++) right[v] = *(const Cells*)(b + l * ldb + v * Vector<A>::lanes);
    for (int r = 0; r < R; r++) {
      C left = a[r * row + l * column];
      for (int v = 0; v < V; v++) multiply_add(sums[r][v], left, right[v]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) *(Vec*)(c + r * ldc + v * Vector<A>::lanes) = sums[r][v];
}

template <class A, int V, class C>
inline void strip(const C* a, int64_t row, int64_t column, const C* b, int64_t ldb, A* c,
                  int64_t ldc, int64_t m, int64_t k) {
  int64_t i = 0;
  for (; i + kTileRows <= m; i += kTileRows)
    tile<A, kTileRows, V>(a + i * row, row, column, b, ldb, c + i * ldc, ldc, k);
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

// The left side of a product: A(r, l) = at[r * row + l * column], `inner` cells in a sum.
template <class C>
struct Left {
  const C* at;
  int64_t row, column, inner;
};

// C[m, n] += A[m, k] * B[k, n]; rows of B and C are padded to whole vectors.
template <class A, class C>
inline void multiply(Left<C> a, const C* b, int64_t ldb, A* c, int64_t ldc, int64_t m, int64_t n) {
  constexpr int64_t lanes = Vector<A>::lanes;
  int64_t j = 0;
  for (; j + lanes < n; j += 2 * lanes)
    strip<A, 2>(a.at, a.row, a.column, b + j, ldb, c + j, ldc, m, a.inner);
  if (j < n) strip<A, 1>(a.at, a.row, a.column, b + j, ldb, c + j, ldc, m, a.inner);
}

// Rows of a head as cells, plus the bias [width] if any, times the factor: [rows, ld], what is
// beyond the width 0.
template <class T, bool Paired>
inline void take_rows(const T* from, int64_t stride, const Acc<T>* bias, Acc<T> factor,
                      Cell<T, Paired>* to, int64_t ld, int64_t rows, int64_t width) {
  using A = Acc<T>;
  for (int64_t i = 0; i < rows; i++) {
    const T* line = from + i * stride;
    if constexpr (Paired) {
      T* cells = (T*)(to + i * ld);
      std::memset(to + i * ld, 0, ld * sizeof(Cell<T, Paired>));
      if (!bias && factor == 1) {
        std::memcpy(cells, line, width * sizeof(T));
      } else {
        SIMD for (int d = 0; d < width; d++)
          store(cells[d], (load(line[d]) + (bias ? bias[d] : A(0))) * factor);
      }
    } else {
      SIMD for (int d = 0; d < width; d++)
        to[i * ld + d] = (load(line[d]) + (bias ? bias[d] : A(0))) * factor;
      for (int64_t d = width; d < ld; d++) to[i * ld + d] = 0;
    }
  }
}

// A square of as many rows as a vector has lanes, transposed in registers. Step by step for strides
// of half the lanes, a quarter and so on, each pair of rows that far apart changes the halves of
// its groups of columns.
template <class A>
inline void transpose_square(const A* from, int64_t in, A* to, int64_t out) {
  using Vec = typename Vector<A>::type;
  using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  typedef Index Order __attribute__((vector_size(kVectorBytes)));
  constexpr int lanes = int(Vector<A>::lanes);
  Vec rows[lanes];
  for (int r = 0; r < lanes; r++) rows[r] = *(const Vec*)(from + r * in);
#pragma GCC unroll 4
  for (int stride = lanes / 2; stride > 0; stride /= 2) {
    Order upper, lower;
    for (int i = 0; i < lanes; i++) {
      upper[i] = i & stride ? lanes + i - stride : i;
      lower[i] = i & stride ? lanes + i : i + stride;
    }
#pragma GCC unroll 16
    for (int r = 0; r < lanes; r++)
      if (!(r & stride)) {
        Vec a = rows[r], b = rows[r + stride];
        rows[r] = __builtin_shuffle(a, b, upper);
        rows[r + stride] = __builtin_shuffle(a, b, lower);
      }
  }
  for (int r = 0; r < lanes; r++) *(Vec*)(to + r * out) = rows[r];
}

// Cells [rows, ld] transposed, [ld, padded rows]. Both have room for whole squares; what fills them
// up is whatever was there.
template <class C>
inline void transpose(const C* from, C* to, int64_t rows, int64_t ld) {
  constexpr int64_t lanes = Vector<C>::lanes;
  int64_t out = padded<C>(rows);
  for (int64_t i = 0; i < rows; i += lanes)
    for (int64_t d = 0; d < ld; d += lanes)
      transpose_square(from + i * ld + d, ld, to + d * out + i, out);
}

#ifdef __AVX512BF16__
inline __m512i widened_bits(const bf16* from) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
}
inline __m512i rounded_bits(const float* from, int64_t lanes) {
  __mmask16 mask = lanes >= 16 ? 0xffff : lanes <= 0 ? 0 : __mmask16((1u << lanes) - 1);
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from)));
}
#endif

// Rows of take_rows as the right side of a product over rows: [cells of rows, padded width]. They
// are that themselves unless two rows make a pair; those are laid at `to`.
template <class T, bool Paired>
inline const Cell<T, Paired>* over_rows(const Cell<T, Paired>* from, int64_t ld,
                                        Cell<T, Paired>* to, int64_t rows, int64_t width) {
#ifdef __AVX512BF16__
  if constexpr (Paired) {
    const int64_t out = padded<float>(width);
    for (int64_t i = 0; i < rows; i += 2)
      for (int64_t d = 0; d < out; d += 16) {
        __m512i even = widened_bits((const bf16*)(from + i * ld) + d), odd = _mm512_setzero_si512();
        if (i + 1 < rows) odd = widened_bits((const bf16*)(from + (i + 1) * ld) + d);
        _mm512_storeu_si512(to + i / 2 * out + d,
                            _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      }
    return to;
  }
#endif
  return (const Cell<T, Paired>*)from;
}

// Weights [keys, ldq] of `rows` queries as the left side of a product over keys, or over queries;
// pairs of them are laid at `to`.
template <class T, bool Paired>
inline Left<Cell<T, Paired>> over_keys(const Acc<T>* weights, int64_t ldq, Cell<T, Paired>* to,
                                       int64_t keys, int64_t rows) {
#ifdef __AVX512BF16__
  if constexpr (Paired) {
    for (int64_t j = 0; j < keys; j += 2)
      for (int64_t i = 0; i < ldq; i += 16) {
        __m512i even = rounded_bits(weights + j * ldq + i, 16), odd = _mm512_setzero_si512();
        if (j + 1 < keys) odd = rounded_bits(weights + (j + 1) * ldq + i, 16);
        _mm512_storeu_si512(to + j / 2 * ldq + i,
                            _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      }
    return {to, 1, ldq, cells<Paired>(keys)};
  }
#endif
  return {(const Cell<T, Paired>*)weights, 1, ldq, keys};
}

template <class T, bool Paired>
inline Left<Cell<T, Paired>> over_queries(const Acc<T>* weights, int64_t ldq, Cell<T, Paired>* to,
                                          int64_t keys, int64_t rows) {
#ifdef __AVX512BF16__
  if constexpr (Paired) {
    for (int64_t j = 0; j < keys; j++)
      for (int64_t i = 0; i < ldq; i += 16)
        _mm256_storeu_si256((__m256i*)((bf16*)(to + j * ldq / 2) + i),
                            _mm512_cvtepi32_epi16(rounded_bits(weights + j * ldq + i, rows - i)));
    return {to, ldq / 2, 1, cells<Paired>(rows)};
  }
#endif
  return {(const Cell<T, Paired>*)weights, ldq, 1, rows};
}

template <class A, class T>
inline void narrow(const A* from, A factor, T* to, int64_t stride, int64_t rows, int64_t width) {
  int64_t ld = padded<A>(width);
  for (int64_t i = 0; i < rows; i++) {
    SIMD for (int d = 0; d < width; d++)
      store(to[i * stride + d], from[i * ld + d] * factor);
  }
}

// What both passes are told. Strides are those between tokens, in elements; heads lie side by side.
template <class T>
struct Heads {
  const T *q, *k, *v;
  const Acc<T>* bias;  // of queries, keys and values in turn [3, heads * width], or none
  int64_t q_stride, kv_stride;
  const int64_t *cu_queries, *cu_keys;
  int64_t batch, heads, kv_heads, width;
  Dropout dropout;
  int64_t window;        // tokens that a query attends to, itself the last; 0: all of its sequence
  const Acc<T>* slopes;  // [heads] what scores lose for each token of distance, or none
};

// The part of a task: one head of keys and values of one sequence.
template <class T>
struct Part {
  int64_t head, first_query, queries, first_key, keys;
  const T *k, *v;
  const Acc<T>*k_bias, *v_bias;

  Part(const Heads<T>& all, int64_t task) {
    int64_t sequence = task / all.kv_heads;
    head = task % all.kv_heads;
    first_query = all.cu_queries[sequence];
    queries = all.cu_queries[sequence + 1] - first_query;
    first_key = all.cu_keys[sequence];
    keys = all.cu_keys[sequence + 1] - first_key;
    k = all.k + first_key * all.kv_stride + head * all.width;
    v = all.v + first_key * all.kv_stride + head * all.width;
    k_bias = all.bias ? all.bias + (all.heads + head) * all.width : nullptr;
    v_bias = all.bias ? k_bias + all.heads * all.width : nullptr;
  }
};

// A block of queries of one head: where it is, and the keys [first, last) that it reads.
template <class T>
struct Block {
  int64_t head, begin, rows, ldq, token, first, last;
  const T* q;
  const Acc<T>* q_bias;
  uint32_t element;  // number of its first weight for dropout: scattered between tasks

  Block(const Heads<T>& all, const Part<T>& part, int64_t task, int64_t group, int64_t begin)
      : begin(begin), first(0), last(part.keys) {
    const int64_t groups = all.heads / all.kv_heads;
    head = part.head * groups + group;
    rows = std::min(kQueryBlock, part.queries - begin);
    ldq = padded<Acc<T>>(rows);
    token = part.first_query + begin;
    if (all.window) {
      first = std::max<int64_t>(0, begin - all.window + 1) / 2 * 2;  // where a pair begins
      last = begin + rows;
    }
    q = all.q + token * all.q_stride + head * all.width;
    q_bias = all.bias ? all.bias + head * all.width : nullptr;
    element = mixed(uint32_t(task * groups + group)) + uint32_t(begin * part.keys);
  }

  int64_t keys() const { return last - first; }

  // Products [keys, ldq] to scores: scaled, less what distance costs, and those hidden that count
  // nothing.
  void mask(const Heads<T>& all, Acc<T> scale, Acc<T>* scores) const {
    using A = Acc<T>;
    SIMD for (int64_t i = 0; i < keys() * ldq; i++)
      scores[i] *= scale;
    if (all.slopes && all.window) {
      const A slope = all.slopes[head];
      for (int64_t key = first; key < last; key++) {
        A* line = scores + (key - first) * ldq;
        SIMD for (int64_t i = 0; i < ldq; i++)
          line[i] -= slope * A(begin + i - key);
      }
    }
    hide(all, scores, -INFINITY);
  }

  // Puts a value wherever a query does not attend to a key: it does to distances from 0 up to the
  // window. Weights there are put to 0, since e^x is never less than the least normal number, and
  // a processor takes a hundred times as long for what is less than that.
  void hide(const Heads<T>& all, Acc<T>* cells, Acc<T> value) const {
    if (!all.window) return;
    for (int64_t key = first; key < last; key++) {
      const int64_t from = begin - key;  // of query i the distance is from + i
      Acc<T>* line = cells + (key - first) * ldq;
      for (int64_t i = 0; i < std::min(rows, -from); i++) line[i] = value;
      for (int64_t i = std::max<int64_t>(0, all.window - from); i < rows; i++) line[i] = value;
    }
  }
};

// Room of one thread, grown on demand.
template <class A>
class Room {
 public:
  template <class C = A>
  C* take(int64_t size) {
    static_assert(sizeof(C) == sizeof(A));
    size = padded<A>(size);
    C* start = (C*)(store_.get() + used_);
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

// Scores to weights, for one vector of queries, a column of weights [keys, ld]: softmax over the
// keys, and dropout. log_sums: log of the sum of e^score, if wanted.
template <class A>
inline void weigh(A* weights, int64_t ld, int64_t keys, uint32_t element, const Dropout& dropout,
                  A* log_sums) {
  A largest[kLanesOf<A>], sum[kLanesOf<A>];
  uint32_t elements[kLanesOf<A>];
  SIMD for (int i = 0; i < kLanesOf<A>; i++) {
    largest[i] = weights[i];
    sum[i] = 0;
    elements[i] = element + uint32_t(i) * uint32_t(keys);
  }
  for (int64_t j = 1; j < keys; j++) {
    SIMD for (int i = 0; i < kLanesOf<A>; i++) {
      A w = weights[j * ld + i];
      largest[i] = w > largest[i] ? w : largest[i];
    }
  }
  for (int64_t j = 0; j < keys; j++) {
    SIMD for (int i = 0; i < kLanesOf<A>; i++) {
      A w = exponential(weights[j * ld + i] - largest[i]);
      weights[j * ld + i] = w;
      sum[i] += w;
    }
  }
  if (log_sums)
    for (int i = 0; i < kLanesOf<A>; i++) log_sums[i] = largest[i] + std::log(sum[i]);
  SIMD for (int i = 0; i < kLanesOf<A>; i++)
    sum[i] = 1 / sum[i];
  for (int64_t j = 0; j < keys; j++)
    if (dropout.active()) {
      SIMD for (int i = 0; i < kLanesOf<A>; i++)
        weights[j * ld + i] *= sum[i] * A(dropout.factor(elements[i] + uint32_t(j)));
    } else {
      SIMD for (int i = 0; i < kLanesOf<A>; i++)
        weights[j * ld + i] *= sum[i];
    }
}

// One task: out [queries, heads * width]; log_sums [heads, queries]: log of the sum of e^score, if
// wanted.
template <class T, bool Paired = false>
inline void attend(const Heads<T>& all, int64_t task, Room<Acc<T>>& room, T* out,
                   Acc<T>* log_sums) {
  using A = Acc<T>;
  const int64_t width = all.width, ld = padded<A>(width), total = all.cu_queries[all.batch];
  const int64_t ldc = padded<A>(cells<Paired>(width));
  const int64_t out_stride = all.heads * width, groups = all.heads / all.kv_heads;
  const A scale = 1 / std::sqrt(A(width));
  const Dropout dropout = all.dropout;  // a copy of its own, or the loops do not vectorize
  const Part<T> part(all, task);
  const int64_t keys = part.keys;
  room.reserve(3 * (keys + 1) * ld + kQueryBlock * (3 * ld + 2 * keys + 2) + 64 * 10);
  auto k = room.template take<Cell<T, Paired>>(keys * ldc),
       v = room.template take<Cell<T, Paired>>(keys * ldc);
  auto v_pairs = room.template take<Cell<T, Paired>>(cells<Paired>(keys) * ld);
  auto q = room.template take<Cell<T, Paired>>(kQueryBlock * ldc);
  auto qt = room.template take<Cell<T, Paired>>(ldc * kQueryBlock);
  auto w_pairs = room.template take<Cell<T, Paired>>((keys + 1) / 2 * kQueryBlock);
  A *weights = room.take(keys * kQueryBlock), *o = room.take(kQueryBlock * ld);
  A* sums = log_sums ? room.take(kQueryBlock) : nullptr;
  take_rows<T, Paired>(part.k, all.kv_stride, part.k_bias, A(1), k, ldc, keys, width);
  take_rows<T, Paired>(part.v, all.kv_stride, part.v_bias, A(1), v, ldc, keys, width);
  const Cell<T, Paired>* values = over_rows<T, Paired>(v, ldc, v_pairs, keys, width);
  for (int64_t group = 0; group < groups; group++)
    for (int64_t begin = 0; begin < part.queries; begin += kQueryBlock) {
      const Block<T> block(all, part, task, group, begin);
      const int64_t rows = block.rows, ldq = block.ldq, seen = block.keys();
      take_rows<T, Paired>(block.q, all.q_stride, block.q_bias, A(1), q, ldc, rows, width);
      transpose(q, qt, rows, ldc);
      std::fill(weights, weights + seen * ldq, A(0));
      multiply<A>(Left<Cell<T, Paired>>{k + block.first * ldc, ldc, 1, cells<Paired>(width)}, qt,
                  ldq, weights, ldq, seen, rows);
      block.mask(all, scale, weights);
      for (int64_t i = 0; i < rows; i += kLanesOf<A>)
        weigh(weights + i, ldq, seen, block.element + uint32_t(i * keys), dropout,
              sums ? sums + i : nullptr);
      block.hide(all, weights, 0);
      if (sums) std::copy(sums, sums + rows, log_sums + block.head * total + block.token);
      std::fill(o, o + rows * ld, A(0));
      multiply(over_keys<T, Paired>(weights, ldq, w_pairs, seen, rows),
               values + cells<Paired>(block.first) * ld, ld, o, ld, rows, width);
      narrow(o, A(1), out + block.token * out_stride + block.head * width, out_stride, rows, width);
    }
}

}  // namespace igla
