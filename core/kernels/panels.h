// int8 products and the weight gradient in bf16: inputs are copied, never transposed.
//
// panels:   [unit / 16][sample][16], for int8 products [unit / 4][sample][4]: a block reads few units
//           of many samples, and four of these then share a line of the cache
//
// A unit is 32 bits: four int8 that are neighbours in a row of S, or one feature of two samples in
// bf16. A unit of a sample, spread over a vector, multiplies the weights of eight rows, so outputs
// come out as they lie in memory. Narrow products are so quick that transposing inputs and outputs,
// as the other layouts do, takes about as long as multiplying. On Zen 4 vectors have half the width of
// a register, because two of these are loaded and spread in a cycle, and only one of the full.
//
// Measured and left: fp32 and the other two bf16 products this way. They save a quarter of what a
// call costs besides multiplying, but multiply at 0.9 of the rate of the quads, which spread four
// numbers with one load; from 3 % density on they are slower.
#pragma once

#include "product.h"

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
namespace {

typedef float Half __attribute__((vector_size(32)));
typedef Half HalfAny __attribute__((aligned(4), may_alias));
constexpr int PANEL = 16, NARROW = 4;

inline Half load_half(const float* p) { return *reinterpret_cast<const HalfAny*>(p); }
inline Half spread_half(const float* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return Half(_mm256_set1_epi32(bits));
}
template <class Wide>
inline Wide load_wide(const float* p) {
  if constexpr (sizeof(Wide) == sizeof(Half)) return load_half(p);
  else return load(p);
}
template <class Wide>
inline Wide spread_wide(const float* p) {
  if constexpr (sizeof(Wide) == sizeof(Half)) return spread_half(p);
  else return spread(p);
}
inline Vec join(Half low, Half high) {
  return Vec(_mm512_insertf32x8(_mm512_castps256_ps512(__m256(low)), __m256(high), 1));
}
// Half `h` of sums that lie in one register, or in two.
inline Half half_of(const Vec (&sum)[1], int h) {
  const __m512 v = __m512(sum[0]);
  return Half(h ? _mm512_extractf32x8_ps(v, 1) : _mm512_castps512_ps256(v));
}
template <int V>
inline Half half_of(const Half (&sum)[V], int h) {
  return sum[h];
}
inline Half mac(Bf16Pair, Half sum, Half a, Half b) {
  return Half(_mm256_dpbf16_ps(__m256(sum), (__m256bh)(__m256(a)), (__m256bh)(__m256(b))));
}
inline Half mac(Int8Quad, Half sum, Half weight, Half x) {
  return Half(_mm256_dpbusd_epi32(__m256i(sum), __m256i(x), __m256i(weight)));
}

inline Vec mac(Int8Quad, Vec sum, Vec weight, Vec x) { return Int8Quad::mac(sum, weight, x); }

inline int64_t panels_of(int64_t n_unit) { return (n_unit + PANEL - 1) / PANEL * PANEL; }
inline int64_t narrow_of(int64_t n_unit) { return (n_unit + NARROW - 1) / NARROW * NARROW; }
// br rows by bc units.
inline bool has_panels(int br, int bc) { return br % 8 == 0 && (bc == 2 || bc == 4 || bc == 8); }

// Blocks [br][bc units] -> [bc][br].
inline void turn_blocks(const float* values, int64_t n_block, int br, int bc, float* out) {
  for (int64_t k = 0; k < n_block; ++k, values += br * bc, out += br * bc)
    for (int r = 0; r < br; r += 8) {
      __m256i row[8];
      const __mmask8 live = (1u << bc) - 1;
      for (int i = 0; i < 8; ++i) row[i] = _mm256_maskz_loadu_epi32(live, values + (r + i) * bc);
      __m256i t[8], u[8];
      for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(row[i], row[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(row[i], row[i + 1]);
      }
      for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {  // units 2 j, 2 j + 1 and four further of rows i .. i + 3
          u[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + 2 + j]);
          u[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
      for (int c = 0; c < 4 && c < bc; ++c) {
        const __m256i low = _mm256_permute2x128_si256(u[c], u[4 + c], 0x20);
        const __m256i high = _mm256_permute2x128_si256(u[c], u[4 + c], 0x31);
        _mm256_storeu_si256((__m256i*)(out + c * br + r), low);
        if (bc == 8) _mm256_storeu_si256((__m256i*)(out + (c + 4) * br + r), high);
      }
    }
}

// Rows x[sample][unit] of one tile -> panels of n_padded units; the rest of n_slot samples is zero.
inline void pack_panels(const float* x, int64_t stride, int n_sample, int n_slot, int64_t n_unit,
                        int64_t n_padded, float* out) {
  for (int s0 = 0; s0 < n_slot; s0 += 4)  // few at a time: memory sees sequential streams
    for (int64_t f = 0; f < n_padded; f += PANEL) {
      const int64_t n = n_unit - f;
      const __mmask16 live = n >= PANEL ? 0xFFFF : n > 0 ? (1u << n) - 1 : 0;
      for (int s = s0; s < s0 + 4; ++s)
        _mm512_storeu_ps(out + f * n_slot + s * PANEL,
                         _mm512_maskz_loadu_ps(s < n_sample ? live : 0, x + s * stride + f));
    }
}

// The same where a unit is one feature of samples 2 i and 2 i + 1, of n_slot such pairs.
inline void pack_panels_of_pairs(const uint16_t* x, int64_t stride, int n_sample, int n_slot,
                                 int64_t n_feature, int64_t n_padded, float* out) {
  for (int p0 = 0; p0 < n_slot; p0 += 4)
    for (int64_t f = 0; f < n_padded; f += PANEL) {
      const int64_t n = n_feature - f;
      const __mmask16 live = n >= PANEL ? 0xFFFF : n > 0 ? (1u << n) - 1 : 0;
      for (int p = p0; p < p0 + 4; ++p) {
        const uint16_t* from = x + 2 * p * stride + f;
        const __m256i even = _mm256_maskz_loadu_epi16(2 * p < n_sample ? live : 0, from);
        const __m256i odd = _mm256_maskz_loadu_epi16(2 * p + 1 < n_sample ? live : 0, from + stride);
        const __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                                             _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
        _mm512_storeu_si512(out + f * n_slot + p * PANEL, both);
      }
    }
}

// Where outputs f..f+7 of a sample go: rows side by side, or the panels of a product that follows.
struct InRows {
  static constexpr bool is_far = true;  // from one sample to the next: worth fetching ahead
  int64_t stride;
  int64_t at(int64_t f) const { return f; }
};
struct InPanels {
  static constexpr bool is_far = false;
  static constexpr int64_t stride = 4 * NARROW;  // outputs are bytes
  int slot;
  int64_t at(int64_t f) const { return f / stride * stride * slot + f % stride; }
};

// y = in S^T for one tile in panels, block rows first..last-1 of S, whose blocks are turned.
// Sums begin at write.start(f); write(to, sums, f, n) writes outputs f..f+7 of one sample, or the
// first n of them; among panels, write(to, sums, more, f) writes sixteen. V vectors of Wide, full
// registers or halves, hold the rows that are multiplied at once.
template <class Number, class Wide, int V, int BC, class Out, class Place, class Write>
void multiply_panels(const Pattern& s, const float* weights, int64_t first, int64_t last,
                     const float* in, int slot, int n_sample, Out* y, int64_t rows,
                     const Place& place, const Write& write, Ahead ahead) {
  constexpr int N = 16 / V, LINE = 64 / sizeof(Out), W = sizeof(Wide) / 4, ROW = V * W;
  const int64_t n_ahead =
      ahead.share((last - first) * (s.br / ROW) * ((n_sample + N - 1) / N));
  for (int64_t i = first; i < last; ++i)
    for (int r0 = 0; r0 < s.br; r0 += ROW)
      for (int s0 = 0; s0 < n_sample; s0 += N) {
        ahead.fetch(n_ahead);
        const int64_t f = i * s.br + r0;
        const int n = n_sample - s0 < N ? n_sample - s0 : N;
        Out* to = y + s0 * place.stride + place.at(f);
        if (Place::is_far && f % LINE == 0 && f + LINE < rows)
          for (int j = 0; j < n; ++j) __builtin_prefetch(to + j * place.stride + LINE, 1, 2);
        Wide sum[N][V];
        for (int v = 0; v < V; ++v) {
          Wide start;
          if constexpr (W == 8) start = write.start(f + v * 8);
          else start = join(write.start(f), write.start(f + 8));
          for (int j = 0; j < N; ++j) sum[j][v] = start;
        }
        for (int64_t k = s.row_ptr[i]; k < s.row_ptr[i + 1]; ++k) {
          const float* weight = weights + k * s.br * BC + r0;
          const int64_t column = int64_t(s.col_index[k]) * BC;
          const float* from = in + column / NARROW * NARROW * slot + s0 * NARROW + column % NARROW;
          for (int c = 0; c < BC; ++c) {
            const float* unit = from + c / NARROW * NARROW * slot + c % NARROW;
            Wide w[V];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) w[v] = load_wide<Wide>(weight + c * s.br + v * W);
#pragma GCC unroll 16
            for (int j = 0; j < N; ++j) {
              const Wide x = spread_wide<Wide>(unit + j * NARROW);
#pragma GCC unroll 2
              for (int v = 0; v < V; ++v) sum[j][v] = mac(Number(), sum[j][v], w[v], x);
            }
          }
        }
        for (int j = 0; j < n; ++j)
          if constexpr (Place::is_far) {
            for (int h = 0; h < ROW / 8 && f + h * 8 < rows; ++h)
              write(to + j * place.stride + h * 8, half_of(sum[j], h), f + h * 8, rows - f - h * 8);
          } else {
            static_assert(ROW == 16);
            write(to + j * place.stride, half_of(sum[j], 0), half_of(sum[j], 1), f);
          }
      }
}

template <class Number, class Out, class Place, class Write>
auto panels_kernel(const Pattern& s) {
  auto kernel = [&](auto wide, auto n_vector) {
    constexpr int V = decltype(n_vector)::value;
    using Wide = decltype(wide);
    return s.bc == 8   ? multiply_panels<Number, Wide, V, 8, Out, Place, Write>
           : s.bc == 4 ? multiply_panels<Number, Wide, V, 4, Out, Place, Write>
                       : multiply_panels<Number, Wide, V, 2, Out, Place, Write>;
  };
  if constexpr (Place::is_far)
    if (s.br % 16) return kernel(Half(), std::integral_constant<int, 1>());
  return has_full_registers() ? kernel(Vec(), std::integral_constant<int, 1>())
                              : kernel(Half(), std::integral_constant<int, 2>());
}

// Samples in a tile: few enough that their inputs lie in the second-level cache.
inline int panel_slot(int64_t batch, int64_t n_unit, int n_thread) {
  const int64_t most = n_unit <= 512 ? 128 : n_unit <= 2048 ? 64 : 32;
  int64_t n_tile = (batch + most - 1) / most;
  n_tile = (n_tile + n_thread - 1) / n_thread * n_thread;
  const int64_t slot = ((batch + n_tile - 1) / (n_tile ? n_tile : 1) + 15) / 16 * 16;
  return int(slot < 16 ? 16 : slot);
}

// Tile by tile; pack(tile, n_sample, slot, in, note) gives the panels, with a note on each sample if
// it likes, and finish(n_sample, note, y, f, n) has the last word on outputs f..f+n-1 of each.
template <class Number, class In, class Out, class Pack, class Write, class Finish>
void multiply_by_panels(const Pattern& s, const Rows<In>& x, const float* weights, Out* y,
                        int64_t rows, int n_thread, const Pack& pack, const Write& write,
                        const Finish& finish) {
  const auto run = panels_kernel<Number, Out, InRows, Write>(s);
  const int64_t n_in = narrow_of(s.n_col * s.bc);
  const int slot = panel_slot(x.batch, n_in, n_thread);
  const int64_t n_tile = (x.batch + slot - 1) / slot;
  // A batch of few tiles is also cut by rows, so that every thread has work.
  const int64_t n_cut = n_tile >= n_thread ? 1 : std::min<int64_t>(s.n_row, n_thread);
  for_tiles(n_tile * n_cut, n_thread, [&](int64_t task, bool has_next) {
    const int64_t tile = task / n_cut, cut = task % n_cut;
    const int64_t first = s.n_row * cut / n_cut, last = s.n_row * (cut + 1) / n_cut;
    const int n_sample = x.n_sample(tile, slot);
    const Scratch scratch((n_in + 1) * slot);
    float *in = scratch.get(), *note = in + n_in * slot;
    Out* to = y + tile * slot * rows;
    pack(tile, n_sample, slot, in, note);
    run(s, weights, first, last, in, slot, n_sample, to, rows, InRows{rows}, write,
        has_next && n_cut == 1 ? x.ahead(tile + 1, slot) : Ahead());
    finish(n_sample, note, to, first * s.br, std::min(last * s.br, rows) - first * s.br);
  });
}

// Eight rows of dy by V eights of columns, over n_pair pairs of samples: out[v] += dy^T x[v].
template <int V>
inline void outer_panels(const float* dy, const float* const (&x)[2], int n_pair,
                         float* const (&out)[2], int bc) {
  Half sum[8][V];
  for (int r = 0; r < 8; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = load_half(out[v] + r * bc);
  for (int p = 0; p < n_pair; ++p) {
    Half in[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) in[v] = load_half(x[v] + p * PANEL);
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      const Half d = spread_half(dy + p * PANEL + r);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] = mac(Bf16Pair(), sum[r][v], d, in[v]);
    }
  }
  for (int r = 0; r < 8; ++r)
    for (int v = 0; v < V; ++v) *reinterpret_cast<HalfAny*>(out[v] + r * bc) = sum[r][v];
}

// Live blocks first..last-1, all of block row i: br and bc are 8 or 16.
inline void row_of_panels(const int32_t* col_index, int64_t i, int64_t first, int64_t last, int br,
                          int bc, int slot, int n_pair, const float* dy, const float* x, float* out) {
  const int n_across = bc / 8;
  const int64_t n_all = (last - first) * n_across;  // eights of columns, block after block
  for (int64_t a0 = 0; a0 < n_all; a0 += 2) {
    const float* in[2] = {};
    float* to[2] = {};
    for (int64_t a = a0; a < a0 + 2 && a < n_all; ++a) {
      const int64_t k = first + a / n_across, column = int64_t(col_index[k]) * bc + a % n_across * 8;
      in[a - a0] = x + column / PANEL * PANEL * slot + column % PANEL;
      to[a - a0] = out + k * br * bc + a % n_across * 8;
    }
    for (int r = 0; r < br; r += 8) {
      const int64_t row = i * br + r;
      const float* from = dy + row / PANEL * PANEL * slot + row % PANEL;
      if (to[1])
        outer_panels<2>(from, in, n_pair, to, bc);
      else
        outer_panels<1>(from, in, n_pair, to, bc);
      for (float*& p : to) p = p ? p + 8 * bc : p;
    }
  }
}

}  // namespace
#endif
