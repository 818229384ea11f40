// fp32 products on cores that multiply full registers and load as many numbers as they multiply.
//
// There a weight spread over a vector costs nothing beside the product, where four weights, as the quads
// layout spreads them, take a part of the unit that multiplies. So forward pass and input gradient read
// the features layout, in which sums need not be added across lanes, and the weight gradient spreads
// entries of dy from the same layout over a grouped one of x:
//
// groups:   [feature / F][sample / G][F][G samples], F = 4, 8 or 16 columns of a block, G = 16 / F
#pragma once

#include "product.h"

#if defined(__AVX512F__)
namespace {

// The blocks of S in row order; or with `order` those of its transpose, each of which lies untransposed at
// its place of the values.
struct Blocks {
  const float* values;
  const int32_t* order;
};

// Rows r0..r0+ROW-1 of block row i by WIDE vectors of samples; x and y begin with the first of these. EDGE is the
// side of square blocks and SLOT the samples of a tile, or 0. With FETCHED values are asked for ahead: small
// layers, whose values the second-level cache holds, lose a tenth by that.
template <int EDGE, int SLOT, int ROW, int WIDE, bool TURNED, bool FETCHED>
__attribute__((noinline)) void multiply_strip(const Pattern& s, const Blocks& blocks, int64_t i, int r0, int n_slot,
                                              const float* x, float* y) {
  const int slot = SLOT ? SLOT : n_slot, br = EDGE ? EDGE : s.br, bc = EDGE ? EDGE : s.bc;
  const int64_t size = int64_t(br) * bc, e = s.row_ptr[i + 1];
  constexpr int FAR_BLOCK = EDGE == 4 ? 32 : EDGE == 8 ? 8 : 4;  // from this block to the one asked for
  auto block = [&](int64_t k) { return blocks.values + (TURNED ? int64_t(blocks.order[k]) : k) * size; };
  Vec sum[ROW][WIDE];
  for (int r = 0; r < ROW; ++r)  // a list of zeros would be written to memory
    for (int j = 0; j < WIDE; ++j) sum[r][j] = Vec{};
  for (int64_t k = s.row_ptr[i]; k < e; ++k) {
    const float* from = x + int64_t(s.col_index[k]) * bc * slot;
    const float* weight = block(k) + (TURNED ? r0 : r0 * bc);
    if (FETCHED && k + FAR_BLOCK < s.n_block) {
      const float* next = block(k + FAR_BLOCK);
      for (int64_t line = 0; line < size; line += LANE) __builtin_prefetch(next + line);
    }
    for (int c = 0; c < bc; ++c) {
      Vec v[WIDE];
      for (int j = 0; j < WIDE; ++j) v[j] = load(from + c * slot + j * LANE);
      for (int r = 0; r < ROW; ++r) {
        const Vec w = spread(weight + (TURNED ? c * br + r : r * bc + c));
        for (int j = 0; j < WIDE; ++j) sum[r][j] += w * v[j];
      }
    }
  }
  for (int r = 0; r < ROW; ++r)
    for (int j = 0; j < WIDE; ++j) store(y + (r0 + r) * slot + j * LANE, sum[r][j]);
}

// `y` begins with block row `first`. Registers: ROW * WIDE = 16 sums, WIDE inputs and one weight.
template <int EDGE, int SLOT, int ROW, bool TURNED, bool FETCHED>
void multiply_strips(const Pattern& s, const Blocks& blocks, int64_t first, int64_t last, int slot, const float* x,
                     float* y, Ahead& ahead, int64_t n_ahead, Lines<true>& outputs, int64_t n_output) {
  constexpr int WIDE = 16 / ROW;
  for (int64_t i = first; i < last; ++i, y += s.br * slot)
    for (int s0 = 0; s0 < slot;) {
      auto rows = [&](auto wide) {
        constexpr int N = decltype(wide)::value;
        for (int r0 = 0; r0 < s.br; r0 += ROW) {
          ahead.fetch(n_ahead);
          outputs.fetch(n_output);
          if (FETCHED && s0 == 0 && r0 == 0)
            multiply_strip<EDGE, SLOT, ROW, N, TURNED, true>(s, blocks, i, r0, slot, x + s0, y + s0);
          else
            multiply_strip<EDGE, SLOT, ROW, N, TURNED, false>(s, blocks, i, r0, slot, x + s0, y + s0);
        }
        s0 += N * LANE;
      };
      if (slot - s0 >= WIDE * LANE)
        rows(std::integral_constant<int, WIDE>());
      else if (slot - s0 >= 2 * LANE)
        rows(std::integral_constant<int, 2>());
      else
        rows(std::integral_constant<int, 1>());
    }
}

template <int SLOT, bool TURNED, bool FETCHED>
auto strips_kernel(int br, int bc) {
  const int edge = br == bc ? br : 0;
  return edge == 16    ? multiply_strips<16, SLOT, 8, TURNED, FETCHED>
         : edge == 8   ? multiply_strips<8, SLOT, 8, TURNED, FETCHED>
         : edge == 4   ? multiply_strips<4, SLOT, 4, TURNED, FETCHED>
         : br % 8 == 0 ? multiply_strips<0, SLOT, 8, TURNED, FETCHED>
                       : multiply_strips<0, SLOT, 4, TURNED, FETCHED>;
}

// Products in the features layout.
struct Strips {
  explicit Strips(const Pattern& s, const int32_t* order = nullptr) : s(s), order(order), step(rows_of_section(s.br)) {
    const bool is_large = s.n_block * s.br * s.bc > 1 << 17;
    auto pick = [&](auto slot) {
      constexpr int SLOT = decltype(slot)::value;
      return order      ? strips_kernel<SLOT, true, true>(s.br, s.bc)
             : is_large ? strips_kernel<SLOT, false, true>(s.br, s.bc)
                        : strips_kernel<SLOT, false, false>(s.br, s.bc);
    };
    run_tile = pick(std::integral_constant<int, TILE>());
    run_any = pick(std::integral_constant<int, 0>());
  }
  int64_t room(int slot) const { return step * s.br * slot; }
  int64_t n_fetch(int64_t first, int64_t last, int slot) const {
    const int row = s.br % 8 ? 4 : 8, wide = 16 / row * LANE;
    return (last - first) * (s.br / row) * ((slot + wide - 1) / wide);
  }
  void pack(const float* x, int64_t stride, int n_sample, int slot, int64_t n_feature, float* out) const {
    pack_features(x, stride, n_sample, slot, n_feature, s.n_col * s.bc, out);
  }
  template <class Finish>
  void unpack(const float* in, int slot, int64_t n, int n_sample, float* y, int64_t stride, const Finish& finish) const {
    unpack_features(in, slot, n, n_sample, y, stride, finish);
  }
  void multiply(const float* values, int64_t first, int64_t last, const float* in, int slot, float* room,
                int n_sample, float* y, int64_t rows, const float* bias, Ahead ahead) const {
    const auto run = slot == TILE ? run_tile : run_any;
    multiply_sections(*this, first, last, slot, room, n_sample, y, rows, bias, ahead,
                      [&](int64_t i, int64_t end, Ahead& ahead, int64_t n_ahead, Lines<true>& outputs, int64_t n_output) {
                        run(s, {values, order}, i, end, slot, in, room, ahead, n_ahead, outputs, n_output);
                      });
  }
  Pattern s;
  const int32_t* order;
  decltype(strips_kernel<0, false, false>(0, 0)) run_tile, run_any;
  int64_t step;
};

// Columns in a group, for blocks of bc columns.
inline int group_of(int bc) { return bc % 16 == 0 ? 16 : bc % 8 == 0 ? 8 : 4; }

// Four rows of sixteen features, brought into the order of groups.
template <int F>
inline void group(Vec (&a)[4]) {
  if constexpr (F == 8) {  // features 0 to 7 of two samples, features 8 to 15
    const __m512i low = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
    for (int i = 0; i < 4; i += 2) {
      const __m512d p = _mm512_castps_pd(_mm512_unpacklo_ps(__m512(a[i]), __m512(a[i + 1])));
      const __m512d q = _mm512_castps_pd(_mm512_unpackhi_ps(__m512(a[i]), __m512(a[i + 1])));
      a[i] = Vec(_mm512_castpd_ps(_mm512_permutex2var_pd(p, low, q)));
      a[i + 1] = Vec(_mm512_castpd_ps(_mm512_permutex2var_pd(p, high, q)));
    }
  } else if constexpr (F == 4) {
    const __m512d p = _mm512_castps_pd(_mm512_unpacklo_ps(__m512(a[0]), __m512(a[1])));
    const __m512d q = _mm512_castps_pd(_mm512_unpackhi_ps(__m512(a[0]), __m512(a[1])));
    const __m512d r = _mm512_castps_pd(_mm512_unpacklo_ps(__m512(a[2]), __m512(a[3])));
    const __m512d t = _mm512_castps_pd(_mm512_unpackhi_ps(__m512(a[2]), __m512(a[3])));
    a[0] = Vec(_mm512_castpd_ps(_mm512_unpacklo_pd(p, r)));
    a[1] = Vec(_mm512_castpd_ps(_mm512_unpackhi_pd(p, r)));
    a[2] = Vec(_mm512_castpd_ps(_mm512_unpacklo_pd(q, t)));
    a[3] = Vec(_mm512_castpd_ps(_mm512_unpackhi_pd(q, t)));
    transpose_quarters(a);
  }
}

// Rows x[sample][feature] of one tile -> groups, up to a multiple of sixteen features.
template <int F>
void pack_groups(const float* x, int64_t stride, int n_sample, int n_slot, int64_t n_feature,
                 int64_t n_padded, float* out) {
  constexpr int G = 16 / F;
  for_stretches(n_padded, n_slot, 4, [&](int s0, int64_t begin, int64_t end) {
    const float* row = x + s0 * stride;
    for (int64_t f = begin; f < end; f += LANE) {
      const int64_t n = n_feature - f;
      Vec a[4];
      if (n >= LANE && s0 + 4 <= n_sample) {
        for (int i = 0; i < 4; ++i) a[i] = load(row + i * stride + f);
      } else {
        const __mmask16 live = n >= LANE ? 0xFFFF : n > 0 ? (1u << n) - 1 : 0;
        for (int i = 0; i < 4; ++i)
          a[i] = Vec(_mm512_maskz_loadu_ps(s0 + i < n_sample ? live : 0, row + i * stride + f));
      }
      group<F>(a);
      // Vector i has group i % G of sixteen features, samples i / G * G and those after it.
      for (int i = 0; i < 4; ++i)
        store(out + (f + i % G * F) * n_slot + (s0 + i / G * G) * F, a[i]);
    }
  });
}

// G entries of dy that are neighbours in memory, each spread over the F columns that it multiplies.
template <int F>
inline Vec spread_samples(const float* p) {
  if constexpr (F == 16) return spread(p);
  if constexpr (F == 4) return spread_quad(p);
  double both;
  std::memcpy(&both, p, 8);
  return Vec(_mm512_castpd_ps(_mm512_set1_pd(both)));
}

inline void add_quarters(float* out, int bc, Vec v) {
  alignas(64) float part[16];
  store(part, v);
  for (int r = 0; r < 4; ++r) {
    QuadAny* to = reinterpret_cast<QuadAny*>(out + r * bc);
    *to += *reinterpret_cast<QuadAny*>(part + 4 * r);
  }
}

// out[row] += the sum over samples of ROW rows, `bc` apart, of one group of columns.
template <int F, int ROW>
inline void add_group(const Vec (&sum)[ROW], float* out, int bc) {
  if constexpr (F == 16) {
#pragma GCC unroll 8
    for (int r = 0; r < ROW; ++r) store(out + r * bc, load(out + r * bc) + sum[r]);
  } else if constexpr (F == 8) {
    const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
#pragma GCC unroll 8
    for (int r = 0; r < ROW; r += 2) {
      const __m512 a = __m512(sum[r]), b = __m512(sum[r + 1]);
      const __m512 both = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
      const __m512 rows = _mm512_castpd_ps(_mm512_permutexvar_pd(order, _mm512_castps_pd(both)));
      float* to = out + r * bc;
      if (bc == 8) {
        store(to, load(to) + Vec(rows));
      } else {
        _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), _mm512_castps512_ps256(rows)));
        _mm256_storeu_ps(to + bc, _mm256_add_ps(_mm256_loadu_ps(to + bc), _mm512_extractf32x8_ps(rows, 1)));
      }
    }
  } else {
    const __m512i turn = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
#pragma GCC unroll 2
    for (int r = 0; r < ROW; r += 4) {
      const Vec columns = sums_in_quads(sum[r], sum[r + 1], sum[r + 2], sum[r + 3]);
      const Vec rows = Vec(_mm512_permutexvar_ps(turn, __m512(columns)));
      if (bc == 4)
        store(out + r * bc, load(out + r * bc) + rows);
      else
        add_quarters(out + r * bc, bc, rows);
    }
  }
}

// ROW rows of dy by N groups of columns, over a tile: out[n][to..] += dy^T x[n].
template <int F, int ROW, int N>
inline void outer_groups(const float* dy, int slot, const float* const (&x)[4],
                         float* const (&out)[4], int64_t to, int bc) {
  Vec sum[N][ROW];
  for (int n = 0; n < N; ++n)
    for (int r = 0; r < ROW; ++r) sum[n][r] = Vec{};
  for (int s = 0; s < slot; s += 16 / F) {
    Vec v[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) v[n] = load(x[n] + s * F);
#pragma GCC unroll 8
    for (int r = 0; r < ROW; ++r) {
      const Vec d = spread_samples<F>(dy + r * slot + s);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n][r] += d * v[n];
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) add_group<F, ROW>(sum[n], out[n] + to, bc);
}

// Live blocks first..last-1, all of one block row.
template <int F, int ROW>
void row_of_groups(const int32_t* col_index, int64_t first, int64_t last, int br, int bc, int slot,
                   const float* dy, const float* x, float* out) {
  constexpr int N = 16 / ROW;
  const int n_across = bc / F;
  const int64_t n_all = (last - first) * n_across;  // groups of columns, block after block
  int64_t k = first;
  int across = 0;
  for (int64_t a0 = 0; a0 < n_all; a0 += N) {
    const int n = n_all - a0 < N ? int(n_all - a0) : N;
    const float* from[4] = {};
    float* to[4] = {};
    for (int i = 0; i < n; ++i) {
      from[i] = x + (int64_t(col_index[k]) * n_across + across) * F * slot;
      to[i] = out + k * br * bc + across * F;
      if (++across == n_across) across = 0, ++k;
    }
    for (int r = 0; r < br; r += ROW) {
      const float* rows = dy + r * slot;
      if (n == N)
        outer_groups<F, ROW, N>(rows, slot, from, to, r * bc, bc);
      else if (n == 1)
        outer_groups<F, ROW, 1>(rows, slot, from, to, r * bc, bc);
      else if (n == 2)
        outer_groups<F, ROW, 2>(rows, slot, from, to, r * bc, bc);
      else
        outer_groups<F, ROW, 3>(rows, slot, from, to, r * bc, bc);
    }
  }
}

// The two layouts of a weight gradient's operands, by the width of a group.
struct Groups {
  Groups(int br, int bc) {
    auto pick = [&](auto f) {
      constexpr int F = decltype(f)::value;
      pack = pack_groups<F>;
      row = br % 8 == 0 ? row_of_groups<F, 8> : row_of_groups<F, 4>;
    };
    switch (group_of(bc)) {
      case 16: pick(std::integral_constant<int, 16>()); break;
      case 8: pick(std::integral_constant<int, 8>()); break;
      default: pick(std::integral_constant<int, 4>());
    }
  }
  decltype(pack_groups<4>)* pack;
  decltype(row_of_groups<4, 4>)* row;
};

}  // namespace
#endif
