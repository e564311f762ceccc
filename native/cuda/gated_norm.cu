#include "row_norm.cuh"

namespace mblm {
namespace {

using namespace cuda;

template <typename T, int VEC>
__global__ void __launch_bounds__(ROW_THREADS) gated_norm_kernel(const GatedNorm a) {
  constexpr int KEPT = 2;
  constexpr int64_t STEP = ROW_THREADS * VEC;
  __shared__ float scratch[ROW_THREADS / WARP];
  release_successor();
  wait_for_predecessor();
  const int64_t m = blockIdx.x;
  const float* y = a.y + m * a.D;
  const T* u = static_cast<const T*>(a.u) + m * a.W;
  T* h = static_cast<T*>(a.h) + m * a.D;
  const auto read = [&](int64_t k, float(&out)[VEC]) {
    float gate[VEC];
    load(out, y + k);
    load(gate, u + k);
#pragma unroll
    for (int i = 0; i < VEC; i++) out[i] *= silu(gate[i]);
  };
  float kept[KEPT][VEC];
  float square = 0.f;
  const auto add_squares = [&](const float(&values)[VEC]) {
#pragma unroll
    for (int i = 0; i < VEC; i++) square += values[i] * values[i];
  };
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    const int64_t k = i * STEP + threadIdx.x * VEC;
    if (k < a.D) {
      read(k, kept[i]);
      add_squares(kept[i]);
    }
  }
  for (int64_t k = KEPT * STEP + threadIdx.x * VEC; k < a.D; k += STEP) {
    float values[VEC];
    read(k, values);
    add_squares(values);
  }
  const float scale = norm_scale(Norm::epsilon, block_sum<ROW_THREADS>(square, scratch), a.D);
  const auto give = [&](int64_t k, float(&values)[VEC]) {
    float gains[VEC];
    load(gains, a.gain + k);
#pragma unroll
    for (int i = 0; i < VEC; i++) values[i] = values[i] * scale * gains[i];
    store(h + k, values);
  };
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    const int64_t k = i * STEP + threadIdx.x * VEC;
    if (k < a.D) give(k, kept[i]);
  }
  for (int64_t k = KEPT * STEP + threadIdx.x * VEC; k < a.D; k += STEP) {
    float values[VEC];
    read(k, values);
    give(k, values);
  }
}

}  // namespace

void gated_norm(const GatedNorm& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const bool is_wide = a.D % 4 == 0 && a.W % 4 == 0;
    launch("GatedNorm", is_wide ? gated_norm_kernel<T, 4> : gated_norm_kernel<T, 1>, a.M, ROW_THREADS, 0, stream, a);
  });
}

}  // namespace mblm
