// Functions of single values and vectors that several operators share.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../ops.h"

namespace mblm::reference {

/// Exact GELU.
inline float gelu(float x) { return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f)); }

inline float silu(float x) { return x / (1.0f + std::exp(-x)); }

inline float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

/// What a vector is divided by before its gain.
inline float norm_of(Norm norm, const float* x, int64_t K) {
  float squares = 0.0f;
  for (int64_t k = 0; k < K; k++) squares += x[k] * x[k];
  if (norm == Norm::epsilon) return std::sqrt(squares / float(K) + 1e-5f);
  return std::max(std::sqrt(squares) / std::sqrt(float(K)), 1e-8f);
}

/// LayerNorm (epsilon 1e-5), in place.
inline void layer_norm(float* x, const float* gain, const float* beta, int64_t K) {
  float total = 0.0f;
  for (int64_t k = 0; k < K; k++) total += x[k];
  const float mean = total / float(K);
  float squares = 0.0f;
  for (int64_t k = 0; k < K; k++) squares += (x[k] - mean) * (x[k] - mean);
  const float deviation = std::sqrt(squares / float(K) + 1e-5f);
  for (int64_t k = 0; k < K; k++) x[k] = (x[k] - mean) / deviation * gain[k] + beta[k];
}

/// Rotates interleaved pairs of channels by `position`, base 10 000, in place. D is even.
inline void rotate_interleaved(float* x, int64_t position, int64_t D) {
  for (int64_t i = 0; i < D; i += 2) {
    const float angle = float(position) * float(std::pow(10000.0, -double(i) / double(D)));
    const float cos = std::cos(angle), sin = std::sin(angle);
    const float even = x[i], odd = x[i + 1];
    x[i] = even * cos - odd * sin;
    x[i + 1] = odd * cos + even * sin;
  }
}

}  // namespace mblm::reference
