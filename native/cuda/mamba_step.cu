// A step of few sequences through all layers of a Mamba-2 stage in one launch: blocks that stay, one on each of 128 multiprocessors.
//
// A block owns eight channels of the residual stream and sixteen inner channels, a quarter of a head: their rows of the matrices, their part of the
// convolution's and of the recurrence's state. Its producer warp walks the rows of all layers through a ring in shared memory by the bulk copy engine, and has
// the state brought into the cache; it never waits for another block. Between blocks go three things a layer: B and C, the gated channels with the sums of
// their squares, and the residual stream (exchange.cuh). There is no barrier of the grid.
//
// A row's sums are the same whatever the other rows are, and however many.
#include "mamba_step_compute.cuh"
#include "mamba_step_epilogue.cuh"
#include "mamba_step_producer.cuh"

namespace mblm {
namespace {

using namespace cuda;
using namespace cuda::mamba;

template <typename S>
__global__ void __launch_bounds__(THREADS, 1) mamba_step_kernel(const __grid_constant__ Parameters p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ float4 shared[];
  const MambaStep& a = p.a;
  char* ring = reinterpret_cast<char*>(shared);
  char* beside = ring + p.stages * STAGE_BYTES;
  const uint32_t full = shared_address(beside + S::AT_BARRIERS);
  auto* words = reinterpret_cast<volatile uint32_t*>(a.scratch);
  Block<S> c{p, beside, shared_address(ring), full, full + 8 * p.stages, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x) / WARP,
             static_cast<int>(threadIdx.x) % WARP, words[WORD_EPOCH], Patience{reinterpret_cast<uint32_t*>(a.scratch) + WORD_ERROR}};
  if (words[WORD_ABSENT] == blockIdx.x + 1) return;
  if (threadIdx.x == 0) init_ring(c.full, c.empty, p.stages);
  if (threadIdx.x < S::M) c.places()[threadIdx.x] = a.position[threadIdx.x] == 0 ? ~a.slot[threadIdx.x] : a.slot[threadIdx.x];
  __syncthreads();
  if (c.warp == PRODUCER) return produce(c);
  if (c.warp != EPILOGUE) return Compute<S>(c).layers();
  Epilogue<S> part(c);
  part.begin();
  part.layers();
  part.give(words[WORD_ERROR] != 0);
  if (c.block == 0 && c.lane == 0) words[WORD_EPOCH] = c.epoch + static_cast<uint32_t>(a.L);
#endif
}

template <typename S>
void run(const MambaStep& a, Stream stream) {
  Parameters p{a, layout_of<S>(), 0, 0};
  if (a.scratch_bytes < static_cast<int64_t>(p.at.end)) return record_refusal("MambaStep: scratch is too small");
  p.stages = (SHARED_BYTES - S::BYTES_BESIDE_RING) / (STAGE_BYTES + 16);
  const size_t shared_bytes = p.stages * (STAGE_BYTES + 16) + S::BYTES_BESIDE_RING;
  launch_resident("MambaStep", mamba_step_kernel<S>, BLOCKS, shared_bytes, stream, p);
}

template <int N>
void run_rows(const MambaStep& a, Stream stream) {
  switch (a.B) {
    case 1: return run<Shape<1, N>>(a, stream);
    case 2: return run<Shape<2, N>>(a, stream);
    case 4: return run<Shape<4, N>>(a, stream);
    case 8: return run<Shape<8, N>>(a, stream);
  }
}

/// Sizes of the kernels above; empty when they are the call's.
std::string problem_of_sizes(const MambaStep& a) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  if (a.type != DType::f16) return "its weights must be float16";
  if (a.D != WIDTH || a.H != HEADS || a.P != HEAD_WIDTH || a.taps != TAPS) {
    return "its width must be 1024, its heads 32 of 64 channels, its convolution of 4 taps; they are " + number(a.D) + ", " + number(a.H) + " of " +
           number(a.P) + ", " + number(a.taps);
  }
  if (a.N != 64 && a.N != 128) return "its state must have 64 or 128 channels; it has " + number(a.N);
  if (a.L > MAX_MAMBA_LAYERS) return "it may have " + number(MAX_MAMBA_LAYERS) + " layers at most; it has " + number(a.L);
  return a.B == 1 || a.B == 2 || a.B == 4 || a.B == 8 ? "" : "rows must be 1, 2, 4 or 8";
}

}  // namespace

void mamba_step(const MambaStep& a, Stream stream) {
  static const std::string of_device = problem_of_device(BLOCKS);
  const std::string problem = of_device.empty() ? problem_of_sizes(a) : of_device;
  if (!problem.empty()) return record_refusal("MambaStep: " + problem);
  a.N == 64 ? run_rows<64>(a, stream) : run_rows<128>(a, stream);
}

}  // namespace mblm
