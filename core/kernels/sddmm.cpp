// The live blocks of dy^T x: the weight gradient, and no other entry of it.

#include <algorithm>

#include "outer.h"
#include "product.h"

namespace {

constexpr int SLOT = 128;  // samples (pairs, in bf16) packed together: more mean rarer sums across lanes


int32_t check(const Places& s, int64_t n_row, int64_t n_col, int64_t n_block) {
  for (int64_t k = 0; k < n_block; ++k) {
    if (s.row_index[k] < 0 || s.row_index[k] >= n_row) return BAD_INDEX;
    if (s.col_index[k] < 0 || s.col_index[k] >= n_col) return BAD_INDEX;
    if (k && s.row_index[k] < s.row_index[k - 1]) return BAD_POINTER;
  }
  return OK;
}

// A thread owns the block rows whose first block lies in its equal share of the blocks.
std::pair<int64_t, int64_t> share(const Places& s, int64_t n_block, int64_t cut, int n_thread) {
  auto edge = [&](int64_t k) {
    while (k && k < n_block && s.row_index[k] == s.row_index[k - 1]) ++k;
    return k;
  };
  return {edge(n_block * cut / n_thread), edge(n_block * (cut + 1) / n_thread)};
}

// Where blocks that have no quads are many, all of dy^T x is computed, by quads, a strip of sixteen
// rows at a time, and the live entries of the strip are kept.
void gradient_by_strips(const Places& s, const float* dy, int64_t dy_stride, int64_t rows,
                        const float* x, int64_t x_stride, int64_t cols, int64_t batch,
                        int64_t n_col, int64_t n_block, float* out, int n_thread) {
  constexpr int HEIGHT = 16, MOST = LANE == 16 ? 4 : 2;
  const int64_t n_quad = (n_col * s.bc + 4 * MOST - 1) / (4 * MOST) * MOST, width = n_quad * 4;
  const int64_t n_slot = (batch + SLOT - 1) / SLOT, n_strip = (rows + HEIGHT - 1) / HEIGHT;
  auto samples = [&](int64_t slot) { return int(std::min<int64_t>(SLOT, batch - slot * SLOT)); };
  const Scratch all_x(n_slot * width * SLOT);
  parallel_for(n_slot, n_thread, [&](int64_t slot) {
    float* to = all_x.get() + slot * width * SLOT;
    const int64_t full = (cols + 3) / 4 * 4;
    pack_quads(x + slot * SLOT * x_stride, x_stride, samples(slot), SLOT, 0, cols, to);
    std::memset(to + full * SLOT, 0, (width - full) * SLOT * sizeof(float));
  });
  parallel_for(n_strip, n_thread, [&](int64_t strip) {
    const int64_t row0 = strip * HEIGHT, row1 = std::min<int64_t>(row0 + HEIGHT, rows);
    const Scratch scratch(HEIGHT * (width + SLOT));
    float *sum = scratch.get(), *in_dy = sum + HEIGHT * width;
    std::memset(sum, 0, HEIGHT * width * sizeof(float));
    for (int64_t slot = 0; slot < n_slot; ++slot) {
      pack_quads(dy + slot * SLOT * dy_stride, dy_stride, samples(slot), SLOT, row0, row1, in_dy);
      const float* in_x = all_x.get() + slot * width * SLOT;
      for (int64_t q = 0; q < n_quad; q += MOST)
        for (int down = 0; down * 4 < row1 - row0; ++down) {
          const float* from[4] = {};
          float* to[4] = {};
          for (int n = 0; n < MOST; ++n) {
            from[n] = in_x + (q + n) * SLOT * 4;
            to[n] = sum + down * 4 * width + (q + n) * 4;
          }
          outer_quads<Fp32, MOST, SLOT>(in_dy + down * SLOT * 4, from, to, int(width));
        }
    }
    const int32_t* end = s.row_index + n_block;
    int64_t k = std::lower_bound(s.row_index, end, int32_t(row0 / s.br)) - s.row_index;
    for (; k < n_block && int64_t(s.row_index[k]) * s.br < row1; ++k)
      for (int r = 0; r < s.br; ++r) {
        const int64_t row = int64_t(s.row_index[k]) * s.br + r;
        if (row < row0 || row >= row1) continue;
        const float* from = sum + (row - row0) * width + int64_t(s.col_index[k]) * s.bc;
        float* to = out + (k * s.br + r) * s.bc;
        for (int c = 0; c < s.bc; ++c) to[c] = from[c];
      }
  });
}

bool is_by_strips(int br, int bc, int64_t n_row, int64_t n_col, int64_t n_block) {
  return !has_quads(br, bc) && 6 * n_block > n_row * n_col;  // measured: they win from a sixth on
}

// The gradients of both operands in one pass: a tile of dy is packed once, and the tile of x that
// multiplies it lies in the second-level cache beside it. The transposed pattern has the values of
// S, transposed, in `values_t`.
template <class Layout>
int32_t both_gradients(const Pattern& t, const Places& s, int64_t n_block, const float* dy,
                       int64_t dy_stride, int64_t rows, const float* x, int64_t x_stride,
                       int64_t cols, int64_t batch, const float* values_t, float* dx, float* out,
                       int n_thread) {
  const Layout layout(t);
  const int64_t n_dy = t.n_col * t.bc, n_x = t.n_row * t.br;
  const int64_t n_tile = (batch + TILE - 1) / TILE;
  // Threads share the tiles of a group for dx, then the rows of S for its gradient. One thread
  // takes a tile at a time, and so does every sum: the same bits for any number of threads.
  const int64_t n_group = n_thread == 1 ? 1 : std::min<int64_t>(n_tile, 16);
  const Scratch scratch(n_group * (n_x + n_dy) * TILE);
  float *in_x = scratch.get(), *in_dy = in_x + n_group * n_x * TILE;
  auto samples = [&](int64_t tile) { return int(std::min<int64_t>(TILE, batch - tile * TILE)); };
  for (int64_t first = 0; first < n_tile; first += n_group) {
    const int64_t last = std::min(first + n_group, n_tile);
    parallel_for(last - first, n_thread, [&](int64_t i) {
      const int64_t tile = first + i;
      float* mine = in_dy + i * n_dy * TILE;
      Layout::pack(dy + tile * TILE * dy_stride, dy_stride, samples(tile), rows, n_dy, mine);
      const Scratch room(n_x * TILE);
      layout.multiply(values_t, 0, t.n_row, mine, room.get());
      Layout::unpack(room.get(), 0, cols, samples(tile), dx + tile * TILE * cols, cols);
      Layout::pack(x + tile * TILE * x_stride, x_stride, samples(tile), cols, n_x,
                   in_x + i * n_x * TILE);
    });
    parallel_for(n_thread, n_thread, [&](int64_t cut) {
      const auto [begin, end] = share(s, n_block, cut, n_thread);
      for (int64_t i = 0; i < last - first; ++i)
        for (int64_t k = begin; k < end;) {
          int64_t stop = k + 1;
          while (stop < end && s.row_index[stop] == s.row_index[k]) ++stop;
          const float* from = in_dy + (i * n_dy + int64_t(s.row_index[k]) * s.br) * TILE;
          if constexpr (std::is_same_v<Layout, Quads>)
            row_of_quads<Fp32, TILE>(s, k, stop, from, in_x + i * n_x * TILE, out);
          else
            row_of_entries(s, k, stop, from, in_x + i * n_x * TILE, out);
          k = stop;
        }
    });
  }
  return OK;
}

// Number: Fp32 with samples as units, or Bf16Pair with two neighbouring samples in one unit.
template <class Number, class In>
int32_t gradient(const Places& s, const In* dy, int64_t dy_stride, int64_t rows, const In* x,
                 int64_t x_stride, int64_t cols, int64_t batch, int64_t n_row, int64_t n_col,
                 int64_t n_block, float* out, int n_thread) {
  const int32_t* row_index = s.row_index;
  const int br = s.br, bc = s.bc;
  if (const int32_t status = check(s, n_row, n_col, n_block)) return status;
  constexpr int PER_UNIT = sizeof(float) / sizeof(In);
  const bool quads = has_quads(br, bc);
  if constexpr (PER_UNIT == 1)
    if (is_by_strips(br, bc, n_row, n_col, n_block)) {
      gradient_by_strips(s, dy, dy_stride, rows, x, x_stride, cols, batch, n_col, n_block, out,
                         n_thread);
      return OK;
    }
  const int slot = quads ? SLOT : TILE;
  parallel_for(n_thread, n_thread, [&](int64_t cut) {
    const auto [begin, end] = share(s, n_block, cut, n_thread);
    if (begin == end) return;
    const int64_t row0 = row_index[begin], row1 = row_index[end - 1] + 1;
    const int64_t first_row = row0 * br, last_row = row1 * br < rows ? row1 * br : rows;
    const Scratch scratch((n_col * bc + (row1 - row0) * br) * slot);
    float *in_x = scratch.get(), *in_dy = in_x + n_col * bc * slot;
    for (int64_t b = 0; b < batch; b += slot * PER_UNIT) {
      const int n = int(batch - b < slot * PER_UNIT ? batch - b : slot * PER_UNIT);
      const In *from_x = x + b * x_stride, *from_dy = dy + b * dy_stride;
      if (quads) {
        pack_quads(from_x, x_stride, n, slot, 0, cols, in_x);
        pack_quads(from_dy, dy_stride, n, slot, first_row, last_row, in_dy);
        // Quads wholly over the ragged edge of the last block.
        const int64_t full_x = (cols + 3) / 4 * 4, full_dy = (last_row - first_row + 3) / 4 * 4;
        std::memset(in_x + full_x * slot, 0, (n_col * bc - full_x) * slot * sizeof(float));
        std::memset(in_dy + full_dy * slot, 0,
                    ((row1 - row0) * br - full_dy) * slot * sizeof(float));
      } else if constexpr (PER_UNIT == 1) {
        pack_features(from_x, x_stride, n, cols, n_col * bc, in_x);
        pack_features(from_dy + first_row, dy_stride, n, last_row - first_row, (row1 - row0) * br,
                      in_dy);
      }
      for (int64_t k = begin; k < end;) {
        int64_t stop = k + 1;
        while (stop < end && row_index[stop] == row_index[k]) ++stop;
        const float* from = in_dy + (row_index[k] - row0) * br * slot;
        if (quads)
          row_of_quads<Number, SLOT>(s, k, stop, from, in_x, out);
        else
          row_of_entries(s, k, stop, from, in_x, out);
        k = stop;
      }
    }
  });
  return OK;
}

}  // namespace

extern "C" int32_t tessera_spmm(const float* x, int64_t x_stride, int64_t batch, int64_t cols,
                                const float* values, const int32_t* row_ptr,
                                const int32_t* col_index, int64_t n_row, int64_t n_col,
                                int64_t n_block, int32_t br, int32_t bc, void* y, int64_t rows,
                                int32_t is_bf16, int32_t n_thread);

// row_index ascends; out [n_block][br][bc] comes as zeros. In bf16 both sides of a block are
// multiples of four.
extern "C" int32_t tessera_sddmm(const void* dy, int64_t dy_stride, int64_t rows, const void* x,
                                 int64_t x_stride, int64_t cols, int64_t batch,
                                 const int32_t* row_index, const int32_t* col_index, int64_t n_row,
                                 int64_t n_col, int64_t n_block, int32_t br, int32_t bc, float* out,
                                 int32_t is_bf16, int32_t n_thread) {
  const Places s{row_index, col_index, br, bc};
  if (!is_bf16)
    return gradient<Fp32>(s, static_cast<const float*>(dy), dy_stride, rows,
                          static_cast<const float*>(x), x_stride, cols, batch, n_row, n_col,
                          n_block, out, n_thread);
#if defined(__AVX512BF16__)
  if (br % 4 == 0 && bc % 4 == 0)
    return gradient<Bf16Pair>(s, static_cast<const uint16_t*>(dy), dy_stride, rows,
                              static_cast<const uint16_t*>(x), x_stride, cols, batch, n_row, n_col,
                              n_block, out, n_thread);
#endif
  return NOT_BUILT;
}

// dx = dy S and the live blocks of dy^T x together, fp32: `values_t` is what
// tessera_transpose_blocks gives for order_t. Both patterns are those of one S; out comes as zeros.
extern "C" int32_t tessera_spmm_backward(const float* dy, int64_t dy_stride, int64_t rows,
                                         const float* x, int64_t x_stride, int64_t cols,
                                         int64_t batch, const float* values_t,
                                         const int32_t* row_index, const int32_t* col_index,
                                         const int32_t* col_ptr, const int32_t* row_index_t,
                                         int64_t n_row, int64_t n_col, int64_t n_block, int32_t br,
                                         int32_t bc, float* dx, float* out, int32_t n_thread) {
  const Pattern t{col_ptr, row_index_t, n_col, n_row, n_block, bc, br};
  const Places s{row_index, col_index, br, bc};
  if (const int32_t status = check(t)) return status;
  if (const int32_t status = check(s, n_row, n_col, n_block)) return status;
  if (is_by_strips(br, bc, n_row, n_col, n_block)) {
    tessera_spmm(dy, dy_stride, batch, rows, values_t, col_ptr, row_index_t, n_col, n_row, n_block,
                 bc, br, dx, cols, false, n_thread);
    gradient_by_strips(s, dy, dy_stride, rows, x, x_stride, cols, batch, n_col, n_block, out,
                       n_thread);
    return OK;
  }
  return (has_quads(br, bc) ? both_gradients<Quads> : both_gradients<Features<Fp32>>)(
      t, s, n_block, dy, dy_stride, rows, x, x_stride, cols, batch, values_t, dx, out, n_thread);
}
