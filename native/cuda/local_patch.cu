// A local stage's whole patch in one launch: blocks that stay, one on each of 128 multiprocessors.
//
// A block owns eight channels of the residual stream, and of every matrix the rows that give its share of the result. Its producer warp walks the rows of
// all matrices in the order of their use, from the first byte's to the last's, through a ring in shared memory by the bulk copy engine; it never waits for
// another block, so the memory stays busy while the others wait. Eight compute warps multiply, each a slice of the channels; what they find is summed by the
// epilogue warp, which finishes it and hands it to all blocks (exchange.cuh). There is no barrier of the grid.
//
// Products are those of tensor cores. Eight rows of the matrix fill sixteen of the instruction's: those of one half of the channels, then those of the other.
// The activations take its columns: a row's two halves of the channels, each as the sum of two numbers of 16 bits where it is worth it.
// A row's sums are the same whatever the other rows are, and however many.
#include "local_patch_compute.cuh"
#include "local_patch_epilogue.cuh"
#include "local_patch_producer.cuh"

namespace mblm {
namespace {

using namespace cuda;
using namespace cuda::patch;

/// The block whose number is a row's chooses the row's byte.
template <typename S>
__device__ void choose(Block<S>& c, const Sample& sampler, int byte) {
  float* logits = reinterpret_cast<float*>(c.shared + S::AT_LOGITS);
  const uint32_t tag = c.layer_tag(byte, 63);
  const int V = static_cast<int>(c.p.a.V);
  touch_row(sampler, c.block, byte);
  for (int first = 0; first < V; first += SAMPLE_THREADS) {
    const int id = min(first + static_cast<int>(threadIdx.x), V - 1);
    const uint2* address = c.logits(c.block) + id;
    uint2 word = load_pair(address);
    for (int count = 0; __any_sync(FULL_WARP, word.y != tag);) {
      if (c.patience.is_over(++count)) break;
      word = load_pair(address);
    }
    logits[id] = __uint_as_float(word.x);
  }
  SamplerThreads::sync();
  auto& scratch = *reinterpret_cast<Scratch<S::PER_WORKER>*>(c.shared + S::AT_SAMPLER);
  sample_row<SamplerThreads>(sampler, logits, c.block, byte, scratch, [&](int id) { store_pair(c.next(c.block), id, tag); });
}

template <typename S>
__global__ void __launch_bounds__(THREADS, 1) local_patch_kernel(const __grid_constant__ Parameters p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ float4 shared[];
  const LocalPatch& a = p.a;
  char* ring = reinterpret_cast<char*>(shared);
  char* beside = ring + p.stages * STAGE_BYTES;
  const uint32_t full = shared_address(beside + S::AT_BARRIERS);
  auto* words = reinterpret_cast<volatile uint32_t*>(a.scratch);
  Block<S> c{p, beside, shared_address(ring), full, full + 8 * p.stages, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x) / WARP,
             static_cast<int>(threadIdx.x) % WARP, words[0], Patience{reinterpret_cast<uint32_t*>(a.scratch) + 1}};
  if (threadIdx.x == 0) init_ring(c.full, c.empty, p.stages);
  __syncthreads();
  if (c.warp == PRODUCER) return produce(c);

  const Sample sampler{S::M,        a.V,        a.P,     0,           nullptr,      a.rows,      a.forced, a.bias,
                       a.counts, a.id_flags, a.cursor, a.ids_out, a.logits_out, nullptr};
  const int num_bytes = static_cast<int>(a.P);
  int id = a.first[min(c.lane, S::M - 1)];
  // Of one byte after the other: `run` does the warp's part of it.
  const auto for_bytes = [&](auto& part, auto&& run) {
    for (int byte = 0; byte < num_bytes; byte++) {
      run(byte);
      if (part.block < S::M) choose(part, sampler, byte);
      if (byte + 1 < num_bytes) id = take_next(part, byte);
    }
  };
  if (c.warp == EPILOGUE) {
    Epilogue<S> part(c);
    part.prepare();
    for_bytes(part, [&](int byte) {
      part.embed(byte, id);
      part.layers(byte);
      part.publish_logits(byte);
    });
  } else {
    Compute<S> part(c);
    int id_before = 0;
    for_bytes(part, [&](int byte) {
      part.layers(byte, id, id_before);
      id_before = id;
      part.head_product(byte);
    });
  }
  if (c.block < S::M && threadIdx.x == 0) {
    int32_t* ids = a.ids_out + c.block * a.P;
    if (words[1] != 0) {
      for (int byte = 0; byte < num_bytes; byte++) ids[byte] = ID_FAILED;
    }
    a.done[c.block] = ids[num_bytes - 1];
    if (c.block == 0) words[0] = c.epoch + num_bytes + 1;
  }
#endif
}

/// Of the kernels that are compiled.
constexpr int MAX_BYTES = 8;

template <typename S>
void run(const LocalPatch& a, Stream stream) {
  Parameters p{a, layout_of<S>(a), 0, 0};
  if (a.scratch_bytes < static_cast<int64_t>(p.at.end)) return record_refusal("LocalPatch: scratch is too small");
  p.stages = (SHARED_BYTES - S::BYTES_BESIDE_RING) / (STAGE_BYTES + 16);
  const size_t shared_bytes = p.stages * (STAGE_BYTES + 16) + S::BYTES_BESIDE_RING;
  launch_resident("LocalPatch", local_patch_kernel<S>, BLOCKS, shared_bytes, stream, p);
}

/// Sizes of the kernels below; empty when they are the call's.
std::string problem_of_sizes(const LocalPatch& a) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  if (a.type != DType::f16) return "its weights must be float16";
  if (a.D != WIDTH || a.H != HEADS || a.d != HEAD_WIDTH || a.F != 2 * WIDTH) {
    return "its width must be 1024, its heads 16 of 64 channels, its feed-forward 2048 wide; they are " + number(a.D) + ", " + number(a.H) + " of " +
           number(a.d) + ", " + number(a.F);
  }
  if (a.P > MAX_BYTES || a.V > NUM_WORKERS || a.L > MAX_LOCAL_LAYERS) {
    return "patches may have 8 bytes, the vocabulary 256 ids, the stage 32 layers at most; they have " + number(a.P) + ", " + number(a.V) + ", " +
           number(a.L);
  }
  return a.B == 1 || a.B == 2 || a.B == 4 || a.B == 8 ? "" : "rows must be 1, 2, 4 or 8";
}

}  // namespace

void local_patch(const LocalPatch& a, Stream stream) {
  static const std::string of_device = problem_of_device(BLOCKS);
  const std::string problem = of_device.empty() ? problem_of_sizes(a) : of_device;
  if (!problem.empty()) return record_refusal("LocalPatch: " + problem);
  switch (a.B) {
    case 1: return run<Shape<1, 2, MAX_BYTES, 1>>(a, stream);
    case 2: return run<Shape<2, 2, MAX_BYTES, 1>>(a, stream);
    case 4: return run<Shape<4, 2, MAX_BYTES, 1>>(a, stream);
    case 8: return run<Shape<8, 2, MAX_BYTES, 1>>(a, stream);
  }
}

}  // namespace mblm
