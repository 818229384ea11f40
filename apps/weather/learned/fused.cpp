// A learned radiation scheme in one pass: features of a tile of columns, the layers of a network,
// heating rates and fluxes. Nothing but the results leaves the first-level cache.
//
// A tile is 32 columns, [feature][column], so that every weight multiplies whole vectors. Numbers
// travel in units of 32 bits: one float, two bf16 that are multiplied pairwise, or four 8-bit
// integers; sums are float, for integers int32. Weights come in strips of 8 outputs, each with the
// list of the units that it reads: a dense layer's strips read them all, a sparse layer's a few.

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANE = 16;
#elif defined(__AVX2__)
constexpr int LANE = 8;
#else
constexpr int LANE = 4;
#endif

constexpr int TILE = 32, PART = TILE / LANE, ROW = 8;
constexpr int MOST = 2048;  // features of all layers together, levels included
enum Kind : int32_t { FP32 = 0, BF16 = 1, INT8 = 2 };

typedef float Vec __attribute__((vector_size(LANE * 4)));
typedef int32_t IVec __attribute__((vector_size(LANE * 4)));
typedef Vec VecAny __attribute__((aligned(4), may_alias));

struct Layer {
  int32_t kind, n_in, n_strip, is_last;
  int32_t reads, writes;  // rows of the features where its inputs and outputs begin
  float inverse;          // of the scale of an integer layer's inputs
  const int32_t* first;   // [strip + 1], into `unit` and, times ROW, into `weight`
  const int32_t* unit;    // which unit of the inputs each column of weights multiplies
  const float* weight;    // [column][ROW] units
  const int32_t* begin;   // [strip][ROW] what integer sums begin with
  const float *scale, *bias;    // [strip][ROW]: sum * scale + bias
  const float *factor, *shift;  // [strip][ROW], after the activation
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

inline Vec load(const float* p) { return *reinterpret_cast<const VecAny*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<VecAny*>(p) = v; }
inline Vec all(float x) { return Vec{} + x; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }

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

// Normalised features of a tile, in the order of `emulator.features`; the mass of layers, kg/m2; and
// `odd`, nought but for columns with an entry that is not finite, where it is NaN.
void read(const Air& a, int64_t first, int n, float* x, float* mass, float* odd) {
  const int L = a.n_level;
  alignas(64) float t[TILE], q[TILE], p[TILE], top[TILE], bottom[TILE], ground[TILE];
  std::memset(odd, 0, TILE * sizeof(float));
  auto mind = [&](int at, Vec v) { store(odd + at, load(odd + at) + 0.0f * v); };
  auto put = [&](int f, int at, Vec v) {
    store(x + f * TILE + at, (v - a.in_mean[f]) * a.in_scale[f]);
  };
  gather(a.pressure_half, L + 1, 0, first, n, top);
  gather(a.pressure_half, L + 1, L, first, n, ground);
  for (int l = 0; l < L; ++l) {
    gather(a.temperature, L, l, first, n, t);
    gather(a.humidity, L, l, first, n, q);
    gather(a.pressure, L, l, first, n, p);
    gather(a.pressure_half, L + 1, l + 1, first, n, bottom);
    for (int at = 0; at < TILE; at += LANE) {
      const Vec air = load(t + at), pressure = load(p + at), vapour = load(q + at);
      const Vec layer = (load(bottom + at) - load(top + at)) / a.gravity;
      store(mass + l * TILE + at, layer);
      mind(at, air + vapour + pressure + layer);
      Vec e = a.vapour_at_freezing * exponential(a.vapour_rate * (1.0f / a.freezing - 1.0f / air));
      e = smaller(e, a.vapour_most * pressure);
      const Vec saturation = a.epsilon * e / (pressure - (1.0f - a.epsilon) * e);
      Vec depth = load(ground + at) / pressure;
      depth *= depth;  // to the fourth below
      const Vec near = exponential(1.0f - depth * depth);
      const Vec critical = a.critical + (a.critical_ground - a.critical) * near;
      Vec cover = (vapour / saturation - critical) / (1.0f - critical);
      cover = smaller(larger(cover, all(0.0f)), all(1.0f));
      const Vec fade = smaller(pressure / a.full_pressure, all(1.0f));
      const Vec water = cover * cover * (fade * fade) * a.water_share * saturation * layer;
      put(l, at, air);
      put(L + l, at, root(root(larger(vapour, all(0.0f)))));
      put(2 * L + l, at, root(water));
      put(3 * L + l, at, 1.0f - exponential(-a.dark * water));
    }
    std::memcpy(top, bottom, sizeof top);
  }
  gather(a.sst, 1, 0, first, n, t);
  gather(a.cos_zenith, 1, 0, first, n, q);
  gather(a.albedo, 1, 0, first, n, p);
  gather(a.co2, 1, 0, first, n, top);
  for (int at = 0; at < TILE; at += LANE) {
    mind(at, load(t + at) + load(q + at) + load(p + at) + load(top + at));
    const Vec sun = larger(load(q + at), all(0.0f));
    put(4 * L, at, load(bottom + at));
    put(4 * L + 1, at, load(t + at));
    put(4 * L + 2, at, sun);
    put(4 * L + 3, at, 1.0f / (sun + a.sunset));
    put(4 * L + 4, at, load(p + at));
  }
  for (int s = 0; s < TILE; ++s) p[s] = std::log(top[s]);
  for (int at = 0; at < TILE; at += LANE) put(4 * L + 5, at, load(p + at));
}

#if defined(__AVX512VNNI__)
// Four features of 16 columns as 8-bit codes, moved up by 128 as the product asks.
inline Vec codes(const Vec (&v)[4], float inverse) {
  __m512i out = _mm512_setzero_si512();
  for (int i = 0; i < 4; ++i) {
    const __m512 y = __m512(smaller(larger(v[i] * inverse, all(-127.0f)), all(127.0f)));
    const __m512i c = _mm512_add_epi32(_mm512_cvtps_epi32(y), _mm512_set1_epi32(128));
    out = _mm512_or_si512(out, _mm512_slli_epi32(c, 8 * i));
  }
  return Vec(_mm512_castsi512_ps(out));
}
#endif
#if defined(__AVX512BF16__)
// Two features of 16 columns as bf16, the first in the lower half.
inline Vec pair(const Vec (&v)[4]) {
  const auto half = [](Vec x) {
    const __m256bh h = _mm512_cvtneps_pbh(__m512(x));
    __m256i bits;
    std::memcpy(&bits, &h, sizeof bits);
    return _mm512_cvtepu16_epi32(bits);
  };
  return Vec(_mm512_castsi512_ps(_mm512_or_si512(half(v[0]), _mm512_slli_epi32(half(v[1]), 16))));
}
#endif

// Give `n_in` features as units of a layer's kind, the last of them filled up with noughts.
const float* pack(const Layer& layer, const float* x, float* out) {
  if (layer.kind == FP32) return x;
  const int per_unit = layer.kind == BF16 ? 2 : 4;
  for (int f = 0; f < layer.n_in; f += per_unit)
    for (int at = 0; at < TILE; at += LANE) {
      Vec v[4] = {};
      for (int i = 0; i < per_unit && f + i < layer.n_in; ++i) v[i] = load(x + (f + i) * TILE + at);
      Vec unit = v[0];
#if defined(__AVX512BF16__)
      if (layer.kind == BF16) unit = pair(v);
#endif
#if defined(__AVX512VNNI__)
      if (layer.kind == INT8) unit = codes(v, layer.inverse);
#endif
      store(out + f / per_unit * TILE + at, unit);
    }
  return out;
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

template <int KIND>
void multiply(const Layer& layer, const float* x, float* y) {
  for (int strip = 0; strip < layer.n_strip; ++strip) {
    const int row = strip * ROW;
    Vec sum[ROW][PART];
    for (int r = 0; r < ROW; ++r)
      for (int j = 0; j < PART; ++j)
        sum[r][j] = KIND == INT8 ? Vec(IVec{} + layer.begin[row + r]) : Vec{};
    for (int k = layer.first[strip]; k < layer.first[strip + 1]; ++k) {
      const float* from = x + layer.unit[k] * TILE;
      const float* weight = layer.weight + int64_t(k) * ROW;
      Vec v[PART];
      for (int j = 0; j < PART; ++j) v[j] = load(from + j * LANE);
      for (int r = 0; r < ROW; ++r)
        for (int j = 0; j < PART; ++j) sum[r][j] = mac<KIND>(sum[r][j], weight + r, v[j]);
    }
    for (int r = 0; r < ROW; ++r)
      for (int j = 0; j < PART; ++j) {
        const Vec whole = KIND == INT8 ? __builtin_convertvector(IVec(sum[r][j]), Vec) : sum[r][j];
        Vec out = whole * layer.scale[row + r] + layer.bias[row + r];
        if (!layer.is_last) {  // hard swish
          out *= smaller(larger(out + 3.0f, all(0.0f)), all(6.0f)) * (1.0f / 6.0f);
          out = out * layer.factor[row + r] + layer.shift[row + r];
        }
        store(y + (row + r) * TILE + j * LANE, out);
      }
  }
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
      if (f % (L + 1) < L) v /= a.day;
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
    for (int l = 0; l < L; ++l)
      scatter(heating + l * TILE, L, l, first, n, kind ? a.heating_sw : a.heating_lw);
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
  alignas(64) static thread_local float features[(MOST + ROW) * TILE], packed[MOST * TILE / 2];
  alignas(64) static thread_local float mass[MOST * TILE / 4];
  alignas(64) float odd[TILE];
  for (int64_t first = 0; first < air->n_column; first += TILE) {
    const int n = int(air->n_column - first < TILE ? air->n_column - first : TILE);
    read(*air, first, n, features, mass, odd);
    float* y = features;
    for (int i = 0; i < air->n_layer; ++i) {
      const Layer& layer = layers[i];
      const float* x = pack(layer, features + layer.reads * TILE, packed);
      y = features + layer.writes * TILE;
      if (layer.kind == FP32) multiply<FP32>(layer, x, y);
      if (layer.kind == BF16) multiply<BF16>(layer, x, y);
      if (layer.kind == INT8) multiply<INT8>(layer, x, y);
    }
    write(*air, first, n, y, mass, odd);
  }
}
