// out[t] = sum, mean or maximum over the edges e into t of f(x[source of e] + edge[e]), where edge[e]
// is a row of its own or, if edges come in few kinds, the row of e's kind in a small table.
//
// Edges come grouped by target, so a target's row stays in registers over all its edges and no
// [edge][feature] array exists. The way back goes by source: one pass gives the gradient of x, a
// row in registers at a time, and writes that of each edge once. Numbers are fp32 or bf16, sums
// are fp32. Every output row is written by one thread in edge order: threads change no bit.

#include <algorithm>
#include <cmath>

#include "rows.h"

namespace {

template <class Lanes>
inline IVec take_int(const int32_t* p, Lanes n) {
  return IVec(take(reinterpret_cast<const float*>(p), n));
}
template <class Lanes>
inline void put_int(int32_t* p, IVec v, Lanes n) {
  put(reinterpret_cast<float*>(p), Vec(v), n);
}

enum Reduce : int32_t { SUM, MEAN, MAX };

// Edges grouped by one of their ends: those of row i are order[ptr[i]..ptr[i+1]-1], and other[k] is
// the row at the other end of order[k].
struct Group {
  const int32_t *ptr, *other, *order;
  int64_t n_row, n_other, n_edge;

  int32_t check() const {
    if (ptr[0] != 0 || ptr[n_row] != n_edge) return BAD_POINTER;
    int32_t falls = 0, outside = 0;
    for (int64_t i = 0; i < n_row; ++i) falls |= ptr[i + 1] < ptr[i];
    for (int64_t k = 0; k < n_edge; ++k)
      outside |= (other[k] < 0) | (other[k] >= n_other) | (order[k] < 0) | (order[k] >= n_edge);
    return falls ? BAD_POINTER : outside ? BAD_INDEX : OK;
  }

  // Whether most edges join rows that lie close together, as in a batch of small graphs: told from
  // the edges of some sixty rows.
  bool is_local() const {
    int64_t n_near = 0, n = 0;
    const int64_t step = n_row / 64 + 1;
    for (int64_t i = 0; i < n_row; i += step)
      for (int64_t k = ptr[i]; k < ptr[i + 1]; ++k, ++n)
        n_near += std::abs(other[k] * double(n_row) - i * double(n_other)) < 64.0 * n_row;
    return 4 * n_near > 3 * n;
  }
};

// A row is asked for a little before its turn: that of the edge after AHEAD others, as rows lie in
// no order that the processor would foresee, or, where edges join rows that lie close together, the
// row that lies BEYOND others further on, once for all its edges.
constexpr int64_t AHEAD = 8, BEYOND = 32;

constexpr int64_t STRETCH = 128;  // rows that a thread takes at a time

template <class Number>
struct Messages {
  Group by_target, by_source;
  const Number *x, *edge;  // edge may be null
  const int32_t* kind;     // null where every edge has a row of its own
  int64_t n_kind, n_feature;
  Reduce reduce;
  bool relu, own, is_local;  // the last: of the edges in the direction of the pass

  int64_t row_of(int64_t e) const { return kind ? kind[e] : e; }

  template <int WIDE, bool IS_MAX, class Lanes>
  void into(int64_t t, int64_t f, Lanes n, Number* out, int32_t* winner) const {
    const Vec zero = {}, floor = relu ? zero : zero - __builtin_inff();
    const int64_t first = by_target.ptr[t], last = by_target.ptr[t + 1];
    Vec sum[WIDE];
    UNROLL for (int j = 0; j < WIDE; ++j) sum[j] = zero;
    if (own) {
      UNROLL for (int j = 0; j < WIDE; ++j) sum[j] = take(x + t * n_feature + f + j * LANE, n);
    }
    IVec best[WIDE];
    UNROLL for (int j = 0; j < WIDE; ++j) best[j] = IVec{} - 1;
    if (is_local && t + BEYOND < by_target.n_other) foresee<WIDE>(x + (t + BEYOND) * n_feature + f);
    for (int64_t k = first; k < last; ++k) {
      const Number* from = x + by_target.other[k] * n_feature + f;
      const Number* with = edge ? edge + row_of(by_target.order[k]) * n_feature + f : nullptr;
      const int64_t later = k + AHEAD < by_target.n_edge ? k + AHEAD : k;
      if (!is_local) foresee<WIDE>(x + by_target.other[later] * n_feature + f);
      if (with && !kind) foresee<WIDE>(edge + by_target.order[later] * n_feature + f);
      UNROLL for (int j = 0; j < WIDE; ++j) {
        Vec v = take(from + j * LANE, n);
        if (with) v += take(with + j * LANE, n);
        v = v < floor ? floor : v;
        if (IS_MAX) {  // the first of equals wins, and a NaN wins for good
          const IVec wins = k == first ? IVec{} - 1 : (v > sum[j]) | ((v != v) & (sum[j] == sum[j]));
          sum[j] = wins ? v : sum[j];
          best[j] = wins ? IVec{} + by_target.order[k] : best[j];
        } else {
          sum[j] += v;
        }
      }
    }
    const Vec count = zero + (reduce == MEAN && last > first ? float(last - first) : 1.0f);
    UNROLL for (int j = 0; j < WIDE; ++j) {
      put(out + t * n_feature + f + j * LANE, reduce == MEAN ? sum[j] / count : sum[j], n);
      if (IS_MAX) put_int(winner + t * n_feature + f + j * LANE, best[j], n);
    }
  }

  void forward(Number* out, int32_t* winner, int n_thread) const {
    parallel_for((by_target.n_row + STRETCH - 1) / STRETCH, n_thread, [&](int64_t task) {
      const int64_t end = (task + 1) * STRETCH;
      for (int64_t t = task * STRETCH; t < end && t < by_target.n_row; ++t)
        for_panels(n_feature, [&](auto wide, int64_t f, auto n) {
          if (reduce == MAX)
            into<decltype(wide)::value, true>(t, f, n, out, winner);
          else
            into<decltype(wide)::value, false>(t, f, n, out, winner);
        });
    });
  }

  // What a pass asks of every edge is known when the code is made: sums then stay in registers.
  template <int WIDE, bool IS_MAX, bool IS_RELU, class Lanes>
  void back(int64_t s, int64_t f, Lanes n, const Number* g, const int32_t* winner, Number* dx,
            Number* dedge, float* table) const {
    const Vec zero = {};
    Vec sum[WIDE], mine[WIDE], v[WIDE];
    UNROLL for (int j = 0; j < WIDE; ++j) sum[j] = zero;
    if (own) {
      UNROLL for (int j = 0; j < WIDE; ++j) sum[j] = take(g + s * n_feature + f + j * LANE, n);
    }
    if (IS_RELU) {
      foresee<WIDE>(x + std::min(s + BEYOND, by_source.n_row - 1) * n_feature + f);
      UNROLL for (int j = 0; j < WIDE; ++j) mine[j] = take(x + s * n_feature + f + j * LANE, n);
    }
    if (is_local && s + BEYOND < by_source.n_other) foresee<WIDE>(g + (s + BEYOND) * n_feature + f);
    for (int64_t k = by_source.ptr[s]; k < by_source.ptr[s + 1]; ++k) {
      const int64_t t = by_source.other[k], e = by_source.order[k], at = t * n_feature + f;
      const Number* with = IS_RELU && edge ? edge + row_of(e) * n_feature + f : nullptr;
      const int64_t later = k + AHEAD < by_source.n_edge ? k + AHEAD : k;
      if (!is_local) foresee<WIDE>(g + by_source.other[later] * n_feature + f);
      if (with && !kind) foresee<WIDE>(edge + by_source.order[later] * n_feature + f);
      if (dedge) foresee<WIDE>(dedge + by_source.order[later] * n_feature + f);
      UNROLL for (int j = 0; j < WIDE; ++j) v[j] = take(g + at + j * LANE, n);
      if (reduce == MEAN) {
        const float scale = 1.0f / float(by_target.ptr[t + 1] - by_target.ptr[t]);
        UNROLL for (int j = 0; j < WIDE; ++j) v[j] *= zero + scale;
      }
      if (IS_MAX) {
        UNROLL for (int j = 0; j < WIDE; ++j)
          v[j] = take_int(winner + at + j * LANE, n) == int32_t(e) ? v[j] : zero;
      }
      if (IS_RELU && with) {
        UNROLL for (int j = 0; j < WIDE; ++j)
          v[j] = mine[j] + take(with + j * LANE, n) <= zero ? zero : v[j];
      } else if (IS_RELU) {
        UNROLL for (int j = 0; j < WIDE; ++j) v[j] = mine[j] <= zero ? zero : v[j];
      }
      UNROLL for (int j = 0; j < WIDE; ++j) sum[j] += v[j];
      if (dedge) {
        UNROLL for (int j = 0; j < WIDE; ++j) put(dedge + e * n_feature + f + j * LANE, v[j], n);
      }
      if (table) {
        float* to = table + row_of(e) * n_feature + f;
        UNROLL for (int j = 0; j < WIDE; ++j) put(to + j * LANE, take(to + j * LANE, n) + v[j], n);
      }
    }
    UNROLL for (int j = 0; j < WIDE; ++j) put(dx + s * n_feature + f + j * LANE, sum[j], n);
  }

  void backward(const Number* g, const int32_t* winner, Number* dx, Number* dedge,
                int n_thread) const {
    // Each part of the sources sums its own table, and the parts do not depend on the threads.
    const bool has_table = dedge && kind;
    const int64_t n_entry = n_kind * n_feature, most = by_source.n_edge / (4 * n_kind + 1) + 1;
    const int64_t n_part = !has_table  ? (by_source.n_row + STRETCH - 1) / STRETCH
                           : most < 16 ? most
                                       : 16;
    std::vector<float> tables(has_table ? n_part * n_entry : 0);
    parallel_for(n_part, n_thread, [&](int64_t part) {
      const int64_t n = by_source.n_row, first = n * part / n_part, last = n * (part + 1) / n_part;
      float* table = has_table ? tables.data() + part * n_entry : nullptr;
      Number* const rows = has_table ? nullptr : dedge;
      for (int64_t s = first; s < last; ++s)
        for_panels(n_feature, [&](auto wide, int64_t f, auto n) {
          constexpr int WIDE = decltype(wide)::value;
          if (reduce == MAX)
            relu ? back<WIDE, true, true>(s, f, n, g, winner, dx, rows, table)
                 : back<WIDE, true, false>(s, f, n, g, winner, dx, rows, table);
          else
            relu ? back<WIDE, false, true>(s, f, n, g, winner, dx, rows, table)
                 : back<WIDE, false, false>(s, f, n, g, winner, dx, rows, table);
        });
    });
    for (int64_t f = 0; has_table && f < n_entry; f += LANE) {
      const int n = int(n_entry - f < LANE ? n_entry - f : LANE);
      Vec sum = {};
      for (int64_t part = 0; part < n_part; ++part) sum += take(&tables[part * n_entry + f], n);
      put(dedge + f, sum, n);
    }
  }
};

inline bool kinds_fit(const int32_t* kind, int64_t n_edge, int64_t n_kind) {
  int32_t outside = 0;
  for (int64_t e = 0; kind && e < n_edge; ++e) outside |= (kind[e] < 0) | (kind[e] >= n_kind);
  return !outside;
}

}  // namespace

// Rows grouped by index, in their order inside a group: ptr [n_group + 1], order [n].
extern "C" int32_t tessera_group_rows(const int64_t* index, int64_t n, int64_t n_group,
                                      int32_t* ptr, int32_t* order) {
  std::memset(ptr, 0, (n_group + 1) * sizeof(int32_t));
  for (int64_t i = 0; i < n; ++i) {
    if (index[i] < 0 || index[i] >= n_group) return BAD_INDEX;
    ++ptr[index[i] + 1];
  }
  for (int64_t g = 0; g < n_group; ++g) ptr[g + 1] += ptr[g];
  std::vector<int32_t> next(ptr, ptr + n_group);
  for (int64_t i = 0; i < n; ++i) order[next[index[i]]++] = int32_t(i);
  return OK;
}

// x [n_source][n_feature]; edge [n_edge][n_feature], or [n_kind][n_feature] where there is `kind`
// [n_edge]; winner [n_target][n_feature] takes the edge of each maximum. With `own`, for sums where
// sources are targets, each sum begins with the row of the target itself.
extern "C" int32_t tessera_pass_messages(const void* x, const void* edge, const int32_t* kind,
                                         int64_t n_kind, const int32_t* ptr, const int32_t* source,
                                         const int32_t* order, int64_t n_source, int64_t n_target,
                                         int64_t n_edge, int64_t n_feature, int32_t relu,
                                         int32_t own, int32_t reduce, int32_t is_bf16, void* out,
                                         int32_t* winner, int32_t n_thread) {
  const Group by_target{ptr, source, order, n_target, n_source, n_edge};
  if (const int32_t status = by_target.check()) return status;
  if (own && n_target > n_source) return BAD_POINTER;
  if (!kinds_fit(kind, n_edge, n_kind)) return BAD_INDEX;
  auto run = [&](auto number) {
    using Number = decltype(number);
    const Messages<Number> m{by_target, {}, static_cast<const Number*>(x),
                             static_cast<const Number*>(edge), kind, n_kind, n_feature,
                             Reduce(reduce), relu != 0, own != 0, by_target.is_local()};
    on_large_pages(out, n_target * n_feature * int64_t(sizeof(Number)));
    m.forward(static_cast<Number*>(out), winner, n_thread);
  };
  is_bf16 ? run(uint16_t()) : run(float());
  return OK;
}

// g [n_target][n_feature]; dedge, which may be null, has the shape of edge. x and edge are read for
// relu only, winner for maxima.
extern "C" int32_t tessera_pass_messages_backward(
    const void* g, const void* x, const void* edge, const int32_t* kind, int64_t n_kind,
    const int32_t* winner, const int32_t* target_ptr, const int32_t* ptr, const int32_t* target,
    const int32_t* order, int64_t n_source, int64_t n_target, int64_t n_edge, int64_t n_feature,
    int32_t relu, int32_t own, int32_t reduce, int32_t is_bf16, void* dx, void* dedge,
    int32_t n_thread) {
  const Group by_source{ptr, target, order, n_source, n_target, n_edge};
  if (const int32_t status = by_source.check()) return status;
  if (own && n_source > n_target) return BAD_POINTER;
  if (!kinds_fit(kind, n_edge, n_kind)) return BAD_INDEX;
  auto run = [&](auto number) {
    using Number = decltype(number);
    const Messages<Number> m{{target_ptr, nullptr, nullptr, n_target, n_source, n_edge}, by_source,
                             static_cast<const Number*>(x), static_cast<const Number*>(edge), kind,
                             n_kind, n_feature, Reduce(reduce), relu != 0, own != 0,
                             by_source.is_local()};
    on_large_pages(dx, n_source * n_feature * int64_t(sizeof(Number)));
    if (dedge && !kind) on_large_pages(dedge, n_edge * n_feature * int64_t(sizeof(Number)));
    m.backward(static_cast<const Number*>(g), winner, static_cast<Number*>(dx),
               static_cast<Number*>(dedge), n_thread);
  };
  is_bf16 ? run(uint16_t()) : run(float());
  return OK;
}
