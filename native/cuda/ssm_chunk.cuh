// SsmScan of many steps: the state stays in registers, the next steps' inputs are fetched while these are computed.
#pragma once
#include <cuda_pipeline_primitives.h>

#include "ssm_order.cuh"

namespace mblm::cuda {

constexpr int SSM_CHUNK_THREADS = 128;
constexpr int SSM_CHUNK_WARPS = SSM_CHUNK_THREADS / WARP;
/// Steps whose inputs are in shared memory at a time.
constexpr int SSM_CHUNK_STEPS = 32;

/// Steps whose results are joined over the groups together.
constexpr int SSM_JOINED_STEPS = 8;

/// The butterfly over the groups (± 16, 8, 4, 2, 1) of COUNT values at once: while there are several, each half of the lanes goes on with half of them.
/// The lane is left with the value that the highest bits of its number name.
template <int COUNT, int DISTANCE = SSM_GROUPS / 2>
__device__ __forceinline__ float join_groups(float (&values)[COUNT]) {
  if constexpr (DISTANCE == 0) {
    return values[0];
  } else if constexpr (COUNT == 1) {
    float joined[1] = {values[0] + __shfl_xor_sync(FULL_WARP, values[0], DISTANCE)};
    return join_groups<1, DISTANCE / 2>(joined);
  } else {
    const bool upper = threadIdx.x & DISTANCE;
    float joined[COUNT / 2];
#pragma unroll
    for (int i = 0; i < COUNT / 2; i++) {
      const float kept = upper ? values[i + COUNT / 2] : values[i];
      const float sent = upper ? values[i] : values[i + COUNT / 2];
      joined[i] = kept + __shfl_xor_sync(FULL_WARP, sent, DISTANCE);
    }
    return join_groups<COUNT / 2, DISTANCE / 2>(joined);
  }
}

inline size_t ssm_chunk_shared_bytes(int64_t N, int vec) {
  return sizeof(float) * 2 * SSM_CHUNK_STEPS * (2 * N + SSM_CHUNK_WARPS * vec + 2);
}

/// A warp has VEC columns of one head of one sequence; its lanes are the groups of n.
template <typename T, int VEC, int PLACES>
__global__ void __launch_bounds__(SSM_CHUNK_THREADS, 1) ssm_chunk_kernel(const SsmScan a) {
  constexpr int STEPS = SSM_CHUNK_STEPS;
  constexpr int JOINED = SSM_JOINED_STEPS;
  constexpr int COLUMNS = SSM_CHUNK_WARPS * VEC;
  static_assert(SSM_CHUNK_THREADS == STEPS * SSM_CHUNK_WARPS);
  extern __shared__ float4 shared[];
  const int N = static_cast<int>(a.N);
  float* bc = reinterpret_cast<float*>(shared);          // [2][STEPS][2N]
  float* xs = bc + 2 * STEPS * 2 * N;                    // [2][STEPS][COLUMNS]
  float* dts = xs + 2 * STEPS * COLUMNS;                 // [2][STEPS]
  float* decays = dts + 2 * STEPS;                       // [2][STEPS]
  release_successor();
  wait_for_predecessor();

  const int64_t h = blockIdx.x;
  const int64_t r = blockIdx.z;
  const int lane = threadIdx.x % WARP;
  const int warp = threadIdx.x / WARP;
  const int64_t first_column = blockIdx.y * static_cast<int64_t>(COLUMNS);
  const int64_t p = first_column + warp * VEC;
  const bool is_inside = p < a.P;
  const int64_t num_steps = a.M / a.R;
  const int64_t row_width = a.H * a.P + 2 * a.N;
  const float* xbc = a.xbc + r * num_steps * row_width;
  const T* u = static_cast<const T*>(a.u) + r * num_steps * a.W + a.dt_offset + h;
  float* y = a.y + r * num_steps * a.H * a.P + h * a.P;
  float* state = a.state + (a.slot[r] * a.H + h) * a.N * a.P + p;
  const float* before = a.position[r] == 0 ? a.initial + h * a.N * a.P + p : state;
  const float dt_bias = a.dt_bias[h];
  const float rate = a.a[h];
  const float d = a.d[h];

  const auto fetch = [&](int64_t start, int buffer) {
    const int count = static_cast<int>(min(static_cast<int64_t>(STEPS), num_steps - start));
    float* to = bc + buffer * STEPS * 2 * N;
    for (int s = warp; s < count; s += SSM_CHUNK_WARPS) {
      const float* from = xbc + (start + s) * row_width + a.H * a.P;
      for (int k = lane * VEC; k < 2 * N; k += WARP * VEC) __pipeline_memcpy_async(to + s * 2 * N + k, from + k, VEC * sizeof(float));
    }
    const int s = threadIdx.x / SSM_CHUNK_WARPS;
    const int k = threadIdx.x % SSM_CHUNK_WARPS * VEC;
    if (s < count && first_column + k < a.P) {
      __pipeline_memcpy_async(xs + (buffer * STEPS + s) * COLUMNS + k, xbc + (start + s) * row_width + h * a.P + first_column + k, VEC * sizeof(float));
    }
    __pipeline_commit();
  };
  // dt of step start + lane, by the first warp.
  const auto read_dt = [&](int64_t start) { return warp == 0 && start + lane < num_steps ? to_float(u[(start + lane) * a.W]) : 0.f; };
  const auto keep_dt = [&](float raw, int buffer) {
    if (warp > 0) return;
    const SsmStep step = ssm_step(raw, dt_bias, rate);
    dts[buffer * STEPS + lane] = step.dt;
    decays[buffer * STEPS + lane] = step.decay;
  };

  fetch(0, 0);
  float values[PLACES][VEC];
#pragma unroll
  for (int j = 0; j < PLACES; j++) {
    const int64_t n = lane + j * SSM_GROUPS;
#pragma unroll
    for (int i = 0; i < VEC; i++) values[j][i] = 0.f;
    if (is_inside && n < a.N) load(values[j], before + n * a.P);
  }
  keep_dt(read_dt(0), 0);

  int buffer = 0;
  for (int64_t start = 0; start < num_steps; start += STEPS, buffer ^= 1) {
    const bool has_next = start + STEPS < num_steps;
    float next_dt = 0.f;
    __pipeline_wait_prior(0);
    __syncthreads();  // this buffer is filled; the other is no longer read
    if (has_next) {
      fetch(start + STEPS, buffer ^ 1);
      next_dt = read_dt(start + STEPS);
    }
    const int count = static_cast<int>(min(static_cast<int64_t>(STEPS), num_steps - start));
    const auto advance = [&](int s, float* sum) {
      const float* row = bc + (buffer * STEPS + s) * 2 * N;
      const float dt = dts[buffer * STEPS + s];
      const float decay = decays[buffer * STEPS + s];
      float x[VEC];
      load(x, xs + (buffer * STEPS + s) * COLUMNS + warp * VEC);
#pragma unroll
      for (int i = 0; i < VEC; i++) sum[i] = 0.f;
#pragma unroll
      for (int j = 0; j < PLACES; j++) {
        const int n = lane + j * SSM_GROUPS;
        const float b = n < N ? row[n] : 0.f;
        const float c = n < N ? row[N + n] : 0.f;
#pragma unroll
        for (int i = 0; i < VEC; i++) ssm_update(values[j][i], decay, __fmul_rn(dt, x[i]), b, c, sum[i]);
      }
    };
    for (int first = 0; first < count; first += JOINED) {
      float sums[JOINED * VEC];
      if (first + JOINED <= count) {
#pragma unroll
        for (int s = 0; s < JOINED; s++) advance(first + s, sums + s * VEC);
      } else {
#pragma unroll
        for (int s = 0; s < JOINED; s++) {
          if (first + s < count) {
            advance(first + s, sums + s * VEC);
          } else {
#pragma unroll
            for (int i = 0; i < VEC; i++) sums[s * VEC + i] = 0.f;
          }
        }
      }
      const float total = join_groups(sums);
      const int own = lane / (WARP / (JOINED * VEC));  // the value this lane is left with
      const int s = first + own / VEC;
      const int column = own % VEC;
      const bool is_first_lane = lane % (WARP / (JOINED * VEC)) == 0;
      if (is_first_lane && is_inside && s < count) {
        y[(start + s) * a.H * a.P + p + column] = fmaf(d, xs[(buffer * STEPS + s) * COLUMNS + warp * VEC + column], total);
      }
    }
    if (has_next) keep_dt(next_dt, buffer ^ 1);
  }
#pragma unroll
  for (int j = 0; j < PLACES; j++) {
    const int64_t n = lane + j * SSM_GROUPS;
    if (is_inside && n < a.N) store(state + n * a.P, values[j]);
  }
}

}  // namespace mblm::cuda
