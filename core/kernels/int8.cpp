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

void multiply(const Pattern& s, const float* x, int64_t x_stride, int64_t batch, int64_t cols,
              float x_scale, const int8_t* codes, const float* scale, float* y, int64_t rows,
              int n_thread) {
  const Features<Int8Quad> layout(s);
  const int64_t n_in = s.n_col * s.bc, n_out = s.n_row * s.br;  // n_in in units of four entries
  const int64_t n_tile = (batch + TILE - 1) / TILE;
  std::vector<int32_t> moved(n_out);  // what the move by 128 adds to each output
  for (int64_t i = 0; i < s.n_row; ++i)
    for (int64_t k = s.row_ptr[i]; k < s.row_ptr[i + 1]; ++k)
      for (int r = 0; r < s.br; ++r) {
        int32_t total = 0;
        for (int c = 0; c < 4 * s.bc; ++c) total += codes[(k * s.br + r) * 4 * s.bc + c];
        moved[i * s.br + r] += 128 * total;
      }
  parallel_for(n_tile, n_thread, [&](int64_t tile) {
    const int n_sample = int(batch - tile * TILE < TILE ? batch - tile * TILE : TILE);
    const Scratch scratch((2 * n_in + n_out) * TILE);
    float *plain = scratch.get(), *in = plain + n_in * TILE, *out = in + n_in * TILE;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(plain);
    bool is_finite[TILE];
    for (int i = 0; i < n_sample; ++i) {
      uint8_t* to = bytes + i * n_in * 4;
      is_finite[i] = round_row(x + (tile * TILE + i) * x_stride, cols, x_scale, to);
      std::memset(to + cols, 128, n_in * 4 - cols);
    }
    pack_features(plain, n_in, n_sample, n_in, n_in, in);
    layout.multiply(reinterpret_cast<const float*>(codes), 0, s.n_row, in, out);
    for (int64_t r = 0; r < rows; ++r) {
      const Vec by = Vec{} + scale[r] * x_scale;
      for (int j = 0; j < PART; ++j) {
        float* at = out + r * TILE + j * LANE;
        const IVec sum = IVec(load(at)) - moved[r];
        store(at, __builtin_convertvector(sum, Vec) * by);
      }
    }
    float* to = y + tile * TILE * rows;
    unpack_features(out, 0, rows, n_sample, to, rows);
    for (int i = 0; i < n_sample; ++i)
      if (!is_finite[i])
        for (int64_t r = 0; r < rows; ++r) to[i * rows + r] = NAN;
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
  multiply(s, x, x_stride, batch, cols, *x_scale, codes, scale, y, rows, n_thread);
  return OK;
#else
  return NOT_BUILT;
#endif
}
