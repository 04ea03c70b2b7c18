// All layers of an encoder of the BERT family in one call, for serving: what a text alone costs
// beside its products is mostly the calling of small operations, a dozen a layer, and what the
// products cost after a pause is mostly the reading of weights, which lie in panels here, in the
// order in which they are read (panels.h).
//
// The state of tokens, sums, norms and attention are float32; a product's left side is narrowed to
// what its weights are in. Bytes are narrowed row by row, so no row's result hangs on others.
//
// Many sequences are cut into blocks, each of which one thread takes through all layers, so that
// threads never wait for each other. Of few, all threads share out each operation.
#include "panels.h"

#ifdef __AVX512F__
#include <algorithm>
#include <numeric>
#include <vector>

#include "attention.h"
#include "rows.h"

namespace igla {

// These mirror the tables that infer/native_encoder.py makes; all fields have 8 bytes.
//
// A matrix [columns, inner] in panels, and its bias. Of bytes, weight = scale * byte, and lift is
// scale * the sum of a column's bytes. The three are filled up to whole panels.
struct PackedMatrix {
  const Word* panels;
  const float *bias, *scale, *lift;
};

struct EncoderLayer {
  PackedMatrix q, kv, out, up, down;
  const float *attention_norm, *attention_norm_bias, *ffn_norm, *ffn_norm_bias;
};

struct EncoderTable {
  int64_t hidden, layers, heads, intermediate, activation;
  const EncoderLayer* layer;
};

// Tokens that one thread takes through a layer at a time: weights are read once for so many, and
// what lies between two products stays in the core's own cache.
constexpr int64_t kBlockTokens = 96;

// Threads that share the work on one block; they meet where one reads what another has written.
struct Team {
  int64_t index, size;

  void meet() const {
    if (size == 1) return;
#pragma omp barrier
  }
};

// A product's left side, row by row: numbers as they are, or rounded.
template <class T>
struct Operand {
  T* rows;
  int64_t width;

  void put(const float* x, int64_t row) const {
    SIMD for (int64_t i = 0; i < width; i++)
      store(rows[row * width + i], x[i]);
  }
};

// Number = low + step * byte, over each row's own range.
template <>
struct Operand<uint8_t> {
  uint8_t* rows;
  int64_t width;
  float *low, *step;

  void put(const float* x, int64_t row) const {
    float least = x[0], most = x[0], broken = 0;
    IGLA_PRAGMA(omp simd reduction(min : least) reduction(max : most) reduction(+ : broken))
    for (int64_t i = 0; i < width; i++) {
      least = x[i] < least ? x[i] : least;
      most = x[i] > most ? x[i] : most;
      broken += x[i] - x[i];  // no number, if one of them is none or infinite
    }
    float range = most - least, inverse = range > 1e-30f ? 255 / range : 0;
    low[row] = least + broken;
    step[row] = range / 255;
    uint8_t* to = rows + row * width;
    SIMD for (int64_t i = 0; i < width; i++)
      to[i] = uint8_t(int32_t((x[i] - least) * inverse + 0.5f));
  }
};

// 16 sums of a row as results.
inline __m512 finished(__m512 sum, const PackedMatrix& w, int64_t column, const Operand<float>&,
                       int64_t) {
  return sum + _mm512_loadu_ps(w.bias + column);
}
inline __m512 finished(__m512 sum, const PackedMatrix& w, int64_t column, const Operand<bf16>&,
                       int64_t) {
  return sum + _mm512_loadu_ps(w.bias + column);
}
inline __m512 finished(__m512i sum, const PackedMatrix& w, int64_t column,
                       const Operand<uint8_t>& x, int64_t row) {
  __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(x.low[row]), _mm512_loadu_ps(w.lift + column),
                             _mm512_loadu_ps(w.bias + column));
  __m512 scale = _mm512_set1_ps(x.step[row]) * _mm512_loadu_ps(w.scale + column);
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, y);
}

// y [rows, columns] (+)= x · Wᵀ + bias. Panels are shared out, and cut between rows so that they
// come out even.
template <class T>
void product(const PackedMatrix& w, const Operand<T>& x, int64_t rows, float* y, int64_t columns,
             bool add, Team team) {
  const int64_t panels = (columns + kColumns - 1) / kColumns, length = words<T>(x.width);
  const int64_t cuts = team.size / std::gcd(panels, team.size);
  const int64_t part = (rows + cuts - 1) / cuts;
  Share share(panels * cuts, team.index, team.size);
  for (int64_t task = share.first; task < share.last; task++) {
    const int64_t first = task / cuts * kColumns, begin = task % cuts * part;
    const int64_t count = std::min(part, rows - begin);
    if (count <= 0) continue;
    const Word* panel = w.panels + task / cuts * length * kColumns;
    const int64_t tiles = (count + kRows - 1) / kRows, height = (count + tiles - 1) / tiles;
    for (int64_t i = begin; i < begin + count; i += height)
      panel_rows<T>(
          std::min(height, begin + count - i), words_of(x.rows + i * x.width), length, int64_t(1),
          panel, length, [](int, int) { return SumOf<T>{}; },
          [&](int r, int v, SumOf<T> sum) {
            const int64_t column = first + v * kLanes;
            const __mmask16 mask = first_lanes(columns - column);
            float* to = y + (i + r) * columns + column;
            __m512 result = finished(sum, w, column, x, i + r);
            if (add) result += _mm512_maskz_loadu_ps(mask, to);
            _mm512_mask_storeu_ps(to, mask, result);
          });
  }
}

inline float* take(float*& memory, int64_t count) {
  float* taken = memory;
  memory += count;
  return taken;
}

template <class T>
Operand<T> operand_in(float*& memory, int64_t rows, int64_t width) {
  Operand<T> made;
  made.width = width;
  if constexpr (std::is_same_v<T, uint8_t>) {
    made.low = take(memory, rows);
    made.step = take(memory, rows);
  }
  made.rows = reinterpret_cast<T*>(take(memory, words<T>(rows * width)));
  return made;
}

// What lies between the operations on a block of so many tokens and sequences.
//   x, first, middle  left sides of products: of all tokens, of those that stand for a sequence,
//                     and between up and down
//   wide, attended    queries, keys and values, or what is between up and down; attention
template <class T>
struct Space {
  Operand<T> x, first, middle;
  float *wide, *attended;

  static int64_t size(const EncoderTable& m, int64_t rows, int64_t sequences) {
    return rows * (widest(m) + m.hidden) + 2 * (2 * rows + sequences) + words<T>(rows * m.hidden) +
           words<T>(sequences * m.hidden) + words<T>(rows * m.intermediate);
  }

  Space(const EncoderTable& m, int64_t rows, int64_t sequences, float* memory) {
    wide = take(memory, rows * widest(m));
    attended = take(memory, rows * m.hidden);
    x = operand_in<T>(memory, rows, m.hidden);
    first = operand_in<T>(memory, sequences, m.hidden);
    middle = operand_in<T>(memory, rows, m.intermediate);
  }

 private:
  static int64_t widest(const EncoderTable& m) { return std::max(3 * m.hidden, m.intermediate); }
};

template <class Each>
inline void for_rows(int64_t rows, Team team, Each each) {
  Share share(rows, team.index, team.size);
  for (int64_t row = share.first; row < share.last; row++) each(row);
}

// All layers of one block: sequences whose states are x [starts[sequences], hidden], which are
// overwritten. With firsts [sequences, hidden] the last layer computes the first token's of each
// alone, and writes them there; numbers are 0, 1 and so on to `sequences`.
template <class T>
void encode_block(const EncoderTable& m, const Space<T>& space, const int64_t* starts,
                  const int64_t* numbers, int64_t sequences, float* x, float* firsts, float eps,
                  Team team) {
  static thread_local Room<float> room;
  const int64_t rows = starts[sequences], hidden = m.hidden;
  for_rows(rows, team, [&](int64_t row) { space.x.put(x + row * hidden, row); });
  team.meet();
  for (int64_t index = 0; index < m.layers; index++) {
    const EncoderLayer& l = m.layer[index];
    const bool first_only = firsts && index + 1 == m.layers;
    const int64_t count = first_only ? sequences : rows;
    float* state = first_only ? firsts : x;
    const Operand<T> operand = first_only ? space.first : space.x;
    if (first_only) {
      for_rows(count, team, [&](int64_t row) {
        std::copy_n(x + starts[row] * hidden, hidden, state + row * hidden);
        operand.put(state + row * hidden, row);
      });
      team.meet();
    }
    float *q = space.wide, *kv = q + count * hidden;
    product(l.q, operand, count, q, hidden, false, team);
    product(l.kv, space.x, rows, kv, 2 * hidden, false, team);
    team.meet();
    const Heads<float> heads{q,
                             kv,
                             kv + hidden,
                             nullptr,
                             hidden,
                             2 * hidden,
                             first_only ? numbers : starts,
                             starts,
                             sequences,
                             m.heads,
                             m.heads,
                             hidden / m.heads,
                             Dropout(0, 0),
                             0,
                             nullptr};
    for_rows(sequences * m.heads, team,
             [&](int64_t task) { attend<float>(heads, task, room, space.attended, nullptr); });
    team.meet();
    for_rows(count, team, [&](int64_t row) { operand.put(space.attended + row * hidden, row); });
    team.meet();
    product(l.out, operand, count, state, hidden, true, team);
    team.meet();
    for_rows(count, team, [&](int64_t row) {
      float* one = state + row * hidden;
      normalize(one, l.attention_norm, l.attention_norm_bias, eps, one, hidden);
      operand.put(one, row);
    });
    team.meet();
    product(l.up, operand, count, space.wide, m.intermediate, false, team);
    team.meet();
    for_rows(count, team, [&](int64_t row) {
      float* one = space.wide + row * m.intermediate;
      activate_by(m.activation, one, nullptr, m.intermediate);
      space.middle.put(one, row);
    });
    team.meet();
    product(l.down, space.middle, count, state, hidden, true, team);
    team.meet();
    for_rows(count, team, [&](int64_t row) {
      float* one = state + row * hidden;
      normalize(one, l.ffn_norm, l.ffn_norm_bias, eps, one, hidden);
      operand.put(one, row);
    });
    team.meet();
  }
}

// Room of the calling thread for one block, kept between calls.
template <class T>
Space<T> space_of(const EncoderTable& m, int64_t rows, int64_t sequences) {
  static thread_local std::vector<float> memory;
  int64_t size = Space<T>::size(m, rows, sequences);
  if (int64_t(memory.size()) < size) memory.resize(size);
  return Space<T>(m, rows, sequences, memory.data());
}

// x [starts[sequences], hidden] through all layers; see encode_block.
template <class T>
void encode(const EncoderTable& m, float* x, const int64_t* starts, int64_t sequences,
            float* firsts, float eps) {
  std::vector<int64_t> cuts{0}, numbers(sequences + 1);
  std::iota(numbers.begin(), numbers.end(), int64_t(0));
  for (int64_t i = 1; i <= sequences; i++)
    if (i == sequences || starts[i + 1] - starts[cuts.back()] > kBlockTokens) cuts.push_back(i);
  const int64_t blocks = int64_t(cuts.size()) - 1, threads = omp_get_max_threads();
  if (threads > 1 && blocks < 2 * threads) {
    const Space<T> space = space_of<T>(m, starts[sequences], sequences);
#pragma omp parallel
    encode_block(m, space, starts, numbers.data(), sequences, x, firsts, eps,
                 {omp_get_thread_num(), omp_get_num_threads()});
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = cuts[block], count = cuts[block + 1] - first;
    std::vector<int64_t> own(starts + first, starts + first + count + 1);
    for (int64_t& start : own) start -= starts[first];
    encode_block(m, space_of<T>(m, own[count], count), own.data(), numbers.data(), count,
                 x + starts[first] * m.hidden, firsts ? firsts + first * m.hidden : nullptr, eps,
                 {0, 1});
  }
}

// y [rows, columns] = x [rows, inner] · Wᵀ + bias
template <class T>
void one_product(const PackedMatrix& w, const float* x, float* y, int64_t rows, int64_t inner,
                 int64_t columns) {
  std::vector<float> memory(words<T>(rows * inner) + 2 * rows);
  float* free = memory.data();
  const Operand<T> operand = operand_in<T>(free, rows, inner);
#pragma omp parallel
  {
    const Team team{omp_get_thread_num(), omp_get_num_threads()};
    for_rows(rows, team, [&](int64_t row) { operand.put(x + row * inner, row); });
    team.meet();
    product(w, operand, rows, y, columns, false, team);
  }
}

}  // namespace igla

#define ENCODE(T, suffix)                                                                       \
  KERNEL void encode_##suffix(const igla::EncoderTable* model, float* x, const int64_t* starts, \
                              int64_t sequences, float* firsts, double eps) {                   \
    igla::encode<T>(*model, x, starts, sequences, firsts, float(eps));                          \
  }                                                                                             \
  KERNEL void panel_product_##suffix(const igla::PackedMatrix* w, const float* x, float* y,     \
                                     int64_t rows, int64_t inner, int64_t columns) {            \
    igla::one_product<T>(*w, x, y, rows, inner, columns);                                       \
  }

ENCODE(float, f32)
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
ENCODE(igla::bf16, bf16)
#endif
#ifdef __AVX512VNNI__
ENCODE(uint8_t, int8)
#endif
#endif
