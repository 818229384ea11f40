// y = x S^T for a block-sparse S: forward pass, and input gradient over the transposed order.
//
// One tile of 64 samples is packed to [feature][64], multiplied, and unpacked while it lies in the
// second-level cache. A weight is spread over a vector; the outputs of a few rows of S stay in
// registers over all live blocks of these rows.

#include "product.h"

namespace {

template <class Layout, class Out>
int32_t multiply(const Pattern& s, const float* x, int64_t x_stride, int64_t batch, int64_t cols,
                 const float* values, Out* y, int64_t rows, int n_thread) {
  if (const int32_t status = check(s)) return status;
  const Layout layout(s);
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
    Layout::pack(x + tile * TILE * x_stride, x_stride, n_sample, cols, n_in, in);
    layout.multiply(values, first, last, in, out);
    const int64_t end = last * s.br < rows ? last * s.br : rows;
    Layout::unpack(out, first * s.br, end, n_sample, y + tile * TILE * rows, rows);
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
    return (has_quads(br, bc) ? multiply<Quads, float> : multiply<Features<Fp32>, float>)(
        s, x, x_stride, batch, cols, values, static_cast<float*>(y), rows, n_thread);
#if defined(__AVX512BF16__)
  return multiply<Features<Bf16Pair>>(s, x, x_stride, batch, cols, values, static_cast<uint16_t*>(y), rows,
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
