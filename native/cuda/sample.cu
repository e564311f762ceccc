#include "sample.cuh"

namespace mblm {
namespace {

using namespace cuda;

struct WholeBlock {
  static __device__ __forceinline__ void sync() { __syncthreads(); }
};

template <int PER_WORKER>
__global__ void __launch_bounds__(SAMPLE_THREADS) sample_kernel(const Sample a) {
  __shared__ Scratch<PER_WORKER> s;
  release_successor();
  wait_for_predecessor();
  const int64_t b = blockIdx.x;
  sample_row<WholeBlock>(a, a.logits + b * a.V, b, static_cast<int>(a.step), s, [&](int id) { a.next[b] = id; });
}

}  // namespace

void sample(const Sample& a, Stream stream) {
  if (a.V > MAX_IDS) return record_error(cudaErrorInvalidValue, "Sample: more than 1024 ids");
  if (a.V <= NUM_WORKERS) return launch("Sample", sample_kernel<1>, a.B, SAMPLE_THREADS, 0, stream, a);
  if (a.V <= 2 * NUM_WORKERS) return launch("Sample", sample_kernel<2>, a.B, SAMPLE_THREADS, 0, stream, a);
  launch("Sample", sample_kernel<4>, a.B, SAMPLE_THREADS, 0, stream, a);
}

}  // namespace mblm
