// Products with a weight matrix [N, K], and what goes with them.
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

namespace {

/// Σ_k x[k]·w[n, k] + bias[n].
float product(const float* x, const void* w, DType type, int64_t n, int64_t K, const float* bias) {
  float total = 0.0f;
  for (int64_t k = 0; k < K; k++) total += x[k] * load(w, type, n * K + k);
  return bias == nullptr ? total : total + bias[n];
}

std::vector<float> row_of(const void* x, DType type, int64_t m, int64_t K) {
  std::vector<float> row(K);
  for (int64_t k = 0; k < K; k++) row[k] = load(x, type, m * K + k);
  return row;
}

}  // namespace

void norm_linear(const NormLinear& a, Stream) {
  std::vector<float> h(a.K);
  for (int64_t m = 0; m < a.M; m++) {
    const float* x = a.x + m * a.K;
    const float* prev = a.prev == nullptr ? x : a.prev + (a.prev_rows == 1 ? 0 : m) * a.K;
    for (int64_t k = 0; k < a.K; k++) h[k] = k < a.K / 2 ? x[k] : prev[k];
    const float divisor = norm_of(a.norm, h.data(), a.K);
    for (int64_t k = 0; k < a.K; k++) h[k] = h[k] / divisor * a.gain[k];
    for (int64_t n = 0; n < a.N; n++) {
      const float y = product(h.data(), a.w, a.type, n, a.K, a.bias);
      store(a.y, a.type, m * a.N + n, a.gelu ? gelu(y) : y);
    }
  }
}

void linear(const Linear& a, Stream) {
  for (int64_t m = 0; m < a.M; m++) {
    const std::vector<float> x = row_of(a.x, a.type, m, a.K);
    for (int64_t n = 0; n < a.N; n++) {
      const float y = product(x.data(), a.w, a.type, n, a.K, a.bias);
      store(a.y, a.type, m * a.N + n, a.gelu ? gelu(y) : y);
    }
  }
}

void linear_add(const LinearAdd& a, Stream) {
  for (int64_t m = 0; m < a.M; m++) {
    const std::vector<float> x = row_of(a.x, a.type, m, a.K);
    for (int64_t n = 0; n < a.N; n++) {
      a.y[m * a.N + n] = a.residual[m * a.N + n] + product(x.data(), a.w, a.type, n, a.K, a.bias);
    }
  }
}

void bias_gelu(const BiasGelu& a, Stream) {
  for (int64_t m = 0; m < a.M; m++) {
    for (int64_t n = 0; n < a.N; n++) {
      const int64_t i = m * a.N + n;
      store(a.y, a.type, i, gelu(load(a.x, a.type, i) + a.bias[n]));
    }
  }
}

}  // namespace mblm
