// y = x S^T for a block-sparse S: forward pass, and input gradient over the transposed order.
//
// One tile of 64 samples is packed to [feature][64], multiplied, and unpacked while it lies in the
// second-level cache. A weight is spread over a vector; the outputs of a few rows of S stay in
// registers over all live blocks of these rows.

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

int32_t check(const Pattern& s) {
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
std::vector<std::vector<int32_t>> chunk_edges(const Pattern& s) {
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

template <class Number, class Out>
int32_t multiply(const Pattern& s, const float* x, int64_t x_stride, int64_t batch, int64_t cols,
                 const float* values, Out* y, int64_t rows, int n_thread) {
  if (const int32_t status = check(s)) return status;
  const auto chunk = s.bc == 16  ? multiply_chunk<Number, 16>
                         : s.bc == 8 ? multiply_chunk<Number, 8>
                         : s.bc == 4 ? multiply_chunk<Number, 4>
                         : s.bc == 2 ? multiply_chunk<Number, 2>
                         : s.bc == 1 ? multiply_chunk<Number, 1>
                                     : multiply_chunk<Number, 0>;
  const auto edge = chunk_edges(s);
  const int64_t n_in = s.n_col * s.bc, n_out = s.n_row * s.br;
  const int64_t n_tile = (batch + TILE - 1) / TILE;
  // A batch of few tiles is also cut by rows, so that every thread has work.
  const int64_t n_cut = n_tile >= n_thread ? 1 : s.n_row < n_thread ? s.n_row : n_thread;
  parallel_for(n_tile * n_cut, n_thread, [&](int64_t task) {
    const int64_t tile = task / n_cut, cut = task % n_cut;
    const int64_t first = s.n_row * cut / n_cut, last = s.n_row * (cut + 1) / n_cut;
    const int n_sample = int(batch - tile * TILE < TILE ? batch - tile * TILE : TILE);
    const Scratch scratch((n_in + n_out) * TILE);
    float *in = scratch.get(), *out = in + n_in * TILE;
    pack_features(x + tile * TILE * x_stride, x_stride, n_sample, cols, n_in, in);
    std::memset(out + first * s.br * TILE, 0, (last - first) * s.br * TILE * sizeof(float));
    for (size_t c = 0; c + 1 < edge.size(); ++c)
      chunk(s, values, first, last, edge[c].data(), edge[c + 1].data(), in, out);
    const int64_t end = last * s.br < rows ? last * s.br : rows;
    unpack_features(out, first * s.br, end, n_sample, y + tile * TILE * rows, rows);
  });
  return OK;
}

// EDGE is the side of square blocks, or 0: then br x bc.
template <int EDGE, class Number>
void transpose_blocks(const Number* values, const int32_t* order, int64_t n_block, int br, int bc,
                      Number* out) {
  if (EDGE) br = bc = EDGE;
  for (int64_t t = 0; t < n_block; ++t) {
    const Number* from = values + int64_t(order[t]) * br * bc;
    Number* to = out + t * br * bc;
    if constexpr (EDGE == LANE && sizeof(Number) == 4) {
      Vec a[LANE];
      for (int r = 0; r < LANE; ++r) a[r] = load(reinterpret_cast<const float*>(from) + r * LANE);
      transpose(a);
      for (int c = 0; c < LANE; ++c) store(reinterpret_cast<float*>(to) + c * LANE, a[c]);
    } else {
      for (int c = 0; c < bc; ++c)
        for (int r = 0; r < br; ++r) to[c * br + r] = from[r * bc + c];
    }
  }
}

template <class Number>
int32_t transpose_all(const void* values, const int32_t* order, int64_t n_block, int br, int bc,
                      void* out) {
  int32_t outside = 0;
  for (int64_t t = 0; t < n_block; ++t) outside |= (order[t] < 0) | (order[t] >= n_block);
  if (outside) return BAD_INDEX;
  const int edge = br == bc ? br : 0;
  const auto run = edge == 16  ? transpose_blocks<16, Number>
                   : edge == 8 ? transpose_blocks<8, Number>
                   : edge == 4 ? transpose_blocks<4, Number>
                   : edge == 1 ? transpose_blocks<1, Number>
                               : transpose_blocks<0, Number>;
  run(static_cast<const Number*>(values), order, n_block, br, bc, static_cast<Number*>(out));
  return OK;
}

}  // namespace

// Strides and sizes of x and of the blocks count 32-bit units: entries of fp32, pairs of bf16.
extern "C" int32_t tessera_spmm(const float* x, int64_t x_stride, int64_t batch, int64_t cols,
                                const float* values, const int32_t* row_ptr,
                                const int32_t* col_index, int64_t n_row, int64_t n_col,
                                int64_t n_block, int32_t br, int32_t bc, void* y, int64_t rows,
                                int32_t is_bf16, int32_t n_thread) {
  const Pattern s{row_ptr, col_index, n_row, n_col, n_block, br, bc};
  if (!is_bf16)
    return multiply<Fp32>(s, x, x_stride, batch, cols, values, static_cast<float*>(y), rows,
                          n_thread);
#if defined(__AVX512BF16__)
  return multiply<Bf16Pair>(s, x, x_stride, batch, cols, values, static_cast<uint16_t*>(y), rows,
                            n_thread);
#else
  return NOT_BUILT;
#endif
}

extern "C" int32_t tessera_has_bf16() { return HAS_BF16; }

// Blocks in transposed order, each transposed: out[t] = values[order[t]]^T.
extern "C" int32_t tessera_transpose_blocks(const void* values, const int32_t* order,
                                            int64_t n_block, int32_t br, int32_t bc, void* out,
                                            int32_t n_byte) {
  return (n_byte == 4 ? transpose_all<uint32_t> : transpose_all<uint16_t>)(values, order, n_block,
                                                                           br, bc, out);
}
