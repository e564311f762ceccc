// Philox4x32-10, as src/sampling/philox.ts and uniform-source.ts.
#pragma once
#include <cstdint>

namespace mblm::reference {

/// The uniform in [0, 1) of the generated id number `index`, with 53 random bits.
inline double uniform_at(uint32_t seed_low, uint32_t seed_high, uint64_t index) {
  uint32_t c0 = uint32_t(index), c1 = uint32_t(index >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = seed_low, k1 = seed_high;
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = uint64_t(0xd2511f53) * c0;
    const uint64_t product1 = uint64_t(0xcd9e8d57) * c2;
    c0 = uint32_t(product1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(product1);
    c2 = uint32_t(product0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(product0);
    k0 += 0x9e3779b9;
    k1 += 0xbb67ae85;
  }
  return (double(c0 >> 5) * 0x1p26 + double(c1 >> 6)) * 0x1p-53;
}

}  // namespace mblm::reference
