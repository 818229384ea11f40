// Products between activations that stay packed from one layer to the next, fp32.
//
// A packed batch is tiles of `slot` samples, each in the quads layout, the last with as many as are
// left: [tile][feature / 4][sample][4]. Samples are counted up to a multiple of sixteen; those beyond
// the batch are zeros in what is packed, and what a layer makes of them is never read. Sides of
// blocks and counts of features are multiples of four, and no block reaches over an edge.

#include "outer.h"
#include "product.h"

namespace {

// A packed batch of n_feature features.
template <class Number>
struct Tiles {
  Number* x;
  int64_t n_feature, n_sample;
  int slot;
  int64_t n_tile() const { return (n_sample + slot - 1) / slot; }
  int n_slot(int64_t tile) const { return int(std::min<int64_t>(slot, n_sample - tile * slot)); }
  Number* at(int64_t tile) const { return x + tile * n_feature * slot; }
  Ahead ahead(int64_t tile) const {
    return tile < n_tile() ? Ahead(at(tile), 0, 1, n_feature * n_slot(tile)) : Ahead();
  }
};

// Block rows first..last-1 of one tile of y = x S^T + bias, a section at a time.
void multiply_tile(const Quads& layout, const float* values, const float* bias, const float* in,
                   int slot, int64_t first, int64_t last, float* y, Ahead ahead,
                   Turned* turned = nullptr) {
  const Pattern& s = layout.s;
  const int64_t n_pass = s.br / 4 * (slot * 4 / (4 * LANE));  // of a block row: never more
  const int64_t n_ahead = ahead.share((last - first) * n_pass);
  const int64_t row = int64_t(s.br) * slot;
  for (int64_t i = first; i < last; i += layout.step) {
    const int64_t end = std::min(i + layout.step, last), n_next = std::min(end + layout.step, last) - end;
    Lines<true> outputs;  // of the next section
    if (n_next) outputs = {y + end * row, 0, 1, n_next * row};
    const int64_t k = s.row_ptr[i];
    const float* from = turned ? turned->at(k, s.row_ptr[end]) : values + k * s.br * s.bc;
    layout.run(s, from, i, end, slot, in, y + i * row, ahead, n_ahead, outputs,
               outputs.share((end - i) * n_pass));
    if (!bias) continue;
    for (int64_t f = i * s.br; f < end * s.br; f += 4) {
      const Vec b = spread_quad(bias + f);
      for (int v = 0; v < slot * 4; v += LANE) {
        float* to = y + f * slot + v;
        store(to, load(to) + b);
      }
    }
  }
}

// Tiles, and where these are few the block rows of a tile, shared by the threads.
void multiply_tiles(const Pattern& s, const float* values, const float* bias,
                    const Tiles<const float>& x, float* y, int n_thread) {
  const Quads layout(s);
  const int64_t rows = s.n_row * s.br;
  const int64_t n_cut = x.n_tile() >= n_thread ? 1 : std::min<int64_t>(s.n_row, n_thread);
  for_tiles(x.n_tile() * n_cut, n_thread, [&](int64_t task, bool has_next) {
    const int64_t tile = task / n_cut, cut = task % n_cut;
    multiply_tile(layout, values, bias, x.at(tile), x.n_slot(tile), s.n_row * cut / n_cut,
                  s.n_row * (cut + 1) / n_cut, y + tile * rows * x.slot,
                  has_next && n_cut == 1 ? x.ahead(tile + 1) : Ahead());
  });
}

// sums[feature] += the sum over the samples of a tile.
void add_samples(const float* dy, int64_t n_feature, int slot, float* sums) {
  for (int64_t f = 0; f < n_feature; f += 4) {
    Vec sum = {};
    for (int v = 0; v < slot * 4; v += LANE) sum += load(dy + f * slot + v);
    float lane[LANE];
    store(lane, sum);
    for (int i = 0; i < LANE; ++i) sums[f + i % 4] += lane[i];
  }
}

int32_t check(const Pattern& s, const Places& at) {
  if (const int32_t status = check(s)) return status;
  for (int64_t i = 0; i < s.n_row; ++i)
    for (int64_t k = s.row_ptr[i]; k < s.row_ptr[i + 1]; ++k)
      if (at.row_index[k] != i) return BAD_POINTER;
  return OK;
}

}  // namespace

// Samples in a tile of a packed batch: many, as a weight gradient is summed over lanes once a tile.
extern "C" int32_t tessera_packed_slot(int64_t batch, int32_t n_thread) {
  return batch >= 128 * int64_t(n_thread) ? 128 : slot_for(batch, 2048, n_thread);
}

// x[batch][n_feature], rows `stride` apart, into tiles of `slot` samples, and back.
extern "C" int32_t tessera_pack(const float* x, int64_t stride, int64_t batch, int64_t n_feature,
                                int32_t slot, float* out, int32_t n_thread) {
  const Rows<float> rows{x, stride, batch, n_feature};
  on_large_pages(out, batch * n_feature * 4);
  for_tiles((batch + slot - 1) / slot, threads_for(32.0 * batch * n_feature, n_thread),
            [&](int64_t tile, bool) {
              const int n_sample = rows.n_sample(tile, slot);
              pack_quads(rows.at(tile, slot), stride, n_sample, (n_sample + 15) / 16 * 16,
                         n_feature, out + tile * slot * n_feature);
            });
  return OK;
}

extern "C" int32_t tessera_unpack(const float* in, int32_t slot, int64_t batch, int64_t n_feature,
                                  float* y, int32_t n_thread) {
  const Rows<float> rows{y, n_feature, batch, n_feature};
  on_large_pages(y, batch * n_feature * 4);
  for_tiles((batch + slot - 1) / slot, threads_for(32.0 * batch * n_feature, n_thread),
            [&](int64_t tile, bool) {
              const int n_sample = rows.n_sample(tile, slot);
              unpack_quads(in + tile * slot * n_feature, (n_sample + 15) / 16 * 16, n_feature,
                           n_sample, y + tile * slot * n_feature, n_feature, AsTheyAre());
            });
  return OK;
}

// y = x S^T + bias, both packed batches of n_sample; the bias may be null.
extern "C" int32_t tessera_spmm_packed(const float* x, int64_t n_sample, int32_t slot,
                                       const float* values, const int32_t* row_ptr,
                                       const int32_t* col_index, int64_t n_row, int64_t n_col,
                                       int64_t n_block, int32_t br, int32_t bc, const float* bias,
                                       float* y, int32_t n_thread) {
  const Pattern s{row_ptr, col_index, n_row, n_col, n_block, br, bc};
  if (const int32_t status = check(s)) return status;
  n_thread = threads_for(double(n_sample) * n_block * br * bc, n_thread);
  on_large_pages(y, n_sample * n_row * br * 4);
  multiply_tiles(s, values, bias, {x, n_col * bc, n_sample, slot}, y, n_thread);
  return OK;
}

// dx = dy S, packed, which may be null, and in `out` the live blocks of dy^T x, followed by the sum
// of dy over the samples.
extern "C" int32_t tessera_backward_packed(const float* dy, const float* x, int64_t n_sample,
                                           int32_t slot, const float* values,
                                           const int32_t* row_ptr, const int32_t* row_index,
                                           const int32_t* col_index, const int32_t* col_ptr,
                                           const int32_t* row_index_t, const int32_t* order_t,
                                           int64_t n_row, int64_t n_col, int64_t n_block,
                                           int32_t br, int32_t bc, float* dx, float* out,
                                           int32_t n_thread) {
  const Pattern s{row_ptr, col_index, n_row, n_col, n_block, br, bc};
  const Pattern t{col_ptr, row_index_t, n_col, n_row, n_block, bc, br};
  const Places at{row_index, col_index, br, bc};
  if (const int32_t status = check(s, at)) return status;
  if (const int32_t status = check(t)) return status;
  const int64_t n_value = n_block * br * bc;
  if (!are_places(order_t, n_block)) return BAD_INDEX;
  const Tiles<const float> of_dy{dy, n_row * br, n_sample, slot}, of_x{x, n_col * bc, n_sample, slot};
  const int64_t n_tile = of_x.n_tile();
  n_thread = threads_for(2.0 * n_sample * n_value, n_thread);
  on_large_pages(out, n_value * 4);
  if (dx) on_large_pages(dx, n_sample * of_x.n_feature * 4);
  n_thread = int(std::clamp<int64_t>(n_tile, 1, n_thread));
  const Quads layout(t);
  Turned turned(values, order_t, dx ? n_block : 0, br, bc, n_thread, n_tile == 1);
  with_sums(n_value + of_dy.n_feature, n_tile, out, n_thread, [&](int64_t begin, int64_t last, float* sums) {
    if (begin == last) clear(sums, n_value);
    clear(sums + n_value, of_dy.n_feature);
    for (int64_t tile = begin; tile < last; ++tile) {
      const int n_slot = of_x.n_slot(tile);
      const float *in_dy = of_dy.at(tile), *in_x = of_x.at(tile);
      if (dx)
        multiply_tile(layout, nullptr, nullptr, in_dy, n_slot, 0, n_col,
                      dx + tile * of_x.n_feature * slot, of_x.ahead(tile), &turned);
      Ahead ahead = tile + 1 < last ? of_dy.ahead(tile + 1) : Ahead();
      const int64_t n_ahead = ahead.share(n_block);
      for (int64_t i = 0; i < n_row; ++i)
        if (const int64_t k = row_ptr[i], n = row_ptr[i + 1] - k; n) {
          if (tile == begin) clear(sums + k * br * bc, n * br * bc);
          row_of_quads<Fp32>(at, k, k + n, n_slot, in_dy + i * br * n_slot, in_x, sums, ahead, n_ahead);
        }
      add_samples(in_dy, of_dy.n_feature, n_slot, sums + n_value);
    }
  });
  return OK;
}
