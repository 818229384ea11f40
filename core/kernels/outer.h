// Outer products summed over the samples of a tile.
//
// Blocks whose sides are multiples of four are cut into 4 x 4 outer products. In the quads layout a
// vector holds the same four features of LANE / 4 samples; spreading one feature of dy inside each
// group of four lanes and multiplying by x adds a row of the outer product for all these samples at
// once. Other blocks take dot products over samples, sixteen entries of a row at a time.

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
  float total[16];
  store(total, fold(fold(a0, a1), fold(a2, a3)));
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

// One quad of rows by N quads of columns: out[n] += dy^T x, 4 x 4 entries each.
template <class Number, int N, int SLOT>
inline void outer_quads(const float* dy, const float* const (&x)[4], float* const (&out)[4],
                        int bc) {
  Vec sum[4][N] = {};
  for (int s = 0; s < SLOT; s += STEP) {
    const Vec d = load(dy + s * 4);
    const Vec row[4] = {spread_feature<0>(d), spread_feature<1>(d), spread_feature<2>(d),
                        spread_feature<3>(d)};
    for (int n = 0; n < N; ++n) {
      const Vec v = load(x[n] + s * 4);
      for (int r = 0; r < 4; ++r) sum[r][n] = Number::mac(sum[r][n], row[r], v);
    }
  }
  for (int n = 0; n < N; ++n)
    add_sums_over_groups(sum[0][n], sum[1][n], sum[2][n], sum[3][n], out[n], bc);
}

// Live blocks first..last-1, all of one block row, with both sides multiples of four.
template <class Number, int SLOT>
void row_of_quads(const Places& s, int64_t first, int64_t last, const float* dy, const float* x,
                  float* out) {
  constexpr int MOST = LANE == 16 ? 4 : 2;  // 4 * MOST sums in registers
  const int n_across = s.bc / 4;
  for (int64_t k0 = first; k0 < last;) {
    // A group is MOST quads of columns out of one wide block or out of several narrow ones.
    const int n_k = n_across >= MOST ? 1 : int(last - k0 < MOST / n_across ? last - k0 : MOST / n_across);
    for (int down = 0; down < s.br / 4; ++down) {
      const float* from_dy = dy + int64_t(down) * SLOT * 4;
      for (int a0 = 0; a0 < n_across; a0 += MOST) {
        const float* from[4] = {};
        float* to[4] = {};
        int n = 0;
        for (int k = 0; k < n_k; ++k)
          for (int a = a0; a < n_across && a < a0 + MOST; ++a, ++n) {
            from[n] = x + (int64_t(s.col_index[k0 + k]) * n_across + a) * SLOT * 4;
            to[n] = out + ((k0 + k) * s.br + down * 4) * s.bc + a * 4;
          }
        switch (n) {
          case 4: outer_quads<Number, 4, SLOT>(from_dy, from, to, s.bc); break;
          case 3: outer_quads<Number, 3, SLOT>(from_dy, from, to, s.bc); break;
          case 2: outer_quads<Number, 2, SLOT>(from_dy, from, to, s.bc); break;
          default: outer_quads<Number, 1, SLOT>(from_dy, from, to, s.bc);
        }
      }
    }
    k0 += n_k;
  }
}

// LANE entries of one row: to[n] += sum over one tile of dy x, both in the features layout.
inline void dot_products(const Vec (&dy)[PART], const float* x, const int32_t* column,
                         float* const* to) {
  Vec sum[LANE];
  for (int n = 0; n < LANE; ++n) {
    const float* from = x + int64_t(column[n]) * TILE;
    sum[n] = dy[0] * load(from);
    for (int j = 1; j < PART; ++j) sum[n] += dy[j] * load(from + j * LANE);
  }
  const Vec total = sums_of_lanes(sum);
  if (to[LANE - 1] == to[0] + LANE - 1)
    store(to[0], load(to[0]) + total);
  else
    for (int n = 0; n < LANE; ++n) *to[n] += total[n];
}

inline void row_of_entries(const Places& s, int64_t first, int64_t last, const float* dy, const float* x,
                    float* out) {
  for (int r = 0; r < s.br; ++r) {
    Vec d[PART];
    for (int j = 0; j < PART; ++j) d[j] = load(dy + r * TILE + j * LANE);
    int32_t column[LANE] = {};
    float *to[LANE], spare;
    int n = 0;
    for (int64_t k = first; k < last; ++k)
      for (int c = 0; c < s.bc; ++c) {
        column[n] = s.col_index[k] * s.bc + c;
        to[n] = out + (k * s.br + r) * s.bc + c;
        if (++n == LANE) {
          dot_products(d, x, column, to);
          n = 0;
        }
      }
    if (!n) continue;
    for (int i = n; i < LANE; ++i) to[i] = &spare;  // repeats of valid columns, thrown away
    spare = 0;
    dot_products(d, x, column, to);
  }
}

}  // namespace
