// What kernels whose blocks stay on their multiprocessors share: the warps of a block, and how they wait for each other and for other blocks.
//
// A block has compute warps, one epilogue warp, which finishes what they have summed and hands it to all blocks, and one producer warp, which brings
// weights into a ring in shared memory.
#pragma once
#include <string>

#include "exchange.cuh"

namespace mblm::cuda::resident {

constexpr int COMPUTE_WARPS = 8;
constexpr int EPILOGUE = COMPUTE_WARPS;
constexpr int PRODUCER = EPILOGUE + 1;
constexpr int THREADS = (PRODUCER + 1) * WARP;
/// The scratch memory's first words.
enum : int {
  WORD_EPOCH = 0,   // tags of the next launch follow it
  WORD_ERROR = 1,   // not 0: somebody gave up waiting
  WORD_ABSENT = 2,  // the number of a block, counted from 1, that leaves at once, so that the others wait for it in vain: the way to see them give up
};

/// Where compute warps leave their sums: one of these for each product in flight.
constexpr int NUM_SUMS = 4;
/// Copies of what all blocks read: fewer ask the same part of the cache at once.
constexpr int COPIES = 2;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

__device__ __forceinline__ bool has_phase(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}" : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
  return done != 0;
}

__device__ __forceinline__ void wait_phase(uint32_t barrier, uint32_t parity, Patience& patience) {
  for (int count = 0; __any_sync(FULL_WARP, !has_phase(barrier, parity));) {
    if (patience.is_over(++count)) break;
  }
}

// The ring: a stage has one barrier that is passed when its bytes are there, and one when all compute warps have taken them.

/// `readers`: compute warps that take each stage.
__device__ __forceinline__ void init_ring(uint32_t full, uint32_t empty, int stages, int readers = COMPUTE_WARPS) {
  for (int i = 0; i < stages; i++) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * i));
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(empty + 8 * i), "r"(readers));
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void arrive(uint32_t barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
__device__ __forceinline__ void expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Of what is read once.
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier), "l"(policy)
               : "memory");
}
/// Asks for bytes that will be read from the cache.
__device__ __forceinline__ void prefetch_bulk(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

/// Of the compute warps, where all of them multiply, and the epilogue warp.
constexpr int ALL_WORKING = (COMPUTE_WARPS + 1) * WARP;

/// Products of the compute warps are handed to the epilogue warps by named barriers 1 … NUM_SUMS. WORKING: the threads of all of them.
template <int WORKING = ALL_WORKING>
__device__ __forceinline__ void signal_sums(int number) {
  __syncwarp();
  asm volatile("bar.arrive %0, %1;" ::"r"(1 + number % NUM_SUMS), "n"(WORKING) : "memory");
}
template <int WORKING = ALL_WORKING>
__device__ __forceinline__ void wait_sums(int number) {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + number % NUM_SUMS), "n"(WORKING) : "memory");
}

/// The epilogue warps tell the compute warps that they have handed over what they had: only now the others' can be expected.
template <int WORKING = ALL_WORKING>
__device__ __forceinline__ void signal_published() {
  __syncwarp();
  asm volatile("bar.arrive 5, %0;" ::"n"(WORKING) : "memory");
}
__device__ __forceinline__ void wait_until(uint32_t cycle) {
  while (static_cast<int>(cycle - static_cast<uint32_t>(clock())) > 0) {
  }
}
template <int WORKING = ALL_WORKING>
__device__ __forceinline__ void wait_published(int cycles) {
  asm volatile("bar.sync 5, %0;" ::"n"(WORKING) : "memory");
  wait_until(static_cast<uint32_t>(clock()) + cycles);
}

/// Loads words until all have their tag. The loop is the warp's: a lane that left alone would do the rest of the layer alone.
template <int N, typename Load, typename IsThere>
__device__ __forceinline__ void poll(uint4 (&words)[N], Patience& patience, Load&& load_one, IsThere&& is_there) {
#pragma unroll
  for (int i = 0; i < N; i++) words[i] = load_one(i);
  for (int count = 0;;) {
    bool is_missing = false;
#pragma unroll
    for (int i = 0; i < N; i++) is_missing |= !is_there(i, words[i]);
    if (!__any_sync(FULL_WARP, is_missing)) break;
    if (patience.is_over(++count)) break;
#pragma unroll
    for (int i = 0; i < N; i++) {
      if (!is_there(i, words[i])) words[i] = load_one(i);
    }
  }
  __syncwarp();
}

__device__ __forceinline__ bool has_tag(const uint4& word, uint32_t tag) { return word.w >> 16 == (tag & 0xffff); }

// Products of tensor cores: eight rows of a matrix fill sixteen of the instruction's, those of one half of the channels, then those of the other.
// A row of activations takes two columns, a half of the channels each; split into the sum of two numbers of 16 bits, four.

/// Four channels of a row of activations, of the 32 from `k` on, as the instruction takes them. In `staging` row m begins at m · stride; split, its second
/// numbers follow at split_row.
template <bool IS_SPLIT>
__device__ __forceinline__ uint2 activations(const char* staging, int lane, int group, int k, int num_rows, int stride, int split_row) {
  const int column = lane / 4;
  const int m = IS_SPLIT ? 2 * group + column / 4 : 4 * group + column / 2;
  const int half = IS_SPLIT ? column / 2 % 2 : column % 2;
  const int low = IS_SPLIT ? column % 2 * split_row : 0;
  if (m >= num_rows) return make_uint2(0, 0);
  return *reinterpret_cast<const uint2*>(staging + m * stride + low + (k + lane % 4 * 8 + half * 4) * 2);
}

/// Adds the products of eight rows' and 32 channels' weights with activations.
__device__ __forceinline__ void multiply(float (&d)[4], const uint4& w, const uint2& x) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(w.x), "r"(w.z), "r"(w.y), "r"(w.w), "r"(x.x), "r"(x.y));
}

/// The sum that a lane is left with: of the matrix's row lane / 4 and the activations' row m.
struct PartialSum {
  float sum;
  int m;
  bool is_mine;
};

template <bool IS_SPLIT>
__device__ __forceinline__ PartialSum partial_sum(const float (&d)[4], int lane, int group) {
  if constexpr (IS_SPLIT) {
    const float sum = lane % 2 == 0 ? d[0] + d[1] : d[2] + d[3];
    return {sum + __shfl_xor_sync(FULL_WARP, sum, 1), 2 * group + lane % 4 / 2, lane % 2 == 0};
  } else {
    return {d[0] + d[3], 4 * group + lane % 4, true};
  }
}

/// The sum over four or eight compute warps of what each has left.
template <int COUNT = COMPUTE_WARPS>
__device__ __forceinline__ float total_of(const float* sums) {
  static_assert(COUNT == 4 || COUNT == 8);
  const float4* parts = reinterpret_cast<const float4*>(sums);
  const float4 a = parts[0];
  const float sum = (a.x + a.y) + (a.z + a.w);
  if constexpr (COUNT == 4) return sum;
  const float4 b = parts[1];
  return sum + ((b.x + b.y) + (b.z + b.w));
}

/// Of a block, at most.
constexpr int SHARED_BYTES = 227 * 1024;

/// Launches blocks that are all there at once, of so many threads.
template <typename Parameters>
void launch_resident(const char* name, void (*kernel)(Parameters), int blocks, size_t shared_bytes, Stream stream, const Parameters& p, int threads = THREADS) {
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  if (error != cudaSuccess) return record_error(error, name);
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  record_error(cudaLaunchKernelEx(&config, kernel, p), name);
}

/// What so many blocks need of the device; empty when it has that.
inline std::string problem_of_device(int blocks) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  const auto attribute = [&](cudaDeviceAttr name) {
    int value = 0;
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, name, device);
    return value;
  };
  const int major = attribute(cudaDevAttrComputeCapabilityMajor);
  const int multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  const int shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const bool can_cooperate = attribute(cudaDevAttrCooperativeLaunch) != 0;
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (major < 9) return "it needs compute capability 9.0 or more";
  if (multiprocessors < blocks) return "it needs " + std::to_string(blocks) + " multiprocessors, the GPU has " + std::to_string(multiprocessors);
  if (shared_bytes < SHARED_BYTES) return "it needs more shared memory than the GPU gives a block";
  return can_cooperate ? "" : "the GPU has no cooperative launches";
}

}  // namespace mblm::cuda::resident
