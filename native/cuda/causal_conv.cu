#include "device.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int THREADS = 256;
constexpr int MAX_TAPS = 8;
/// Steps of a sequence that one thread computes.
constexpr int STEPS = 8;

/// One thread per channel and STEPS steps. What came before step 0 is read, and the state that remains is written, by the threads of the first steps
/// only: what remains is known from u and the old state, without the other threads' results.
template <typename T>
__global__ void __launch_bounds__(THREADS) causal_conv_kernel(const CausalConv a) {
  release_successor();
  const int64_t channel = blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x;
  const int64_t r = blockIdx.z;
  const int64_t first = blockIdx.y * static_cast<int64_t>(STEPS);
  const int taps = static_cast<int>(a.taps);
  const int kept = taps - 1;
  const bool is_inside = channel < a.channels;
  float w[MAX_TAPS];
  float bias = 0.f;
  if (is_inside) {
#pragma unroll
    for (int k = 0; k < MAX_TAPS; k++) w[k] = k < taps ? a.w[channel * taps + k] : 0.f;
    bias = a.b[channel];
  }
  wait_for_predecessor();
  if (!is_inside) return;
  const int64_t steps = a.M / a.R;
  const T* u = static_cast<const T*>(a.u) + r * steps * a.W + a.offset + channel;
  float* y = a.y + r * steps * a.channels + channel;
  float* state = a.state + a.slot[r] * kept * a.channels + channel;
  const float* before = a.position[r] == 0 ? a.initial + channel : state;
  // Input t, from −kept on.
  const auto input = [&](int64_t t) { return t < 0 ? before[(t + kept) * a.channels] : to_float(u[t * a.W]); };

  float window[MAX_TAPS];  // the inputs of the step, oldest first
#pragma unroll
  for (int k = 0; k < MAX_TAPS; k++) window[k] = k < kept ? input(first - kept + k) : 0.f;
  float fresh[STEPS];
#pragma unroll
  for (int s = 0; s < STEPS; s++) fresh[s] = first + s < steps ? to_float(u[(first + s) * a.W]) : 0.f;
  if (first == 0) {
    float remaining[MAX_TAPS];
#pragma unroll
    for (int k = 0; k < MAX_TAPS; k++) remaining[k] = k < kept ? input(steps - kept + k) : 0.f;
#pragma unroll
    for (int k = 0; k < MAX_TAPS; k++) {
      if (k < kept) state[k * a.channels] = remaining[k];
    }
  }
#pragma unroll
  for (int s = 0; s < STEPS; s++) {
    if (first + s >= steps) break;
    float sum = bias;
#pragma unroll
    for (int k = 0; k < MAX_TAPS; k++) {
      if (k == kept) window[k] = fresh[s];
      if (k < taps) sum = fmaf(w[k], window[k], sum);
    }
    y[(first + s) * a.channels] = silu(sum);
#pragma unroll
    for (int k = 0; k + 1 < MAX_TAPS; k++) window[k] = window[k + 1];
  }
}

}  // namespace

void causal_conv(const CausalConv& a, Stream stream) {
  if (a.M == 0) return;
  if (a.taps > MAX_TAPS) return record_error(cudaErrorInvalidValue, "CausalConv: taps");
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    launch("CausalConv", causal_conv_kernel<T>, dim3(divide_up(a.channels, THREADS), divide_up(a.M / a.R, STEPS), a.R), THREADS, 0, stream, a);
  });
}

}  // namespace mblm
