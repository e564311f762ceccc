// Philox4x32-10 and the uniforms drawn from it, as src/sampling/philox.ts and uniform-source.ts have them.
#pragma once
#include <cstdint>

namespace mblm::cuda {

/// The uniform in [0, 1) number `index` of the seed, with 53 random bits.
__device__ inline double uniform_at(uint32_t seed_low, uint32_t seed_high, uint64_t index) {
  uint32_t c0 = static_cast<uint32_t>(index);
  uint32_t c1 = static_cast<uint32_t>(index >> 32);
  uint32_t c2 = 0;
  uint32_t c3 = 0;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xd2511f53u, c0);
    const uint32_t low0 = 0xd2511f53u * c0;
    const uint32_t high1 = __umulhi(0xcd9e8d57u, c2);
    const uint32_t low1 = 0xcd9e8d57u * c2;
    c0 = high1 ^ c1 ^ seed_low;
    c1 = low1;
    c2 = high0 ^ c3 ^ seed_high;
    c3 = low0;
    seed_low += 0x9e3779b9u;
    seed_high += 0xbb67ae85u;
  }
  const uint64_t bits = (static_cast<uint64_t>(c0 >> 5) << 26) + (c1 >> 6);
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace mblm::cuda
