// y = x S^T in int8, from fp32 to fp32: inputs are rounded to codes while they are packed, products
// are summed in int32, and sums are scaled while they are unpacked.

#include <cmath>

#include "panels.h"

#if defined(__AVX512VNNI__)
namespace {

// Nearest whole numbers to x / by, at most 127 either way, moved up by 128 because the instruction
// takes unsigned inputs; `odd` gathers the lanes that were not finite.
inline __m128i codes_of(__m512 x, __m512 by, __m512 inverse, __mmask16& odd) {
  odd |= _mm512_fpclass_ps_mask(x, 0x99);
  // A product is not a quotient, but only close to a tie do they round to different numbers.
  const __m512 y = _mm512_mul_ps(x, inverse);
  __m512 whole = _mm512_roundscale_ps(y, 8);
  const __m512 off = _mm512_abs_ps(_mm512_sub_ps(y, whole));
  if (__builtin_expect(_mm512_cmp_ps_mask(off, _mm512_set1_ps(0.4999f), _CMP_GT_OQ) != 0, 0))
    whole = _mm512_roundscale_ps(_mm512_div_ps(x, by), 8);
  whole = _mm512_max_ps(_mm512_min_ps(whole, _mm512_set1_ps(127.0f)), _mm512_set1_ps(-127.0f));
  return _mm_xor_si128(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole)), _mm_set1_epi8(-128));
}

// Codes of one row and of zeros up to n_padded, in pieces of 16 that lie `apart` bytes from each
// other; returns whether all its entries were finite.
bool round_row(const float* x, int64_t n_feature, int64_t n_padded, float scale, uint8_t* out,
               int64_t apart) {
  const __m512 by = _mm512_set1_ps(scale), inverse = _mm512_set1_ps(1.0f / scale);
  __mmask16 odd = 0;
  for (int64_t f = 0; f < n_padded; f += LANE, out += apart) {
    const int64_t n = n_feature - f;
    const __mmask16 live = n >= LANE ? 0xFFFF : n > 0 ? (1u << n) - 1 : 0;
    _mm_storeu_si128((__m128i*)out, codes_of(_mm512_maskz_loadu_ps(live, x + f), by, inverse, odd));
  }
  return !odd;
}

// The same of the rows of a tile, whose pieces follow each other; is_odd marks those not all finite. A
// stretch of features at a time: over the whole length of a row, pieces lie so far apart that writing
// each would wait for a line of its own.
void round_rows(const float* x, int64_t stride, int n_sample, int64_t n_feature, int64_t n_padded,
                float scale, uint8_t* out, int64_t apart, float* is_odd) {
  constexpr int64_t STRETCH = 512;
  std::fill_n(is_odd, n_sample, 0.0f);
  for (int64_t f = 0; f < n_padded; f += STRETCH)
    for (int i = 0; i < n_sample; ++i)
      if (!round_row(x + i * stride + f, n_feature - f, std::min(STRETCH, n_padded - f), scale,
                     out + f / LANE * apart + i * LANE, apart))
        is_odd[i] = 1;
}

// What the move by 128 adds to each output of the block rows: 128 times the sum of its codes, which
// lie in units of four.
void sum_moves(const Pattern& s, const float* codes, int32_t* moved) {
  const __m512i by = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < s.n_row; ++i)
    for (int r = 0; r < s.br; ++r) {
      int32_t sum = 0;
      for (int64_t k = s.row_ptr[i]; k < s.row_ptr[i + 1]; ++k)
        for (int c = 0; c < s.bc; c += LANE) {
          const __mmask16 live = s.bc - c < LANE ? (1u << (s.bc - c)) - 1 : 0xFFFF;
          const __m512i code = _mm512_maskz_loadu_epi32(live, codes + (k * s.br + r) * s.bc + c);
          sum += _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), by, code));
        }
      moved[i * s.br + r] = 128 * sum;
    }
}

// The same of turned blocks of a multiple of eight rows.
void sum_moves_of_eights(const Pattern& s, const float* turned, int32_t* moved) {
  const __m256i by = _mm256_set1_epi8(1);
  for (int64_t i = 0; i < s.n_row; ++i)
    for (int r = 0; r < s.br; r += 8) {
      __m256i sum = _mm256_setzero_si256();
      for (int64_t u = s.row_ptr[i] * s.bc; u < s.row_ptr[i + 1] * s.bc; ++u)
        sum = _mm256_dpbusd_epi32(sum, by, _mm256_loadu_si256((const __m256i*)(turned + u * s.br + r)));
      _mm256_storeu_si256((__m256i*)(moved + i * s.br + r), _mm256_slli_epi32(sum, 7));
    }
}

inline Half minus(const int32_t* moved) {
  return Half(_mm256_sub_epi32(_mm256_setzero_si256(), _mm256_loadu_si256((const __m256i*)moved)));
}

// Sums of integers that moved by so much, scaled.
struct Scaled {
  const int32_t* moved;
  const float* by;
  Half start(int64_t f) const { return minus(moved + f); }
  Vec operator()(Vec sum, int64_t f) const {
    const IVec whole = IVec(sum) - IVec(load(reinterpret_cast<const float*>(moved + f)));
    return __builtin_convertvector(whole, Vec) * load(by + f);
  }
  void operator()(float* to, Half sum, int64_t f, int64_t n) const {
    const __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(__m256i(sum)), _mm256_loadu_ps(by + f));
    if (n >= 8)
      _mm256_storeu_ps(to, v);
    else
      _mm256_mask_storeu_ps(to, (1u << n) - 1, v);
  }
};

void multiply(const Pattern& s, const Rows<float>& x, float x_scale, const float* codes,
              const float* scale, float* y, int64_t rows, int n_thread) {
  const int64_t n_in = s.n_col * s.bc, n_out = s.n_row * s.br + LANE;  // n_in: units of four
  const Scratch of_rows(2 * n_out);
  float* by = of_rows.get();
  int32_t* moved = reinterpret_cast<int32_t*>(by + n_out);
  std::memset(moved, 0, n_out * sizeof(int32_t));
  for (int64_t r = 0; r < n_out; ++r) by[r] = r < rows ? scale[r] * x_scale : 0;
  auto mark = [&](int n_sample, const float* is_odd, float* to, int64_t n) {
    for (int i = 0; i < n_sample; ++i)
      if (is_odd[i]) std::fill(to + i * rows, to + i * rows + n, NAN);
  };
  // Eight rows alone use an input too seldom, unless most of a tile would be empty.
  if (has_panels(s.br, s.bc) && (s.br % 16 == 0 || x.batch <= TILE / 2)) {
    const Scratch turned(s.n_block * s.br * s.bc);
    turn_blocks(codes, s.n_block, s.br, s.bc, turned.get());
    sum_moves_of_eights(s, turned.get(), moved);
    multiply_by_panels<Int8Quad>(
        s, x, turned.get(), y, rows, n_thread,
        [&](int64_t tile, int n_sample, int slot, float* in, float* is_odd) {
          round_rows(x.at(tile, slot), x.stride, n_sample, x.n, 4 * n_in, x_scale,
                     reinterpret_cast<uint8_t*>(in), slot * LANE, is_odd);
          for (int64_t f = 0; f < narrow_of(n_in) && n_sample < slot; f += NARROW)
            std::memset(in + f * slot + n_sample * NARROW, 0, (slot - n_sample) * 16);
        },
        Scaled{moved, by},
        [&](int n_sample, const float* is_odd, float* to, int64_t f, int64_t n) {
          mark(n_sample, is_odd, to + f, n);
        });
    return;
  }
  sum_moves(s, codes, moved);
  auto pack = [&](int64_t tile, int n_sample, float* in, float* is_odd) {
    const int64_t n_row_unit = panels_of(n_in);
    const Scratch scratch(n_row_unit * TILE);
    const float* from = x.at(tile, TILE);
    for (int i = 0; i < n_sample; ++i, from += x.stride)
      is_odd[i] = !round_row(from, x.n, 4 * n_in, x_scale, reinterpret_cast<uint8_t*>(scratch.get() + i * n_row_unit), 16);
    pack_features(scratch.get(), n_row_unit, n_sample, TILE, n_in, n_in, in);
  };
  multiply_by_features<Int8Quad>(
      s, x, codes, y, rows, n_thread, pack,
      [&](const float* room, const float* is_odd, int64_t first, int64_t n, float* to,
          int n_sample) {
        unpack_features(room, TILE, n, n_sample, to, rows, Scaled{moved + first, by + first});
        mark(n_sample, is_odd, to, n);
      });
}

// Layers in a row, one tile of samples after the other through all of them: between two layers lie
// codes, a byte each, in the cache.
struct Layer {
  Pattern s;
  const int8_t* codes;
  const float* scale;  // of its rows
  float x_scale;
  const float* bias;  // or null
  bool is_relu;       // what follows
  int64_t rows() const { return s.n_row * s.br; }
};

// A layer's outputs as its own next step would have them: scaled, the bias added, and rounded twice
// for that, so not in one instruction.
struct Output {
  const int32_t* moved;
  const float *by, *bias;
  bool is_relu;
  Half start(int64_t f) const { return minus(moved + f); }
};

struct AsRows : Output {
  void operator()(float* to, Half sum, int64_t f, int64_t) const {
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(__m256i(sum)), _mm256_loadu_ps(by + f));
    asm("" : "+v"(v));
    if (bias) v = _mm256_add_ps(v, _mm256_loadu_ps(bias + f));
    _mm256_storeu_ps(to, is_relu ? _mm256_max_ps(_mm256_setzero_ps(), v) : v);  // NaN stays NaN
  }
};

struct AsCodes : Output {
  float scale;  // of the inputs of the next layer
  uint8_t* start_of_tile;
  int slot;
  float* is_odd;
  void operator()(uint8_t* to, Half sum, Half more, int64_t f) const {
    const __m512i whole = _mm512_inserti64x4(_mm512_castsi256_si512(__m256i(sum)), __m256i(more), 1);
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(by + f));
    asm("" : "+v"(v));
    if (bias) v = _mm512_add_ps(v, _mm512_loadu_ps(bias + f));
    if (is_relu) v = _mm512_max_ps(_mm512_setzero_ps(), v);
    __mmask16 odd = 0;
    _mm_storeu_si128((__m128i*)to, codes_of(v, _mm512_set1_ps(scale), _mm512_set1_ps(1.0f / scale), odd));
    if (odd) is_odd[(to - start_of_tile) / (4 * NARROW) % slot] = 1;
  }
};

template <class Out, class Place, class Write>
void multiply_layer(const Pattern& s, const float* turned, const float* in, int slot, int n_sample,
                    Out* y, const Place& place, const Write& write, Ahead ahead) {
  panels_kernel<Int8Quad, Out, Place, Write>(s)(
      s, turned, 0, s.n_row, in, slot, n_sample, y, s.n_row * s.br, place, write, ahead);
}

// Every layer has panels and whole blocks, and takes as many features as the one before it gives.
void multiply_stack(const std::vector<Layer>& layers, const Rows<float>& x, float* y, int n_thread) {
  // Of each layer: turned blocks, then scales, moves and biases of its rows.
  std::vector<int64_t> begin(layers.size() + 1);
  int64_t widest = x.n;
  for (size_t l = 0; l < layers.size(); ++l) {
    const Pattern& s = layers[l].s;
    begin[l + 1] = begin[l] + s.n_block * s.br * s.bc + 2 * layers[l].rows();
    widest = std::max(widest, layers[l].rows());
  }
  const Scratch room(begin.back() + LANE);
  auto of = [&](size_t l, int64_t i) { return room.get() + begin[l] + layers[l].s.n_block * layers[l].s.br * layers[l].s.bc + i * layers[l].rows(); };
  for (size_t l = 0; l < layers.size(); ++l) {
    const Pattern& s = layers[l].s;
    turn_blocks(reinterpret_cast<const float*>(layers[l].codes), s.n_block, s.br, s.bc, room.get() + begin[l]);
    for (int64_t r = 0; r < layers[l].rows(); ++r) of(l, 0)[r] = layers[l].scale[r] * layers[l].x_scale;
    sum_moves_of_eights(s, room.get() + begin[l], reinterpret_cast<int32_t*>(of(l, 1)));
  }
  const int64_t n_unit = narrow_of((widest + 3) / 4), rows = layers.back().rows();
  const int64_t n_first = narrow_of((x.n + 3) / 4);
  const int slot = panel_slot(x.batch, n_unit, n_thread);
  for_tiles((x.batch + slot - 1) / slot, n_thread, [&](int64_t tile, bool has_next) {
    const int n_sample = x.n_sample(tile, slot);
    const Scratch scratch((2 * n_unit + 1) * slot);
    float *in = scratch.get(), *out = in + n_unit * slot, *is_odd = out + n_unit * slot;
    round_rows(x.at(tile, slot), x.stride, n_sample, x.n, 4 * n_first, layers[0].x_scale,
               reinterpret_cast<uint8_t*>(in), slot * LANE, is_odd);
    for (size_t l = 0; l < layers.size(); ++l) {
      const Layer& layer = layers[l];
      const Output output{reinterpret_cast<int32_t*>(of(l, 1)), of(l, 0), layer.bias, layer.is_relu};
      const float* turned = room.get() + begin[l];
      if (l + 1 < layers.size()) {
        uint8_t* codes = reinterpret_cast<uint8_t*>(out);
        multiply_layer(layer.s, turned, in, slot, n_sample, codes, InPanels{slot},
                       AsCodes{output, layers[l + 1].x_scale, codes, slot, is_odd}, Ahead());
        std::swap(in, out);
      } else {
        multiply_layer(layer.s, turned, in, slot, n_sample, y + tile * slot * rows, InRows{rows},
                       AsRows{output}, has_next ? x.ahead(tile + 1, slot) : Ahead());
      }
    }
    for (int i = 0; i < n_sample; ++i)
      if (is_odd[i]) std::fill_n(y + (tile * slot + i) * rows, rows, NAN);
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
  on_large_pages(y, batch * rows * 4);
  multiply(s, {x, x_stride, batch, cols}, *x_scale, reinterpret_cast<const float*>(codes), scale, y, rows, n_thread);
  return OK;
#else
  return NOT_BUILT;
#endif
}

// n_layer layers as above, one after the other; of layer l, pointer[6 l ..] are codes, scale of its
// rows, row_ptr, col_index, bias (or null) and scale of its inputs, and size[6 l ..] n_row, n_col,
// n_block, br, bc and whether relu follows. Sides of blocks divide the features; br is a multiple of
// 16 and bc 8, 16 or 32.
extern "C" int32_t tessera_stack_int8(const float* x, int64_t x_stride, int64_t batch, int64_t cols,
                                      const void* const* pointer, const int64_t* size,
                                      int64_t n_layer, float* y, int32_t n_thread) {
#if defined(__AVX512VNNI__)
  std::vector<Layer> layers;
  double n_mac = 0;
  for (int64_t l = 0; l < n_layer; ++l, pointer += 6, size += 6) {
    const Pattern s{static_cast<const int32_t*>(pointer[2]), static_cast<const int32_t*>(pointer[3]),
                    size[0], size[1], size[2], int(size[3]), int(size[4]) / 4};
    if (const int32_t status = check(s)) return status;
    if (!has_panels(s.br, s.bc) || s.br % 16) return NOT_BUILT;
    layers.push_back({s, static_cast<const int8_t*>(pointer[0]), static_cast<const float*>(pointer[1]),
                      *static_cast<const float*>(pointer[5]), static_cast<const float*>(pointer[4]),
                      size[5] != 0});
    n_mac += 0.25 * batch * s.n_block * size[3] * size[4];
  }
  on_large_pages(y, batch * layers.back().rows() * 4);
  multiply_stack(layers, {x, x_stride, batch, cols}, y, threads_for(n_mac, n_thread));
  return OK;
#else
  return NOT_BUILT;
#endif
}
