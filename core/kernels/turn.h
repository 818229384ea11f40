// Blocks in transposed order, each transposed: what an input gradient multiplies.
#pragma once

#include <algorithm>

#include "vector.h"

namespace {

template <class Number>
inline void turn_block(const Number* from, int br, int bc, Number* to) {
  for (int c = 0; c < bc; ++c)
    for (int r = 0; r < br; ++r) to[c * br + r] = from[r * bc + c];
}

#if defined(__AVX2__) && !defined(__AVX512F__)
inline void turn_quads(const float* from, int stride, float* to, int stride_to) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + stride);
  __m128 c = _mm_loadu_ps(from + 2 * stride), d = _mm_loadu_ps(from + 3 * stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + stride_to, b);
  _mm_storeu_ps(to + 2 * stride_to, c);
  _mm_storeu_ps(to + 3 * stride_to, d);
}
#endif

#if defined(__AVX512F__)
inline void turn_block_4(const float* from, float* to) {
  const __m512i pick = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  _mm512_storeu_ps(to, _mm512_permutexvar_ps(pick, _mm512_loadu_ps(from)));
}
inline void turn_block_8(const float* from, float* to) {
  // Rows i and i + 1 side by side; pairs of them give eights of columns 0, 2, 4, 6 and 1, 3, 5, 7.
  const __m512i low = _mm512_set_epi32(27, 19, 11, 3, 26, 18, 10, 2, 25, 17, 9, 1, 24, 16, 8, 0);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
  __m512 v[4], columns[2][2];
  for (int i = 0; i < 4; ++i) v[i] = _mm512_loadu_ps(from + 16 * i);
  for (int i = 0; i < 2; ++i) {  // columns 4 half..4 half + 3 of rows 4 i..4 i + 3, four lanes each
    columns[0][i] = _mm512_permutex2var_ps(v[2 * i], low, v[2 * i + 1]);
    columns[1][i] = _mm512_permutex2var_ps(v[2 * i], high, v[2 * i + 1]);
  }
  for (int half = 0; half < 2; ++half) {
    const __m512 a = columns[half][0], b = columns[half][1];
    const __m512 p = _mm512_shuffle_f32x4(a, b, 0x44), q = _mm512_shuffle_f32x4(a, b, 0xEE);
    _mm512_storeu_ps(to + 32 * half, _mm512_shuffle_f32x4(p, p, 0xD8));
    _mm512_storeu_ps(to + 32 * half + 16, _mm512_shuffle_f32x4(q, q, 0xD8));
  }
}
#endif

// EDGE is the side of square blocks, or 0: then br x bc.
template <int EDGE, class Number>
void turn_blocks_of(const Number* values, const int32_t* order, int64_t n, int br, int bc,
                    Number* out) {
  if (EDGE) br = bc = EDGE;
  constexpr int64_t FAR = 4;  // blocks from one to that which is fetched meanwhile
  for (int64_t t = 0; t < n; ++t) {
    const Number* from = values + int64_t(order[t]) * br * bc;
    Number* to = out + t * br * bc;
    if (t + FAR < n) {
      const char* next = reinterpret_cast<const char*>(values + int64_t(order[t + FAR]) * br * bc);
      for (size_t line = 0; line < br * bc * sizeof(Number); line += 64) __builtin_prefetch(next + line);
    }
    if constexpr (EDGE == LANE && sizeof(Number) == 4) {
      Vec a[LANE];
      for (int r = 0; r < LANE; ++r) a[r] = load(reinterpret_cast<const float*>(from) + r * LANE);
      transpose(a);
      for (int c = 0; c < LANE; ++c) store(reinterpret_cast<float*>(to) + c * LANE, a[c]);
#if defined(__AVX512F__)
    } else if constexpr (EDGE == 4 && sizeof(Number) == 4) {
      turn_block_4(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to));
    } else if constexpr (EDGE == 8 && sizeof(Number) == 4) {
      turn_block_8(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to));
    } else if constexpr (EDGE == LANE && sizeof(Number) == 2) {
      Vec a[LANE];
      for (int r = 0; r < LANE; ++r)
        a[r] = Vec(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(from + r * LANE))));
      transpose(a);
      for (int c = 0; c < LANE; ++c)
        _mm256_storeu_si256((__m256i*)(to + c * LANE), _mm512_cvtepi32_epi16(__m512i(a[c])));
#elif defined(__AVX2__)
    } else if constexpr (EDGE >= 4 && sizeof(Number) == 4) {
      for (int r = 0; r < br; r += 4)
        for (int c = 0; c < bc; c += 4)
          turn_quads(reinterpret_cast<const float*>(from) + r * bc + c, bc,
                     reinterpret_cast<float*>(to) + c * br + r, br);
#endif
    } else {
      turn_block(from, br, bc, to);
    }
  }
}

// out[t] = values[order[t]]^T for n blocks.
template <class Number>
void turn(const Number* values, const int32_t* order, int64_t n, int br, int bc, Number* out) {
  const int edge = br == bc ? br : 0;
  const auto run = edge == 16  ? turn_blocks_of<16, Number>
                   : edge == 8 ? turn_blocks_of<8, Number>
                   : edge == 4 ? turn_blocks_of<4, Number>
                   : edge == 1 ? turn_blocks_of<1, Number>
                               : turn_blocks_of<0, Number>;
  run(values, order, n, br, bc, out);
}

inline bool are_places(const int32_t* order, int64_t n) {
  int32_t outside = 0;
  for (int64_t k = 0; k < n; ++k) outside |= (order[k] < 0) | (order[k] >= n);
  return !outside;
}

// The turned blocks of a product: all at once by several threads, or by one thread as they are
// needed, when they are still in the cache as the product reads them. Where they are used once, for
// a single tile of samples, they are not kept.
class Turned {
 public:
  // br x bc are the blocks of `values`; `order` holds places.
  Turned(const float* values, const int32_t* order, int64_t n_block, int br, int bc, int n_thread,
         bool is_used_once)
      : values_(values), order_(order), br_(br), bc_(bc), is_kept_(!is_used_once || n_thread > 1),
        out_(n_block * br * bc) {
    if (n_thread == 1) return;
    constexpr int64_t STRETCH = 256;
    parallel_for((n_block + STRETCH - 1) / STRETCH, n_thread, [&](int64_t i) {
      const int64_t first = i * STRETCH, last = std::min(first + STRETCH, n_block);
      turn(values, order + first, last - first, br, bc, out_.get() + first * br * bc);
    });
    n_done_ = n_block;
  }
  // Where blocks first..last-1 of the transposed order lie; they are asked for in that order.
  const float* at(int64_t first, int64_t last) {
    const int64_t n = br_ * bc_;
    float* kept = out_.get() + (is_kept_ ? first * n : 0);
    if (last > n_done_) {
      turn(values_, order_ + first, last - first, br_, bc_, kept);
      n_done_ = last;
    }
    return kept;
  }

 private:
  const float* values_;
  const int32_t* order_;
  int br_, bc_;
  bool is_kept_;
  Scratch out_;
  int64_t n_done_ = 0;
};

}  // namespace
