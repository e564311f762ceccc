#include "device.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int THREADS = 512;

/// One block per patch: the mean, then the deviation from it, then the result. The rows of the table stay in cache between the three.
template <typename T, int VEC>
__global__ void __launch_bounds__(THREADS) embed_patch_kernel(const EmbedPatch a) {
  __shared__ float scratch[THREADS / WARP];
  release_successor();
  wait_for_predecessor();
  const int64_t m = blockIdx.x;
  const int64_t width = a.S * a.D;
  const T* table = static_cast<const T*>(a.table);
  const auto read = [&](int64_t k, float(&out)[VEC]) {
    const int64_t id = min(max(static_cast<int64_t>(a.ids[m * a.S + k / a.D]), int64_t{0}), a.V - 1);
    load(out, table + id * a.D + k % a.D);
  };
  float sum = 0.f;
  for (int64_t k = threadIdx.x * VEC; k < width; k += THREADS * VEC) {
    float values[VEC];
    read(k, values);
#pragma unroll
    for (int i = 0; i < VEC; i++) sum += values[i];
  }
  const float mean = block_sum<THREADS>(sum, scratch) / static_cast<float>(width);
  float square = 0.f;
  for (int64_t k = threadIdx.x * VEC; k < width; k += THREADS * VEC) {
    float values[VEC];
    read(k, values);
#pragma unroll
    for (int i = 0; i < VEC; i++) square += (values[i] - mean) * (values[i] - mean);
  }
  const float scale = norm_scale(Norm::epsilon, block_sum<THREADS>(square, scratch), width);
  for (int64_t k = threadIdx.x * VEC; k < width; k += THREADS * VEC) {
    float values[VEC], gain[VEC], beta[VEC];
    read(k, values);
    load(gain, a.gain + k);
    load(beta, a.beta + k);
#pragma unroll
    for (int i = 0; i < VEC; i++) values[i] = (values[i] - mean) * scale * gain[i] + beta[i];
    store(static_cast<T*>(a.y) + m * width + k, values);
  }
}

}  // namespace

void embed_patch(const EmbedPatch& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    launch("EmbedPatch", a.D % 4 == 0 ? embed_patch_kernel<T, 4> : embed_patch_kernel<T, 1>, a.M, THREADS, 0, stream, a);
  });
}

}  // namespace mblm
