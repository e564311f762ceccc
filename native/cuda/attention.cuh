// Scores of a query with keys, for warps: four lanes share a key, eight keys are taken at once.
#pragma once
#include "device.cuh"

namespace mblm::cuda {

constexpr int KEY_LANES = 4;
constexpr int KEYS_AT_ONCE = WARP / KEY_LANES;

/// Turns the pairs (i, i + d/2) of VEC channels of each half by the rows of cos and sin, from channel `i` on.
template <int VEC>
__device__ __forceinline__ void rotate_halves(float (&low)[VEC], float (&high)[VEC], const float* cosines, const float* sines) {
  float cosine[VEC], sine[VEC];
  load(cosine, cosines);
  load(sine, sines);
#pragma unroll
  for (int i = 0; i < VEC; i++) {
    // The roundings are spelled out: a key is to have the same bits wherever this is compiled into.
    const float turned = fmaf(low[i], cosine[i], -__fmul_rn(high[i], sine[i]));
    high[i] = fmaf(high[i], cosine[i], __fmul_rn(low[i], sine[i]));
    low[i] = turned;
  }
}

__device__ __forceinline__ float sum_key_lanes(float x) {
  x += __shfl_xor_sync(FULL_WARP, x, 1);
  return x + __shfl_xor_sync(FULL_WARP, x, 2);
}

/// Channels of a half that can be read at once.
inline bool has_wide_heads(int64_t d) { return d % 16 == 0; }

}  // namespace mblm::cuda
