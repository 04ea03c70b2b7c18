// What an encoder of the BERT family begins with: the embeddings of tokens, of the n-grams of
// letters of their words (model/ngrams.py), of places and of the segment, summed and normalised.
#pragma once

#include <algorithm>
#include <vector>

#include "rows.h"

namespace igla {

// It mirrors the table that infer/native_encoder.py makes; all fields have 8 bytes.
struct EmbeddingTable {
  int64_t width, vocabulary, positions;
  const float *words, *places;  // [·, width]; places have the segment's in them
  const float *norm, *norm_bias;
  const int32_t* letters;  // [·, most_letters] of each token, then zeros; null: no n-grams
  int64_t most_letters, word_start, word_end, least, most;  // letters of an n-gram
  uint64_t base, spread;                                    // of its hash
  const float *ngrams, *project;  // [buckets, ngram_width], [ngram_width, width]
  int64_t buckets, ngram_width;
};

// The rows of a word's n-grams, summed and divided by the root of their number.
inline void sum_ngrams(const EmbeddingTable& e, const std::vector<int64_t>& letters, float* sum) {
  std::fill_n(sum, e.ngram_width, 0.0f);
  const int64_t count = int64_t(letters.size());
  int64_t found = 0;
  for (int64_t size = e.least; size <= e.most; size++)
    for (int64_t from = 0; from + size <= count; from++, found++) {
      uint64_t hash = 0;
      for (int64_t i = from; i < from + size; i++) hash = hash * e.base + uint64_t(letters[i]);
      int64_t bucket = (int64_t(hash * e.spread) >> 32) % e.buckets;
      if (bucket < 0) bucket += e.buckets;
      const float* row = e.ngrams + bucket * e.ngram_width;
      SIMD for (int64_t i = 0; i < e.ngram_width; i++)
        sum[i] += row[i];
    }
  const float share = 1 / std::sqrt(float(std::max<int64_t>(1, found)));
  for (int64_t i = 0; i < e.ngram_width; i++) sum[i] *= share;
}

// Adds to the rows [begin, end) of one sequence what the n-grams of their words say.
inline void add_ngrams(const EmbeddingTable& e, const int64_t* tokens, int64_t length,
                       int64_t begin, int64_t end, float* x) {
  auto first = [&](int64_t t) { return e.letters[tokens[t] * e.most_letters]; };
  auto begins = [&](int64_t t) {
    return t == 0 || t == length || first(t) == 0 || first(t) == e.word_start || first(t - 1) == 0;
  };
  std::vector<int64_t> letters;
  std::vector<float> sum(e.ngram_width), said(e.width);
  for (int64_t from = 0, to; from < end; from = to) {
    for (to = from + 1; !begins(to);) to++;
    if (to <= begin || first(from) == 0) continue;
    letters.clear();
    for (int64_t t = from; t < to; t++)
      for (int64_t i = 0; i < e.most_letters; i++)
        if (int32_t letter = e.letters[tokens[t] * e.most_letters + i]) letters.push_back(letter);
    letters.push_back(e.word_end);
    sum_ngrams(e, letters, sum.data());
    std::fill(said.begin(), said.end(), 0.0f);
    for (int64_t k = 0; k < e.ngram_width; k++) {
      const float* row = e.project + k * e.width;
      SIMD for (int64_t i = 0; i < e.width; i++)
        said[i] += sum[k] * row[i];
    }
    for (int64_t t = std::max(from, begin); t < std::min(to, end); t++) {
      SIMD for (int64_t i = 0; i < e.width; i++)
        x[(t - begin) * e.width + i] += said[i];
    }
  }
}

// The first token of some sequences that has no embedding, or -1.
inline int64_t without_embedding(const EmbeddingTable& e, const int64_t* tokens,
                                 const int64_t* starts, int64_t sequences) {
  for (int64_t i = 0; i < sequences; i++)
    for (int64_t t = starts[i]; t < starts[i + 1]; t++)
      if (uint64_t(tokens[t]) >= uint64_t(e.vocabulary) || t - starts[i] >= e.positions) return t;
  return -1;
}

// Rows [begin, end) of one sequence, to x [end - begin, width].
inline void embed(const EmbeddingTable& e, const int64_t* tokens, int64_t length, int64_t begin,
                  int64_t end, float eps, float* x) {
  for (int64_t t = begin; t < end; t++)
    std::copy_n(e.words + tokens[t] * e.width, e.width, x + (t - begin) * e.width);
  if (e.letters) add_ngrams(e, tokens, length, begin, end, x);
  for (int64_t t = begin; t < end; t++) {
    float* row = x + (t - begin) * e.width;
    const float* place = e.places + t * e.width;
    SIMD for (int64_t i = 0; i < e.width; i++)
      row[i] += place[i];
    normalize(row, e.norm, e.norm_bias, eps, row, e.width);
  }
}

}  // namespace igla
