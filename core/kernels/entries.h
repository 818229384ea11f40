// Blocks of any size as single entries: 1 x 1 blocks, and the odd sizes that have no quads.
//
// An entry multiplies whole vectors of samples, and every input vector is read from memory for it;
// so inputs are taken in chunks of columns that lie in the first-level cache, and the two gradients
// share what is read. The plan of a product lists the entries in the order of their use: chunk by
// chunk, and in a chunk the rows with as many entries one after the other, because a loop whose
// length changes from row to row costs the processor a wrong guess each time.
#pragma once

#include <algorithm>

#include "product.h"

namespace {

// Samples in a tile: as many sums as hide the latency of an addition. Twice as many would spread a
// weight over more of them, but measured slower, as fewer columns then make a chunk.
constexpr int W = 4, SLOT = W * LANE;
constexpr int FAR = 32;       // entries from one to whose value is fetched meanwhile
constexpr int FAR_VISIT = 4;  // visits, where the values of one lie side by side

// Entries of one row in one chunk of columns. The first visit of a row finds no sums yet.
struct Visit {
  int32_t row, n_entry;
  bool is_first;
};

struct Plan {
  // Of each entry; source is its place in the values, followed by FAR more.
  std::vector<int32_t> column, source;
  std::vector<Visit> visit;
  int64_t n_block, rows, cols;
  int br, bc;
  bool is_in_order;  // the values of a visit lie side by side
  bool fits(const Pattern& s, int64_t n_row, int64_t n_col) const {
    return s.n_block == n_block && s.br == br && s.bc == bc && rows == n_row && cols == n_col;
  }
};

// Entries of block `k` of S inside rows x cols; `order` names the block's place in the values, and
// `is_turned` says that these hold transposed blocks.
inline Plan plan_entries(const Pattern& s, const int32_t* order, bool is_turned, int64_t rows,
                         int64_t cols) {
  const int64_t n_entry = s.n_block * s.br * s.bc;
  const bool is_single = s.br == 1 && s.bc == 1;
  std::vector<int64_t> pointer(rows + 1);
  std::vector<int32_t> all_column, all_source;
  const int32_t *column = s.col_index, *source = order;
  if (is_single) {
    for (int64_t i = 0; i <= rows; ++i) pointer[i] = s.row_ptr[i];
  } else {
    all_column.reserve(n_entry), all_source.reserve(n_entry);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t i = row / s.br, r = row % s.br;
      for (int64_t k = s.row_ptr[i]; k < s.row_ptr[i + 1]; ++k)
        for (int64_t c = 0; c < s.bc && s.col_index[k] * int64_t(s.bc) + c < cols; ++c) {
          const int64_t block = order ? order[k] : k;
          all_column.push_back(int32_t(s.col_index[k] * int64_t(s.bc) + c));
          all_source.push_back(int32_t((block * (is_turned ? s.bc : s.br) + (is_turned ? c : r)) *
                                           (is_turned ? s.br : s.bc) + (is_turned ? r : c)));
        }
      pointer[row + 1] = int64_t(all_column.size());
    }
    column = all_column.data(), source = all_source.data();
  }
  // Forty kilobytes of inputs, or as many columns as hold some ten entries of a row.
  const int64_t few = pointer[rows] ? 10 * rows * cols / pointer[rows] : cols;
  const int64_t width = std::max<int64_t>(10240 / SLOT, few);
  // As many rows as leave their sums in the second-level cache from one chunk to the next.
  const int64_t height = order ? 512 : 1024;
  Plan plan;
  plan.n_block = s.n_block, plan.rows = rows, plan.cols = cols, plan.br = s.br, plan.bc = s.bc;
  plan.is_in_order = is_single && !order;
  plan.column.reserve(pointer[rows]), plan.source.reserve(pointer[rows] + FAR);
  std::vector<int64_t> next(pointer.begin(), pointer.end() - 1);
  std::vector<int32_t> n_of(rows);
  constexpr int MOST = 255;  // longer rows are told apart no further
  for (int64_t top = 0; top < rows; top += height)
    for (int64_t c = 0; c == 0 || c < cols; c += width) {
      const int64_t bottom = std::min(top + height, rows);
      const bool is_last = c + width >= cols;  // takes whatever is left: rows need not ascend
      int32_t n_row_of[MOST + 2] = {};
      for (int64_t row = top; row < bottom; ++row) {
        int64_t k = next[row];
        const int64_t end = pointer[row + 1];
        if (is_last)
          k = end;
        else
          while (k < end && column[k] < c + width) ++k;
        n_of[row] = int32_t(k - next[row]);
        ++n_row_of[std::min(n_of[row], MOST) + 1];
      }
      // Rows without entries are visited in the first chunk only, which clears their sums.
      if (c) n_row_of[1] = 0;
      for (int n = 0; n <= MOST; ++n) n_row_of[n + 1] += n_row_of[n];
      const int64_t first = int64_t(plan.visit.size());
      plan.visit.resize(first + n_row_of[MOST + 1]);
      for (int64_t row = top; row < bottom; ++row)
        if (n_of[row] || !c)
          plan.visit[first + n_row_of[std::min(n_of[row], MOST)]++] = {int32_t(row), n_of[row], !c};
      for (size_t v = first; v < plan.visit.size(); ++v) {
        int64_t& k = next[plan.visit[v].row];
        const int64_t n = plan.visit[v].n_entry;
        plan.column.insert(plan.column.end(), column + k, column + k + n);
        if (source)
          plan.source.insert(plan.source.end(), source + k, source + k + n);
        else
          for (int64_t i = k; i < k + n; ++i) plan.source.push_back(int32_t(i));
        k += n;
      }
    }
  plan.source.insert(plan.source.end(), FAR, 0);
  return plan;
}

// One tile of SLOT samples, all in the features layout: sums[row] = S in, and the products
// in[column] . other[row] of the live entries added to `gradient`, in the order of the plan. The
// values are those of the matrix, or already gathered into that order.
enum Where { GATHERED, IN_ORDER, ANYWHERE };
template <bool MULTIPLY, bool OUTER, Where WHERE>
void visit_entries(const Plan& plan, const float* values, const float* in, const float* other,
                   float* sums, float* gradient, Ahead ahead) {
  const int32_t* source = plan.source.data();

  const int64_t n_visit = int64_t(plan.visit.size());
  const int32_t* column = plan.column.data();
  const int64_t n_ahead = ahead.share(n_visit);
  int64_t at = 0, far = 0;  // the first entry of this visit, and of that whose values are fetched
  for (int64_t v = 0; v < FAR_VISIT && v < n_visit; ++v) far += plan.visit[v].n_entry;
  alignas(64) float waiting[LANE * LANE] = {};
  for (int64_t v = 0; v < n_visit; ++v) {
    ahead.fetch(n_ahead);
    const auto [row, n, is_first] = plan.visit[v];
    if (WHERE == IN_ORDER && v + FAR_VISIT < n_visit) {
      const float* next = values + source[far];
      const int32_t n_next = plan.visit[v + FAR_VISIT].n_entry;
      __builtin_prefetch(next);
      __builtin_prefetch(next + n_next);
      far += n_next;
    }
    Vec sum[W], mine[W];
    for (int j = 0; j < W; ++j) {
      if (MULTIPLY) sum[j] = is_first ? Vec{} : load(sums + int64_t(row) * SLOT + j * LANE);
      if (OUTER) mine[j] = load(other + int64_t(row) * SLOT + j * LANE);
    }
    const int64_t end = at + n;
    // Of entry i: in the two orders that are dense, from where the visit's first one would count.
    const float* base = WHERE == IN_ORDER && n ? values + source[at] - at : values;
    auto weight = [&](int64_t i) { return spread(WHERE == ANYWHERE ? values + source[i] : base + i); };
    if constexpr (!OUTER) {  // two entries at once: four sums alone would wait for each other
      Vec second[W] = {};
      for (; at + 2 <= end; at += 2) {
        const float *x0 = in + int64_t(column[at]) * SLOT, *x1 = in + int64_t(column[at + 1]) * SLOT;
        const Vec w0 = weight(at), w1 = weight(at + 1);
        for (int j = 0; j < W; ++j) sum[j] += w0 * load(x0 + j * LANE);
        for (int j = 0; j < W; ++j) second[j] += w1 * load(x1 + j * LANE);
      }
      for (int j = 0; j < W; ++j) sum[j] += second[j];
    }
    for (; at < end; ++at) {
      const float* from = in + int64_t(column[at]) * SLOT;
      const Vec w = MULTIPLY ? weight(at) : Vec{};
      if (WHERE == ANYWHERE) __builtin_prefetch(values + source[at + FAR]);
      Vec dot[2] = {};
      for (int j = 0; j < W; ++j) {
        const Vec x = load(from + j * LANE);
        if (MULTIPLY) sum[j] += w * x;
        if (OUTER) dot[j % 2] = j < 2 ? mine[j] * x : dot[j % 2] + mine[j] * x;
      }
      if (OUTER) {
        store(waiting + at % LANE * LANE, dot[0] + dot[1]);
        if (at % LANE == LANE - 1) {
          Vec a[LANE];
          for (int i = 0; i < LANE; ++i) a[i] = load(waiting + i * LANE);
          float* to = gradient + at - (LANE - 1);
          store(to, load(to) + sums_of_lanes(a));
        }
      }
    }
    if (MULTIPLY)
      for (int j = 0; j < W; ++j) store(sums + int64_t(row) * SLOT + j * LANE, sum[j]);
  }
  if (OUTER && at % LANE) {
    Vec a[LANE];
    for (int i = 0; i < LANE; ++i) a[i] = load(waiting + i * LANE);
    float* to = gradient + at / LANE * LANE;  // the lanes beyond the last entry are never read
    store(to, load(to) + sums_of_lanes(a));
  }
}

// The values as `run(values, where)` is to read them for that many tiles: gathered if often enough.
template <class Run>
void with_values(const Plan& plan, const float* values, int64_t n_tile, const Run& run) {
  if (n_tile < 3 && plan.is_in_order) return run(values, std::integral_constant<Where, IN_ORDER>());
  if (n_tile < 3) return run(values, std::integral_constant<Where, ANYWHERE>());
  const Scratch ordered(plan.column.size());
  for (size_t i = 0; i < plan.column.size(); ++i) ordered.get()[i] = values[plan.source[i]];
  run(ordered.get(), std::integral_constant<Where, GATHERED>());
}

}  // namespace
