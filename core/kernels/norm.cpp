// Batch normalisation of rows while training, with what follows it:
// y = base + f((x - mean) / deviation * weight + bias), mean and deviation over the rows, f the
// identity or relu.
//
// Forward and backward pass each read their rows twice, once for sums over columns and once for
// what depends on them; nothing but x is kept between the passes. Numbers are fp32 or bf16. Columns
// are summed in fp32 over stretches of rows, about the mean of each stretch, and these in double, in
// their order: threads change no bit.

#include <cmath>

#include "rows.h"

namespace {

constexpr int64_t STRETCH = 64;  // rows; a panel of them stays in the innermost cache
constexpr int64_t AHEAD = 8;     // rows of a panel, which lie apart: the processor sees no stream

// Two sums per column and stretch.
struct Sums {
  explicit Sums(int64_t n_row, int64_t n_feature)
      : n_stretch((n_row + STRETCH - 1) / STRETCH), memory(2 * n_stretch * n_feature),
        n_feature(n_feature) {}
  float* first(int64_t stretch) const { return memory.get() + 2 * stretch * n_feature; }
  float* second(int64_t stretch) const { return first(stretch) + n_feature; }

  int64_t n_stretch;
  Scratch memory;
  int64_t n_feature;
};

// WIDE columns of a stretch: their means, and the sums of squares about them.
template <int WIDE, class Number, class Lanes>
void look_at(const Number* x, int64_t n_row, int64_t stride, Lanes n, float* mean, float* spread) {
  const Vec share = Vec{} + 1.0f / float(n_row);
  Vec middle[WIDE] = {}, square[WIDE] = {};
  const Number* row = x;
  for (int64_t i = 0; i < n_row; ++i, row += stride) {
    foresee<WIDE>(row + (i + AHEAD < n_row ? AHEAD * stride : 0));
    UNROLL for (int j = 0; j < WIDE; ++j) middle[j] += take(row + j * LANE, n);
  }
  UNROLL for (int j = 0; j < WIDE; ++j) middle[j] *= share;
  row = x;
  for (int64_t i = 0; i < n_row; ++i, row += stride)
    UNROLL for (int j = 0; j < WIDE; ++j) {
      const Vec off = take(row + j * LANE, n) - middle[j];
      square[j] += off * off;
    }
  UNROLL for (int j = 0; j < WIDE; ++j) put(mean + j * LANE, middle[j], n);
  UNROLL for (int j = 0; j < WIDE; ++j) put(spread + j * LANE, square[j], n);
}

// Before f: both passes must find the same side of relu, so both compute it here.
inline Vec before(Vec x, Vec scale, Vec shift) { return x * scale + shift; }

template <bool IS_RELU>
inline Vec passed(Vec g, Vec x, Vec scale, Vec shift) {  // the gradient before f
  const Vec zero = {};
  return IS_RELU ? (before(x, scale, shift) <= zero ? zero : g) : g;
}

// WIDE columns of a stretch: sums of the gradient before f, and of its products with x - mean.
template <int WIDE, bool IS_RELU, class Number, class Lanes>
void sum_gradients(const Number* g, const Number* x, int64_t n_row, int64_t stride, Lanes n,
                   const float* scale, const float* shift, const float* mean, float* sum,
                   float* product) {
  Vec total[WIDE] = {}, along[WIDE] = {}, a[WIDE], b[WIDE], middle[WIDE];
  UNROLL for (int j = 0; j < WIDE; ++j) {
    a[j] = take(scale + j * LANE, n);
    b[j] = take(shift + j * LANE, n);
    middle[j] = take(mean + j * LANE, n);
  }
  for (int64_t i = 0; i < n_row; ++i, g += stride, x += stride) {
    const int64_t ahead = i + AHEAD < n_row ? AHEAD * stride : 0;
    foresee<WIDE>(g + ahead);
    foresee<WIDE>(x + ahead);
    UNROLL for (int j = 0; j < WIDE; ++j) {
      const Vec v = take(x + j * LANE, n);
      const Vec kept = passed<IS_RELU>(take(g + j * LANE, n), v, a[j], b[j]);
      total[j] += kept;
      along[j] += kept * (v - middle[j]);
    }
  }
  UNROLL for (int j = 0; j < WIDE; ++j) put(sum + j * LANE, total[j], n);
  UNROLL for (int j = 0; j < WIDE; ++j) put(product + j * LANE, along[j], n);
}

// Calls step(first feature, lanes) on the vectors of a row.
template <class Step>
inline void for_vectors(int64_t n_feature, const Step& step) {
  int64_t f = 0;
  for (; f + LANE <= n_feature; f += LANE) step(f, Whole());
  if (f < n_feature) step(f, int(n_feature - f));
}

template <class Number>
struct Normed {
  const Number* x;
  int64_t n_row, n_feature;
  const float *weight, *bias;
  int n_thread;

  int64_t rows_in(int64_t stretch) const {
    const int64_t left = n_row - stretch * STRETCH;
    return left < STRETCH ? left : STRETCH;
  }
  // step(stretch, where its first row begins)
  template <class Step>
  void for_stretches(const Step& step) const {
    parallel_for((n_row + STRETCH - 1) / STRETCH, n_thread,
                 [&](int64_t stretch) { step(stretch, stretch * STRETCH * n_feature); });
  }

  // Mean and variance, which divides by n, of all rows.
  void statistics(float* mean, float* variance) const {
    const Sums sums(n_row, n_feature);
    for_stretches([&](int64_t s, int64_t start) {
      for_panels<4>(n_feature, [&](auto wide, int64_t f, auto n) {
        look_at<decltype(wide)::value>(x + start + f, rows_in(s), n_feature, n, sums.first(s) + f,
                                       sums.second(s) + f);
      });
    });
    std::vector<double> total(n_feature), spread(n_feature);
    for (int64_t s = 0; s < sums.n_stretch; ++s) {
      const double n = double(rows_in(s));
      const float* one = sums.first(s);
      for (int64_t f = 0; f < n_feature; ++f) total[f] += n * one[f];
    }
    for (double& t : total) t /= double(n_row);
    for (int64_t s = 0; s < sums.n_stretch; ++s) {
      const double n = double(rows_in(s));
      const float *one = sums.first(s), *square = sums.second(s);
      for (int64_t f = 0; f < n_feature; ++f) {
        const double off = one[f] - total[f];
        spread[f] += square[f] + n * off * off;
      }
    }
    for (int64_t f = 0; f < n_feature; ++f) {
      mean[f] = float(total[f]);
      variance[f] = float(spread[f] / double(n_row));
    }
  }

  void affine(const float* mean, const float* inverse, float* scale, float* shift) const {
    for (int64_t f = 0; f < n_feature; ++f) {
      scale[f] = weight[f] * inverse[f];
      shift[f] = bias[f] - mean[f] * scale[f];
    }
  }

  template <bool IS_RELU>
  void forward(const Number* base, const float* mean, const float* inverse, Number* out) const {
    const Scratch scratch(2 * n_feature);
    float *const scale = scratch.get(), *const shift = scale + n_feature;
    affine(mean, inverse, scale, shift);
    for_stretches([=](int64_t s, int64_t start) {
      const int64_t end = start + rows_in(s) * n_feature;
      for (int64_t row = start; row < end; row += n_feature)
        for_vectors(n_feature, [=](int64_t f, auto n) {
          const Vec y = before(take(x + row + f, n), take(scale + f, n), take(shift + f, n));
          const Vec zero = {}, kept = IS_RELU ? (y < zero ? zero : y) : y;
          put(out + row + f, base ? kept + take(base + row + f, n) : kept, n);
        });
    });
  }

  template <bool IS_RELU>
  void backward(const Number* g, const float* mean, const float* inverse, Number* dx,
                float* dweight, float* dbias) const {
    const Scratch scratch(4 * n_feature);
    float *const scale = scratch.get(), *const shift = scale + n_feature;
    float *const level = shift + n_feature, *const slope = level + n_feature;
    affine(mean, inverse, scale, shift);
    const Sums sums(n_row, n_feature);
    for_stretches([&](int64_t s, int64_t start) {
      for_panels<4>(n_feature, [&](auto wide, int64_t f, auto n) {
        sum_gradients<decltype(wide)::value, IS_RELU>(
            g + start + f, x + start + f, rows_in(s), n_feature, n, scale + f, shift + f, mean + f,
            sums.first(s) + f, sums.second(s) + f);
      });
    });
    std::vector<double> total(n_feature), along(n_feature);
    for (int64_t s = 0; s < sums.n_stretch; ++s) {
      const float *sum = sums.first(s), *product = sums.second(s);
      for (int64_t f = 0; f < n_feature; ++f) total[f] += sum[f];
      for (int64_t f = 0; f < n_feature; ++f) along[f] += product[f];
    }
    for (int64_t f = 0; f < n_feature; ++f) {
      dbias[f] = float(total[f]);
      dweight[f] = float(along[f] * inverse[f]);
      level[f] = float(total[f] / double(n_row));
      slope[f] = float(along[f] * inverse[f] * inverse[f] / double(n_row));
    }
    for_stretches([=](int64_t s, int64_t start) {
      const int64_t end = start + rows_in(s) * n_feature;
      for (int64_t row = start; row < end; row += n_feature)
        for_vectors(n_feature, [=](int64_t f, auto n) {
          const Vec a = take(scale + f, n), v = take(x + row + f, n);
          const Vec kept = passed<IS_RELU>(take(g + row + f, n), v, a, take(shift + f, n));
          const Vec off = (v - take(mean + f, n)) * take(slope + f, n);
          put(dx + row + f, a * (kept - take(level + f, n) - off), n);
        });
    });
  }
};

template <class Work>
void on_numbers(bool is_bf16, const Work& work) {
  is_bf16 ? work(uint16_t()) : work(float());
}

}  // namespace

// x, base and out [n_row][n_feature], of which base may be null; the others [n_feature]. `inverse`
// takes one over the deviation; the running mean and variance move by `momentum` towards those of
// the rows, the variance as one that divides by n - 1.
extern "C" int32_t tessera_batch_norm(const void* x, const void* base, const float* weight,
                                      const float* bias, int64_t n_row, int64_t n_feature,
                                      double eps, double momentum, int32_t relu, int32_t is_bf16,
                                      void* out, float* mean, float* inverse, float* running_mean,
                                      float* running_variance, int32_t n_thread) {
  on_numbers(is_bf16, [&](auto number) {
    using Number = decltype(number);
    const Normed<Number> normed{static_cast<const Number*>(x), n_row, n_feature, weight, bias,
                                n_thread};
    on_large_pages(out, n_row * n_feature * int64_t(sizeof(Number)));
    normed.statistics(mean, inverse);
    const double unbiased = double(n_row) / double(n_row - 1);
    for (int64_t f = 0; f < n_feature; ++f) {
      const double variance = inverse[f];
      running_mean[f] += float(momentum * (double(mean[f]) - running_mean[f]));
      running_variance[f] += float(momentum * (variance * unbiased - running_variance[f]));
      inverse[f] = float(1.0 / std::sqrt(variance + eps));
    }
    const Number* const added = static_cast<const Number*>(base);
    Number* const to = static_cast<Number*>(out);
    relu ? normed.template forward<true>(added, mean, inverse, to)
         : normed.template forward<false>(added, mean, inverse, to);
  });
  return OK;
}

// g and dx as x; dweight and dbias [n_feature]. The gradient of base is g.
extern "C" int32_t tessera_batch_norm_backward(const void* g, const void* x, const float* weight,
                                               const float* bias, const float* mean,
                                               const float* inverse, int64_t n_row,
                                               int64_t n_feature, int32_t relu, int32_t is_bf16,
                                               void* dx, float* dweight, float* dbias,
                                               int32_t n_thread) {
  on_numbers(is_bf16, [&](auto number) {
    using Number = decltype(number);
    const Normed<Number> normed{static_cast<const Number*>(x), n_row, n_feature, weight, bias,
                                n_thread};
    on_large_pages(dx, n_row * n_feature * int64_t(sizeof(Number)));
    const Number* const from = static_cast<const Number*>(g);
    Number* const to = static_cast<Number*>(dx);
    relu ? normed.template backward<true>(from, mean, inverse, to, dweight, dbias)
         : normed.template backward<false>(from, mean, inverse, to, dweight, dbias);
  });
  return OK;
}
