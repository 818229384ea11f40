// out[index[n]] += x[n]: sums over groups of rows.
//
// Rows that follow each other into the same segment are added up in registers, so a sorted index
// touches each output once; an unsorted one works too, it only returns to outputs more often.
// Threads share the features, not the rows: every sum keeps its order.

#include "vector.h"

namespace {

template <int WIDE>
void sum_columns(const float* x, int64_t stride, const int64_t* index, int64_t n_row, bool sorted,
                 float* out, int64_t out_stride) {
  for (int64_t n = 0; n < n_row;) {
    const int64_t segment = index[n];
    Vec sum[WIDE];
    for (int j = 0; j < WIDE; ++j) sum[j] = load(x + n * stride + j * LANE);
    for (++n; n < n_row && index[n] == segment; ++n)
      for (int j = 0; j < WIDE; ++j) sum[j] += load(x + n * stride + j * LANE);
    float* to = out + segment * out_stride;
    for (int j = 0; j < WIDE; ++j) {
      if (!sorted) sum[j] += load(to + j * LANE);
      store(to + j * LANE, sum[j]);
    }
  }
}

}  // namespace

// out [n_segment][n_feature] need not be initialised.
extern "C" int32_t tessera_segment_sum(const float* x, int64_t stride, const int64_t* index,
                                       int64_t n_row, int64_t n_feature, float* out,
                                       int64_t n_segment, int32_t n_thread) {
  bool sorted = true;
  for (int64_t n = 0; n < n_row; ++n) {
    if (index[n] < 0 || index[n] >= n_segment) return BAD_INDEX;
    sorted &= n == 0 || index[n - 1] <= index[n];
  }
  if (sorted) {  // only the segments that no row names have to be cleared
    int64_t next = 0;
    for (int64_t n = 0; n <= n_row; ++n) {
      const int64_t segment = n < n_row ? index[n] : n_segment;
      if (segment > next) std::memset(out + next * n_feature, 0, (segment - next) * n_feature * 4);
      if (segment >= next) next = segment + 1;
    }
  } else {
    std::memset(out, 0, n_segment * n_feature * sizeof(float));
  }
  constexpr int WIDE = 8;
  const int64_t n_panel = (n_feature + WIDE * LANE - 1) / (WIDE * LANE);
  parallel_for(n_panel, n_thread, [&](int64_t panel) {
    int64_t f = panel * WIDE * LANE;
    const int64_t end = f + WIDE * LANE < n_feature ? f + WIDE * LANE : n_feature;
    for (; f + WIDE * LANE <= end; f += WIDE * LANE)
      sum_columns<WIDE>(x + f, stride, index, n_row, sorted, out + f, n_feature);
    for (; f + LANE <= end; f += LANE)
      sum_columns<1>(x + f, stride, index, n_row, sorted, out + f, n_feature);
    for (; f < end; ++f)
      for (int64_t n = 0; n < n_row; ++n) {
        float& to = out[index[n] * n_feature + f];
        const bool is_first = sorted && (n == 0 || index[n - 1] != index[n]);
        to = x[n * stride + f] + (is_first ? 0.0f : to);
      }
  });
  return OK;
}
