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
  int64_t f = 0;
  for (; f + LANE <= n_feature; f += LANE) {
    for (int part = 0; part < PART; ++part) {
      Vec a[LANE];
      for (int i = 0; i < LANE; ++i) {
        const int sample = part * LANE + i;
        a[i] = sample < n_sample ? load(x + sample * stride + f) : Vec{};
      }
      transpose(a);
      for (int i = 0; i < LANE; ++i) store(out + (f + i) * TILE + part * LANE, a[i]);
    }
  }
  for (; f < n_feature; ++f)
    for (int s = 0; s < TILE; ++s) out[f * TILE + s] = s < n_sample ? x[s * stride + f] : 0.0f;
  std::memset(out + n_feature * TILE, 0, (n_padded - n_feature) * TILE * sizeof(float));
}

// The way back, for features first..last-1 of y[sample][feature].
inline void unpack_features(const float* in, int64_t first, int64_t last, int n_sample, float* y,
                            int64_t stride) {
  int64_t f = first;
  for (; f + LANE <= last; f += LANE) {
    for (int part = 0; part < PART; ++part) {
      Vec a[LANE];
      for (int i = 0; i < LANE; ++i) a[i] = load(in + (f + i) * TILE + part * LANE);
      transpose(a);
      for (int i = 0; i < LANE; ++i) {
        const int sample = part * LANE + i;
        if (sample < n_sample) store(y + sample * stride + f, a[i]);
      }
    }
  }
  for (; f < last; ++f)
    for (int s = 0; s < n_sample; ++s) y[s * stride + f] = in[f * TILE + s];
}

// Rows x[sample][feature], features first..last-1, of n_slot >= n_sample samples -> quads layout;
// first is a multiple of 4, the last quad is padded with zeros.
inline void pack_quads(const float* x, int64_t stride, int n_sample, int n_slot, int64_t first,
                       int64_t last, float* out) {
  // Sixteen quads at a time: each sample then gives one full stretch of 256 byte to the cache.
  for (int64_t f0 = first; f0 < last; f0 += 64) {
    const int64_t f1 = f0 + 64 < last ? f0 + 64 : last;
    for (int s = 0; s < n_slot; ++s) {
      for (int64_t f = f0; f < f1; f += 4) {
        float* to = out + ((f - first) / 4 * n_slot + s) * 4;
        Quad q{};
        if (s < n_sample) {
          const float* from = x + s * stride + f;
          if (f + 4 <= last)
            q = *reinterpret_cast<const QuadAny*>(from);
          else
            for (int64_t i = 0; i < last - f; ++i) q[i] = from[i];
        }
        *reinterpret_cast<QuadAny*>(to) = q;
      }
    }
  }
}
