// A row of the residual stream, shared among a block's threads: x + delta + bias, and its norm.
#pragma once
#include "device.cuh"

namespace mblm::cuda {

constexpr int ROW_THREADS = 256;

/// x + delta + bias of one row, read anywhere.
template <typename T>
struct RowSum {
  const float* x;
  const T* delta;     // or null
  const float* bias;  // or null

  template <int VEC>
  __device__ __forceinline__ void read(int64_t k, float (&out)[VEC]) const {
    load(out, x + k);
    if (delta != nullptr) {
      float term[VEC];
      load(term, delta + k);
#pragma unroll
      for (int i = 0; i < VEC; i++) out[i] += term[i];
    }
    if (bias != nullptr) {
      float term[VEC];
      load(term, bias + k);
#pragma unroll
      for (int i = 0; i < VEC; i++) out[i] += term[i];
    }
  }
};

/// Writes `sum` (all channels of `own`) and `h` = norm(shifted row)·gain; `shifted.read(k, out)` gives channels of the second half, or is not asked when
/// `has_shift` is false. Rows of up to ROW_THREADS · VEC · KEPT channels stay in registers; of longer ones the rest is computed again.
template <typename T, int VEC, typename Own, typename Shifted>
__device__ __forceinline__ void norm_row(int64_t K, Norm norm, const Own& own, bool has_shift, const Shifted& shifted, const float* gain, float* sum,
                                         T* h, float* scratch) {
  constexpr int KEPT = VEC == 1 ? 1 : 2;
  constexpr int64_t STEP = ROW_THREADS * VEC;
  const int64_t half = K / 2;
  float kept[KEPT][VEC];
  float square = 0.f;
  const auto read_shifted = [&](int64_t k, float(&out)[VEC]) {
    if (has_shift && k >= half) {
      shifted.read(k, out);
    } else {
      own.read(k, out);
    }
  };
  const auto take = [&](int64_t k, float(&values)[VEC]) {
    own.read(k, values);
    store(sum + k, values);
    if (has_shift && k >= half) shifted.read(k, values);
#pragma unroll
    for (int i = 0; i < VEC; i++) square += values[i] * values[i];
  };
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    const int64_t k = i * STEP + threadIdx.x * VEC;
    if (k < K) take(k, kept[i]);
  }
  for (int64_t k = KEPT * STEP + threadIdx.x * VEC; k < K; k += STEP) {
    float values[VEC];
    take(k, values);
  }
  const float scale = norm_scale(norm, block_sum<ROW_THREADS>(square, scratch), K);
  const auto give = [&](int64_t k, float(&values)[VEC]) {
    float gains[VEC];
    load(gains, gain + k);
#pragma unroll
    for (int i = 0; i < VEC; i++) values[i] = values[i] * scale * gains[i];
    store(h + k, values);
  };
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    const int64_t k = i * STEP + threadIdx.x * VEC;
    if (k < K) give(k, kept[i]);
  }
  for (int64_t k = KEPT * STEP + threadIdx.x * VEC; k < K; k += STEP) {
    float values[VEC];
    read_shifted(k, values);
    give(k, values);
  }
}

/// Whether rows of K channels can be read four at a time, the border between the halves included.
inline bool has_wide_rows(int64_t K) { return K % 8 == 0; }

}  // namespace mblm::cuda
