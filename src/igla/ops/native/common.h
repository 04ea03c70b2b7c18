// What all kernels share: number types, random bits, and the exponential.
//
// A kernel is a template over the type T of the activations: float, double (for checking gradients)
// or bf16. Sums are kept in Acc<T>: double for double, else float. Loops are written so that the
// compiler vectorizes them for whatever processor it compiles for; none of this needs -ffast-math,
// so a NaN arrives where it should.
#pragma once

#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

#define KERNEL extern "C" __attribute__((visibility("default")))
#define SIMD _Pragma("omp simd")
#define SIMD_SUM(...) IGLA_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#define IGLA_PRAGMA(...) _Pragma(#__VA_ARGS__)

namespace igla {

struct bf16 {
  uint16_t bits;
};

template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(bf16 x) { return bits_as<float>(uint32_t(x.bits) << 16); }

inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
// To the nearest, ties to even; what is no number stays none.
inline void store(bf16& to, float x) {
  uint32_t u = bits_as<uint32_t>(x);
  uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  to.bits = uint16_t(x == x ? rounded : 0x7fc0u);
}

// A bijection of 32 bits in which each bit of the input changes each of the output with probability
// near one half. The constants are those of C. Wellons' hash-prospector (2018).
inline uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  return x ^ (x >> 15);
}

// Dropout as a pure function of a seed and an element's number: the backward pass draws the same
// mask again instead of reading it, and no order of evaluation can change it.
struct Dropout {
  uint32_t low, high, threshold;
  float scale;

  // p in [0, 1) to a resolution of 2^-32; p = 0 keeps everything.
  Dropout(double p, uint64_t seed)
      : low(uint32_t(seed)),
        high(uint32_t(seed >> 32)),
        threshold(uint32_t(p * 4294967296.0)),
        scale(float(1 / (1 - p))) {}

  bool active() const { return threshold != 0; }

  // 0, or 1 / (1 - p)
  float factor(uint32_t element) const {
    return mixed(mixed(element ^ low) + high) >= threshold ? scale : 0.0f;
  }
};

// e^x to 2 units in the last place: 2^n times the Taylor series on |r| <= ln 2 / 2. Below -87.3 it
// is the least normal number and not 0.
inline float exponential(float x) {
  x = x < -87.3f ? -87.3f : x > 88.3f ? 88.3f : x;
  float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: its last bits are the nearest n
  float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  uint32_t power = (bits_as<uint32_t>(shifted) + 127u) << 23;
  return series * bits_as<float>(power);
}
inline double exponential(double x) { return std::exp(x); }

// A first and a last row for the calling thread, out of `rows`.
struct Share {
  int64_t first, last;
  explicit Share(int64_t rows) {
    int64_t threads = omp_get_num_threads(), mine = omp_get_thread_num();
    first = rows * mine / threads;
    last = rows * (mine + 1) / threads;
  }
};

// Adds up the threads' shares [threads, width], in the threads' order, so that the same number of
// threads gives the same bits. All threads of a team call it when they have written theirs.
template <class A>
inline void sum_shares(const A* shares, A* sums, int64_t width) {
#pragma omp barrier
#pragma omp for
  for (int64_t i = 0; i < width; i++) {
    A total = 0;
    for (int thread = 0; thread < omp_get_num_threads(); thread++)
      total += shares[width * thread + i];
    sums[i] = total;
  }
}

}  // namespace igla
