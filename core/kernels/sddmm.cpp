// The live blocks of dy^T x: the weight gradient, and no other entry of it.
//
// Blocks whose sides are multiples of four are cut into 4 x 4 outer products. In the quads layout a
// vector holds the same four features of LANE / 4 samples; spreading one feature of dy inside each
// group of four lanes and multiplying by x adds a row of the outer product for all these samples at
// once. Other blocks take dot products over samples, sixteen entries of a row at a time.

#include <algorithm>

#include "pack.h"

namespace {

constexpr int SLOT = 128;  // samples (pairs, in bf16) packed together: more mean rarer sums across lanes

struct Pattern {
  const int32_t* row_index;
  const int32_t* col_index;
  int br, bc;
};

template <int LANE_OF_FOUR>
inline Vec spread_feature(Vec v) {
  IVec pick;
  for (int i = 0; i < LANE; ++i) pick[i] = i / 4 * 4 + LANE_OF_FOUR;
  return __builtin_shuffle(v, pick);
}

inline Quad sum_of_groups(Vec v) {
  Quad group[STEP], total{};
  std::memcpy(group, &v, sizeof v);
  for (int g = 0; g < STEP; ++g) total += group[g];
  return total;
}

// One quad of rows by N quads of columns: out[n] += dy^T x, 4 x 4 entries each.
template <class Number, int N>
inline void outer_quads(const float* dy, const float* const (&x)[4], float* const (&out)[4],
                        int bc) {
  Vec sum[4][N] = {};
  for (int s = 0; s < SLOT; s += STEP) {
    const Vec d = load(dy + s * 4);
    const Vec row[4] = {spread_feature<0>(d), spread_feature<1>(d), spread_feature<2>(d),
                        spread_feature<3>(d)};
    for (int n = 0; n < N; ++n) {
      const Vec v = load(x[n] + s * 4);
      for (int r = 0; r < 4; ++r) sum[r][n] = Number::mac(sum[r][n], row[r], v);
    }
  }
  for (int n = 0; n < N; ++n)
    for (int r = 0; r < 4; ++r) {
      QuadAny* to = reinterpret_cast<QuadAny*>(out[n] + r * bc);
      *to += sum_of_groups(sum[r][n]);
    }
}

// Live blocks first..last-1, all of one block row, with both sides multiples of four.
template <class Number>
void row_of_quads(const Pattern& s, int64_t first, int64_t last, const float* dy, const float* x,
                  float* out) {
  constexpr int MOST = LANE == 16 ? 4 : 2;  // 4 * MOST sums in registers
  const int n_across = s.bc / 4;
  for (int64_t k0 = first; k0 < last;) {
    // A group is MOST quads of columns out of one wide block or out of several narrow ones.
    const int n_k = n_across >= MOST ? 1 : int(last - k0 < MOST / n_across ? last - k0 : MOST / n_across);
    for (int down = 0; down < s.br / 4; ++down) {
      const float* from_dy = dy + int64_t(down) * SLOT * 4;
      for (int a0 = 0; a0 < n_across; a0 += MOST) {
        const float* from[4] = {};
        float* to[4] = {};
        int n = 0;
        for (int k = 0; k < n_k; ++k)
          for (int a = a0; a < n_across && a < a0 + MOST; ++a, ++n) {
            from[n] = x + (int64_t(s.col_index[k0 + k]) * n_across + a) * SLOT * 4;
            to[n] = out + ((k0 + k) * s.br + down * 4) * s.bc + a * 4;
          }
        switch (n) {
          case 4: outer_quads<Number, 4>(from_dy, from, to, s.bc); break;
          case 3: outer_quads<Number, 3>(from_dy, from, to, s.bc); break;
          case 2: outer_quads<Number, 2>(from_dy, from, to, s.bc); break;
          default: outer_quads<Number, 1>(from_dy, from, to, s.bc);
        }
      }
    }
    k0 += n_k;
  }
}

// LANE entries of one row: to[n] += sum over one tile of dy x, both in the features layout.
inline void dot_products(const Vec (&dy)[PART], const float* x, const int32_t* column,
                         float* const* to) {
  Vec sum[LANE];
  for (int n = 0; n < LANE; ++n) {
    const float* from = x + int64_t(column[n]) * TILE;
    sum[n] = dy[0] * load(from);
    for (int j = 1; j < PART; ++j) sum[n] += dy[j] * load(from + j * LANE);
  }
  const Vec total = sums_of_lanes(sum);
  if (to[LANE - 1] == to[0] + LANE - 1)
    store(to[0], load(to[0]) + total);
  else
    for (int n = 0; n < LANE; ++n) *to[n] += total[n];
}

void row_of_entries(const Pattern& s, int64_t first, int64_t last, const float* dy, const float* x,
                    float* out) {
  for (int r = 0; r < s.br; ++r) {
    Vec d[PART];
    for (int j = 0; j < PART; ++j) d[j] = load(dy + r * TILE + j * LANE);
    int32_t column[LANE] = {};
    float *to[LANE], spare;
    int n = 0;
    for (int64_t k = first; k < last; ++k)
      for (int c = 0; c < s.bc; ++c) {
        column[n] = s.col_index[k] * s.bc + c;
        to[n] = out + (k * s.br + r) * s.bc + c;
        if (++n == LANE) {
          dot_products(d, x, column, to);
          n = 0;
        }
      }
    if (!n) continue;
    for (int i = n; i < LANE; ++i) to[i] = &spare;  // repeats of valid columns, thrown away
    spare = 0;
    dot_products(d, x, column, to);
  }
}

}  // namespace

namespace {

// Where blocks that have no quads are many, all of dy^T x is computed, by quads, a strip of sixteen
// rows at a time, and the live entries of the strip are kept.
void gradient_by_strips(const Pattern& s, const float* dy, int64_t dy_stride, int64_t rows,
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
          outer_quads<Fp32, MOST>(in_dy + down * SLOT * 4, from, to, int(width));
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

// Number: Fp32 with samples as units, or Bf16Pair with two neighbouring samples in one unit.
template <class Number, class In>
int32_t gradient(const Pattern& s, const In* dy, int64_t dy_stride, int64_t rows, const In* x,
                 int64_t x_stride, int64_t cols, int64_t batch, int64_t n_row, int64_t n_col,
                 int64_t n_block, float* out, int n_thread) {
  const int32_t *row_index = s.row_index, *col_index = s.col_index;
  const int br = s.br, bc = s.bc;
  for (int64_t k = 0; k < n_block; ++k) {
    if (row_index[k] < 0 || row_index[k] >= n_row) return BAD_INDEX;
    if (col_index[k] < 0 || col_index[k] >= n_col) return BAD_INDEX;
    if (k && row_index[k] < row_index[k - 1]) return BAD_POINTER;
  }
  constexpr int PER_UNIT = sizeof(float) / sizeof(In);
  const bool quads = br % 4 == 0 && bc % 4 == 0;
  if constexpr (PER_UNIT == 1)
    if (!quads && 6 * n_block > n_row * n_col) {  // measured: strips win from a sixth on
      gradient_by_strips(s, dy, dy_stride, rows, x, x_stride, cols, batch, n_col, n_block, out,
                         n_thread);
      return OK;
    }
  const int slot = quads ? SLOT : TILE;
  parallel_for(n_thread, n_thread, [&](int64_t cut) {
    // Each thread owns the block rows whose first block lies in its equal share of the blocks.
    auto edge = [&](int64_t k) {
      while (k && k < n_block && row_index[k] == row_index[k - 1]) ++k;
      return k;
    };
    const int64_t begin = edge(n_block * cut / n_thread);
    const int64_t end = edge(n_block * (cut + 1) / n_thread);
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
          row_of_quads<Number>(s, k, stop, from, in_x, out);
        else
          row_of_entries(s, k, stop, from, in_x, out);
        k = stop;
      }
    }
  });
  return OK;
}

}  // namespace

// row_index ascends; out [n_block][br][bc] comes as zeros. In bf16 both sides of a block are
// multiples of four.
extern "C" int32_t tessera_sddmm(const void* dy, int64_t dy_stride, int64_t rows, const void* x,
                                 int64_t x_stride, int64_t cols, int64_t batch,
                                 const int32_t* row_index, const int32_t* col_index, int64_t n_row,
                                 int64_t n_col, int64_t n_block, int32_t br, int32_t bc, float* out,
                                 int32_t is_bf16, int32_t n_thread) {
  const Pattern s{row_index, col_index, br, bc};
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
