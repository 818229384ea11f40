// One tile of samples times a block-sparse matrix, in either layout.
#pragma once

#include <algorithm>
#include <type_traits>

#include "pack.h"
#include "turn.h"

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
    float* to = y + (i - first) * s.br * TILE;
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
// `y` and `values` begin with block row `first`. Registers: ROW * 2 or 4 * 4 sums, as many inputs,
// one weight.
template <int BC, int ROW>
void multiply_quads(const Pattern& s, const float* values, int64_t first, int64_t last, int slot,
                    const float* x, float* y, Ahead& ahead, int64_t n_ahead, Lines<true>& outputs,
                    int64_t n_output) {
  constexpr int WIDE = LANE == 16 && ROW == 4 ? 4 : 2;
  const int bc = BC ? BC : s.bc;
  const int AHEAD = bc >= 16 ? 1 : bc >= 8 ? 2 : 4;  // blocks: inputs come from the second-level cache
  const int64_t begin = s.row_ptr[first];
  for (int64_t i = first; i < last; ++i) {
    const int64_t b = s.row_ptr[i], e = s.row_ptr[i + 1];
    for (int r0 = 0; r0 < s.br; r0 += ROW) {
      float* to = y + ((i - first) * s.br + r0) * slot;
      for (int s0 = 0; s0 < slot * 4; s0 += WIDE * LANE) {
        ahead.fetch(n_ahead);
        outputs.fetch(n_output);
        Vec sum[ROW][WIDE] = {};
        for (int64_t k = b; k < e; ++k) {
          const float* from = x + int64_t(s.col_index[k]) * bc * slot + s0;
          const float* weight = values + ((k - begin) * s.br + r0) * bc;
          if (r0 == 0 && k + AHEAD < e) {
            const float* next = x + int64_t(s.col_index[k + AHEAD]) * bc * slot + s0;
            for (int c = 0; c < bc; c += 4)
              for (int j = 0; j < WIDE; ++j) __builtin_prefetch(next + c * slot + j * LANE);
          }
          for (int c = 0; c < bc; c += 4) {
            Vec v[WIDE];
            for (int j = 0; j < WIDE; ++j) v[j] = load(from + c * slot + j * LANE);
            for (int r = 0; r < ROW; ++r) {
              const Vec w = spread_quad(weight + r * bc + c);
              for (int j = 0; j < WIDE; ++j) sum[r][j] += w * v[j];
            }
          }
        }
        for (int r = 0; r < ROW; r += 4)
          for (int j = 0; j < WIDE; ++j)
            store(to + r * slot + s0 + j * LANE,
                  sums_in_quads(sum[r][j], sum[r + 1][j], sum[r + 2][j], sum[r + 3][j]));
      }
    }
  }
}

inline auto quads_kernel(int br, int bc) {
  constexpr int MOST = LANE == 16 ? 8 : 4;
  // Four rows by four vectors spread half as many weights, which costs products where registers are full.
  if (br % MOST == 0 && !has_full_registers())
    return bc == 16  ? multiply_quads<16, MOST>
           : bc == 8 ? multiply_quads<8, MOST>
           : bc == 4 ? multiply_quads<4, MOST>
                     : multiply_quads<0, MOST>;
  return bc == 16  ? multiply_quads<16, 4>
         : bc == 8 ? multiply_quads<8, 4>
         : bc == 4 ? multiply_quads<4, 4>
                   : multiply_quads<0, 4>;
}

inline bool has_quads(int br, int bc) { return br % 4 == 0 && bc % 4 == 0; }

// Rows x[sample][feature], a slot of them, -> quads layout of n_padded features.
template <class In>
void pack_quads_padded(const In* x, int64_t stride, int n_sample, int slot, int64_t n_feature,
                       int64_t n_padded, float* out) {
  pack_quads(x, stride, n_sample, slot, n_feature, out);
  const int64_t full = (n_feature + 3) / 4 * 4;  // quads wholly over the ragged edge
  std::memset(out + full * slot, 0, (n_padded - full) * slot * sizeof(float));
}

// Outputs in a section: rows of y are then written in pieces long enough for the processor to fetch
// what follows by itself.
constexpr int SECTION = 128;

// Block rows first..last-1 of one tile of y = in S^T, a section at a time: run(first, last, ahead, n_ahead,
// outputs, n_output) makes it in `room`, in the layout, and it is written to the rows of y while it lies
// in the first-level cache. `ahead` is fetched meanwhile.
template <class Layout, class Run>
void multiply_sections(const Layout& layout, int64_t first, int64_t last, int slot, float* room,
                       int n_sample, float* y, int64_t rows, const float* bias, Ahead ahead,
                       const Run& run) {
  const Pattern& s = layout.s;
  const int64_t n_ahead = ahead.share(layout.n_fetch(first, last, slot));
  auto width = [&](int64_t i) { return (std::min(i + layout.step, last) * s.br < rows ? std::min(i + layout.step, last) * s.br : rows) - i * s.br; };
  for (int64_t i = first; i < last; i += layout.step) {
    const int64_t end = std::min(i + layout.step, last), next = end * s.br;
    Lines<true> outputs;  // of the next section
    if (end < last) outputs = {y + next, rows, n_sample, width(end)};
    run(i, end, ahead, n_ahead, outputs, outputs.share(layout.n_fetch(i, end, slot)));
    if (bias)
      layout.unpack(room, slot, width(i), n_sample, y + i * s.br, rows, WithBias{bias + i * s.br});
    else
      layout.unpack(room, slot, width(i), n_sample, y + i * s.br, rows, AsTheyAre());
  }
}

inline int64_t rows_of_section(int br) { return SECTION / br ? SECTION / br : 1; }

// Products in the quads layout. Where there is `turned`, it has the values.
struct Quads {
  explicit Quads(const Pattern& s) : s(s), run(quads_kernel(s.br, s.bc)), step(rows_of_section(s.br)) {}
  int64_t room(int slot) const { return step * s.br * slot; }
  // How often ahead.fetch is called for block rows first..last-1: never less.
  int64_t n_fetch(int64_t first, int64_t last, int slot) const { return (last - first) * (s.br / 4 * (slot * 4 / (4 * LANE))); }
  void pack(const float* x, int64_t stride, int n_sample, int slot, int64_t n_feature, float* out) const {
    pack_quads_padded(x, stride, n_sample, slot, n_feature, s.n_col * s.bc, out);
  }
  template <class Finish>
  void unpack(const float* in, int slot, int64_t n, int n_sample, float* y, int64_t stride, const Finish& finish) const {
    unpack_quads(in, slot, n, n_sample, y, stride, finish);
  }
  void multiply(const float* values, int64_t first, int64_t last, const float* in, int slot,
                float* room, int n_sample, float* y, int64_t rows, const float* bias, Ahead ahead,
                Turned* turned = nullptr) const {
    multiply_sections(*this, first, last, slot, room, n_sample, y, rows, bias, ahead,
                      [&](int64_t i, int64_t end, Ahead& ahead, int64_t n_ahead, Lines<true>& outputs, int64_t n_output) {
                        const int64_t k = s.row_ptr[i];
                        const float* from = turned ? turned->at(k, s.row_ptr[end]) : values + k * s.br * s.bc;
                        run(s, from, i, end, slot, in, room, ahead, n_ahead, outputs, n_output);
                      });
  }
  Pattern s;
  decltype(quads_kernel(0, 0)) run;
  int64_t step;
};

// Samples in a tile: few enough that `n_feature` of them lie in the second-level cache, whole
// multiples of sixteen, and as many tiles as there are threads where that is possible.
inline int slot_for(int64_t batch, int64_t n_feature, int n_thread) {
  const int64_t most = n_feature <= 512 && !has_full_registers() ? 128 : 64;
  int64_t n_tile = (batch + most - 1) / most;
  n_tile = (n_tile + n_thread - 1) / n_thread * n_thread;
  const int64_t slot = ((batch + n_tile - 1) / (n_tile ? n_tile : 1) + 15) / 16 * 16;
  return int(slot < 16 ? 16 : slot);
}

// Rows [batch][n] of an operand, `stride` apart, cut into tiles of `slot` rows.
template <class In>
struct Rows {
  const In* x;
  int64_t stride, batch, n;
  int n_sample(int64_t tile, int slot) const { return int(std::min<int64_t>(slot, batch - tile * slot)); }
  const In* at(int64_t tile, int slot) const { return x + tile * slot * stride; }
  Ahead ahead(int64_t tile, int slot) const {
    return tile * slot < batch ? Ahead(at(tile, slot), stride, n_sample(tile, slot), n) : Ahead();
  }
};

// Run work(tile, last) on every tile; a thread takes tiles that follow each other, up to `last`.
template <class Work>
void for_tiles(int64_t n_tile, int n_thread, const Work& work) {
  parallel_for(n_thread, n_thread, [&](int64_t t) {
    const int64_t last = n_tile * (t + 1) / n_thread;
    for (int64_t tile = n_tile * t / n_thread; tile < last; ++tile) work(tile, tile + 1 < last);
  });
}

// Run work(first tile, the one behind its last, sums) with n numbers for every thread to set, the
// first of which has `out`; then add all to `out`.
template <class Work>
void with_sums(int64_t n, int64_t n_tile, float* out, int n_thread, const Work& work) {
  const Scratch others(n * (n_thread - 1));
  parallel_for(n_thread, n_thread, [&](int64_t t) {
    work(n_tile * t / n_thread, n_tile * (t + 1) / n_thread, t ? others.get() + n * (t - 1) : out);
  });
  if (n_thread == 1) return;
  const int64_t stretch = 1 << 14, n_stretch = (n + stretch - 1) / stretch;
  parallel_for(n_stretch, n_thread, [&](int64_t part) {
    const int64_t first = part * stretch, last = std::min(first + stretch, n);
    for (int t = 1; t < n_thread; ++t)
      for (int64_t i = first; i < last; ++i) out[i] += others.get()[n * (t - 1) + i];
  });
}

inline void clear(float* p, int64_t n) { std::memset(p, 0, n * sizeof(float)); }

// One thread where that many multiply-adds are too few to share: all others are woken together.
inline int threads_for(double n_multiply_add, int n_thread) {
  return n_multiply_add < 4e6 ? 1 : n_thread;
}

// The layout of bf16 and int8: a tile of TILE samples. `out` begins with block row `first`.
template <class Number>
struct Features {
  explicit Features(const Pattern& s) : s(s), run(chunk_kernel<Number>(s.bc)), edge(chunk_edges(s)) {}
  void multiply(const float* values, int64_t first, int64_t last, const float* in,
                float* out) const {
    std::memset(out, 0, (last - first) * s.br * TILE * sizeof(float));
    for (size_t c = 0; c + 1 < edge.size(); ++c)
      run(s, values, first, last, edge[c].data(), edge[c + 1].data(), in, out);
  }
  Pattern s;
  decltype(chunk_kernel<Number>(0)) run;
  std::vector<std::vector<int32_t>> edge;
};

// Tile by tile, pack(tile, n_sample, in, note) gives the inputs, with a note on each sample if it
// likes, and unpack(room, note, first, n, y, n_sample) writes n outputs of each sample, from output
// `first` on, whose place in memory is y.
template <class Number, class In, class Out, class Pack, class Unpack>
void multiply_by_features(const Pattern& s, const Rows<In>& x, const float* values, Out* y,
                          int64_t rows, int n_thread, const Pack& pack, const Unpack& unpack) {
  const Features<Number> layout(s);
  const int64_t n_in = s.n_col * s.bc, n_tile = (x.batch + TILE - 1) / TILE;
  // Small blocks return to their outputs for every chunk of columns, so they take all rows at once.
  const int64_t step = s.br < 4 ? s.n_row : s.br < 64 ? 64 / s.br : 1;
  // A batch of few tiles is also cut by rows, so that every thread has work.
  const int64_t n_cut = n_tile >= n_thread ? 1 : std::min<int64_t>(s.n_row, n_thread);
  for_tiles(n_tile * n_cut, n_thread, [&](int64_t task, bool has_next) {
    const int64_t tile = task / n_cut, cut = task % n_cut;
    const int64_t first = s.n_row * cut / n_cut, last = s.n_row * (cut + 1) / n_cut;
    const int n_sample = x.n_sample(tile, TILE);
    const Scratch scratch((n_in + step * s.br + 1) * TILE);
    float *in = scratch.get(), *room = in + n_in * TILE, *note = room + step * s.br * TILE;
    pack(tile, n_sample, in, note);
    Ahead ahead = has_next && n_cut == 1 ? x.ahead(tile + 1, TILE) : Ahead();
    const int64_t n_ahead = ahead.share((last - first + step - 1) / step);
    for (int64_t i = first; i < last; i += step) {
      const int64_t end = std::min(i + step, last), n = std::min(end * s.br, rows) - i * s.br;
      Out* to = y + tile * TILE * rows + i * s.br;
      ahead.fetch(n_ahead);
      Lines<true>(to, rows, n_sample, n).fetch(n_sample * n);
      layout.multiply(values, i, end, in, room);
      unpack(room, note, i * s.br, n, to, n_sample);
    }
  });
}

}  // namespace
