// A whole decoder over a paged cache, in one call: what a step of generation costs beside its
// products is mostly the calling of small operations, a dozen a layer.
//
// Rows come as infer/backend.py's Rows describes them. One team of threads goes through all layers
// and shares out each operation; they meet where one reads what another has written.
#include <algorithm>
#include <vector>

#include "rows.h"
#include "weights.h"

namespace igla {

// These mirror the tables that infer/native_decoder.py makes; all fields have 8 bytes.
struct LayerTable {
  Weights q, k, v, out, gate, up, down;  // gate.data is null where there is none
  const float *attention_norm, *attention_norm_bias, *ffn_norm, *ffn_norm_bias;
  const float *q_norm, *k_norm;  // null where there is none
  float *keys, *values;          // the layer's pools [kv_heads, slots, head_dim]
  int64_t window;                // rows that a row attends to at most; 0: all
};

struct ModelTable {
  int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, slots, activation;
  Source source;                  // of all weights
  const float *norm, *norm_bias;  // a norm without a bias is RMSNorm
  Weights head;
  const LayerTable* layer;
  const float *cos, *sin;  // [·, head_dim / 2], or null
  const float* slopes;     // [heads] of ALiBi, or null
};

// One sequence's rows in this forward.
struct SequenceTable {
  int64_t first, committed, scratch, length;
  const int32_t* blocks;
};

constexpr int64_t kBlock = 16;

// x [rows, width] to y, whole rows to each thread.
inline void normalize_rows(const float* x, const float* weight, const float* bias, float eps,
                           float* y, int64_t rows, int64_t width) {
  Share share(rows);
  for (int64_t t = share.first; t < share.last; t++)
    normalize(x + t * width, weight, bias, eps, y + t * width, width);
}

// Pairs (d, d + D/2) turned by the angles of a position.
inline void turn(float* x, const float* cos, const float* sin, int64_t width) {
  int64_t half = width / 2;
  SIMD for (int64_t i = 0; i < half; i++) {
    float left = x[i], right = x[i + half];
    x[i] = left * cos[i] - right * sin[i];
    x[i + half] = right * cos[i] + left * sin[i];
  }
}

template <int Width>
inline float dot(const float* x, const float* y, int64_t width) {
  float sum = 0;
  if constexpr (Width) width = Width;
  SIMD_SUM(sum) for (int64_t i = 0; i < width; i++)
    sum += x[i] * y[i];
  return sum;
}

// What a row may attend to: positions [from, pool) in the pool, then scratch rows of this forward.
struct Sight {
  const SequenceTable* sequence;
  int64_t from, pool, first_scratch, scratch;

  // Of row t: all before it in the physical order, or as many as the window has.
  Sight(const SequenceTable& s, int64_t t, int64_t window) : sequence(&s) {
    int64_t mine = t - s.first, index = s.length + mine;
    from = window ? std::max<int64_t>(0, index + 1 - window) : 0;
    pool = s.length + std::min(mine + 1, s.committed);
    int64_t beyond = std::max<int64_t>(0, from - pool);
    from -= beyond;
    first_scratch = s.first + s.committed + beyond;
    scratch = std::max<int64_t>(0, t + 1 - first_scratch);
  }
};

// What a thread needs for one row: where each key and value is that it attends to, and weights.
struct Row {
  std::vector<const float*> keys, values;
  std::vector<float> weights;

  void reserve(int64_t count) {
    if (int64_t(weights.size()) >= count) return;
    keys.resize(count);
    values.resize(count);
    weights.resize(count);
  }
};

// One row's queries of the heads that share head `k` of keys and values.
//
// Where keys are is looked up first, so that one loop goes over all of them: a compiler makes two
// of a loop that reads here from the pool and there from this forward, and sums in each as it
// likes.
template <int Width>
void attend(const ModelTable& m, const LayerTable& l, const Sight& sight, int64_t k,
            const float* query, const float* fresh_keys, const float* fresh_values,
            const int64_t* positions, int64_t position, float* out, Row& row) {
  int64_t width = Width ? Width : m.head_dim, group = m.heads / m.kv_heads;
  const SequenceTable& s = *sight.sequence;
  int64_t held = sight.pool - sight.from, count = held + sight.scratch;
  int64_t kv_width = m.kv_heads * width;
  row.reserve(count);
  for (int64_t i = 0; i < held; i++) {
    int64_t place = sight.from + i;
    int64_t slot = s.blocks[place / kBlock] * kBlock + place % kBlock;
    int64_t at = (k * m.slots + slot) * width;
    row.keys[i] = l.keys + at;
    row.values[i] = l.values + at;
  }
  for (int64_t i = held; i < count; i++) {
    int64_t at = (sight.first_scratch + i - held) * kv_width + k * width;
    row.keys[i] = fresh_keys + at;
    row.values[i] = fresh_values + at;
  }
  float scale = 1 / std::sqrt(float(width));
  float* p = row.weights.data();
  for (int64_t g = 0; g < group; g++) {
    const float* q = query + (k * group + g) * width;
    float slope = m.slopes ? m.slopes[k * group + g] : 0;
    for (int64_t i = 0; i < count; i++) p[i] = dot<Width>(q, row.keys[i], width) * scale;
    if (slope != 0)
      for (int64_t i = 0; i < count; i++) {
        int64_t there = i < held ? sight.from + i : positions[sight.first_scratch + i - held];
        p[i] = std::fma(-slope, float(std::abs(position - there)), p[i]);
      }
    float most = -INFINITY;
    for (int64_t i = 0; i < count; i++) most = std::max(most, p[i]);
    float total = 0;
    SIMD_SUM(total) for (int64_t i = 0; i < count; i++)
      total += p[i] = exponential(p[i] - most);
    float* o = out + (k * group + g) * width;
    std::fill(o, o + width, 0.0f);
    for (int64_t i = 0; i < count; i++) {
      const float* value = row.values[i];
      float share = p[i];
      SIMD for (int64_t d = 0; d < width; d++)
        o[d] += share * value[d];
    }
    SIMD for (int64_t d = 0; d < width; d++)
      o[d] /= total;
  }
}

void decode(const ModelTable& m, const SequenceTable* sequences, int64_t count, float* x,
            const int64_t* positions, const int64_t* turns, int64_t rows, const int64_t* wanted,
            int64_t outputs, float eps, float* logits) {
  int64_t q_width = m.heads * m.head_dim, kv_width = m.kv_heads * m.head_dim;
  std::vector<const SequenceTable*> sequence_of(rows);
  for (int64_t i = 0; i < count; i++)
    for (int64_t t = 0; t < sequences[i].committed + sequences[i].scratch; t++)
      sequence_of[sequences[i].first + t] = &sequences[i];
  static thread_local std::vector<float> memory;
  int64_t wide = std::max(m.hidden, q_width);
  int64_t size = rows * (wide + q_width + 2 * kv_width + 2 * m.intermediate) + outputs * m.hidden;
  if (int64_t(memory.size()) < size) memory.resize(size);
  float* y = memory.data();
  float *q = y + rows * wide, *keys = q + rows * q_width, *values = keys + rows * kv_width;
  float *gate = values + rows * kv_width, *up = gate + rows * m.intermediate;
  float* last = up + rows * m.intermediate;
#pragma omp parallel
  {
    Row row;
    for (int64_t index = 0; index < m.layers; index++) {
      const LayerTable& l = m.layer[index];
      normalize_rows(x, l.attention_norm, l.attention_norm_bias, eps, y, rows, m.hidden);
#pragma omp barrier
      multiply(l.q, m.source, y, rows, m.hidden, q, q_width, false);
      multiply(l.k, m.source, y, rows, m.hidden, keys, kv_width, false);
      multiply(l.v, m.source, y, rows, m.hidden, values, kv_width, false);
#pragma omp barrier
#pragma omp for collapse(2)
      for (int64_t t = 0; t < rows; t++)
        for (int64_t h = 0; h < m.heads + m.kv_heads; h++) {
          int64_t k = h - m.heads, half = m.head_dim / 2;
          float* head =
              k < 0 ? q + t * q_width + h * m.head_dim : keys + t * kv_width + k * m.head_dim;
          const float* norm = k < 0 ? l.q_norm : l.k_norm;
          if (norm) normalize(head, norm, nullptr, eps, head, m.head_dim);
          if (m.cos) turn(head, m.cos + turns[t] * half, m.sin + turns[t] * half, m.head_dim);
          const SequenceTable& s = *sequence_of[t];
          if (k < 0 || t - s.first >= s.committed) continue;
          int64_t place = s.length + t - s.first;
          int64_t slot = s.blocks[place / kBlock] * kBlock + place % kBlock;
          int64_t to = (k * m.slots + slot) * m.head_dim;
          std::copy_n(head, m.head_dim, l.keys + to);
          std::copy_n(values + t * kv_width + k * m.head_dim, m.head_dim, l.values + to);
        }
#pragma omp for collapse(2) schedule(dynamic, 1)
      for (int64_t t = 0; t < rows; t++)
        for (int64_t k = 0; k < m.kv_heads; k++) {
          auto run = m.head_dim == 64 ? attend<64> : m.head_dim == 128 ? attend<128> : attend<0>;
          run(m, l, Sight(*sequence_of[t], t, l.window), k, q + t * q_width, keys, values,
              positions, positions[t], y + t * q_width, row);
        }
      multiply(l.out, m.source, y, rows, q_width, x, m.hidden, true);
#pragma omp barrier
      normalize_rows(x, l.ffn_norm, l.ffn_norm_bias, eps, y, rows, m.hidden);
#pragma omp barrier
      if (l.gate.data) multiply(l.gate, m.source, y, rows, m.hidden, gate, m.intermediate, false);
      multiply(l.up, m.source, y, rows, m.hidden, up, m.intermediate, false);
#pragma omp barrier
#pragma omp for
      for (int64_t i = 0; i < rows * m.intermediate; i += 256)
        activate_by(m.activation, up + i, l.gate.data ? gate + i : nullptr,
                    std::min<int64_t>(256, rows * m.intermediate - i));
      multiply(l.down, m.source, up, rows, m.intermediate, x, m.hidden, true);
#pragma omp barrier
    }
#pragma omp for
    for (int64_t i = 0; i < outputs; i++)
      normalize(x + wanted[i] * m.hidden, m.norm, m.norm_bias, eps, last + i * m.hidden, m.hidden);
    multiply(m.head, m.source, last, outputs, m.hidden, logits, m.vocab, false);
  }
}

}  // namespace igla

// x [rows, hidden] is the embedded rows, and is overwritten; turns [rows] are their rows of cos and
// sin; wanted [outputs] those of which logits [outputs, vocab] are written.
KERNEL void decode(const igla::ModelTable* model, const igla::SequenceTable* sequences,
                   int64_t count, float* x, const int64_t* positions, const int64_t* turns,
                   int64_t rows, const int64_t* wanted, int64_t outputs, double eps,
                   float* logits) {
  igla::decode(*model, sequences, count, x, positions, turns, rows, wanted, outputs, float(eps),
               logits);
}

// y [rows, columns] = x [rows, inner] · Wᵀ + bias
KERNEL void weight_product(const igla::Weights* w, const float* x, float* y, int64_t rows,
                           int64_t inner, int64_t columns) {
#pragma omp parallel
  igla::multiply(*w, igla::kMemory, x, rows, inner, y, columns, false);
}
