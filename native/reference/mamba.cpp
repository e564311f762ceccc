// The recurrences of a Mamba-2 layer.
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

void causal_conv(const CausalConv& a, Stream) {
  const int64_t T = a.R == 0 ? 0 : a.M / a.R, past = a.taps - 1;
  std::vector<float> inputs(past + T);  // of one channel: what came before, then the T new ones
  for (int64_t r = 0; r < a.R; r++) {
    float* state = a.state + a.slot[r] * past * a.channels;
    const float* before = a.position[r] == 0 ? a.initial : state;
    for (int64_t c = 0; c < a.channels; c++) {
      for (int64_t k = 0; k < past; k++) inputs[k] = before[k * a.channels + c];
      for (int64_t t = 0; t < T; t++) inputs[past + t] = load(a.u, a.type, (r * T + t) * a.W + a.offset + c);
      for (int64_t t = 0; t < T; t++) {
        float total = a.b[c];
        for (int64_t k = 0; k < a.taps; k++) total += a.w[c * a.taps + k] * inputs[t + k];
        a.y[(r * T + t) * a.channels + c] = silu(total);
      }
      for (int64_t k = 0; k < past; k++) state[k * a.channels + c] = inputs[T + k];
    }
  }
}

void ssm_scan(const SsmScan& a, Stream) {
  const int64_t T = a.R == 0 ? 0 : a.M / a.R, width = a.H * a.P + 2 * a.N;
  for (int64_t r = 0; r < a.R; r++) {
    for (int64_t h = 0; h < a.H; h++) {
      float* state = a.state + (a.slot[r] * a.H + h) * a.N * a.P;
      if (a.position[r] == 0) std::copy_n(a.initial + h * a.N * a.P, a.N * a.P, state);
      for (int64_t t = 0; t < T; t++) {
        const int64_t m = r * T + t;
        const float* x = a.xbc + m * width + h * a.P;
        const float* B = a.xbc + m * width + a.H * a.P;
        const float* C = B + a.N;
        const float dt = softplus(load(a.u, a.type, m * a.W + a.dt_offset + h) + a.dt_bias[h]);
        const float decay = std::exp(dt * a.a[h]);
        for (int64_t p = 0; p < a.P; p++) {
          float total = 0.0f;
          for (int64_t n = 0; n < a.N; n++) {
            float& element = state[n * a.P + p];
            element = decay * element + dt * x[p] * B[n];
            total += element * C[n];
          }
          a.y[m * a.H * a.P + h * a.P + p] = total + a.d[h] * x[p];
        }
      }
    }
  }
}

}  // namespace mblm
