// The two layouts in which a tile of samples is multiplied.
//
// features: [feature][sample]            a weight multiplies whole vectors of samples
// quads:    [feature / 4][sample][4]     outer products of 4 by 4 features, summed over samples
#pragma once

#include "vector.h"

// Lines of memory that are needed soon, brought into the second-level cache a few at a time while
// something else is computed: rows lie too far apart for the processor to guess them, and asked for
// at once they would be waited for.
template <bool WRITE>
class Lines {
 public:
  Lines() = default;
  template <class In>
  Lines(In* x, int64_t stride, int n_row, int64_t n_entry)
      : at_(reinterpret_cast<const char*>(x)), stride_(stride * int64_t(sizeof(In))),
        n_line_((n_entry * int64_t(sizeof(In)) + 63) / 64), n_left_(n_line_ * n_row) {}

  // How many to fetch at each of n_step steps.
  int64_t share(int64_t n_step) const { return n_step > 0 ? (n_left_ + n_step - 1) / n_step : 0; }

  void fetch(int64_t n) {
    for (n = n < n_left_ ? n : n_left_, n_left_ -= n; n > 0; --n) {
      __builtin_prefetch(at_ + 64 * line_, WRITE, 2);
      if (++line_ == n_line_) line_ = 0, at_ += stride_;
    }
  }

 private:
  const char* at_ = nullptr;
  int64_t stride_ = 0, n_line_ = 0, n_left_ = 0, line_ = 0;
};
using Ahead = Lines<false>;

// work(sample, begin, end) on stretches of features, for each of them `step` samples after the other: a
// stretch makes 32 KB of the result. Over the whole length of a row, features of a sample lie so far
// apart that writing each would wait for a line of its own.
template <class Work>
inline void for_stretches(int64_t n_feature, int n_slot, int step, const Work& work) {
  const int64_t stretch = n_slot * LANE < 8192 ? 8192 / n_slot / LANE * LANE : LANE;
  for (int64_t begin = 0; begin < n_feature; begin += stretch)
    for (int s = 0; s < n_slot; s += step)
      work(s, begin, begin + stretch < n_feature ? begin + stretch : n_feature);
}

// Rows x[sample][feature] of one tile -> features layout of n_slot samples; those from n_sample on are
// zero, and so are features from n_feature to n_padded.
template <int SLOT = 0>
void pack_features(const float* x, int64_t stride, int n_sample, int n_slot, int64_t n_feature,
                   int64_t n_padded, float* out) {
  // Addresses that the compiler knows: packing takes half of the time.
  if (!SLOT && n_slot == TILE) return pack_features<TILE>(x, stride, n_sample, TILE, n_feature, n_padded, out);
  if (SLOT) n_slot = SLOT;
  const int64_t n_whole = n_feature / LANE * LANE;
  for_stretches(n_whole, n_slot, LANE, [&](int s0, int64_t begin, int64_t end) {
    const int n = n_sample - s0;
    for (int64_t f = begin; f < end; f += LANE) {
      const float* from = x + s0 * stride + f;
      Vec a[LANE];
      if (n >= LANE)
        for (int i = 0; i < LANE; ++i, from += stride) a[i] = load(from);
      else
        for (int i = 0; i < LANE; ++i) a[i] = i < n ? load(from + i * stride) : Vec{};
      transpose(a);
      float* to = out + f * n_slot + s0;
      for (int i = 0; i < LANE; ++i) store(to + i * n_slot, a[i]);
    }
  });
  const int n_rest = int(n_feature - n_whole);
  for (int s0 = 0; n_rest && s0 < n_slot; s0 += LANE) {
    Vec a[LANE];
    for (int i = 0; i < LANE; ++i)
      a[i] = s0 + i < n_sample ? load_some(x + (s0 + i) * stride + n_whole, n_rest) : Vec{};
    transpose(a);
    for (int i = 0; i < n_rest; ++i) store(out + (n_whole + i) * n_slot + s0, a[i]);
  }
  std::memset(out + n_feature * n_slot, 0, (n_padded - n_feature) * n_slot * sizeof(float));
}

inline void write(float* to, Vec v) { store(to, v); }
inline void write_some(float* to, Vec v, int n) { store_some(to, v, n); }

#if defined(__AVX512BF16__)
// bf16, rounded to nearest even.
inline void write_some(uint16_t* to, Vec v, int n) {
  const __m256i h = (__m256i)_mm512_cvtneps_pbh(__m512(v));
  _mm256_mask_storeu_epi16(to, (1u << n) - 1, h);
}
inline void write(uint16_t* to, Vec v) {
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(__m512(v)));
}
#endif

struct AsTheyAre {
  Vec operator()(Vec v, int64_t) const { return v; }
};
struct WithBias {  // room for LANE numbers beyond the last
  const float* bias;
  Vec operator()(Vec v, int64_t f) const { return v + load(bias + f); }
};

// The way back, for n_feature features that start with y[sample][0]; `finish` has the last word on
// the numbers of features from f on.
template <int SLOT = 0, class Out, class Finish = AsTheyAre>
void unpack_features(const float* in, int n_slot, int64_t n_feature, int n_sample, Out* y,
                     int64_t stride, const Finish& finish = {}) {
  if (!SLOT && n_slot == TILE) return unpack_features<TILE>(in, TILE, n_feature, n_sample, y, stride, finish);
  if (SLOT) n_slot = SLOT;
  const int64_t n_whole = n_feature / LANE * LANE;
  // Pieces of rows are put together before they are written: a line to each of sixteen rows, that often lie
  // in one set of the first-level cache, takes twice the time of a row's lines one after the other.
  constexpr int64_t PIECE = 128;
  alignas(64) float piece[LANE * PIECE];
  for (int s0 = 0; s0 < n_sample; s0 += LANE) {
    for (int64_t f0 = 0; f0 < n_whole; f0 += PIECE) {
      const int64_t end = f0 + PIECE < n_whole ? f0 + PIECE : n_whole;
      for (int64_t f = f0; f < end; f += LANE) {
        Vec a[LANE];
        for (int i = 0; i < LANE; ++i) a[i] = load(in + (f + i) * n_slot + s0);
        transpose(a);
        for (int i = 0; i < LANE; ++i) store(piece + i * PIECE + f - f0, a[i]);
      }
      for (int i = 0; i < LANE && s0 + i < n_sample; ++i)
        for (int64_t f = f0; f < end; f += LANE)
          write(y + (s0 + i) * stride + f, finish(load(piece + i * PIECE + f - f0), f));
    }
    if (const int n_rest = int(n_feature - n_whole)) {
      Vec a[LANE];
      for (int i = 0; i < LANE; ++i)
        a[i] = i < n_rest ? load(in + (n_whole + i) * n_slot + s0) : Vec{};
      transpose(a);
      for (int i = 0; i < LANE && s0 + i < n_sample; ++i)
        write_some(y + (s0 + i) * stride + n_whole, finish(a[i], n_whole), n_rest);
    }
  }
}

// STEP x STEP quads in registers, transposed: from STEP samples of LANE features to STEP quads of
// STEP samples.
constexpr int STEP = LANE / 4;
inline void transpose_quads(Vec (&a)[STEP]) {
#if defined(__AVX512F__)
  transpose_quarters(a);
#else
  IVec low, high;
  for (int i = 0; i < LANE; ++i) {
    const int q = i / 4;
    low[i] = (q / 2) * 4 + i % 4 + (q % 2) * LANE;
    high[i] = low[i] + LANE / 2;
  }
  for (int stage = 1; stage < STEP; stage *= 2) {
    Vec b[STEP];
    for (int i = 0; i < STEP / 2; ++i) {
      b[2 * i] = __builtin_shuffle(a[i], a[i + STEP / 2], low);
      b[2 * i + 1] = __builtin_shuffle(a[i], a[i + STEP / 2], high);
    }
    for (int i = 0; i < STEP; ++i) a[i] = b[i];
  }
#endif
}

// Rows x[sample][feature], n_slot >= n_sample of them -> quads layout; the last quad is padded with
// zeros.
inline void pack_quads(const float* x, int64_t stride, int n_sample, int n_slot, int64_t n_feature,
                       float* out) {
  const int64_t n_whole = n_feature / LANE * LANE;
  for_stretches(n_whole, n_slot, STEP, [&](int s0, int64_t begin, int64_t end) {
    const int n = n_sample - s0;
    const float* row = x + s0 * stride;
    for (int64_t f = begin; f < end; f += LANE) {
      Vec a[STEP];
      if (n >= STEP)
        for (int i = 0; i < STEP; ++i) a[i] = load(row + i * stride + f);
      else
        for (int i = 0; i < STEP; ++i) a[i] = i < n ? load(row + i * stride + f) : Vec{};
      transpose_quads(a);
      float* to = out + (f * n_slot + s0 * 4);
      for (int i = 0; i < STEP; ++i) store(to + i * n_slot * 4, a[i]);
    }
  });
  const int n_rest = int(n_feature - n_whole);
  for (int s0 = 0; n_rest && s0 < n_slot; s0 += STEP) {
    Vec a[STEP];
    for (int i = 0; i < STEP; ++i)
      a[i] = s0 + i < n_sample ? load_some(x + (s0 + i) * stride + n_whole, n_rest) : Vec{};
    transpose_quads(a);
    float* to = out + (n_whole * n_slot + s0 * 4);
    for (int i = 0; 4 * i < n_rest; ++i) store(to + i * n_slot * 4, a[i]);
  }
}

// The way back: n_feature features of quads that start with y[sample][0].
template <class Finish>
void unpack_quads(const float* in, int n_slot, int64_t n_feature, int n_sample, float* y,
                  int64_t stride, const Finish& finish) {
  const int64_t n_whole = n_feature / LANE * LANE;
  for (int s0 = 0; s0 < n_sample; s0 += STEP) {
    const int n = n_sample - s0;
    float* row = y + s0 * stride;
    for (int64_t f = 0; f < n_whole; f += LANE) {
      const float* from = in + (f * n_slot + s0 * 4);
      Vec a[STEP];
      for (int i = 0; i < STEP; ++i) a[i] = load(from + i * n_slot * 4);
      transpose_quads(a);
      if (n >= STEP)
        for (int i = 0; i < STEP; ++i) store(row + i * stride + f, finish(a[i], f));
      else
        for (int i = 0; i < n; ++i) store(row + i * stride + f, finish(a[i], f));
    }
  }
  const int n_rest = int(n_feature - n_whole);
  for (int s0 = 0; n_rest && s0 < n_sample; s0 += STEP) {
    const float* from = in + (n_whole * n_slot + s0 * 4);
    Vec a[STEP];
    for (int i = 0; i < STEP; ++i) a[i] = 4 * i < n_rest ? load(from + i * n_slot * 4) : Vec{};
    transpose_quads(a);
    for (int i = 0; i < STEP && s0 + i < n_sample; ++i)
      store_some(y + (s0 + i) * stride + n_whole, finish(a[i], n_whole), n_rest);
  }
}

#if defined(__AVX512BF16__)
// Rows of bf16 -> quads of units that hold samples 2i and 2i + 1 of one feature.
inline void pack_quads(const uint16_t* x, int64_t stride, int n_sample, int n_slot,
                       int64_t n_feature, float* out) {
  const int64_t n_whole = n_feature / 16 * 16;
  // Unit i of the result: feature i of the even and of the odd sample.
  auto units = [&](int pair, int64_t f) {
    const __m256i none = _mm256_setzero_si256();
    const int s = 2 * pair;
    const uint16_t* from = x + s * stride + f;
    const __m256i even = s < n_sample ? _mm256_loadu_si256((const __m256i*)from) : none;
    const __m256i odd = s + 1 < n_sample ? _mm256_loadu_si256((const __m256i*)(from + stride)) : none;
    return Vec(_mm512_or_si512(_mm512_cvtepu16_epi32(even),
                               _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)));
  };
  for (int p1 = 0; p1 < n_slot; p1 += 16)
    for (int64_t f = 0; f < n_whole; f += 16)
      for (int p0 = p1; p0 < p1 + 16; p0 += STEP) {
        Vec a[STEP];
        for (int i = 0; i < STEP; ++i) a[i] = units(p0 + i, f);
        transpose_quads(a);
        for (int i = 0; i < STEP; ++i) store(out + ((f / 4 + i) * n_slot + p0) * 4, a[i]);
      }
  uint16_t* halves = reinterpret_cast<uint16_t*>(out);
  for (int64_t f = n_whole; f < n_feature; f += 4)
    for (int s = 0; s < 2 * n_slot; ++s)
      for (int i = 0; i < 4; ++i)
        halves[((f / 4 * n_slot + s / 2) * 4 + i) * 2 + s % 2] =
            s < n_sample && f + i < n_feature ? x[s * stride + f + i] : 0;
}
#endif
