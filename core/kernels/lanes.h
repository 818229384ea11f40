// Vectors of the widest register of the build, for kernels of every floor.
//
// Everything is written once with GCC vector extensions; `LANE` floats make one vector: 16 with
// AVX-512, 8 with AVX2, 4 otherwise.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANE = 16;
#elif defined(__AVX2__)
constexpr int LANE = 8;
#else
constexpr int LANE = 4;
#endif

typedef float Vec __attribute__((vector_size(LANE * 4)));
typedef int32_t IVec __attribute__((vector_size(LANE * 4)));
typedef Vec VecAny __attribute__((aligned(4), may_alias));
typedef float Quad __attribute__((vector_size(16)));
typedef Quad QuadAny __attribute__((aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const VecAny*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<VecAny*>(p) = v; }

// With AVX-512 compilers make two instructions of the general form.
inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return Vec(_mm512_max_ps(__m512(a), __m512(b)));
#else
  return a > b ? a : b;
#endif
}
inline Vec smaller(Vec a, Vec b) {
#if defined(__AVX512F__)
  return Vec(_mm512_min_ps(__m512(a), __m512(b)));
#else
  return a < b ? a : b;
#endif
}

// Lane i of the result is the sum over the lanes of a[i]: a tree that halves the vectors each time.
template <int HALF = LANE / 2>
inline Vec sums_of_lanes(Vec* a) {
  // Lanes with bit HALF go to the second entry of a pair, the others to the first.
  IVec own, other;
  for (int l = 0; l < LANE; ++l) {
    own[l] = l & HALF ? l + LANE : l;
    other[l] = l & HALF ? l - HALF + LANE : l + HALF;
  }
  for (int i = 0; i < HALF; ++i)
    a[i] = __builtin_shuffle(a[i], a[i + HALF], own) + __builtin_shuffle(a[i], a[i + HALF], other);
  if constexpr (HALF > 1) return sums_of_lanes<HALF / 2>(a);
  return a[0];
}
