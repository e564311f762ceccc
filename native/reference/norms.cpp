// Residual sums and norms.
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

namespace {

float residual_sum(float x, const void* delta, DType type, int64_t index, const float* bias, int64_t k) {
  if (delta != nullptr) x += load(delta, type, index);
  return bias == nullptr ? x : x + bias[k];
}

/// h[m] = norm(first half of `sum`, second half of `prev`)·gain.
void shifted_norm(DType type, Norm norm, const float* sum, const float* prev, const float* gain, int64_t K, void* h, int64_t m) {
  std::vector<float> shifted(K);
  for (int64_t k = 0; k < K; k++) shifted[k] = k < K / 2 ? sum[k] : prev[k];
  const float divisor = norm_of(norm, shifted.data(), K);
  for (int64_t k = 0; k < K; k++) store(h, type, m * K + k, shifted[k] / divisor * gain[k]);
}

}  // namespace

void add_norm(const AddNorm& a, Stream) {
  for (int64_t m = 0; m < a.M; m++) {
    float* sum = a.sum + m * a.K;
    for (int64_t k = 0; k < a.K; k++) sum[k] = residual_sum(a.x[m * a.K + k], a.delta, a.type, m * a.K + k, a.bias, k);
    const float* prev = a.prev == nullptr ? sum : a.prev + (a.prev_rows == 1 ? 0 : m) * a.K;
    shifted_norm(a.type, a.norm, sum, prev, a.gain, a.K, a.h, m);
  }
}

void shift_norm(const ShiftNorm& a, Stream) {
  const int64_t T = a.R == 0 ? 0 : a.M / a.R;
  for (int64_t m = 0; m < a.M; m++) {
    float* sum = a.sum + m * a.K;
    for (int64_t k = 0; k < a.K; k++) sum[k] = residual_sum(a.x[m * a.K + k], a.delta, a.type, m * a.K + k, a.bias, k);
  }
  for (int64_t r = 0; r < a.R; r++) {
    float* state = a.state + a.slot[r] * a.K;
    for (int64_t t = 0; t < T; t++) {
      const int64_t m = r * T + t;
      const float* before = a.position[r] == 0 ? a.initial : state;
      const float* prev = t > 0 ? a.sum + (m - 1) * a.K : before;
      shifted_norm(a.type, Norm::clamp, a.sum + m * a.K, prev, a.gain, a.K, a.h, m);
    }
    std::copy_n(a.sum + (r * T + T - 1) * a.K, a.K, state);
  }
}

void gated_norm(const GatedNorm& a, Stream) {
  std::vector<float> v(a.D);
  for (int64_t m = 0; m < a.M; m++) {
    for (int64_t k = 0; k < a.D; k++) v[k] = a.y[m * a.D + k] * silu(load(a.u, a.type, m * a.W + k));
    const float divisor = norm_of(Norm::epsilon, v.data(), a.D);
    for (int64_t k = 0; k < a.D; k++) store(a.h, a.type, m * a.D + k, v[k] / divisor * a.gain[k]);
  }
}

}  // namespace mblm
