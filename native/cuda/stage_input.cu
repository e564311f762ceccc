#include "rotary.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int THREADS = 256;

/// One block per row. Channels are taken in pairs, as the rotation needs them; PAIR is 1 for an odd width (which has no rotation).
template <typename T, int PAIR>
__global__ void __launch_bounds__(THREADS) stage_input_kernel(const StageInput a) {
  __shared__ float scratch[THREADS / WARP];
  release_successor();
  wait_for_predecessor();
  const int64_t m = blockIdx.x;
  const int64_t steps = a.M / a.R;
  const int64_t r = m / steps;
  const int64_t position = a.position[r] + m % steps;
  const T* e = static_cast<const T*>(a.e) + m * a.D;
  float* x = a.x + m * a.D;
  const auto read = [&](int64_t k, float(&out)[PAIR]) {
    float bias[PAIR];
    load(out, e + k);
    load(bias, a.bias + k);
#pragma unroll
    for (int i = 0; i < PAIR; i++) out[i] += bias[i];
  };
  float sum = 0.f;
  for (int64_t k = threadIdx.x * PAIR; k < a.D; k += THREADS * PAIR) {
    float values[PAIR];
    read(k, values);
#pragma unroll
    for (int i = 0; i < PAIR; i++) sum += values[i];
  }
  const float mean = block_sum<THREADS>(sum, scratch) / static_cast<float>(a.D);
  float square = 0.f;
  for (int64_t k = threadIdx.x * PAIR; k < a.D; k += THREADS * PAIR) {
    float values[PAIR];
    read(k, values);
#pragma unroll
    for (int i = 0; i < PAIR; i++) square += (values[i] - mean) * (values[i] - mean);
  }
  const float scale = norm_scale(Norm::epsilon, block_sum<THREADS>(square, scratch), a.D);
  const T* context = static_cast<const T*>(a.contexts);
  if (context != nullptr) context += (a.slot[r] * a.children + position) * a.D;
  for (int64_t k = threadIdx.x * PAIR; k < a.D; k += THREADS * PAIR) {
    float values[PAIR], gain[PAIR], beta[PAIR];
    read(k, values);
    load(gain, a.gain + k);
    load(beta, a.beta + k);
#pragma unroll
    for (int i = 0; i < PAIR; i++) values[i] = (values[i] - mean) * scale * gain[i] + beta[i];
    if constexpr (PAIR == 2) {
      if (a.rope) rotate_pair(values[0], values[1], rope_angle(position, k / 2, a.D));
    }
    if (a.num_positions > 0) {
      float row[PAIR];
      load(row, a.pos_table + min(position, a.num_positions - 1) * a.D + k);
#pragma unroll
      for (int i = 0; i < PAIR; i++) values[i] += row[i];
    }
    if (context != nullptr) {
      float row[PAIR];
      load(row, context + k);
#pragma unroll
      for (int i = 0; i < PAIR; i++) values[i] += row[i];
    }
    store(x + k, values);
  }
}

}  // namespace

void stage_input(const StageInput& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    launch("StageInput", a.D % 2 == 0 ? stage_input_kernel<T, 2> : stage_input_kernel<T, 1>, a.M, THREADS, 0, stream, a);
  });
}

}  // namespace mblm
