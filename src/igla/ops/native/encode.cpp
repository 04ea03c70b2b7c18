// A whole encoder of the BERT family in one call, from token ids to states or logits, for serving.
// What a text alone costs beside its products is mostly the calling of small operations, a dozen a
// layer, and after a pause the code and data of each have left the processor's caches. Weights lie
// in panels, in the order in which they are read (panels.h).
//
// Many sequences are cut into blocks, each of which one thread takes through all layers, so that
// threads never wait for each other. Of few, each thread takes some rows through all layers, and
// they meet once a layer, before attention reads what the others have written.
#include "operand.h"

#ifdef __AVX512F__
#include <numeric>
#include <vector>

#include "attention.h"
#include "embedding.h"

namespace igla {

// These mirror the tables that infer/native_encoder.py makes; all fields have 8 bytes.
struct EncoderLayer {
  PackedMatrix q, kv, out, up, down;
  const float *attention_norm, *attention_norm_bias, *ffn_norm, *ffn_norm_bias;
};

struct HeadTable {
  PackedMatrix dense, output;
  int64_t activation, classes;
};

struct EncoderTable {
  int64_t hidden, layers, heads, intermediate, activation;
  const EncoderLayer* layer;
};

// Tokens that one thread takes through a layer at a time: weights are read once for so many, and
// what lies between two products stays in the core's own cache.
constexpr int64_t kBlockTokens = 96;
// With fewer, threads would wait for each other longer than they work.
constexpr int64_t kLeastShared = 32;

// Sequences that are computed together, [starts[i], starts[i + 1]) of them each.
struct Sequences {
  const int64_t *tokens, *starts;
  int64_t count;

  int64_t rows() const { return starts[count]; }
};

// What all threads at a block's work see: states [rows, hidden], those of first tokens [count,
// hidden] if they alone are wanted, and keys and values [rows, 2 * hidden] of two layers in turn.
struct Shared {
  float *x, *firsts, *kv[2];
};

// What a thread needs beside them for `rows` rows, of which it takes its part.
template <class T>
struct Own {
  float *wide, *attended;  // [rows, widest]: queries, or what is between up and down; attention
  Operand<T> narrow, middle;

  static int64_t widest(const EncoderTable& m) { return std::max(m.hidden, m.intermediate); }
  static int64_t size(const EncoderTable& m, int64_t rows) {
    return rows * (widest(m) + m.hidden) + Operand<T>::size(rows, m.hidden) +
           Operand<T>::size(rows, m.intermediate);
  }
  Own(const EncoderTable& m, int64_t rows, float* memory)
      : wide(memory),
        attended(wide + rows * widest(m)),
        narrow(attended + rows * m.hidden, rows, m.hidden),
        middle(attended + rows * m.hidden + Operand<T>::size(rows, m.hidden), rows,
               m.intermediate) {}
};

// Room of the calling thread, kept between calls; each use has one of its own.
template <int Use>
float* room_for(int64_t count) {
  static thread_local std::vector<float> memory;
  if (int64_t(memory.size()) < count) memory.resize(count);
  return memory.data();
}

// What the rows of a state become behind attention, `attended`.
template <class T>
void after_attention(const EncoderTable& m, const EncoderLayer& l, const Own<T>& own, float* state,
                     int64_t rows, float eps) {
  const int64_t hidden = m.hidden;
  for (int64_t row = 0; row < rows; row++) own.narrow.put(own.attended + row * hidden, row);
  multiply(l.out, own.narrow, rows, state, hidden, true);
  for (int64_t row = 0; row < rows; row++) {
    float* one = state + row * hidden;
    normalize(one, l.attention_norm, l.attention_norm_bias, eps, one, hidden);
    own.narrow.put(one, row);
  }
  multiply(l.up, own.narrow, rows, own.wide, m.intermediate, false);
  for (int64_t row = 0; row < rows; row++) {
    float* one = own.wide + row * m.intermediate;
    activate_by(m.activation, one, nullptr, m.intermediate);
    own.middle.put(one, row);
  }
  multiply(l.down, own.middle, rows, state, hidden, true);
  for (int64_t row = 0; row < rows; row++) {
    float* one = state + row * hidden;
    normalize(one, l.ffn_norm, l.ffn_norm_bias, eps, one, hidden);
  }
}

// Of a block the rows [begin, end), from embeddings on, or from x where there are none. `meet`
// returns when every thread has come there.
template <class T, class Meet>
void encode_rows(const EncoderTable& m, const EmbeddingTable* e, const Sequences& s,
                 const Shared& shared, int64_t begin, int64_t end, float eps, Meet meet) {
  static thread_local Room<float> room;
  const int64_t rows = end - begin, hidden = m.hidden;
  const Own<T> own(m, rows, room_for<0>(Own<T>::size(m, rows)));
  // The sequences of these rows, and those whose first token is among them.
  const int64_t from = std::upper_bound(s.starts, s.starts + s.count, begin) - s.starts - 1;
  const int64_t to = std::lower_bound(s.starts, s.starts + s.count, end) - s.starts;
  const int64_t first = std::lower_bound(s.starts, s.starts + s.count, begin) - s.starts;
  float* x = shared.x + begin * hidden;
  std::vector<int64_t> queries{0};
  for (int64_t i = from; i < to; i++) {
    const int64_t start = s.starts[i], begun = std::max(begin, start);
    queries.push_back(std::min(end, s.starts[i + 1]) - begin);
    if (e)
      embed(*e, s.tokens + start, s.starts[i + 1] - start, begun - start,
            begin + queries.back() - start, eps, shared.x + begun * hidden);
  }
  for (int64_t index = 0; index < m.layers; index++) {
    const EncoderLayer& l = m.layer[index];
    float* kv = shared.kv[index % 2];
    for (int64_t row = 0; row < rows; row++) own.narrow.put(x + row * hidden, row);
    multiply(l.kv, own.narrow, rows, kv + begin * 2 * hidden, 2 * hidden, false);
    const bool first_only = shared.firsts && index + 1 == m.layers;
    int64_t count = rows, sequence = from;
    float* state = x;
    if (first_only) {
      count = to - first, sequence = first;
      state = shared.firsts + first * hidden;
      queries.resize(count + 1);
      std::iota(queries.begin(), queries.end(), int64_t(0));
      for (int64_t i = 0; i < count; i++) {
        float* one = state + i * hidden;
        std::copy_n(shared.x + s.starts[first + i] * hidden, hidden, one);
        own.narrow.put(one, i);
      }
    }
    multiply(l.q, own.narrow, count, own.wide, hidden, false);
    meet();
    const Heads<float> heads{own.wide,
                             kv,
                             kv + hidden,
                             nullptr,
                             hidden,
                             2 * hidden,
                             queries.data(),
                             s.starts + sequence,
                             int64_t(queries.size()) - 1,
                             m.heads,
                             m.heads,
                             hidden / m.heads,
                             Dropout(0, 0),
                             0,
                             nullptr};
    for (int64_t task = 0; task < heads.batch * heads.heads; task++)
      attend<float>(heads, task, room, own.attended, nullptr);
    after_attention(m, l, own, state, count, eps);
  }
}

// Logits [rows, classes] of first tokens' states.
void classify(const HeadTable& head, const float* firsts, int64_t rows, int64_t hidden,
              float* logits) {
  const int64_t size = Operand<float>::size(rows, hidden);
  float* middle = room_for<1>(2 * size);
  const Operand<float> x(middle + size, rows, hidden);
  for (int64_t row = 0; row < rows; row++) x.put(firsts + row * hidden, row);
  multiply(head.dense, x, rows, middle, hidden, false);
  activate_by(head.activation, middle, nullptr, rows * hidden);
  for (int64_t row = 0; row < rows; row++) x.put(middle + row * hidden, row);
  multiply(head.output, x, rows, logits, head.classes, false);
}

template <class T>
void encode(const EncoderTable& m, const EmbeddingTable* e, const HeadTable* head,
            const Sequences& all, float* x, float* firsts, float* logits, float eps) {
  const int64_t hidden = m.hidden, rows = all.rows();
  // What is given nowhere is kept here.
  float* kept = room_for<2>((x ? 0 : rows * hidden) + (firsts ? 0 : all.count * hidden));
  if (!x) x = kept, kept += rows * hidden;
  if (!firsts && head) firsts = kept;
  std::vector<int64_t> cuts{0};
  for (int64_t i = 1; i <= all.count; i++)
    if (i == all.count || all.starts[i + 1] - all.starts[cuts.back()] > kBlockTokens)
      cuts.push_back(i);
  const int64_t blocks = int64_t(cuts.size()) - 1, threads = omp_get_max_threads();
  if (blocks >= 2 * threads || rows < kLeastShared || threads == 1) {
#pragma omp parallel for schedule(dynamic, 1) if (blocks > 1)
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t first = cuts[block], count = cuts[block + 1] - first;
      const int64_t start = all.starts[first];
      std::vector<int64_t> starts(all.starts + first, all.starts + first + count + 1);
      for (int64_t& each : starts) each -= start;
      float* kv = room_for<3>(starts[count] * 2 * hidden);
      const Shared shared{x + start * hidden, firsts ? firsts + first * hidden : nullptr, {kv, kv}};
      encode_rows<T>(m, e, {e ? all.tokens + start : nullptr, starts.data(), count}, shared, 0,
                     starts[count], eps, [] {});
    }
  } else {
    float* kv = room_for<3>(rows * 4 * hidden);
    const Shared shared{x, firsts, {kv, kv + rows * 2 * hidden}};
#pragma omp parallel
    {
      const Share share(rows);
      encode_rows<T>(m, e, all, shared, share.first, share.last, eps, [] {
#pragma omp barrier
      });
    }
  }
  if (head) classify(*head, firsts, all.count, hidden, logits);
}

// y [rows, columns] = x [rows, inner] · Wᵀ + bias
template <class T>
void one_product(const PackedMatrix& w, const float* x, float* y, int64_t rows, int64_t inner,
                 int64_t columns) {
#pragma omp parallel
  {
    const Share share(rows);
    const int64_t count = share.last - share.first;
    std::vector<float> memory(Operand<T>::size(count, inner));
    const Operand<T> operand(memory.data(), count, inner);
    for (int64_t row = 0; row < count; row++) operand.put(x + (share.first + row) * inner, row);
    multiply(w, operand, count, y + share.first * columns, columns, false);
  }
}

}  // namespace igla

// Sequences are tokens [starts[count]], each [starts[i], starts[i + 1]) of them. Without embedding
// and tokens, x [starts[count], hidden] is what the first layer gets. In the end x, if given, holds
// the states, firsts [count, hidden] those of first tokens, in place of the last layer's in x, and
// logits [count, classes] what the head makes of them. Returns the number of a token that the
// embeddings do not have, and then computes nothing; else -1.
#define ENCODE(T, suffix)                                                                        \
  KERNEL int64_t encode_##suffix(                                                                \
      const igla::EncoderTable* model, const igla::EmbeddingTable* embedding,                    \
      const igla::HeadTable* head, const int64_t* tokens, const int64_t* starts, int64_t count,  \
      float* x, float* firsts, float* logits, double eps) {                                      \
    int64_t wrong = embedding ? igla::without_embedding(*embedding, tokens, starts, count) : -1; \
    if (wrong < 0)                                                                               \
      igla::encode<T>(*model, embedding, head, {tokens, starts, count}, x, firsts, logits,       \
                      float(eps));                                                               \
    return wrong;                                                                                \
  }                                                                                              \
  KERNEL void panel_product_##suffix(const igla::PackedMatrix* w, const float* x, float* y,      \
                                     int64_t rows, int64_t inner, int64_t columns) {             \
    igla::one_product<T>(*w, x, y, rows, inner, columns);                                        \
  }

ENCODE(float, f32)
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
ENCODE(igla::bf16, bf16)
#endif
#ifdef __AVX512VNNI__
ENCODE(uint8_t, int8)
#endif
#endif
