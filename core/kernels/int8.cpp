// y = x S^T in int8, from fp32 to fp32: inputs are rounded to codes while they are packed, products
// are summed in int32, and sums are scaled while they are unpacked.

#include <cmath>

#include "product.h"

#if defined(__AVX512VNNI__)
namespace {

// Nearest whole numbers to x / by, at most 127 either way, moved up by 128 because the instruction
// takes unsigned inputs; `odd` gathers the lanes that were not finite.
inline __m128i codes_of(__m512 x, __m512 by, __m512 inverse, __mmask16& odd) {
  odd |= _mm512_fpclass_ps_mask(x, 0x99);
  // A product is not a quotient, but only close to a tie do they round to different numbers.
  __m512 y = _mm512_mul_ps(x, inverse);
  const __m512 off = _mm512_abs_ps(_mm512_sub_ps(y, _mm512_roundscale_ps(y, 8)));
  if (_mm512_cmp_ps_mask(off, _mm512_set1_ps(0.4999f), _CMP_GT_OQ)) y = _mm512_div_ps(x, by);
  y = _mm512_max_ps(_mm512_min_ps(y, _mm512_set1_ps(127.0f)), _mm512_set1_ps(-127.0f));
  const __m512i code = _mm512_add_epi32(_mm512_cvtps_epi32(y), _mm512_set1_epi32(128));
  return _mm512_cvtepi32_epi8(code);
}

// Codes of one row; returns whether all its entries were finite.
bool round_row(const float* x, int64_t n_feature, float scale, uint8_t* out) {
  const __m512 by = _mm512_set1_ps(scale), inverse = _mm512_set1_ps(1.0f / scale);
  __mmask16 odd = 0;
  int64_t f = 0;
  for (; f + LANE <= n_feature; f += LANE)
    _mm_storeu_si128((__m128i*)(out + f), codes_of(_mm512_loadu_ps(x + f), by, inverse, odd));
  if (f < n_feature) {
    const __mmask16 live = (1u << (n_feature - f)) - 1;
    const __m512 rest = _mm512_maskz_loadu_ps(live, x + f);
    _mm_mask_storeu_epi8(out + f, live, codes_of(rest, by, inverse, odd));
  }
  return !odd;
}

// What the move by 128 adds to each output of the block rows: 128 times the sum of its codes.
void sum_moves(const Pattern& s, const int8_t* codes, int32_t* moved) {
  const int n_unit = s.br * s.bc;  // of four codes in a block
  const __m512i ones = _mm512_set1_epi8(1);
  std::vector<int32_t> sums(n_unit);
  for (int64_t i = 0; i < s.n_row; ++i) {
    std::fill(sums.begin(), sums.end(), 0);
    for (int64_t k = s.row_ptr[i]; k < s.row_ptr[i + 1]; ++k)
      for (int u = 0; u < n_unit; u += 16) {
        const __mmask16 live = n_unit - u < 16 ? (1u << (n_unit - u)) - 1 : 0xFFFF;
        const __m512i code = _mm512_maskz_loadu_epi32(live, codes + (k * n_unit + u) * 4);
        const __m512i sum = _mm512_maskz_loadu_epi32(live, sums.data() + u);
        _mm512_mask_storeu_epi32(sums.data() + u, live, _mm512_dpbusd_epi32(sum, ones, code));
      }
    for (int u = 0; u < n_unit; ++u) moved[i * s.br + u / s.bc] += 128 * sums[u];
  }
}

// Sums of integers that moved by so much, scaled.
struct Scaled {
  const int32_t* moved;
  const float* by;
  Vec operator()(Vec sum, int64_t f) const {
    const IVec whole = IVec(sum) - IVec(load(reinterpret_cast<const float*>(moved + f)));
    return __builtin_convertvector(whole, Vec) * load(by + f);
  }
  float operator()(float sum, int64_t f) const {
    int32_t whole;
    std::memcpy(&whole, &sum, 4);
    return float(whole - moved[f]) * by[f];
  }
};

void multiply(const Pattern& s, const Rows<float>& x, float x_scale, const int8_t* codes,
              const float* scale, float* y, int64_t rows, int n_thread) {
  const int64_t n_in = s.n_col * s.bc, n_out = (s.n_row * s.br + LANE - 1) / LANE * LANE;  // n_in: units of four
  const Scratch of_rows(2 * n_out);
  float* by = of_rows.get();
  int32_t* moved = reinterpret_cast<int32_t*>(by + n_out);
  std::memset(moved, 0, n_out * sizeof(int32_t));
  for (int64_t r = 0; r < n_out; ++r) by[r] = r < rows ? scale[r] * x_scale : 0;
  sum_moves(s, codes, moved);
  auto pack = [&](int64_t tile, int n_sample, float* in, float* is_odd) {
    const Scratch scratch(n_in * TILE);
    uint8_t* bytes = reinterpret_cast<uint8_t*>(scratch.get());
    const float* from = x.at(tile, TILE);
    for (int i = 0; i < n_sample; ++i, from += x.stride) {
      uint8_t* to = bytes + i * n_in * 4;
      is_odd[i] = !round_row(from, x.n, x_scale, to);
      std::memset(to + x.n, 128, n_in * 4 - x.n);
    }
    pack_features(scratch.get(), n_in, n_sample, n_in, n_in, in);
  };
  multiply_by_features<Int8Quad>(
      s, x, reinterpret_cast<const float*>(codes), y, rows, n_thread, pack,
      [&](const float* room, const float* is_odd, int64_t first, int64_t n, float* to,
          int n_sample) {
        unpack_features(room, n, n_sample, to, rows, Scaled{moved + first, by + first});
        for (int s = 0; s < n_sample; ++s)
          if (is_odd[s]) std::fill(to + s * rows, to + s * rows + n, NAN);
      });
}

}  // namespace
#endif

extern "C" int32_t tessera_has_int8() { return HAS_INT8; }

// codes [n_block][br][bc], bc a multiple of four; scale [rows] belongs to the rows of S. A sample
// with an entry that is not finite comes out as NaN.
extern "C" int32_t tessera_linear_int8(const float* x, int64_t x_stride, int64_t batch,
                                       int64_t cols, const float* x_scale, const int8_t* codes,
                                       const float* scale, const int32_t* row_ptr,
                                       const int32_t* col_index, int64_t n_row, int64_t n_col,
                                       int64_t n_block, int32_t br, int32_t bc, float* y,
                                       int64_t rows, int32_t n_thread) {
  const Pattern s{row_ptr, col_index, n_row, n_col, n_block, br, bc / 4};
  if (const int32_t status = check(s)) return status;
#if defined(__AVX512VNNI__)
  n_thread = threads_for(0.25 * batch * n_block * br * bc, n_thread);
  multiply(s, {x, x_stride, batch, cols}, *x_scale, codes, scale, y, rows, n_thread);
  return OK;
#else
  return NOT_BUILT;
#endif
}
