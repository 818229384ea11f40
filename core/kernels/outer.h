// Outer products summed over the samples of a tile.
//
// Blocks whose sides are multiples of four are cut into 4 x 4 outer products. In the quads layout a
// vector holds the same four features of LANE / 4 samples; spreading one feature of dy inside each
// group of four lanes and multiplying by x adds a row of the outer product for all these samples at
// once.

#pragma once

#include "pack.h"

namespace {

struct Places {
  const int32_t* row_index;
  const int32_t* col_index;
  int br, bc;
};

template <int LANE_OF_FOUR>
inline Vec spread_feature(Vec v) {
  IVec pick;
  for (int i = 0; i < LANE; ++i) pick[i] = i / 4 * 4 + LANE_OF_FOUR;
  return __builtin_shuffle(v, pick);
}

// out[r] += the sum of row r over the groups of four lanes, for four rows `bc` apart.
inline void add_sums_over_groups(Vec a0, Vec a1, Vec a2, Vec a3, float* out, int bc) {
#if defined(__AVX512F__)
  // Two trees of shuffles at once: lane 4 r + c of the total is entry c of row r.
  auto fold = [](Vec a, Vec b) {
    return Vec(_mm512_shuffle_f32x4(__m512(a), __m512(b), 0x88)) +
           Vec(_mm512_shuffle_f32x4(__m512(a), __m512(b), 0xDD));
  };
  const Vec sums = fold(fold(a0, a1), fold(a2, a3));
  if (bc == 4) return store(out, load(out) + sums);
  float total[16];
  store(total, sums);
  for (int r = 0; r < 4; ++r) {
    QuadAny* to = reinterpret_cast<QuadAny*>(out + r * bc);
    *to += *reinterpret_cast<QuadAny*>(total + 4 * r);
  }
#else
  const Vec all[4] = {a0, a1, a2, a3};
  for (int r = 0; r < 4; ++r) {
    Quad group[STEP];
    std::memcpy(group, &all[r], sizeof all[r]);
    QuadAny* to = reinterpret_cast<QuadAny*>(out + r * bc);
    for (int g = 0; g < STEP; ++g) *to += group[g];
  }
#endif
}

// Four quads of columns, which lie side by side in memory where they can: out[n] += 4 x 4 entries.
inline void add_four_quads(Vec (&sum)[4][4], float* const (&out)[4], int bc) {
#if defined(__AVX512F__)
  auto fold = [](Vec a, Vec b) {
    return Vec(_mm512_shuffle_f32x4(__m512(a), __m512(b), 0x88)) +
           Vec(_mm512_shuffle_f32x4(__m512(a), __m512(b), 0xDD));
  };
  if (bc >= 8) {  // one wide block, or two of width eight: rows of sixteen or of twice eight entries
    const bool is_row = out[2] == out[0] + 8;
    for (int r = 0; r < 4; ++r) {
      const Vec row = fold(fold(sum[r][0], sum[r][1]), fold(sum[r][2], sum[r][3]));
      float *low = out[0] + r * bc, *high = out[2] + r * bc;
      if (is_row) {
        store(low, load(low) + row);
      } else {
        const __m256 a = _mm512_castps512_ps256(__m512(row)), b = _mm512_extractf32x8_ps(__m512(row), 1);
        _mm256_storeu_ps(low, _mm256_add_ps(_mm256_loadu_ps(low), a));
        _mm256_storeu_ps(high, _mm256_add_ps(_mm256_loadu_ps(high), b));
      }
    }
    return;
  }
#endif
  for (int n = 0; n < 4; ++n) add_sums_over_groups(sum[0][n], sum[1][n], sum[2][n], sum[3][n], out[n], bc);
}

// One quad of rows by N quads of columns: out[n] += dy^T x, 4 x 4 entries each.
template <class Number, int N>
inline void outer_quads(const float* dy, const float* const (&x)[4], float* const (&out)[4],
                        int bc, int slot) {
  Vec sum[4][N] = {};
  for (int s = 0; s < slot; s += STEP) {
    const Vec d = load(dy + s * 4);
    const Vec row[4] = {spread_feature<0>(d), spread_feature<1>(d), spread_feature<2>(d),
                        spread_feature<3>(d)};
    for (int n = 0; n < N; ++n) {
      const Vec v = load(x[n] + s * 4);
      for (int r = 0; r < 4; ++r) sum[r][n] = Number::mac(sum[r][n], row[r], v);
    }
  }
  if constexpr (N == 4)
    add_four_quads(sum, out, bc);
  else
    for (int n = 0; n < N; ++n)
      add_sums_over_groups(sum[0][n], sum[1][n], sum[2][n], sum[3][n], out[n], bc);
}

// Live blocks first..last-1, all of one block row, with both sides multiples of four.
template <class Number>
void row_of_quads(const Places& s, int64_t first, int64_t last, int slot, const float* dy,
                  const float* x, float* out, Ahead& ahead, int64_t n_ahead) {
  constexpr int MOST = LANE == 16 ? 4 : 2;  // 4 * MOST sums in registers
  const int n_across = s.bc / 4;
  for (int64_t k0 = first; k0 < last;) {
    // A group is MOST quads of columns out of one wide block or out of several narrow ones.
    const int n_k = n_across >= MOST ? 1 : int(last - k0 < MOST / n_across ? last - k0 : MOST / n_across);
    ahead.fetch(n_k * n_ahead);
    for (int down = 0; down < s.br / 4; ++down) {
      const float* from_dy = dy + int64_t(down) * slot * 4;
      for (int a0 = 0; a0 < n_across; a0 += MOST) {
        const float* from[4] = {};
        float* to[4] = {};
        int n = 0;
        for (int k = 0; k < n_k; ++k)
          for (int a = a0; a < n_across && a < a0 + MOST; ++a, ++n) {
            from[n] = x + (int64_t(s.col_index[k0 + k]) * n_across + a) * slot * 4;
            to[n] = out + ((k0 + k) * s.br + down * 4) * s.bc + a * 4;
          }
        switch (n) {
          case 4: outer_quads<Number, 4>(from_dy, from, to, s.bc, slot); break;
          case 3: outer_quads<Number, 3>(from_dy, from, to, s.bc, slot); break;
          case 2: outer_quads<Number, 2>(from_dy, from, to, s.bc, slot); break;
          default: outer_quads<Number, 1>(from_dy, from, to, s.bc, slot);
        }
      }
    }
    k0 += n_k;
  }
}

}  // namespace
