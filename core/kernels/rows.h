// Rows of fp32 or bf16 numbers, read and written as vectors of fp32.
#pragma once

#include "vector.h"

#define UNROLL _Pragma("GCC unroll 8")

typedef uint16_t Half __attribute__((vector_size(LANE * 2)));
typedef Half HalfAny __attribute__((aligned(2), may_alias));

inline Vec widen(const float* p) { return load(p); }
inline Vec widen(const uint16_t* p) {
  return Vec(__builtin_convertvector(*reinterpret_cast<const HalfAny*>(p), IVec) << 16);
}
inline void narrow(float* p, Vec v) { store(p, v); }
inline void narrow(uint16_t* p, Vec v) {  // to nearest even; a NaN stays one
  const IVec bits = IVec(v);
  const IVec rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  *reinterpret_cast<HalfAny*>(p) = __builtin_convertvector(v == v ? rounded : bits >> 16 | 64, Half);
}

// A whole vector, or at the end of a row its first n lanes (and zeros). The two are two types, so
// that loops over whole vectors hold nothing else and keep their sums in registers.
struct Whole {};
template <class Number>
inline Vec take(const Number* p, Whole) {
  return widen(p);
}
template <class Number>
inline Vec take(const Number* p, int n) {
  Number part[LANE] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return widen(part);
}
template <class Number>
inline void put(Number* p, Vec v, Whole) {
  narrow(p, v);
}
template <class Number>
inline void put(Number* p, Vec v, int n) {
  Number part[LANE];
  narrow(part, v);
  for (int i = 0; i < n; ++i) p[i] = part[i];
}

// Asks for WIDE vectors that are needed a little later.
template <int WIDE, class Number>
inline void foresee(const Number* row) {
  for (int j = 0; j < WIDE; ++j) __builtin_prefetch(row + j * LANE);
}

// Calls step(width, first feature, lanes) on panels of MOST vectors, 8 or 4, then of 4, and one of
// up to 3.
template <int MOST = 8, class Step>
inline void for_panels(int64_t n_feature, const Step& step) {
  int64_t f = 0;
  if constexpr (MOST == 8)
    for (; f + 8 * LANE <= n_feature; f += 8 * LANE) step(std::integral_constant<int, 8>(), f, Whole());
  for (; f + 4 * LANE <= n_feature; f += 4 * LANE) step(std::integral_constant<int, 4>(), f, Whole());
  const int64_t n_left = (n_feature - f) / LANE;
  if (n_left == 3) step(std::integral_constant<int, 3>(), f, Whole());
  if (n_left == 2) step(std::integral_constant<int, 2>(), f, Whole());
  if (n_left == 1) step(std::integral_constant<int, 1>(), f, Whole());
  f += n_left * LANE;
  if (f < n_feature) step(std::integral_constant<int, 1>(), f, int(n_feature - f));
}
