// out[index[n]] += x[n]: sums over groups of rows.
//
// Rows that follow each other into the same segment are added up in registers, so a sorted index
// touches each output once; an unsorted one works too, it only returns to outputs more often.
// Threads share the segments of a sorted index, and else the features: every sum keeps its order.

#include <algorithm>

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
  on_large_pages(out, n_segment * n_feature * 4);
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
  auto sum_rows = [&](int64_t first, int64_t last, int64_t f, int64_t end) {
    const float* from = x + first * stride;
    const int64_t *into = index + first, n = last - first;
    for (; f + 2 * WIDE * LANE <= end; f += 2 * WIDE * LANE)
      sum_columns<2 * WIDE>(from + f, stride, into, n, sorted, out + f, n_feature);
    for (; f + WIDE * LANE <= end; f += WIDE * LANE)
      sum_columns<WIDE>(from + f, stride, into, n, sorted, out + f, n_feature);
    for (; f + LANE <= end; f += LANE)
      sum_columns<1>(from + f, stride, into, n, sorted, out + f, n_feature);
    for (; f < end; ++f)
      for (int64_t i = 0; i < n; ++i) {
        float& to = out[into[i] * n_feature + f];
        const bool is_first = sorted && (i == 0 || into[i - 1] != into[i]);
        to = from[i * stride + f] + (is_first ? 0.0f : to);
      }
  };
  if (sorted) {  // stretches of whole segments, so that rows are read as they lie in memory
    constexpr int64_t STRETCH = 64;
    auto edge = [&](int64_t n) {
      if (n == 0 || n >= n_row) return std::min(n, n_row);
      return int64_t(std::upper_bound(index + n, index + n_row, index[n - 1]) - index);
    };
    parallel_for((n_row + STRETCH - 1) / STRETCH, n_thread, [&](int64_t task) {
      const int64_t first = edge(task * STRETCH), last = edge((task + 1) * STRETCH);
      if (first < last) sum_rows(first, last, 0, n_feature);
    });
    return OK;
  }
  const int64_t n_panel = (n_feature + WIDE * LANE - 1) / (WIDE * LANE);
  parallel_for(n_panel, n_thread, [&](int64_t panel) {
    const int64_t f = panel * WIDE * LANE;
    sum_rows(0, n_row, f, std::min(f + WIDE * LANE, n_feature));
  });
  return OK;
}
