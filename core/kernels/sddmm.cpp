// The live blocks of dy^T x: the weight gradient, and no other entry of it. With it, where it is
// wanted, the input gradient, which shares what is packed.
//
// Threads share the tiles of samples. Each sums the weight gradient of its tiles, and these sums are
// added in the order of the threads: the same bits for the same number of threads.

#include "entries.h"
#include "full.h"
#include "outer.h"
#include "panels.h"

namespace {

int32_t check(const Places& s, int64_t n_row, int64_t n_col, int64_t n_block) {
  for (int64_t k = 0; k < n_block; ++k) {
    if (s.row_index[k] < 0 || s.row_index[k] >= n_row) return BAD_INDEX;
    if (s.col_index[k] < 0 || s.col_index[k] >= n_col) return BAD_INDEX;
    if (k && s.row_index[k] < s.row_index[k - 1]) return BAD_POINTER;
  }
  return OK;
}

// Do something for the blocks [k, stop) of each block row; sums that are new are cleared before.
template <class Do>
void by_row(const Places& s, int64_t n_block, float* sums, bool is_new, const Do& work) {
  for (int64_t k = 0, stop; k < n_block; k = stop) {
    stop = k + 1;
    while (stop < n_block && s.row_index[stop] == s.row_index[k]) ++stop;
    if (is_new) clear(sums + k * s.br * s.bc, (stop - k) * s.br * s.bc);
    work(k, stop);
  }
}

// Number: Fp32 with samples as units, or Bf16Pair with two neighbouring samples in one unit. `t` is
// the transposed pattern, where dx is wanted, and order_t the place of its blocks in the values.
template <class Number, class In>
void gradients_by_quads(const Pattern* t, const float* values, const int32_t* order_t, const Places& s, int64_t n_row,
                        int64_t n_col, int64_t n_block, const Rows<In>& dy, const Rows<In>& x,
                        float* dx, float* out, int n_thread) {
  constexpr int PER_UNIT = sizeof(float) / sizeof(In);
  const int64_t n_dy = n_row * s.br, n_x = n_col * s.bc;
  const int unit = slot_for((x.batch + PER_UNIT - 1) / PER_UNIT, std::max(n_x, n_dy), n_thread);
  const int slot = unit * PER_UNIT;
  const int64_t n_tile = (x.batch + slot - 1) / slot;
  n_thread = int(std::clamp<int64_t>(n_tile, 1, n_thread));
  Turned turned(values, order_t, t ? n_block : 0, s.br, s.bc, n_thread, n_tile == 1);
  with_sums(n_block * s.br * s.bc, n_tile, out, n_thread, [&](int64_t begin, int64_t last, float* sums) {
    const Scratch scratch((n_x + n_dy) * unit);
    float *in_x = scratch.get(), *in_dy = in_x + n_x * unit;
    if (begin == last) clear(sums, n_block * s.br * s.bc);
    for (int64_t tile = begin; tile < last; ++tile) {
      const int n_sample = x.n_sample(tile, slot);
      const int filled = (n_sample + 16 * PER_UNIT - 1) / (16 * PER_UNIT) * 16;
      pack_quads_padded(dy.at(tile, slot), dy.stride, n_sample, filled, dy.n, n_dy, in_dy);
      if constexpr (PER_UNIT == 1)
        if (dx) {
          const Quads layout(*t);
          const Scratch room(layout.room(slot));
          layout.multiply(nullptr, 0, t->n_row, in_dy, filled, room.get(), n_sample,
                          dx + tile * slot * x.n, x.n, nullptr, x.ahead(tile, slot), &turned);
        }
      pack_quads_padded(x.at(tile, slot), x.stride, n_sample, filled, x.n, n_x, in_x);
      Ahead ahead = tile + 1 < last ? dy.ahead(tile + 1, slot) : Ahead();
      const int64_t n_ahead = ahead.share(n_block);
      by_row(s, n_block, sums, tile == begin, [&](int64_t k, int64_t stop) {
        row_of_quads<Number>(s, k, stop, filled, in_dy + int64_t(s.row_index[k]) * s.br * filled,
                             in_x, sums, ahead, n_ahead);
      });
    }
  });
}

#if defined(__AVX512F__)
// The same of fp32 on cores that multiply full registers: dy is spread from the features layout for
// both gradients.
void gradients_by_features(const Pattern* t, const float* values, const int32_t* order_t, const Places& s,
                           int64_t n_row, int64_t n_col, int64_t n_block, const Rows<float>& dy,
                           const Rows<float>& x, float* dx, float* out, int n_thread) {
  const int64_t n_dy = n_row * s.br, n_x = (n_col * s.bc + LANE - 1) / LANE * LANE;
  const int slot = slot_for(x.batch, std::max(n_x, n_dy), n_thread);
  const int64_t n_tile = (x.batch + slot - 1) / slot;
  n_thread = int(std::clamp<int64_t>(n_tile, 1, n_thread));
  const Groups groups(s.br, s.bc);
  with_sums(n_block * s.br * s.bc, n_tile, out, n_thread, [&](int64_t begin, int64_t last, float* sums) {
    const Scratch scratch((n_x + n_dy) * slot);
    float *in_x = scratch.get(), *in_dy = in_x + n_x * slot;
    if (begin == last) clear(sums, n_block * s.br * s.bc);
    for (int64_t tile = begin; tile < last; ++tile) {
      const int n_sample = x.n_sample(tile, slot);
      const int filled = (n_sample + LANE - 1) / LANE * LANE;
      pack_features(dy.at(tile, slot), dy.stride, n_sample, filled, dy.n, n_dy, in_dy);
      if (dx) {
        const Strips layout(*t, order_t);
        const Scratch room(layout.room(slot));
        layout.multiply(values, 0, t->n_row, in_dy, filled, room.get(), n_sample, dx + tile * slot * x.n,
                        x.n, nullptr, x.ahead(tile, slot));
      }
      groups.pack(x.at(tile, slot), x.stride, n_sample, filled, x.n, n_x, in_x);
      Ahead ahead = tile + 1 < last ? dy.ahead(tile + 1, slot) : Ahead();
      const int64_t n_ahead = ahead.share(n_block);
      by_row(s, n_block, sums, tile == begin, [&](int64_t k, int64_t stop) {
        ahead.fetch(n_ahead * (stop - k));
        groups.row(s.col_index, k, stop, s.br, s.bc, filled, in_dy + int64_t(s.row_index[k]) * s.br * filled, in_x, sums);
      });
    }
  });
}
#endif

void gradients_of_fp32(const Pattern* t, const float* values, const int32_t* order_t, const Places& s,
                       int64_t n_row, int64_t n_col, int64_t n_block, const Rows<float>& dy,
                       const Rows<float>& x, float* dx, float* out, int n_thread) {
#if defined(__AVX512F__)
  if (has_full_registers())
    return gradients_by_features(t, values, order_t, s, n_row, n_col, n_block, dy, x, dx, out, n_thread);
#endif
  gradients_by_quads<Fp32>(t, values, order_t, s, n_row, n_col, n_block, dy, x, dx, out, n_thread);
}

#if defined(__AVX512BF16__)
void gradient_by_panels(const Places& s, int64_t n_row, int64_t n_col, int64_t n_block,
                        const Rows<uint16_t>& dy, const Rows<uint16_t>& x, float* out, int n_thread) {
  const int64_t n_dy = panels_of(n_row * s.br), n_x = panels_of(n_col * s.bc);
  const int n_pair = panel_slot((x.batch + 1) / 2, std::max(n_x, n_dy), n_thread), slot = 2 * n_pair;
  const int64_t n_tile = (x.batch + slot - 1) / slot;
  n_thread = int(std::clamp<int64_t>(n_tile, 1, n_thread));
  with_sums(n_block * s.br * s.bc, n_tile, out, n_thread, [&](int64_t begin, int64_t last, float* sums) {
    const Scratch scratch((n_x + n_dy) * n_pair);
    float *in_x = scratch.get(), *in_dy = in_x + n_x * n_pair;
    if (begin == last) clear(sums, n_block * s.br * s.bc);
    for (int64_t tile = begin; tile < last; ++tile) {
      const int n_sample = x.n_sample(tile, slot);
      pack_panels_of_pairs(dy.at(tile, slot), dy.stride, n_sample, n_pair, dy.n, n_dy, in_dy);
      pack_panels_of_pairs(x.at(tile, slot), x.stride, n_sample, n_pair, x.n, n_x, in_x);
      Ahead next_dy = tile + 1 < last ? dy.ahead(tile + 1, slot) : Ahead();
      Ahead next_x = tile + 1 < last ? x.ahead(tile + 1, slot) : Ahead();
      const int64_t of_dy = next_dy.share(n_block), of_x = next_x.share(n_block);
      by_row(s, n_block, sums, tile == begin, [&](int64_t k, int64_t stop) {
        next_dy.fetch(of_dy * (stop - k)), next_x.fetch(of_x * (stop - k));
        row_of_panels(s.col_index, s.row_index[k], k, stop, s.br, s.bc, n_pair, (n_sample + 1) / 2,
                      in_dy, in_x, sums);
      });
    }
  });
}
#endif

// Rows of `p` are the features of `rows`; those of `columns` are read for each of its entries.
template <bool MULTIPLY>
void gradients_by_entries(const Pattern& p, const Plan& plan, const float* values,
                          const Rows<float>& rows, const Rows<float>& columns, float* dx,
                          float* out, int n_thread) {
  const int64_t n = int64_t(plan.column.size()), n_padded = (n + LANE - 1) / LANE * LANE;
  const int64_t n_tile = (rows.batch + SLOT - 1) / SLOT;
  n_thread = int(std::clamp<int64_t>(n_tile, 1, n_thread));
  const Scratch sums_of_all(n_padded);
  float* total = sums_of_all.get();
  auto run = [&](const float* from, auto where) {
    with_sums(n_padded, n_tile, total, n_thread, [&](int64_t begin, int64_t last, float* sums) {
      const Scratch scratch((columns.n + (MULTIPLY ? 2 : 1) * rows.n) * SLOT);
      clear(sums, n_padded);
      float *in = scratch.get(), *other = in + columns.n * SLOT, *room = other + rows.n * SLOT;
      for (int64_t tile = begin; tile < last; ++tile) {
        const int n_sample = rows.n_sample(tile, SLOT);
        pack_features(columns.at(tile, SLOT), columns.stride, n_sample, SLOT, columns.n, columns.n, in);
        pack_features(rows.at(tile, SLOT), rows.stride, n_sample, SLOT, rows.n, rows.n, other);
        visit_entries<MULTIPLY, true, where>(plan, from, in, other, room, sums,
                                             tile + 1 < last ? columns.ahead(tile + 1, SLOT) : Ahead());
        if (MULTIPLY) unpack_features(room, SLOT, rows.n, n_sample, dx + tile * SLOT * rows.n, rows.n);
      }
    });
  };
  if (MULTIPLY)
    with_values(plan, values, n_tile, run);
  else
    run(nullptr, std::integral_constant<Where, GATHERED>());
  const int64_t n_out = p.n_block * p.br * p.bc;
  if (n < n_out) std::memset(out, 0, n_out * sizeof(float));  // entries beyond a ragged edge
  for (int64_t i = 0; i < n; ++i) out[plan.source[i]] = total[i];
}

}  // namespace

// row_index ascends; out is [n_block][br][bc], and the plan may be null. In bf16 both sides of a block are
// multiples of four.
extern "C" int32_t tessera_sddmm(const void* dy, int64_t dy_stride, int64_t rows, const void* x,
                                 int64_t x_stride, int64_t cols, int64_t batch,
                                 const int32_t* row_index, const int32_t* col_index, int64_t n_row,
                                 int64_t n_col, int64_t n_block, int32_t br, int32_t bc, const void* plan,
                                 float* out, int32_t is_bf16, int32_t n_thread) {
  const Places s{row_index, col_index, br, bc};
  if (const int32_t status = check(s, n_row, n_col, n_block)) return status;
  n_thread = threads_for(double(batch) * n_block * br * bc, n_thread);
  on_large_pages(out, n_block * br * bc * 4);
#if defined(__AVX512BF16__)
  if (is_bf16 && has_quads(br, bc)) {
    const Rows<uint16_t> in_dy{static_cast<const uint16_t*>(dy), dy_stride, batch, rows};
    const Rows<uint16_t> in_x{static_cast<const uint16_t*>(x), x_stride, batch, cols};
    if ((br == 8 || br == 16) && (bc == 8 || bc == 16)) {
      gradient_by_panels(s, n_row, n_col, n_block, in_dy, in_x, out, n_thread);
      return OK;
    }
    gradients_by_quads<Bf16Pair>(nullptr, nullptr, nullptr, s, n_row, n_col, n_block, in_dy, in_x, nullptr,
                                 out, n_thread);
    return OK;
  }
#endif
  if (is_bf16) return NOT_BUILT;
  const Rows<float> in_dy{static_cast<const float*>(dy), dy_stride, batch, rows};
  const Rows<float> in_x{static_cast<const float*>(x), x_stride, batch, cols};
  if (has_quads(br, bc)) {
    gradients_of_fp32(nullptr, nullptr, nullptr, s, n_row, n_col, n_block, in_dy, in_x, nullptr, out, n_thread);
    return OK;
  }
  if (const auto* made = static_cast<const Plan*>(plan)) {
    const Pattern p{nullptr, col_index, n_row, n_col, n_block, br, bc};
    if (!made->fits(p, rows, cols)) return BAD_PLAN;
    gradients_by_entries<false>(p, *made, nullptr, in_dy, in_x, nullptr, out, n_thread);
    return OK;
  }
  std::vector<int32_t> row_ptr(n_row + 1);
  for (int64_t k = 0; k < n_block; ++k) ++row_ptr[row_index[k] + 1];
  for (int64_t i = 0; i < n_row; ++i) row_ptr[i + 1] += row_ptr[i];
  const Pattern p{row_ptr.data(), col_index, n_row, n_col, n_block, br, bc};
  gradients_by_entries<false>(p, plan_entries(p, nullptr, false, rows, cols), nullptr, in_dy, in_x,
                              nullptr, out, n_thread);
  return OK;
}

// dx = dy S and the live blocks of dy^T x together, fp32. Both patterns are those of one S, and
// order_t names the place of each block of the transposed one. The plan, which may be null, is that of
// the transposed pattern.
extern "C" int32_t tessera_spmm_backward(const float* dy, int64_t dy_stride, int64_t rows,
                                         const float* x, int64_t x_stride, int64_t cols,
                                         int64_t batch, const float* values,
                                         const int32_t* row_index, const int32_t* col_index,
                                         const int32_t* col_ptr, const int32_t* row_index_t,
                                         const int32_t* order_t, int64_t n_row, int64_t n_col,
                                         int64_t n_block, int32_t br, int32_t bc,
                                         const void* plan, float* dx, float* out,
                                         int32_t n_thread) {
  const Pattern t{col_ptr, row_index_t, n_col, n_row, n_block, bc, br};
  const Places s{row_index, col_index, br, bc};
  n_thread = threads_for(2.0 * batch * n_block * br * bc, n_thread);
  on_large_pages(out, n_block * br * bc * 4);
  on_large_pages(dx, batch * cols * 4);
  const Rows<float> in_dy{dy, dy_stride, batch, rows}, in_x{x, x_stride, batch, cols};
  if (const auto* made = static_cast<const Plan*>(plan)) {
    if (!made->fits(t, cols, rows)) return BAD_PLAN;
    gradients_by_entries<true>(t, *made, values, in_x, in_dy, dx, out, n_thread);
    return OK;
  }
  if (const int32_t status = check(t)) return status;
  if (const int32_t status = check(s, n_row, n_col, n_block)) return status;
  if (!has_quads(br, bc)) {
    if (!are_places(order_t, n_block)) return BAD_INDEX;
    gradients_by_entries<true>(t, plan_entries(t, order_t, true, cols, rows), values, in_x, in_dy,
                               dx, out, n_thread);
    return OK;
  }
  if (!are_places(order_t, n_block)) return BAD_INDEX;
  gradients_of_fp32(&t, values, order_t, s, n_row, n_col, n_block, in_dy, in_x, dx, out, n_thread);
  return OK;
}
