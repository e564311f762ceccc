#include "device.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int THREADS = 256;

template <typename T, int VEC>
__global__ void __launch_bounds__(THREADS) bias_gelu_kernel(const BiasGelu a) {
  release_successor();
  const int64_t index = (blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x) * VEC;
  const bool is_inside = index < a.M * a.N;
  float bias[VEC];
  if (is_inside) load(bias, a.bias + index % a.N);
  wait_for_predecessor();
  if (!is_inside) return;
  float values[VEC];
  load(values, static_cast<const T*>(a.x) + index);
#pragma unroll
  for (int i = 0; i < VEC; i++) values[i] = gelu(values[i] + bias[i]);
  store(static_cast<T*>(a.y) + index, values);
}

}  // namespace

void bias_gelu(const BiasGelu& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const int vec = a.N % 8 == 0 ? 8 : 1;
    launch("BiasGelu", vec == 8 ? bias_gelu_kernel<T, 8> : bias_gelu_kernel<T, 1>, divide_up(a.M * a.N, THREADS * vec), THREADS, 0, stream, a);
  });
}

}  // namespace mblm
