// The interleaved rotation over the full width (`rope`): pair (2i, 2i + 1) turns by position · 10 000^(-2i/D).
#pragma once
#include "device.cuh"

namespace mblm::cuda {

/// The angle as the model has it: frequency and product rounded to float32.
__device__ __forceinline__ float rope_angle(int64_t position, int64_t pair, int64_t width) {
  const float exponent = static_cast<float>(2 * pair) / static_cast<float>(width);
  const float frequency = 1.f / static_cast<float>(pow(10000.0, static_cast<double>(exponent)));
  return static_cast<float>(position) * frequency;
}

__device__ __forceinline__ void rotate_pair(float& even, float& odd, float angle) {
  float sine, cosine;
  sincosf(angle, &sine, &cosine);
  const float turned = even * cosine - odd * sine;
  odd = odd * cosine + even * sine;
  even = turned;
}

}  // namespace mblm::cuda
