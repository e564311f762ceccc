// What the blocks of a persistent kernel hand to one another, and how they wait for it: through L2, without a barrier of the grid.
//
// Everything exchanged is a word that carries its tag: 16 or 8 bytes written and read at once, so that who finds the tag has the values. A tag is never the
// one that the word had before. Waiting is bounded: who gives up says so in the error word, and waits for nothing more.
#pragma once
#include "device.cuh"

namespace mblm::cuda {

/// Polls before a warp gives up: some seconds.
constexpr int MAX_POLLS = 1 << 22;
/// Polls between two looks at whether somebody else gave up.
constexpr int POLLS_PER_LOOK = 1 << 12;

/// How long a warp still waits.
struct Patience {
  uint32_t* error;
  int polls = MAX_POLLS;

  __device__ __forceinline__ bool is_over(int count) {
    if (count < polls && (count % POLLS_PER_LOOK != 0 || *static_cast<volatile uint32_t*>(error) == 0)) return false;
    polls = 0;
    atomicExch(error, 1u);
    __threadfence();
    return true;
  }
};

__device__ __forceinline__ uint4 load_word(const uint4* address) {
  unsigned long long low, high;
  asm volatile("{.reg .b128 v; ld.relaxed.gpu.global.b128 v, [%2]; mov.b128 {%0, %1}, v;}" : "=l"(low), "=l"(high) : "l"(address) : "memory");
  return make_uint4(static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high), static_cast<uint32_t>(high >> 32));
}

__device__ __forceinline__ void store_word(uint4* address, uint4 v) {
  const unsigned long long low = static_cast<unsigned long long>(v.y) << 32 | v.x;
  const unsigned long long high = static_cast<unsigned long long>(v.w) << 32 | v.z;
  asm volatile("{.reg .b128 v; mov.b128 v, {%1, %2}; st.relaxed.gpu.global.b128 [%0], v;}" ::"l"(address), "l"(low), "l"(high) : "memory");
}

__device__ __forceinline__ void store_pair(uint2* address, uint32_t value, uint32_t tag) {
  const unsigned long long v = static_cast<unsigned long long>(tag) << 32 | value;
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(address), "l"(v) : "memory");
}

__device__ __forceinline__ uint2 load_pair(const uint2* address) {
  unsigned long long v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(address) : "memory");
  return make_uint2(static_cast<uint32_t>(v), static_cast<uint32_t>(v >> 32));
}

/// Four numbers of 28 bits, the first of a float (cut off, not rounded: what is not finite stays so), and a tag of 16.
__device__ __forceinline__ uint4 pack_floats(const float (&values)[4], uint32_t tag) {
  uint32_t bits[4];
#pragma unroll
  for (int i = 0; i < 4; i++) bits[i] = __float_as_uint(values[i]);
  const uint32_t last = bits[3] >> 4;
  return make_uint4((bits[0] & ~15u) | (last & 15u), (bits[1] & ~15u) | (last >> 4 & 15u), (bits[2] & ~15u) | (last >> 8 & 15u), last >> 12 | tag << 16);
}

__device__ __forceinline__ void unpack_floats(const uint4& v, float (&values)[4]) {
  values[0] = __uint_as_float(v.x & ~15u);
  values[1] = __uint_as_float(v.y & ~15u);
  values[2] = __uint_as_float(v.z & ~15u);
  values[3] = __uint_as_float(v.w << 16 | (v.z & 15u) << 12 | (v.y & 15u) << 8 | (v.x & 15u) << 4);
}

}  // namespace mblm::cuda
