// Multiply-adds that never leave the registers: what a benchmark holds a kernel against.

#include "vector.h"

namespace {

template <class Number>
int32_t spin(int64_t n) {
  constexpr int CHAINS = LANE == 16 ? 24 : 12;  // latency times issue rate, with room
  const float bits = 0x1.0p-60f;                // as fp32 or as a pair of bf16, sums stay finite
  const Vec a = spread(&bits);
  Vec sum[CHAINS] = {};
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 24  // left alone, so long a loop stays one, and its sums in memory
    for (int c = 0; c < CHAINS; ++c) {
      sum[c] = Number::mac(sum[c], a, a);
      // Keeps the chain, though no one reads its end.
#if defined(__x86_64__)
      asm volatile("" : "+v"(sum[c]));
#else
      asm volatile("" : "+w"(sum[c]));
#endif
    }
  }
  return CHAINS * LANE;
}

}  // namespace

// Runs n rounds and returns how many products each round multiplied and added: one a lane in fp32
// (kind 0), two in bf16 (1), four in int8 (2); 0 where the build has no such instruction.
extern "C" int32_t tessera_multiply_adds(int64_t n, int32_t kind) {
#if defined(__AVX512BF16__)
  if (kind == 1) return 2 * spin<Bf16Pair>(n);
#endif
#if defined(__AVX512VNNI__)
  if (kind == 2) return 4 * spin<Int8Quad>(n);
#endif
  return kind ? 0 : spin<Fp32>(n);
}
