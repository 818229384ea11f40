// sum of min(a, b) over the entries of each part of two rows of counts, for many pairs of rows.
//
// Four rows of either side at a time: eight loads serve sixteen pairs, whose sums stay in
// registers. A row's own sum is made by the same loop, so that equal rows are alike to the last bit.

#include <algorithm>
#include <cstdint>

#include "lanes.h"

constexpr int SIDE = 4, PAIR = SIDE * SIDE;  // rows of a tile, and their pairs
constexpr int64_t BLOCK = 64;  // rows of a that stay in the second-level cache

namespace {

// found[i * SIDE + j]: sum over n entries of the smaller one of row i of a and row j of b.
void sum_smaller(const float* const* a, const float* const* b, int64_t n, float* found) {
  Vec sum[PAIR] = {};
  int64_t k = 0;
  for (; k + LANE <= n; k += LANE) {
    Vec x[SIDE];
    for (int i = 0; i < SIDE; ++i) x[i] = load(a[i] + k);
    for (int j = 0; j < SIDE; ++j) {
      const Vec y = load(b[j] + k);
      for (int i = 0; i < SIDE; ++i) sum[i * SIDE + j] += smaller(x[i], y);
    }
  }
  for (int p = 0; p < PAIR; p += LANE) store(found + p, sums_of_lanes(sum + p));
  for (; k < n; ++k)
    for (int p = 0; p < PAIR; ++p) found[p] += std::min(a[p / SIDE][k], b[p % SIDE][k]);
}

}  // namespace

// out [n_row_a][n_row_b]: mean over the parts of sum of min / sum of max; 1 where both are nought.
// Rows hold n_part parts of n counts each, none below nought.
extern "C" void tessera_min_max(const float* a, int64_t n_row_a, const float* b, int64_t n_row_b,
                                int64_t n_part, int64_t n, float* total_a, float* total_b,
                                float* out) {
  const int64_t stride = n_part * n;
  auto totals = [&](const float* x, int64_t n_row, float* total) {
    for (int64_t r = 0; r < n_row; ++r)
      for (int64_t p = 0; p < n_part; ++p) {
        const float* rows[SIDE];
        float found[PAIR];
        std::fill(rows, rows + SIDE, x + r * stride + p * n);
        sum_smaller(rows, rows, n, found);
        total[r * n_part + p] = found[0];
      }
  };
  totals(a, n_row_a, total_a);
  totals(b, n_row_b, total_b);
  for (int64_t block = 0; block < n_row_a; block += BLOCK) {
    const int64_t end = std::min(block + BLOCK, n_row_a);
    for (int64_t c = 0; c < n_row_b; c += SIDE)
      for (int64_t r = block; r < end; r += SIDE) {
        float mean[SIDE][SIDE] = {};
        for (int64_t p = 0; p < n_part; ++p) {
          const float *x[SIDE], *y[SIDE];
          for (int i = 0; i < SIDE; ++i) {  // beyond the last row that one again
            x[i] = a + std::min(r + i, end - 1) * stride + p * n;
            y[i] = b + std::min(c + i, n_row_b - 1) * stride + p * n;
          }
          float found[PAIR];
          sum_smaller(x, y, n, found);
          for (int i = 0; i < SIDE && r + i < end; ++i)
            for (int j = 0; j < SIDE && c + j < n_row_b; ++j) {
              const float both = total_a[(r + i) * n_part + p] + total_b[(c + j) * n_part + p];
              mean[i][j] += both > 0 ? found[i * SIDE + j] / (both - found[i * SIDE + j]) : 1.0f;
            }
        }
        for (int i = 0; i < SIDE && r + i < end; ++i)
          for (int j = 0; j < SIDE && c + j < n_row_b; ++j)
            out[(r + i) * n_row_b + c + j] = mean[i][j] / float(n_part);
      }
  }
}
