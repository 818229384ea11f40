// A learned radiation scheme in one pass: features of a tile of columns, the layers of a network,
// heating rates and fluxes. Nothing but the results leaves the first-level cache.
//
// A tile is 32 columns, [feature][column], so that every weight multiplies whole vectors. Numbers
// travel in units of 32 bits: one float, two bf16 that are multiplied pairwise, or four 8-bit
// integers; sums are float, for integers int32. A layer hands its outputs on, while they are in
// registers, as what its readers multiply. Weights come in strips of up to 8 outputs, each with
// the list of the units that it reads: a dense layer's strips read them all, a sparse layer's a few.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "lanes.h"

constexpr int TILE = 32, PART = TILE / LANE, ROW = 8;
constexpr int MOST = 2048;  // features of all layers together, levels included
enum Kind : int32_t { FP32 = 0, BF16 = 1, INT8 = 2, N_KIND = 3 };
constexpr int per_unit(int kind) { return 1 << kind; }

struct Layer {
  int32_t kind, n_strip, n_row;  // n_row: outputs of a strip; ROW of them if it hands them on
  int32_t reads, writes;  // features where its inputs and outputs begin, a multiple of ROW
  int32_t hands;          // kinds in which others read its outputs, as bits; none for the last
  float inverse;          // of the scale of outputs that are handed on as integers
  const int32_t* first;   // [strip + 1], into `unit` and, times n_row, into `weight`
  const int32_t* unit;    // which unit of the inputs each column of weights multiplies
  const float* weight;    // [column][n_row] units
  const int32_t* begin;   // [strip][n_row] what integer sums begin with
  const float *scale, *bias;    // [strip][n_row]: sum * scale + bias
  const float *factor, *shift;  // [strip][n_row], after the activation
};

struct Air {
  int64_t n_column;
  int32_t n_level, n_layer;
  const float *temperature, *humidity, *pressure, *pressure_half;
  const float *sst, *cos_zenith, *albedo, *co2;
  const float *in_mean, *in_scale, *out_mean, *out_scale;
  float critical, critical_ground, water_share, full_pressure, dark, sunset;
  float freezing, vapour_at_freezing, vapour_rate, vapour_most, epsilon;
  float gravity, heat_capacity, day;
  float *heating_lw, *heating_sw, *toa_lw, *toa_sw, *surface_lw, *surface_sw;
};

namespace {

inline Vec all(float x) { return Vec{} + x; }

inline Vec root(Vec x) {
#if defined(__AVX512F__)
  return Vec(_mm512_sqrt_ps(__m512(x)));
#else
  for (int i = 0; i < LANE; ++i) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// e^x to a few 1e-7 between -80 and 80, where it stays outside: 2^n times a polynomial that fits
// e^r for |r| <= ln(2) / 2 (Taylor to the seventh power: the rest is below 6e-9).
inline Vec exponential(Vec x) {
  x = smaller(larger(x, all(-80.0f)), all(80.0f));
  const Vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec n = (x * 1.44269504f + magic) - magic;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = all(1.0f / 5040.0f);
  for (int i = 6, factorial = 720; i >= 0; factorial /= i > 0 ? i : 1, --i)
    p = p * r + 1.0f / float(factorial);
  return Vec(IVec(p) + (__builtin_convertvector(n, IVec) << 23));
}

// Level l of a [column, stride] field for the columns of a tile; the last one repeats beyond it.
inline void gather(const float* field, int64_t stride, int64_t l, int64_t first, int n, float* to) {
  const float* from = field + first * stride + l;
  for (int s = 0; s < n; ++s) to[s] = from[s * stride];
  for (int s = n; s < TILE; ++s) to[s] = to[n - 1];
}

inline void scatter(const float* from, int64_t stride, int64_t l, int64_t first, int n, float* field) {
  for (int s = 0; s < n; ++s) field[(first + s) * stride + l] = from[s];
}

// Transposes 4 x 4 numbers whose rows lie `step` and `to_step` apart.
inline void turn_four(const float* from, int64_t step, float* to, int64_t to_step) {
  typedef int32_t Order __attribute__((vector_size(16)));
  const Order low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, left = {0, 1, 4, 5}, right = {2, 3, 6, 7};
  Quad q[4];
  for (int i = 0; i < 4; ++i) q[i] = *reinterpret_cast<const QuadAny*>(from + i * step);
  const Quad a = __builtin_shuffle(q[0], q[1], low), b = __builtin_shuffle(q[2], q[3], low);
  const Quad c = __builtin_shuffle(q[0], q[1], high), d = __builtin_shuffle(q[2], q[3], high);
  const Quad out[4] = {__builtin_shuffle(a, b, left), __builtin_shuffle(a, b, right),
                       __builtin_shuffle(c, d, left), __builtin_shuffle(c, d, right)};
  for (int i = 0; i < 4; ++i) *reinterpret_cast<QuadAny*>(to + i * to_step) = out[i];
}

// A [column, level] field as [level][column] of a tile; the last column repeats beyond `n`.
void turn(const float* field, int n_level, int64_t first, int n, float* to) {
  const int n_quad = n == TILE ? n_level / 4 * 4 : 0;
  for (int l = 0; l < n_quad; l += 4)
    for (int s = 0; s < TILE; s += 4)
      turn_four(field + (first + s) * n_level + l, n_level, to + l * TILE + s, TILE);
  for (int l = n_quad; l < n_level; ++l) gather(field, n_level, l, first, n, to + l * TILE);
}

// The other way round.
void turn_back(const float* from, int n_level, int64_t first, int n, float* field) {
  const int n_quad = n == TILE ? n_level / 4 * 4 : 0;
  for (int l = 0; l < n_quad; l += 4)
    for (int s = 0; s < TILE; s += 4)
      turn_four(from + l * TILE + s, TILE, field + (first + s) * n_level + l, n_level);
  for (int l = n_quad; l < n_level; ++l) scatter(from + l * TILE, n_level, l, first, n, field);
}

// What a tile's columns bring, [level][column].
struct Scratch {
  float temperature[MOST / 4 * TILE], humidity[MOST / 4 * TILE], pressure[MOST / 4 * TILE];
  float half[(MOST / 4 + 1) * TILE], mass[MOST / 4 * TILE];
};

// Normalised features of a tile, in the order of `emulator.features`; the mass of layers, kg/m2; and
// `odd`, nought but for columns with an entry that is not finite, where it is NaN.
void read(const Air& a, int64_t first, int n, float* x, Scratch& tile, float* odd) {
  const int L = a.n_level;
  turn(a.temperature, L, first, n, tile.temperature);
  turn(a.humidity, L, first, n, tile.humidity);
  turn(a.pressure, L, first, n, tile.pressure);
  turn(a.pressure_half, L + 1, first, n, tile.half);
  const float* ground = tile.half + L * TILE;
  std::memset(odd, 0, TILE * sizeof(float));
  auto mind = [&](int at, Vec v) { store(odd + at, load(odd + at) + 0.0f * v); };
  auto put = [&](int f, int at, Vec v) {
    store(x + f * TILE + at, (v - a.in_mean[f]) * a.in_scale[f]);
  };
  for (int l = 0; l < L; ++l)
    for (int at = 0, i = l * TILE; at < TILE; at += LANE, i += LANE) {
      const Vec air = load(tile.temperature + i), pressure = load(tile.pressure + i);
      const Vec vapour = load(tile.humidity + i);
      const Vec layer = (load(tile.half + TILE + i) - load(tile.half + i)) * (1.0f / a.gravity);
      store(tile.mass + i, layer);
      mind(at, air + vapour + pressure + layer);
      Vec e = a.vapour_at_freezing * exponential(a.vapour_rate * (1.0f / a.freezing - 1.0f / air));
      e = smaller(e, a.vapour_most * pressure);
      const Vec saturation = a.epsilon * e / (pressure - (1.0f - a.epsilon) * e);
      Vec depth = load(ground + at) / pressure;
      depth *= depth;  // to the fourth below
      const Vec near = exponential(1.0f - depth * depth);
      const Vec critical = a.critical + (a.critical_ground - a.critical) * near;
      Vec cover = (vapour - critical * saturation) / (saturation - critical * saturation);
      cover = smaller(larger(cover, all(0.0f)), all(1.0f));
      const Vec fade = smaller(pressure * (1.0f / a.full_pressure), all(1.0f));
      const Vec water = cover * cover * (fade * fade) * a.water_share * saturation * layer;
      put(l, at, air);
      put(L + l, at, root(root(larger(vapour, all(0.0f)))));
      put(2 * L + l, at, root(water));
      put(3 * L + l, at, 1.0f - exponential(-a.dark * water));
    }
  alignas(64) float sst[TILE], sun[TILE], albedo[TILE], co2[TILE];
  gather(a.sst, 1, 0, first, n, sst);
  gather(a.cos_zenith, 1, 0, first, n, sun);
  gather(a.albedo, 1, 0, first, n, albedo);
  gather(a.co2, 1, 0, first, n, co2);
  float last = 1.0f, log_last = 0.0f;  // a model has one concentration everywhere
  for (int at = 0; at < TILE; at += LANE)
    mind(at, load(sst + at) + load(sun + at) + load(albedo + at) + load(co2 + at));
  for (float& c : co2) {
    if (c != last) log_last = std::log(last = c);
    c = log_last;
  }
  for (int at = 0; at < TILE; at += LANE) {
    const Vec up = larger(load(sun + at), all(0.0f));
    put(4 * L, at, load(ground + at));
    put(4 * L + 1, at, load(sst + at));
    put(4 * L + 2, at, up);
    put(4 * L + 3, at, 1.0f / (up + a.sunset));
    put(4 * L + 4, at, load(albedo + at));
    put(4 * L + 5, at, load(co2 + at));
  }
}

#if defined(__AVX512VNNI__)
// Four features of 16 columns as 8-bit codes, moved up by 128 as the product asks.
inline Vec codes(const Vec* v, float inverse) {
  const auto whole = [&](Vec x) {  // narrowed to -128..127 below
    return _mm512_cvtps_epi32(__m512(smaller(x * inverse, all(127.0f))));
  };
  const __m512i low = _mm512_packs_epi32(whole(v[0]), whole(v[1]));
  const __m512i high = _mm512_packs_epi32(whole(v[2]), whole(v[3]));
  __m512i c = _mm512_max_epi8(_mm512_packs_epi16(low, high), _mm512_set1_epi8(-127));
  // Of four columns each: four codes of v[0], four of v[1], ...
  const __m512i by_column =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  c = _mm512_shuffle_epi8(c, by_column);
  return Vec(_mm512_castsi512_ps(_mm512_xor_si512(c, _mm512_set1_epi8(-128))));
}
#endif
#if defined(__AVX512BF16__)
// Two features of 16 columns as bf16, the first in the lower half.
inline Vec pair(const Vec* v) {
  const __m512bh halves = _mm512_cvtne2ps_pbh(__m512(v[1]), __m512(v[0]));
  __m512i bits, order = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
      18, 2, 17, 1, 16, 0);
  std::memcpy(&bits, &halves, sizeof bits);
  return Vec(_mm512_castsi512_ps(_mm512_permutexvar_epi16(order, bits)));
}
#endif

// Features of a tile in each kind, unit by unit.
struct Rows {
  float* of[N_KIND];

  float* at(int kind, int feature) const { return of[kind] + feature / per_unit(kind) * TILE; }
};

// Vector `part` of per_unit(KIND) features as a unit of a kind.
template <int KIND>
inline Vec as_unit(const Vec* v, float inverse) {
#if defined(__AVX512BF16__)
  if constexpr (KIND == BF16) return pair(v);
#endif
#if defined(__AVX512VNNI__)
  if constexpr (KIND == INT8) return codes(v, inverse);
#endif
  return v[0];
}

// The features that a tile begins with, an even number, as what the first layer multiplies.
void pack(int kind, int n_feature, const Rows& rows) {
  if (kind != BF16) return;
  for (int f = 0; f < n_feature; f += 2)
    for (int at = 0; at < TILE; at += LANE) {
      const Vec v[2] = {load(rows.at(FP32, f) + at), load(rows.at(FP32, f + 1) + at)};
      store(rows.at(BF16, f) + at, as_unit<BF16>(v, 1.0f));
    }
}

template <int KIND>
inline Vec mac(Vec sum, const float* weight, Vec x) {
  if constexpr (KIND == FP32) return sum + x * *weight;
#if defined(__AVX512BF16__)
  if constexpr (KIND == BF16) {
    int32_t bits;
    std::memcpy(&bits, weight, 4);
    const __m512i w = _mm512_set1_epi32(bits);
    return Vec(_mm512_dpbf16_ps(__m512(sum), (__m512bh)(w), (__m512bh)(__m512(x))));
  }
#endif
#if defined(__AVX512VNNI__)
  if constexpr (KIND == INT8) {
    int32_t bits;
    std::memcpy(&bits, weight, 4);
    return Vec(_mm512_castsi512_ps(_mm512_dpbusd_epi32(
        _mm512_castps_si512(__m512(sum)), _mm512_castps_si512(__m512(x)), _mm512_set1_epi32(bits))));
  }
#endif
  return sum;
}

// Stores ROW outputs as a kind, if a reader wants them so.
template <int KIND>
inline void hand_on(const Layer& layer, const Vec (&out)[PART][ROW], float* to) {
  if (!(layer.hands >> KIND & 1)) return;
#pragma GCC unroll 8
  for (int j = 0; j < PART; ++j)
#pragma GCC unroll 8
    for (int r = 0; r < ROW; r += per_unit(KIND))
      store(to + r / per_unit(KIND) * TILE + j * LANE, as_unit<KIND>(out[j] + r, layer.inverse));
}

// Alone and with its own copies, lest sums of some calls lie on the stack.
template <int KIND, int N_ROW>
__attribute__((noinline)) void multiply(const Layer layer, const Rows rows) {
  const float* x = rows.at(KIND, layer.reads);
  for (int strip = 0; strip < layer.n_strip; ++strip) {
    const int row = strip * N_ROW;
    Vec sum[PART][N_ROW];
#pragma GCC unroll 8
    for (int j = 0; j < PART; ++j)
#pragma GCC unroll 8
      for (int r = 0; r < N_ROW; ++r)
        sum[j][r] = KIND == INT8 ? Vec(IVec{} + layer.begin[row + r]) : Vec{};
    for (int k = layer.first[strip]; k < layer.first[strip + 1]; ++k) {
      const float* from = x + layer.unit[k] * TILE;
      const float* weight = layer.weight + int64_t(k) * N_ROW;
      Vec v[PART];
#pragma GCC unroll 8
      for (int j = 0; j < PART; ++j) v[j] = load(from + j * LANE);
#pragma GCC unroll 8
      for (int r = 0; r < N_ROW; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < PART; ++j) sum[j][r] = mac<KIND>(sum[j][r], weight + r, v[j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < PART; ++j)
#pragma GCC unroll 8
      for (int r = 0; r < N_ROW; ++r) {
        Vec out = sum[j][r];
        if constexpr (KIND == INT8) out = __builtin_convertvector(IVec(out), Vec);
        out = out * layer.scale[row + r] + layer.bias[row + r];
        if (layer.hands) {  // hard swish
          out *= smaller(larger(out * (1.0f / 6.0f) + 0.5f, all(0.0f)), all(1.0f));
          out = out * layer.factor[row + r] + layer.shift[row + r];
        } else {
          store(rows.at(FP32, layer.writes + row + r) + j * LANE, out);
        }
        sum[j][r] = out;
      }
    if constexpr (N_ROW == ROW) {
      hand_on<FP32>(layer, sum, rows.at(FP32, layer.writes + row));
      hand_on<BF16>(layer, sum, rows.at(BF16, layer.writes + row));
      hand_on<INT8>(layer, sum, rows.at(INT8, layer.writes + row));
    }
  }
}

template <int KIND, int N_ROW = ROW>
void multiply_by(const Layer& layer, const Rows& rows) {
  if (layer.n_row == N_ROW) return multiply<KIND, N_ROW>(layer, rows);
  if constexpr (N_ROW > 1) multiply_by<KIND, N_ROW - 1>(layer, rows);
}

// Results from normalised targets [2 level + 2]; surface fluxes close each column.
void write(const Air& a, int64_t first, int n, float* y, const float* mass, const float* odd) {
  const int L = a.n_level;
  alignas(64) float sun[TILE], sums[TILE];
  gather(a.cos_zenith, 1, 0, first, n, sun);
  for (int f = 0; f < 2 * L + 2; ++f)
    for (int at = 0; at < TILE; at += LANE) {
      Vec v = load(y + f * TILE + at) * a.out_scale[f] + a.out_mean[f] + load(odd + at);
      if (f > L) v *= larger(load(sun + at), all(0.0f));
      if (f % (L + 1) < L) v *= 1.0f / a.day;
      store(y + f * TILE + at, v);
    }
  for (int kind = 0; kind < 2; ++kind) {
    float* heating = y + kind * (L + 1) * TILE;
    float* toa = heating + L * TILE;
    for (int at = 0; at < TILE; at += LANE) {
      Vec sum = {};
      for (int l = 0; l < L; ++l)
        sum += load(heating + l * TILE + at) * (a.heat_capacity * load(mass + l * TILE + at));
      store(sums + at, (kind ? load(toa + at) : -load(toa + at)) - sum);
    }
    turn_back(heating, L, first, n, kind ? a.heating_sw : a.heating_lw);
    scatter(toa, 1, 0, first, n, kind ? a.toa_sw : a.toa_lw);
    scatter(sums, 1, 0, first, n, kind ? a.surface_sw : a.surface_lw);
  }
}

}  // namespace

// Kinds of layers that this build multiplies, as bits.
extern "C" int32_t tessera_fused_kinds() {
  int32_t kinds = 1 << FP32;
#if defined(__AVX512BF16__)
  kinds |= 1 << BF16;
#endif
#if defined(__AVX512VNNI__)
  kinds |= 1 << INT8;
#endif
  return kinds;
}

extern "C" int32_t tessera_fused_most() { return MOST; }

extern "C" void tessera_fused(const Air* air, const Layer* layers) {
  alignas(64) static thread_local float single[MOST * TILE], paired[MOST * TILE / 2];
  alignas(64) static thread_local float quads[MOST * TILE / 4];
  alignas(64) static thread_local Scratch tile;
  alignas(64) float odd[TILE];
  const Rows rows = {{single, paired, quads}};
  for (int64_t first = 0; first < air->n_column; first += TILE) {
    const int n = int(air->n_column - first < TILE ? air->n_column - first : TILE);
    read(*air, first, n, single, tile, odd);
    pack(layers[0].kind, 4 * air->n_level + 6, rows);
    for (int i = 0; i < air->n_layer; ++i) {
      const Layer& layer = layers[i];
      if (layer.kind == FP32) multiply_by<FP32>(layer, rows);
      if (layer.kind == BF16) multiply_by<BF16>(layer, rows);
      if (layer.kind == INT8) multiply_by<INT8>(layer, rows);
    }
    write(*air, first, n, rows.at(FP32, layers[air->n_layer - 1].writes), tile.mass, odd);
  }
}
