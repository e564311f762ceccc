// What kernels share: conversions, wide loads, reductions, and the wait for the kernel before.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "launch.h"

namespace mblm::cuda {

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

/// Blocks until all kernels before this one have completed and their writes are visible.
__device__ __forceinline__ void wait_for_predecessor() {
#if MBLM_PDL && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel's blocks start; what they read of this one they read after their own wait.
__device__ __forceinline__ void release_successor() {
#if MBLM_PDL && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void prefetch_l2(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

/// N elements that are loaded and stored at once: at most 16 bytes an access.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vector {
  T at[N];
};

template <int N, typename T>
__device__ __forceinline__ void load(float (&out)[N], const T* address) {
  const Vector<T, N> v = *reinterpret_cast<const Vector<T, N>*>(address);
#pragma unroll
  for (int i = 0; i < N; i++) out[i] = to_float(v.at[i]);
}

template <int N, typename T>
__device__ __forceinline__ void store(T* address, const float (&values)[N]) {
  Vector<T, N> v;
#pragma unroll
  for (int i = 0; i < N; i++) v.at[i] = from_float<T>(values[i]);
  *reinterpret_cast<Vector<T, N>*>(address) = v;
}

/// 16 bytes of weights: read once, so not kept in L1. Weights are never written while a kernel runs; they may be read before the wait.
__device__ __forceinline__ uint4 load_weights(const void* address) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(address));
  return v;
}

/// Sum over the warp, in every lane; the tree is the same whatever the lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = WARP / 2; step > 0; step >>= 1) x += __shfl_xor_sync(FULL_WARP, x, step);
  return x;
}

/// Sum over the block's THREADS, in every thread. `scratch` holds one float per warp; a barrier lies before its next use.
template <int THREADS>
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < THREADS / WARP; warp++) total += scratch[warp];
  __syncthreads();
  return total;
}

__device__ __forceinline__ float silu(float x) { return x / (1.f + expf(-x)); }
__device__ __forceinline__ float softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678118654752f)); }

/// What a vector with this sum of squares is multiplied with.
__device__ __forceinline__ float norm_scale(Norm norm, float sum_of_squares, int64_t width) {
  const float mean = sum_of_squares / static_cast<float>(width);
  return norm == Norm::clamp ? 1.f / fmaxf(sqrtf(mean), 1e-8f) : 1.f / sqrtf(mean + 1e-5f);
}

/// Calls `body` with a null pointer of the element type, to choose a template.
template <typename Body>
void with_type(DType type, Body&& body) {
  switch (type) {
    case DType::f32: return body(static_cast<float*>(nullptr));
    case DType::f16: return body(static_cast<__half*>(nullptr));
    case DType::bf16: return body(static_cast<__nv_bfloat16*>(nullptr));
  }
  record_error(cudaErrorInvalidValue, "element type");
}

inline int divide_up(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

}  // namespace mblm::cuda
