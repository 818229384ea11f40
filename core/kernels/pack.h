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

// The way back, for features first..last-1 of y[sample][feature].
inline void unpack_features(const float* in, int64_t first, int64_t last, int n_sample, float* y,
                            int64_t stride) {
  const int64_t whole = first + (last - first) / LANE * LANE;
  for (int s0 = 0; s0 < n_sample; s0 += LANE) {
    for (int64_t f = first; f < whole; f += LANE) {
      Vec a[LANE];
      for (int i = 0; i < LANE; ++i) a[i] = load(in + (f + i) * TILE + s0);
      transpose(a);
      for (int i = 0; i < LANE && s0 + i < n_sample; ++i) store(y + (s0 + i) * stride + f, a[i]);
    }
  }
  for (int64_t f = whole; f < last; ++f)
    for (int s = 0; s < n_sample; ++s) y[s * stride + f] = in[f * TILE + s];
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
