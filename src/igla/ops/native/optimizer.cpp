// AdamW over a tensor, and over single rows of an embedding. See optim/adamw.py.
#include "common.h"

#include <algorithm>
#include <numeric>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace igla {

// Below so many numbers one thread is done before another has been woken.
constexpr int64_t kWorthThreads = 1 << 15;

// Moments fade into numbers too small for the processor to be quick with (under 1e-38): within
// these kernels such numbers are zero.
class FlushTinyNumbers {
#if defined(__x86_64__)
 public:
  FlushTinyNumbers() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushTinyNumbers() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#endif
};

// One step's numbers: decay is 1 - rate * weight decay, size is rate / (1 - beta1^t), root is
// sqrt(1 - beta2^t).
struct Step {
  float decay, size, root;
};

struct Rule {
  float beta1, beta2, epsilon;
};

// The rule for a weight. All kernels go through here, and each sum of products is an fma that is
// written out, so that no compiler contracts one loop's and not another's: what a row gets late is
// what it would have got in time, bit for bit.
inline void update(float& p, float& m, float& v, float g, const Step& step, const Rule& rule) {
  m = std::fma(rule.beta1, m, (1 - rule.beta1) * g);
  v = std::fma(rule.beta2, v, (1 - rule.beta2) * g * g);
  p = std::fma(p, step.decay, -(step.size * m / (std::sqrt(v) / step.root + rule.epsilon)));
}

// copy: where p goes in bf16 as well, or null.
template <class G>
void dense(float* p, float* m, float* v, const G* g, bf16* copy, int64_t size, float factor,
           Step step, Rule rule) {
#pragma omp parallel if (size > kWorthThreads)
  {
    FlushTinyNumbers flush;
    Share share(size);
    if (copy) {
      SIMD for (int64_t i = share.first; i < share.last; i++) {
        update(p[i], m[i], v[i], load(g[i]) * factor, step, rule);
        store(copy[i], p[i]);
      }
    } else {
      SIMD for (int64_t i = share.first; i < share.last; i++)
        update(p[i], m[i], v[i], load(g[i]) * factor, step, rule);
    }
  }
}

// Within blocks in float, which the processor is quick with, and between them in double. The
// threads' shares are added in their order, so that the same number of threads gives the same bits.
template <class G>
double sum_of_squares(const G* g, int64_t size) {
  constexpr int64_t kBlock = 1024;
  std::vector<double> shares(omp_get_max_threads());
#pragma omp parallel if (size > kWorthThreads)
  {
    Share share((size + kBlock - 1) / kBlock);
    double mine = 0;
    for (int64_t block = share.first; block < share.last; block++) {
      int64_t end = std::min((block + 1) * kBlock, size);
      float sum = 0;
      SIMD_SUM(sum) for (int64_t i = block * kBlock; i < end; i++)
        sum += load(g[i]) * load(g[i]);
      mine += sum;
    }
    shares[omp_get_thread_num()] = mine;
  }
  return std::accumulate(shares.begin(), shares.end(), 0.0);
}

}  // namespace igla

using igla::Rule;
using igla::Step;

#define DEFINE(G, suffix)                                                                       \
  KERNEL void adamw_dense_##suffix(float* p, float* m, float* v, const G* g, igla::bf16* copy,  \
                                   int64_t size, double factor, double decay, double step_size, \
                                   double root, double beta1, double beta2, double epsilon) {   \
    igla::dense(p, m, v, g, copy, size, float(factor),                                          \
                Step{float(decay), float(step_size), float(root)},                              \
                Rule{float(beta1), float(beta2), float(epsilon)});                              \
  }                                                                                             \
  KERNEL void sum_of_squares_##suffix(const G* g, double* sum, int64_t size) {                  \
    *sum = igla::sum_of_squares(g, size);                                                       \
  }

DEFINE(float, f32)
DEFINE(igla::bf16, bf16)

// Bring rows up to date: row r has had its steps up to done[r] (counted from 1) and gets those up
// to `now` with a gradient of zero. A row that never had a gradient (touched 0) only decays.
// p, m, v [all, width]; rows [count], or null for all rows 0 ... count - 1; steps [now + 1].
KERNEL void adamw_catch_up(float* p, float* m, float* v, int64_t* done, const uint8_t* touched,
                           const int64_t* rows, int64_t count, int64_t width, const Step* steps,
                           int64_t now, double beta1, double beta2, double epsilon) {
  Rule rule{float(beta1), float(beta2), float(epsilon)};
#pragma omp parallel
  {
    igla::FlushTinyNumbers flush;
#pragma omp for schedule(dynamic, 16)
    for (int64_t index = 0; index < count; index++) {
      int64_t row = rows ? rows[index] : index, start = row * width;
      if (touched[row]) {
        for (int64_t block = start; block < start + width; block += 64) {
          int64_t end = block + 64 < start + width ? block + 64 : start + width;
          for (int64_t step = done[row] + 1; step <= now; step++) {
            bool moves = false;
            for (int64_t i = block; i < end; i++) moves |= m[i] != 0;
            if (moves) {
              SIMD for (int64_t i = block; i < end; i++)
                update(p[i], m[i], v[i], 0.0f, steps[step], rule);
            } else {  // the same without its roots and divisions
              SIMD for (int64_t i = block; i < end; i++) {
                p[i] *= steps[step].decay;
                m[i] = 0;  // it may have been -0
                v[i] *= rule.beta2;
              }
            }
          }
        }
      } else {
        for (int64_t step = done[row] + 1; step <= now; step++)
          if (steps[step].decay != 1.0f) {
            SIMD for (int64_t i = start; i < start + width; i++)
              p[i] *= steps[step].decay;
          }
      }
      done[row] = now;
    }
  }
}

// Step `now` of rows that are up to date with now - 1, with their gradients g [count, width].
KERNEL void adamw_rows(float* p, float* m, float* v, int64_t* done, uint8_t* touched,
                       const int64_t* rows, const float* g, int64_t count, int64_t width,
                       double factor, const Step* steps, int64_t now, double beta1, double beta2,
                       double epsilon) {
  Rule rule{float(beta1), float(beta2), float(epsilon)};
  float by = float(factor);
#pragma omp parallel
  {
    igla::FlushTinyNumbers flush;
#pragma omp for
    for (int64_t index = 0; index < count; index++) {
      int64_t row = rows[index], start = row * width;
      SIMD for (int64_t i = 0; i < width; i++)
        update(p[start + i], m[start + i], v[start + i], g[index * width + i] * by, steps[now],
               rule);
      touched[row] = 1;
      done[row] = now;
    }
  }
}
