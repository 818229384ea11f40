// Rounding float32 to a narrower format, kept in float32: to nearest even, or at random.
//
// The random number of entry i is a hash of i and the seed, so the result depends neither on
// threads nor on vector width, and plain torch computes the same (core/precision/rounding.py).

#include "vector.h"

namespace {

struct Rule {
  int n_exponent, n_mantissa;  // both zero for integer formats
  float max_value;
  bool saturate;
};

inline uint32_t bits_of(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
}

inline float float_of(uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}

// Uniform in 0..2^24 - 1, where h is i * STRIDE + seed0 for entry i. Two multiplications and three shifts as in the finaliser of MurmurHash3
// (Appleby, public domain); the second half of the seed enters between them, so that two seeds do
// not give shifted copies of one sequence.
constexpr uint32_t STRIDE = 0x9E3779B1u;
inline uint32_t draw(uint32_t h, uint32_t seed1) {
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= (h >> 13) ^ seed1;
  h *= 0xC2B2AE35u;
  h ^= h >> 16;
  return h >> 8;
}

// A template argument for each decision that all entries share: no branch is left in the loop.
enum Kind { RANGE_OF_FP32, NARROW_FLOAT, INTEGER };

template <Kind KIND, bool STOCHASTIC>
inline float round_one(float x, const Rule& rule, uint32_t random) {
  const uint32_t sign = bits_of(x) & 0x80000000u, size = bits_of(x) & 0x7FFFFFFFu;
  float out;
  if constexpr (KIND == RANGE_OF_FP32) {
    // The exponents of float32 itself: the tail of the bits is cut, a carry may reach the exponent.
    const int drop = 23 - rule.n_mantissa;
    const uint32_t tail = (1u << drop) - 1;
    const uint32_t up = STOCHASTIC ? tail - (random >> (24 - drop)) : (tail >> 1) + ((size >> drop) & 1);
    out = size < 0x7F800000u ? float_of((size + up) & ~tail) : __builtin_inff();
  } else {
    // Count in units of the spacing at x, which is a power of two, so both products are exact.
    const int lowest = KIND == INTEGER ? 0 : 2 - (1 << (rule.n_exponent - 1));
    int exponent = KIND == INTEGER ? 0 : int(size >> 23) - 127;
    exponent = (exponent > lowest ? exponent : lowest) - rule.n_mantissa;
    float count = float_of(size) * float_of(uint32_t(127 - exponent) << 23);
    // Integer formats: what lies far outside needs no exact count.
    count = count < 4194304.0f ? count : 4194304.0f;
    if (STOCHASTIC) {
      const float lower = float(int32_t(count));
      count = lower + (float(int32_t(random)) * 0x1p-24f < count - lower ? 1.0f : 0.0f);
    } else {
      count = (count + 8388608.0f) - 8388608.0f;
    }
    out = count * float_of(uint32_t(127 + exponent) << 23);
  }
  const float over = rule.saturate ? rule.max_value : __builtin_inff();
  out = out > rule.max_value ? over : out;
  out = float_of(bits_of(out) | sign);
  if (KIND == INTEGER) out += 0.0f;  // integers have no negative zero
  return x == x ? out : x;
}

// Entries first..first+n-1 of a tensor, which start at x.
template <Kind KIND, bool STOCHASTIC>
void round_all(const float* __restrict x, float* __restrict out, int n, Rule rule, uint32_t first,
               uint32_t seed0, uint32_t seed1) {
  uint32_t start = first * STRIDE + seed0;
  for (int i = 0; i < n; ++i, start += STRIDE)
    out[i] = round_one<KIND, STOCHASTIC>(x[i], rule, draw(start, seed1));
}

}  // namespace

extern "C" int32_t tessera_round(const float* x, float* out, int64_t n, int32_t n_exponent,
                                 int32_t n_mantissa, float max_value, int32_t saturate,
                                 int32_t stochastic, uint32_t seed0, uint32_t seed1,
                                 int32_t n_thread) {
  const Rule rule{n_exponent, n_mantissa, max_value, saturate != 0};
  const auto run = n_exponent == 8 ? (stochastic ? round_all<RANGE_OF_FP32, true>
                                                 : round_all<RANGE_OF_FP32, false>)
                   : n_exponent    ? (stochastic ? round_all<NARROW_FLOAT, true>
                                                 : round_all<NARROW_FLOAT, false>)
                                   : (stochastic ? round_all<INTEGER, true>
                                                 : round_all<INTEGER, false>);
  constexpr int64_t STRETCH = 1 << 14;
  parallel_for((n + STRETCH - 1) / STRETCH, n_thread, [&](int64_t task) {
    const int64_t begin = task * STRETCH, here = n - begin < STRETCH ? n - begin : STRETCH;
    run(x + begin, out + begin, int(here), rule, uint32_t(begin), seed0, seed1);
  });
  return OK;
}
