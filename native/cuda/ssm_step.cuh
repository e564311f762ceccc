// SsmScan of one step: bound by reading and writing the state once, so a warp's accesses cover whole rows of it.
#pragma once
#include "ssm_order.cuh"

namespace mblm::cuda {

constexpr int SSM_STEP_THREADS = 256;
constexpr int SSM_STEP_LANES = 16;  // threads side by side along P

/// A block has one head of one sequence and 16·VEC of its P columns. Warp w has groups w and w + 8 (lanes 16 …) and those 16 above each.
template <typename T, int VEC, int PLACES>
__global__ void __launch_bounds__(SSM_STEP_THREADS) ssm_step_kernel(const SsmScan a) {
  constexpr int NUM_WARPS = SSM_STEP_THREADS / WARP;
  __shared__ float sums[NUM_WARPS][SSM_STEP_LANES * VEC];
  release_successor();
  wait_for_predecessor();
  const int64_t h = blockIdx.x;
  const int64_t r = blockIdx.z;
  const int lane = threadIdx.x % WARP;
  const int warp = threadIdx.x / WARP;
  const int column = lane % SSM_STEP_LANES * VEC;
  const int64_t p = blockIdx.y * static_cast<int64_t>(SSM_STEP_LANES * VEC) + column;
  const int group = warp + lane / SSM_STEP_LANES * NUM_WARPS;
  const bool is_inside = p < a.P;
  const float* xbc = a.xbc + r * (a.H * a.P + 2 * a.N);
  float* state = a.state + (a.slot[r] * a.H + h) * a.N * a.P + p;
  const float* before = a.position[r] == 0 ? a.initial + h * a.N * a.P + p : state;

  float values[2][PLACES][VEC];
#pragma unroll
  for (int side = 0; side < 2; side++) {
#pragma unroll
    for (int j = 0; j < PLACES; j++) {
      const int64_t n = group + side * 16 + j * SSM_GROUPS;
#pragma unroll
      for (int i = 0; i < VEC; i++) values[side][j][i] = 0.f;
      if (is_inside && n < a.N) load(values[side][j], before + n * a.P);
    }
  }
  float x[VEC] = {};
  if (is_inside) load(x, xbc + h * a.P + p);
  const SsmStep step = ssm_step(to_float(static_cast<const T*>(a.u)[r * a.W + a.dt_offset + h]), a.dt_bias[h], a.a[h]);
  float total[2][VEC] = {};
#pragma unroll
  for (int side = 0; side < 2; side++) {
#pragma unroll
    for (int j = 0; j < PLACES; j++) {
      const int64_t n = group + side * 16 + j * SSM_GROUPS;
      const float b = n < a.N ? xbc[a.H * a.P + n] : 0.f;
      const float c = n < a.N ? xbc[a.H * a.P + a.N + n] : 0.f;
#pragma unroll
      for (int i = 0; i < VEC; i++) ssm_update(values[side][j][i], step.decay, __fmul_rn(step.dt, x[i]), b, c, total[side][i]);
      if (is_inside && n < a.N) store(state + n * a.P, values[side][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < VEC; i++) {
    float sum = total[0][i] + total[1][i];
    sum += __shfl_xor_sync(FULL_WARP, sum, 16);
    if (lane < SSM_STEP_LANES) sums[warp][column + i] = sum;
  }
  __syncthreads();
  const int64_t q = blockIdx.y * static_cast<int64_t>(SSM_STEP_LANES * VEC) + threadIdx.x;
  if (threadIdx.x >= SSM_STEP_LANES * VEC || q >= a.P) return;
  float s[NUM_WARPS];
#pragma unroll
  for (int w = 0; w < NUM_WARPS; w++) s[w] = sums[w][threadIdx.x];
  const float sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  a.y[r * a.H * a.P + h * a.P + q] = fmaf(a.d[h], xbc[h * a.P + q], sum);
}

}  // namespace mblm::cuda
