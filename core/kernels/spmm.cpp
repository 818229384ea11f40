// y = x S^T for a block-sparse S: forward pass, and input gradient over the transposed order.
//
// A tile of samples is packed into the layout of its kernel, multiplied, and unpacked while it lies
// in the second-level cache. The next tile is fetched meanwhile. Threads share the tiles.

#include "entries.h"
#include "full.h"

namespace {

// In the quads or the features layout.
template <class Layout>
void multiply_by_tiles(const Layout& layout, const Rows<float>& x, const float* values,
                       const float* bias, float* y, int64_t rows, int n_thread) {
  const Pattern& s = layout.s;
  const int64_t n_in = s.n_col * s.bc;
  const int slot = slot_for(x.batch, n_in, n_thread);
  const int64_t n_tile = (x.batch + slot - 1) / slot;
  // A batch of few tiles is also cut by rows, so that every thread has work.
  const int64_t n_cut = n_tile >= n_thread ? 1 : std::min<int64_t>(s.n_row, n_thread);
  for_tiles(n_tile * n_cut, n_thread, [&](int64_t task, bool has_next) {
    const int64_t tile = task / n_cut, cut = task % n_cut;
    const int n_sample = x.n_sample(tile, slot);
    const int filled = (n_sample + 15) / 16 * 16;
    const Scratch scratch(n_in * slot + layout.room(slot));
    float *in = scratch.get(), *room = in + n_in * slot;
    layout.pack(x.at(tile, slot), x.stride, n_sample, filled, x.n, in);
    layout.multiply(values, s.n_row * cut / n_cut, s.n_row * (cut + 1) / n_cut, in, filled, room,
                    n_sample, y + tile * slot * rows, rows, bias,
                    has_next && n_cut == 1 ? x.ahead(tile + 1, slot) : Ahead());
  });
}

void multiply_by_blocks(const Pattern& s, const Rows<float>& x, const float* values,
                       const float* bias, float* y, int64_t rows, int n_thread) {
#if defined(__AVX512F__)
  if (has_full_registers())
    return multiply_by_tiles(Strips(s), x, values, bias, y, rows, n_thread);
#endif
  multiply_by_tiles(Quads(s), x, values, bias, y, rows, n_thread);
}

void multiply_by_entries(const Plan& plan, const Rows<float>& x, const float* values,
                         const float* bias, float* y, int64_t rows, int n_thread) {
  const int64_t n_tile = (x.batch + SLOT - 1) / SLOT;
  with_values(plan, values, n_tile, [&](const float* from, auto where) {
    for_tiles(n_tile, n_thread, [&](int64_t tile, bool has_next) {
      const int n_sample = x.n_sample(tile, SLOT);
      const Scratch scratch((x.n + rows) * SLOT);
      float *in = scratch.get(), *out = in + x.n * SLOT, *to = y + tile * SLOT * rows;
      pack_features(x.at(tile, SLOT), x.stride, n_sample, SLOT, x.n, x.n, in);
      visit_entries<true, false, where>(plan, from, in, nullptr, out, nullptr,
                                        has_next ? x.ahead(tile + 1, SLOT) : Ahead());
      if (bias)
        unpack_features(out, SLOT, rows, n_sample, to, rows, WithBias{bias});
      else
        unpack_features(out, SLOT, rows, n_sample, to, rows);
    });
  });
}

int32_t multiply(const Pattern& s, const Plan* plan, const Rows<float>& x, const float* values,
                 const float* bias, float* y, int64_t rows, int n_thread) {
  n_thread = threads_for(double(x.batch) * s.n_block * s.br * s.bc, n_thread);
  const Scratch padded(bias ? rows + LANE : 0);
  if (bias) bias = static_cast<float*>(std::memcpy(padded.get(), bias, rows * sizeof(float)));
  if (plan) {
    if (!plan->fits(s, rows, x.n)) return BAD_PLAN;
    multiply_by_entries(*plan, x, values, bias, y, rows, n_thread);
    return OK;
  }
  if (const int32_t status = check(s)) return status;
  if (has_quads(s.br, s.bc))
    multiply_by_blocks(s, x, values, bias, y, rows, n_thread);
  else
    multiply_by_entries(plan_entries(s, nullptr, false, rows, x.n), x, values, bias, y, rows, n_thread);
  return OK;
}

#if defined(__AVX512BF16__)
int32_t multiply_bf16(const Pattern& s, const Rows<float>& x, const float* values, uint16_t* y,
                      int64_t rows, int n_thread) {
  if (const int32_t status = check(s)) return status;
  n_thread = threads_for(double(x.batch) * s.n_block * s.br * s.bc, n_thread);
  multiply_by_features<Bf16Pair>(
      s, x, values, y, rows, n_thread,
      [&](int64_t tile, int n_sample, float* in, float*) {
        pack_features(x.at(tile, TILE), x.stride, n_sample, TILE, x.n, s.n_col * s.bc, in);
      },
      [&](const float* room, const float*, int64_t, int64_t n, uint16_t* to, int n_sample) {
        unpack_features(room, TILE, n, n_sample, to, rows);
      });
  return OK;
}
#endif

}  // namespace

// The plan of products of these blocks with rows x cols, freed by tessera_free_plan; `order` may be
// null (entries.h).
extern "C" int32_t tessera_make_plan(const int32_t* row_ptr, const int32_t* col_index,
                                     const int32_t* order, int64_t n_row, int64_t n_col,
                                     int64_t n_block, int32_t br, int32_t bc, int64_t rows,
                                     int64_t cols, void** plan) {
  const Pattern s{row_ptr, col_index, n_row, n_col, n_block, br, bc};
  if (const int32_t status = check(s)) return status;
  if (order && !are_places(order, n_block)) return BAD_INDEX;
  *plan = new Plan(plan_entries(s, order, order != nullptr, rows, cols));
  return OK;
}

extern "C" int32_t tessera_free_plan(void* plan) {
  delete static_cast<Plan*>(plan);
  return OK;
}

// Strides and sizes of x and of the blocks count 32-bit units: entries of fp32, pairs of bf16. A bias
// [rows], fp32 only, may be null, and so may the plan, which belongs to blocks that are not quads.
extern "C" int32_t tessera_spmm(const float* x, int64_t x_stride, int64_t batch, int64_t cols,
                                const float* values, const int32_t* row_ptr,
                                const int32_t* col_index, int64_t n_row, int64_t n_col,
                                int64_t n_block, int32_t br, int32_t bc, const void* plan,
                                const float* bias, void* y, int64_t rows, int32_t is_bf16, int32_t n_thread) {
  const Pattern s{row_ptr, col_index, n_row, n_col, n_block, br, bc};
  const Rows<float> in{x, x_stride, batch, cols};
  on_large_pages(y, batch * rows * (is_bf16 ? 2 : 4));
  if (!is_bf16)
    return multiply(s, static_cast<const Plan*>(plan), in, values, bias, static_cast<float*>(y), rows, n_thread);
#if defined(__AVX512BF16__)
  return multiply_bf16(s, in, values, static_cast<uint16_t*>(y), rows, n_thread);
#else
  return NOT_BUILT;
#endif
}

extern "C" int32_t tessera_has_bf16() { return HAS_BF16; }

// Blocks in transposed order, each transposed: out[t] = values[order[t]]^T.
extern "C" int32_t tessera_transpose_blocks(const void* values, const int32_t* order,
                                            int64_t n_block, int32_t br, int32_t bc, void* out,
                                            int32_t n_byte) {
  if (!are_places(order, n_block)) return BAD_INDEX;
  auto run = [&](auto number) {
    using Number = decltype(number);
    turn(static_cast<const Number*>(values), order, n_block, br, bc, static_cast<Number*>(out));
  };
  n_byte == 4 ? run(uint32_t()) : run(uint16_t());
  return OK;
}
