// The two layouts in which a tile of 64 samples is multiplied.
//
// features: [feature][64 samples]        a weight multiplies whole vectors of samples
// quads:    [feature / 4][sample][4]     outer products of 4 by 4 features, summed over samples
#pragma once

#include "vector.h"

// Rows x[sample][feature] of one tile -> features layout; samples from n_sample on are zero, and so
// are features from n_feature to n_padded.
inline void pack_features(const float* x, int64_t stride, int n_sample, int64_t n_feature,
                          int64_t n_padded, float* out) {
  const int64_t n_whole = n_feature / LANE * LANE;
  // LANE samples along their whole length: memory sees LANE sequential streams.
  for (int s0 = 0; s0 < TILE; s0 += LANE) {
    for (int64_t f = 0; f < n_whole; f += LANE) {
      Vec a[LANE];
      for (int i = 0; i < LANE; ++i)
        a[i] = s0 + i < n_sample ? load(x + (s0 + i) * stride + f) : Vec{};
      transpose(a);
      for (int i = 0; i < LANE; ++i) store(out + (f + i) * TILE + s0, a[i]);
    }
  }
  for (int64_t f = n_whole; f < n_feature; ++f)
    for (int s = 0; s < TILE; ++s) out[f * TILE + s] = s < n_sample ? x[s * stride + f] : 0.0f;
  std::memset(out + n_feature * TILE, 0, (n_padded - n_feature) * TILE * sizeof(float));
}

inline void write(float* to, Vec v) { store(to, v); }
inline void write_one(float* to, float v) { *to = v; }

// bf16, rounded to nearest even.
inline void write_one(uint16_t* to, float v) {
  uint32_t b;
  std::memcpy(&b, &v, 4);
  *to = v == v ? uint16_t((b + 0x7FFF + ((b >> 16) & 1)) >> 16) : uint16_t((b >> 16) | 0x40);
}
inline void write(uint16_t* to, Vec v) {
#if defined(__AVX512BF16__)
  const __m256bh h = _mm512_cvtneps_pbh(__m512(v));
  std::memcpy(to, &h, sizeof h);
#else
  for (int i = 0; i < LANE; ++i) write_one(to + i, v[i]);
#endif
}

// The way back, for features first..last-1 of y[sample][feature].
template <class Out>
void unpack_features(const float* in, int64_t first, int64_t last, int n_sample, Out* y,
                     int64_t stride) {
  const int64_t whole = first + (last - first) / LANE * LANE;
  for (int s0 = 0; s0 < n_sample; s0 += LANE) {
    for (int64_t f = first; f < whole; f += LANE) {
      Vec a[LANE];
      for (int i = 0; i < LANE; ++i) a[i] = load(in + (f + i) * TILE + s0);
      transpose(a);
      for (int i = 0; i < LANE && s0 + i < n_sample; ++i) write(y + (s0 + i) * stride + f, a[i]);
    }
  }
  for (int64_t f = whole; f < last; ++f)
    for (int s = 0; s < n_sample; ++s) write_one(y + s * stride + f, in[f * TILE + s]);
}

// STEP x STEP quads in registers, transposed: from STEP samples of LANE features to STEP quads of
// STEP samples.
constexpr int STEP = LANE / 4;
inline void transpose_quads(Vec (&a)[STEP]) {
  IVec low, high;
  for (int i = 0; i < LANE; ++i) {
    const int q = i / 4;
    low[i] = (q / 2) * 4 + i % 4 + (q % 2) * LANE;
    high[i] = low[i] + LANE / 2;
  }
  for (int stage = 1; stage < STEP; stage *= 2) {
    Vec b[STEP];
    for (int i = 0; i < STEP / 2; ++i) {
      b[2 * i] = __builtin_shuffle(a[i], a[i + STEP / 2], low);
      b[2 * i + 1] = __builtin_shuffle(a[i], a[i + STEP / 2], high);
    }
    for (int i = 0; i < STEP; ++i) a[i] = b[i];
  }
}

// Rows x[sample][feature], features first..last-1, of n_slot >= n_sample samples -> quads layout;
// the last quad is padded with zeros.
inline void pack_quads(const float* x, int64_t stride, int n_sample, int n_slot, int64_t first,
                       int64_t last, float* out) {
  const int64_t n_whole = (last - first) / LANE * LANE;
  x += first;
  // Sixteen samples along their whole length, for the sake of sequential streams as above.
  for (int s1 = 0; s1 < n_slot; s1 += 16) {
    for (int64_t f = 0; f < n_whole; f += LANE) {
      for (int s0 = s1; s0 < s1 + 16; s0 += STEP) {
        Vec a[STEP];
        for (int i = 0; i < STEP; ++i)
          a[i] = s0 + i < n_sample ? load(x + (s0 + i) * stride + f) : Vec{};
        transpose_quads(a);
        for (int i = 0; i < STEP; ++i) store(out + ((f / 4 + i) * n_slot + s0) * 4, a[i]);
      }
    }
  }
  for (int64_t f = n_whole; f < last - first; f += 4)
    for (int s = 0; s < n_slot; ++s)
      for (int i = 0; i < 4; ++i)
        out[(f / 4 * n_slot + s) * 4 + i] =
            s < n_sample && f + i < last - first ? x[s * stride + f + i] : 0.0f;
}

// The way back from quads, for features first..last-1 (first a multiple of LANE or of a quad).
inline void unpack_quads(const float* in, int n_slot, int64_t first, int64_t last, int n_sample,
                         float* y, int64_t stride) {
  const int64_t whole = first + (last - first) / LANE * LANE;
  for (int s0 = 0; s0 < n_sample; s0 += STEP)
    for (int64_t f = first; f < whole; f += LANE) {
      Vec a[STEP];
      for (int i = 0; i < STEP; ++i) a[i] = load(in + ((f / 4 + i) * n_slot + s0) * 4);
      transpose_quads(a);
      for (int i = 0; i < STEP && s0 + i < n_sample; ++i) store(y + (s0 + i) * stride + f, a[i]);
    }
  for (int64_t f = whole; f < last; ++f)
    for (int s = 0; s < n_sample; ++s) y[s * stride + f] = in[(f / 4 * n_slot + s) * 4 + f % 4];
}

#if defined(__AVX512BF16__)
// Rows of bf16 -> quads of units that hold samples 2i and 2i + 1 of one feature.
inline void pack_quads(const uint16_t* x, int64_t stride, int n_sample, int n_slot, int64_t first,
                       int64_t last, float* out) {
  const int64_t n_whole = (last - first) / 16 * 16;
  x += first;
  // Unit i of the result: feature i of the even and of the odd sample.
  auto units = [&](int pair, int64_t f) {
    const __m256i none = _mm256_setzero_si256();
    const int s = 2 * pair;
    const uint16_t* from = x + s * stride + f;
    const __m256i even = s < n_sample ? _mm256_loadu_si256((const __m256i*)from) : none;
    const __m256i odd = s + 1 < n_sample ? _mm256_loadu_si256((const __m256i*)(from + stride)) : none;
    return Vec(_mm512_or_si512(_mm512_cvtepu16_epi32(even),
                               _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)));
  };
  for (int p1 = 0; p1 < n_slot; p1 += 16)
    for (int64_t f = 0; f < n_whole; f += 16)
      for (int p0 = p1; p0 < p1 + 16; p0 += STEP) {
        Vec a[STEP];
        for (int i = 0; i < STEP; ++i) a[i] = units(p0 + i, f);
        transpose_quads(a);
        for (int i = 0; i < STEP; ++i) store(out + ((f / 4 + i) * n_slot + p0) * 4, a[i]);
      }
  uint16_t* halves = reinterpret_cast<uint16_t*>(out);
  for (int64_t f = n_whole; f < last - first; f += 4)
    for (int s = 0; s < 2 * n_slot; ++s)
      for (int i = 0; i < 4; ++i)
        halves[((f / 4 * n_slot + s / 2) * 4 + i) * 2 + s % 2] =
            s < n_sample && f + i < last - first ? x[s * stride + f + i] : 0;
}
#endif
