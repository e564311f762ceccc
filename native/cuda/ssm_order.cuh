// One step of the state of SsmScan. Both kernels (one step; many steps) do the same arithmetic in the same order, so that a sequence has the same bits
// however it is cut into calls.
//
// Channel n of the state belongs to group g = n mod 32, place j = n div 32. A group's products with C are added by ascending j, then groups as a
// butterfly does: g + (g ± 16), then ± 8, ± 4, ± 2, ± 1.
#pragma once
#include "device.cuh"

namespace mblm::cuda {

constexpr int SSM_GROUPS = 32;

struct SsmStep {
  float dt, decay;
};

__device__ __forceinline__ SsmStep ssm_step(float raw_dt, float dt_bias, float a) {
  const float dt = softplus(raw_dt + dt_bias);
  return {dt, expf(dt * a)};
}

/// Updates one element of the state, given dt·x, and adds its product with C to `sum`.
__device__ __forceinline__ void ssm_update(float& state, float decay, float dt_x, float b, float c, float& sum) {
  state = fmaf(decay, state, __fmul_rn(dt_x, b));
  sum = fmaf(state, c, sum);
}

}  // namespace mblm::cuda
