// The few things that all kernels share. Samples travel in tiles of 64, so that weights of any block
// size, 1x1 included, multiply whole vectors.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "lanes.h"
#include "threads.h"

constexpr int TILE = 64;            // samples in a tile
constexpr int PART = TILE / LANE;   // vectors in a tile of one feature

// The first n lanes, n < LANE; the others are zero, or stay as they are.
inline Vec load_some(const float* p, int64_t n) {
#if defined(__AVX512F__)
  return Vec(_mm512_maskz_loadu_ps((1u << n) - 1, p));
#else
  Vec v = {};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
#endif
}
inline void store_some(float* p, Vec v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (1u << n) - 1, __m512(v));
#else
  std::memcpy(p, &v, n * sizeof(float));
#endif
}
inline Vec spread(const float* p) {  // by way of integers: any 32 bits survive, NaN or not
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return Vec(IVec{} + bits);
}

inline Vec spread_quad(const float* p) {
#if defined(__AVX512F__)
  return Vec(_mm512_broadcast_f32x4(_mm_loadu_ps(p)));
#elif defined(__AVX2__)
  return Vec(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)));
#else
  Vec v;
  for (int i = 0; i < LANE / 4; ++i) std::memcpy(reinterpret_cast<char*>(&v) + i * 16, p, 16);
  return v;
#endif
}

// What one multiply-add of a lane is. Narrow numbers travel in 32-bit units: a unit holds two
// bf16, which are multiplied pairwise and added to one fp32 sum. To packing and indexing, a matrix
// of bf16 is thus a matrix of fp32 with half as many columns.
struct Fp32 {
  static Vec mac(Vec sum, Vec a, Vec b) { return sum + a * b; }
};
#if defined(__AVX512BF16__)
struct Bf16Pair {
  static Vec mac(Vec sum, Vec a, Vec b) {
    return Vec(_mm512_dpbf16_ps(__m512(sum), (__m512bh)(__m512(a)), (__m512bh)(__m512(b))));
  }
};
constexpr bool HAS_BF16 = true;
#else
constexpr bool HAS_BF16 = false;
#endif

#if defined(__AVX512VNNI__)
// Four entries in a unit: signed weights by unsigned inputs, summed in int32.
struct Int8Quad {
  static Vec mac(Vec sum, Vec weight, Vec x) {
    return Vec(_mm512_dpbusd_epi32(__m512i(sum), __m512i(x), __m512i(weight)));
  }
};
constexpr bool HAS_INT8 = true;
#else
constexpr bool HAS_INT8 = false;
#endif

// Zen 4 multiplies full registers in two goes, as it loads them.
inline bool has_full_registers() {
#if defined(__AVX512F__)
  static const bool full = !__builtin_cpu_is("amdfam19h");
  return full;
#else
  return false;
#endif
}

// Errors that a kernel can report; Python turns them into exceptions.
enum Status : int32_t { OK = 0, BAD_INDEX = 1, BAD_POINTER = 2, NOT_BUILT = 3, BAD_PLAN = 4 };

#if defined(__AVX512F__)
// Four vectors of four quarters each, transposed.
inline void transpose_quarters(Vec (&a)[4]) {
  const __m512 p = _mm512_shuffle_f32x4(__m512(a[0]), __m512(a[1]), 0x88);
  const __m512 q = _mm512_shuffle_f32x4(__m512(a[2]), __m512(a[3]), 0x88);
  const __m512 r = _mm512_shuffle_f32x4(__m512(a[0]), __m512(a[1]), 0xDD);
  const __m512 s = _mm512_shuffle_f32x4(__m512(a[2]), __m512(a[3]), 0xDD);
  a[0] = Vec(_mm512_shuffle_f32x4(p, q, 0x88));
  a[1] = Vec(_mm512_shuffle_f32x4(r, s, 0x88));
  a[2] = Vec(_mm512_shuffle_f32x4(p, q, 0xDD));
  a[3] = Vec(_mm512_shuffle_f32x4(r, s, 0xDD));
}
#endif

// Transpose LANE x LANE numbers in registers.
inline void transpose(Vec (&a)[LANE]) {
#if defined(__AVX512F__)
  auto pairs = [](Vec x, Vec y, auto which) {
    return which ? Vec(_mm512_unpackhi_ps(__m512(x), __m512(y))) : Vec(_mm512_unpacklo_ps(__m512(x), __m512(y)));
  };
  auto twos = [](Vec x, Vec y, auto which) {
    const __m512d p = _mm512_castps_pd(__m512(x)), q = _mm512_castps_pd(__m512(y));
    return Vec(_mm512_castpd_ps(which ? _mm512_unpackhi_pd(p, q) : _mm512_unpacklo_pd(p, q)));
  };
  const std::false_type low{};
  const std::true_type high{};
  Vec t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = pairs(a[i], a[i + 1], low);
    t[i + 1] = pairs(a[i], a[i + 1], high);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = twos(t[i + j], t[i + j + 2], low);
      u[i + 2 * j + 1] = twos(t[i + j], t[i + j + 2], high);
    }
  for (int j = 0; j < 4; ++j) {  // u[4 i + j]: columns j, 4 + j, 8 + j and 12 + j of rows 4 i..4 i + 3
    Vec q[4] = {u[j], u[4 + j], u[8 + j], u[12 + j]};
    transpose_quarters(q);
    for (int i = 0; i < 4; ++i) a[4 * i + j] = q[i];
  }
#else
  IVec low, high;
  for (int i = 0; i < LANE; ++i) {
    low[i] = i / 2 + (i % 2) * LANE;
    high[i] = low[i] + LANE / 2;
  }
  for (int stage = 1; stage < LANE; stage *= 2) {
    Vec b[LANE];
    for (int i = 0; i < LANE / 2; ++i) {
      b[2 * i] = __builtin_shuffle(a[i], a[i + LANE / 2], low);
      b[2 * i + 1] = __builtin_shuffle(a[i], a[i + LANE / 2], high);
    }
    for (int i = 0; i < LANE; ++i) a[i] = b[i];
  }
#endif
}

// Lane 4 g + i of the result is the sum over the four lanes of group g of the i-th argument.
inline Vec sums_in_quads(Vec a0, Vec a1, Vec a2, Vec a3) {
  IVec even, odd;
  for (int l = 0; l < LANE; ++l) {
    const int g = l / 4 * 4, i = l % 4;
    even[l] = g + i % 2 * 2 + (i / 2) * LANE;  // lanes 0 and 2 of both arguments
    odd[l] = even[l] + 1;
  }
  const Vec a = __builtin_shuffle(a0, a1, even) + __builtin_shuffle(a0, a1, odd);
  const Vec b = __builtin_shuffle(a2, a3, even) + __builtin_shuffle(a2, a3, odd);
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}
