// One tile of samples times a block-sparse matrix, in either layout.
#pragma once

#include <type_traits>

#include "pack.h"

namespace {

struct Pattern {
  const int32_t* row_ptr;
  const int32_t* col_index;
  int64_t n_row, n_col, n_block;
  int br, bc;
};

// ROW rows of a block row, from row r0 of its blocks, by WIDE vectors of samples.
// BC is the block width, or 0 for a width known at run time only.
template <class Number, int ROW, int WIDE, int BC>
inline void multiply_rows(const Pattern& s, const float* values, int64_t first, int64_t last, int r0,
                          const float* x, float* y) {
  const int bc = BC ? BC : s.bc;
  Vec sum[ROW][WIDE];
  for (int r = 0; r < ROW; ++r)
    for (int j = 0; j < WIDE; ++j) sum[r][j] = load(y + r * TILE + j * LANE);
  for (int64_t k = first; k < last; ++k) {
    const float* from = x + int64_t(s.col_index[k]) * bc * TILE;
    const float* weight = values + (k * s.br + r0) * bc;
    for (int c = 0; c < bc; ++c) {
      Vec v[WIDE];
      for (int j = 0; j < WIDE; ++j) v[j] = load(from + c * TILE + j * LANE);
      for (int r = 0; r < ROW; ++r) {
        const Vec w = spread(weight + r * bc + c);
        for (int j = 0; j < WIDE; ++j) sum[r][j] = Number::mac(sum[r][j], w, v[j]);
      }
    }
  }
  for (int r = 0; r < ROW; ++r)
    for (int j = 0; j < WIDE; ++j) store(y + r * TILE + j * LANE, sum[r][j]);
}

// A single row of 1 x 1 blocks: four chains of sums would wait for each other, so there are eight.
inline void multiply_row_of_one(const Pattern& s, const float* values, int64_t first, int64_t last,
                                const float* x, float* y) {
  constexpr int WIDE = PART < 4 ? PART : 4;
  for (int part = 0; part < PART; part += WIDE) {
    Vec even[WIDE] = {}, odd[WIDE] = {};
    int64_t k = first;
    for (; k + 2 <= last; k += 2) {
      const Vec w0 = spread(values + k), w1 = spread(values + k + 1);
      const float* x0 = x + int64_t(s.col_index[k]) * TILE + part * LANE;
      const float* x1 = x + int64_t(s.col_index[k + 1]) * TILE + part * LANE;
      for (int j = 0; j < WIDE; ++j) even[j] += w0 * load(x0 + j * LANE);
      for (int j = 0; j < WIDE; ++j) odd[j] += w1 * load(x1 + j * LANE);
    }
    if (k < last) {
      const float* x0 = x + int64_t(s.col_index[k]) * TILE + part * LANE;
      for (int j = 0; j < WIDE; ++j) even[j] += spread(values + k) * load(x0 + j * LANE);
    }
    for (int j = 0; j < WIDE; ++j) {
      float* to = y + (part + j) * LANE;
      store(to, load(to) + (even[j] + odd[j]));
    }
  }
}

// Registers: ROW * WIDE sums, WIDE inputs and one weight, of 32 (AVX-512) or 16.
template <class Number, int ROW, int BC>
inline void multiply_wide(const Pattern& s, const float* values, int64_t first, int64_t last,
                          int r0, const float* x, float* y) {
  constexpr int ROOM = LANE == 16 ? 16 : 8;
  constexpr int WIDE = ROOM / ROW < PART ? (ROOM / ROW ? ROOM / ROW : 1) : PART;
  for (int part = 0; part < PART; part += WIDE)
    multiply_rows<Number, ROW, WIDE, BC>(s, values, first, last, r0, x + part * LANE, y + part * LANE);
}

// The share of one chunk in block rows first..last-1: blocks begin[i] to end[i] of block row i.
template <class Number, int BC>
void multiply_chunk(const Pattern& s, const float* values, int64_t first, int64_t last,
                    const int32_t* begin, const int32_t* end, const float* x, float* y) {
  constexpr int MOST = LANE == 16 ? 8 : 4;
  for (int64_t i = first; i < last; ++i) {
    const int64_t b = begin[i], e = end[i];
    float* to = y + i * s.br * TILE;
    if constexpr (BC == 1 && std::is_same_v<Number, Fp32>)
      if (s.br == 1) {
        // Rows lie far apart in memory and a chunk takes little of each: too short a stretch for
        // the processor to guess the next one.
        constexpr int AHEAD = 4;
        if (i + AHEAD < last)
          for (int64_t k = begin[i + AHEAD]; k < end[i + AHEAD]; k += 16) {
            __builtin_prefetch(values + k);
            __builtin_prefetch(s.col_index + k);
          }
        multiply_row_of_one(s, values, b, e, x, to);
        continue;
      }
    int r = 0;
    for (; r + MOST <= s.br; r += MOST)
      multiply_wide<Number, MOST, BC>(s, values, b, e, r, x, to + r * TILE);
    for (; r + 4 <= s.br; r += 4)
      multiply_wide<Number, 4, BC>(s, values, b, e, r, x, to + r * TILE);
    for (; r + 2 <= s.br; r += 2)
      multiply_wide<Number, 2, BC>(s, values, b, e, r, x, to + r * TILE);
    for (; r < s.br; ++r) multiply_wide<Number, 1, BC>(s, values, b, e, r, x, to + r * TILE);
  }
}

inline int32_t check(const Pattern& s) {
  if (s.row_ptr[0] != 0 || s.row_ptr[s.n_row] != s.n_block) return BAD_POINTER;
  for (int64_t i = 0; i < s.n_row; ++i)
    if (s.row_ptr[i] > s.row_ptr[i + 1]) return BAD_POINTER;
  int32_t outside = 0;
  for (int64_t k = 0; k < s.n_block; ++k)
    outside |= (s.col_index[k] < 0) | (s.col_index[k] >= s.n_col);
  return outside ? BAD_INDEX : OK;
}

// Small blocks read their inputs so often that these should lie in the first-level cache, and so
// the columns are taken in chunks: blocks edge[c][i] to edge[c + 1][i] of block row i are the share
// of chunk c. The last chunk takes whatever is left, so the order inside a row is not assumed.
inline std::vector<std::vector<int32_t>> chunk_edges(const Pattern& s) {
  std::vector<std::vector<int32_t>> edge;
  edge.emplace_back(s.row_ptr, s.row_ptr + s.n_row);
  // 96 features of a tile take 24 KB; a row should find some sixteen live ones in a chunk.
  const int64_t sparse = s.n_block ? 16 * s.n_row * s.n_col / s.n_block : 0;
  const int64_t chunk = s.br >= 4 ? s.n_col : (sparse > 96 ? sparse : 96) / s.bc + 1;
  for (int64_t c = chunk; c < s.n_col; c += chunk) {
    edge.push_back(edge.back());
    for (int64_t i = 0; i < s.n_row; ++i) {
      int32_t& k = edge.back()[i];
      while (k < s.row_ptr[i + 1] && s.col_index[k] < c) ++k;
    }
  }
  edge.emplace_back(s.row_ptr + 1, s.row_ptr + s.n_row + 1);
  return edge;
}

template <class Number>
auto chunk_kernel(int bc) {
  return bc == 16  ? multiply_chunk<Number, 16>
         : bc == 8 ? multiply_chunk<Number, 8>
         : bc == 4 ? multiply_chunk<Number, 4>
         : bc == 2 ? multiply_chunk<Number, 2>
         : bc == 1 ? multiply_chunk<Number, 1>
                   : multiply_chunk<Number, 0>;
}

// In the quads layout a vector holds four features of STEP samples: a quad of weights, spread over
// the vector, multiplies four entries of a row of S at once, and the four partial sums of an output
// meet when the row is done. Inputs are thus packed as the weight gradient takes them.
template <int BC>
void multiply_quads(const Pattern& s, const float* values, int64_t first, int64_t last,
                    const float* x, float* y) {
  constexpr int WIDE = LANE == 16 ? 4 : 2;
  const int bc = BC ? BC : s.bc;
  const int AHEAD = bc >= 16 ? 1 : bc >= 8 ? 2 : 4;  // blocks: inputs come from the second-level cache
  for (int64_t i = first; i < last; ++i) {
    const int64_t b = s.row_ptr[i], e = s.row_ptr[i + 1];
    for (int r0 = 0; r0 < s.br; r0 += 4) {
      float* to = y + (i * s.br + r0) * TILE;
      for (int s0 = 0; s0 < TILE * 4; s0 += WIDE * LANE) {
        Vec sum[4][WIDE] = {};
        for (int64_t k = b; k < e; ++k) {
          const float* from = x + int64_t(s.col_index[k]) * bc * TILE + s0;
          const float* weight = values + (k * s.br + r0) * bc;
          if (r0 == 0 && k + AHEAD < e) {
            const float* next = x + int64_t(s.col_index[k + AHEAD]) * bc * TILE + s0;
            for (int c = 0; c < bc; c += 4)
              for (int j = 0; j < WIDE; ++j) __builtin_prefetch(next + c * TILE + j * LANE);
          }
          for (int c = 0; c < bc; c += 4) {
            Vec v[WIDE];
            for (int j = 0; j < WIDE; ++j) v[j] = load(from + c * TILE + j * LANE);
            for (int r = 0; r < 4; ++r) {
              const Vec w = spread_quad(weight + r * bc + c);
              for (int j = 0; j < WIDE; ++j) sum[r][j] += w * v[j];
            }
          }
        }
        for (int j = 0; j < WIDE; ++j)
          store(to + s0 + j * LANE, sums_in_quads(sum[0][j], sum[1][j], sum[2][j], sum[3][j]));
      }
    }
  }
}

inline auto quads_kernel(int bc) {
  return bc == 16  ? multiply_quads<16>
         : bc == 8 ? multiply_quads<8>
         : bc == 4 ? multiply_quads<4>
                   : multiply_quads<0>;
}

// A tile of samples in the layout of blocks whose sides are multiples of four.
struct Quads {
  explicit Quads(const Pattern& s) : s(s), run(quads_kernel(s.bc)) {}
  static void pack(const float* x, int64_t stride, int n_sample, int64_t n_feature,
                   int64_t n_padded, float* out) {
    pack_quads(x, stride, n_sample, TILE, 0, n_feature, out);
    const int64_t full = (n_feature + 3) / 4 * 4;  // quads wholly over the ragged edge
    std::memset(out + full * TILE, 0, (n_padded - full) * TILE * sizeof(float));
  }
  void multiply(const float* values, int64_t first, int64_t last, const float* in,
                float* out) const {
    run(s, values, first, last, in, out);
  }
  static void unpack(const float* in, int64_t first, int64_t last, int n_sample, float* y,
                     int64_t stride) {
    unpack_quads(in, TILE, first, last, n_sample, y, stride);
  }
  Pattern s;
  decltype(quads_kernel(0)) run;
};

// The layout of all other blocks, and of bf16.
template <class Number>
struct Features {
  explicit Features(const Pattern& s) : s(s), run(chunk_kernel<Number>(s.bc)), edge(chunk_edges(s)) {}
  static void pack(const float* x, int64_t stride, int n_sample, int64_t n_feature,
                   int64_t n_padded, float* out) {
    pack_features(x, stride, n_sample, n_feature, n_padded, out);
  }
  void multiply(const float* values, int64_t first, int64_t last, const float* in,
                float* out) const {
    std::memset(out + first * s.br * TILE, 0, (last - first) * s.br * TILE * sizeof(float));
    for (size_t c = 0; c + 1 < edge.size(); ++c)
      run(s, values, first, last, edge[c].data(), edge[c + 1].data(), in, out);
  }
  template <class Out>
  static void unpack(const float* in, int64_t first, int64_t last, int n_sample, Out* y,
                     int64_t stride) {
    unpack_features(in, first, last, n_sample, y, stride);
  }
  Pattern s;
  decltype(chunk_kernel<Number>(0)) run;
  std::vector<std::vector<int32_t>> edge;
};

inline bool has_quads(int br, int bc) { return br % 4 == 0 && bc % 4 == 0; }

}  // namespace
