// A local stage's whole patch in one launch: blocks that stay, one on each multiprocessor, as many as an eighth of the width.
//
// A block owns eight channels of the residual stream, and of every matrix the rows that give its share of the result. Its producer warp walks the rows of
// all matrices in the order of their use, from the first byte's to the last's, through a ring in shared memory by the bulk copy engine; it never waits for
// another block, so the memory stays busy while the others wait. Compute warps multiply, each a slice of 128 channels; what they find is summed by
// epilogue warps, each of half of the batch's rows, which finish it and hand it to all blocks (exchange.cuh). There is no barrier of the grid.
//
// Products are those of tensor cores. Eight rows of the matrix fill sixteen of the instruction's: those of one half of the channels, then those of the other.
// The activations take its columns: a row's two halves of the channels, each as the sum of two numbers of 16 bits where it is worth it.
// A row's sums are the same whatever the other rows are, and however many.
#pragma once
#include "local_patch_compute.cuh"
#include "local_patch_epilogue.cuh"
#include "local_patch_producer.cuh"
#include "local_patch_shapes.h"

namespace mblm::cuda::patch {

/// Chooses the byte of the row whose number is the block's; waits for its logits. A function of its own: all of the block's warps, and kernels, have one.
/// `memory`: for the logits, then the sampler. Returns what is left of the patience.
template <int PER_WORKER>
__device__ __noinline__ int choose(const Parameters& p, char* memory, int row, int byte, uint32_t tag, int polls) {
  const LocalPatch& a = p.a;
  const Sample sampler{a.B,      a.V,        a.P,      0,         nullptr,      a.rows,  a.forced, a.bias,
                       a.counts, a.id_flags, a.cursor, a.ids_out, a.logits_out, nullptr};
  float* logits = reinterpret_cast<float*>(memory);
  Patience patience{reinterpret_cast<uint32_t*>(a.scratch) + WORD_ERROR, polls};
  const int V = static_cast<int>(a.V);
  touch_row(sampler, row, byte);
  const auto* words = reinterpret_cast<const uint2*>(a.scratch + p.at.logits) + row * V;
  for (int first = 0; first < V; first += SAMPLE_THREADS) {
    const int id = min(first + static_cast<int>(threadIdx.x), V - 1);
    uint2 word = load_pair(words + id);
    for (int count = 0; __any_sync(FULL_WARP, word.y != tag);) {
      if (patience.is_over(++count)) break;
      word = load_pair(words + id);
    }
    logits[id] = __uint_as_float(word.x);
  }
  SamplerThreads::sync();
  auto& scratch = *reinterpret_cast<Scratch<PER_WORKER>*>(memory + p.sampler);
  auto* next = reinterpret_cast<uint2*>(a.scratch + p.at.next) + row;
  sample_row<SamplerThreads>(sampler, logits, row, byte, scratch, [&](int id) { store_pair(next, id, tag); });
  return patience.polls;
}

/// Whether the block leaves at once (WORD_ABSENT). In a build for trials the last one does so by itself after so many positions (MBLM_ABSENT_AFTER).
__device__ __forceinline__ bool is_absent(const volatile uint32_t* words) {
#ifdef MBLM_ABSENT_AFTER
  if (blockIdx.x + 1 == gridDim.x && words[WORD_EPOCH] > MBLM_ABSENT_AFTER) return true;
#endif
  return words[WORD_ABSENT] == blockIdx.x + 1;
}

template <typename S>
__global__ void __launch_bounds__(S::THREADS, 1) local_patch_kernel(const __grid_constant__ Parameters p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ float4 shared[];
  const LocalPatch& a = p.a;
  char* ring = reinterpret_cast<char*>(shared);
  char* beside = ring + p.stages * S::STAGE_BYTES;
  const uint32_t full = shared_address(beside + p.barriers);
  auto* words = reinterpret_cast<volatile uint32_t*>(a.scratch);
  if (is_absent(words)) return;
  Block<S> c{p, beside, shared_address(ring), full, full + 8 * p.stages, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x) / WARP,
             static_cast<int>(threadIdx.x) % WARP, words[WORD_EPOCH], Patience{reinterpret_cast<uint32_t*>(a.scratch) + WORD_ERROR}};
  if (threadIdx.x == 0) init_ring(c.full, c.empty, p.stages, S::SLICES);
  if constexpr (S::SLICES < S::SUM_STRIDE) {
    for (int i = threadIdx.x; i < NUM_SUMS * S::SUMS / 4; i += S::THREADS) reinterpret_cast<float*>(beside + S::AT_SUMS)[i] = 0.f;
  }
  __syncthreads();
  if (c.warp == S::PRODUCER) return produce(c);

  const int num_bytes = static_cast<int>(a.P);
  int id = a.first[min(c.lane, S::M - 1)];
  // Of one byte after the other: `run` does the warp's part of it.
  const auto for_bytes = [&](auto& part, auto&& run) {
    for (int byte = 0; byte < num_bytes; byte++) {
      run(byte);
      if (part.block < S::M && part.warp <= EPILOGUE) {
        if constexpr (S::SLICES < COMPUTE_WARPS) SamplerThreads::sync();  // warps that do not multiply would ask for the logits too early
        const uint32_t tag = part.layer_tag(byte, 63);
        int& polls = part.patience.polls;
        char* memory = part.shared + S::AT_STAGING;
        polls = a.V <= NUM_WORKERS ? choose<1>(p, memory, part.block, byte, tag, polls) : choose<2>(p, memory, part.block, byte, tag, polls);
      }
      if (byte + 1 < num_bytes) id = take_next(part, byte);
    }
  };
  if (c.warp >= EPILOGUE) {
    Epilogue<S> part(c);
    part.prepare();
    for_bytes(part, [&](int byte) {
      part.embed(byte, id);
      part.layers(byte);
      part.publish_logits(byte);
    });
  } else if (c.warp < S::SLICES) {
    Compute<S> part(c);
    int id_before = 0;
    for_bytes(part, [&](int byte) {
      part.layers(byte, id, id_before);
      id_before = id;
      part.head_product(byte);
    });
  } else {
    for_bytes(c, [](int) {});
  }
  if (c.block < S::M && threadIdx.x == 0) {
    int32_t* ids = a.ids_out + c.block * a.P;
    if (words[WORD_ERROR] != 0) {
      for (int byte = 0; byte < num_bytes; byte++) ids[byte] = ID_FAILED;
    }
    a.done[c.block] = ids[num_bytes - 1];
    if (c.block == 0) words[WORD_EPOCH] = c.epoch + num_bytes + 1;
  }
#endif
}

template <typename S>
void launch_patch(const LocalPatch& a, Stream stream) {
  Parameters p{};
  p.a = a;
  p.at = layout_of<S>(a);
  if (a.scratch_bytes < static_cast<int64_t>(p.at.end)) return record_refusal("LocalPatch: scratch is too small");
  const size_t shared_bytes = divide_shared_memory<S>(p);
  p.pauses = pauses_of<S>();
  launch_resident("LocalPatch", local_patch_kernel<S>, S::BLOCKS, shared_bytes, stream, p, S::THREADS);
}

}  // namespace mblm::cuda::patch
