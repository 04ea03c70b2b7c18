// The rotation of queries and keys by their positions. The derivation is in ops/rotation.py.
#include "common.h"

namespace igla {

// x, y [tokens, heads, 2 * half]; cosines, sines [tokens, half]: each pair (d, d + half) turned, or
// turned back.
template <class T>
void rotate(const T* x, const Acc<T>* cosines, const Acc<T>* sines, T* y, int64_t tokens,
            int64_t heads, int64_t half, bool back) {
  using A = Acc<T>;
  const A sign = back ? -1 : 1;
#pragma omp parallel
  {
    Share share(tokens);
    for (int64_t token = share.first; token < share.last; token++) {
      const A *c = cosines + token * half, *s = sines + token * half;
      for (int64_t head = 0; head < heads; head++) {
        const T* in = x + (token * heads + head) * 2 * half;
        T* out = y + (token * heads + head) * 2 * half;
        SIMD for (int64_t i = 0; i < half; i++) {
          A left = load(in[i]), right = load(in[half + i]), turn = sign * s[i];
          store(out[i], left * c[i] - right * turn);
          store(out[half + i], right * c[i] + left * turn);
        }
      }
    }
  }
}

}  // namespace igla

#define DEFINE(T, suffix)                                                                         \
  KERNEL void rotate_##suffix(const T* x, const igla::Acc<T>* cosines, const igla::Acc<T>* sines, \
                              T* y, int64_t tokens, int64_t heads, int64_t half, int64_t back) {  \
    igla::rotate(x, cosines, sines, y, tokens, heads, half, back != 0);                           \
  }

DEFINE(float, f32)
DEFINE(double, f64)
DEFINE(igla::bf16, bf16)
