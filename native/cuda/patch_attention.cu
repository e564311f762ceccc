#include "attention.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int WARPS_PER_BLOCK = 4;

/// One warp per head of a row. All keys and values are requested before the first is used. POSITIONS: at least count + 1.
template <typename T, int VEC, int POSITIONS>
__global__ void __launch_bounds__(WARPS_PER_BLOCK* WARP) patch_attention_kernel(const __grid_constant__ PatchAttention a) {
  constexpr int ROUNDS = POSITIONS / KEYS_AT_ONCE;
  __shared__ float probabilities[WARPS_PER_BLOCK][POSITIONS];
  const int lane = threadIdx.x % WARP;
  const int warp = threadIdx.x / WARP;
  const int64_t index = blockIdx.x * static_cast<int64_t>(WARPS_PER_BLOCK) + warp;
  const bool is_inside = index < a.B * a.H;
  const int64_t b = is_inside ? index / a.H : 0;
  const int64_t h = is_inside ? index % a.H : 0;
  const int d = static_cast<int>(a.d);
  const int half = d / 2;
  const int count = static_cast<int>(a.count);
  const int64_t q_offset = b * 3 * a.H * d + h * d;

  // Keys are those of eight positions in parallel, four lanes each; values are those of all positions, two channels a lane.
  const int part = lane % KEY_LANES;
  const T* keys[ROUNDS];
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const int position = i * KEYS_AT_ONCE + lane / KEY_LANES;
    keys[i] = position == 0 || position > count ? static_cast<const T*>(a.start_k) + h * d : static_cast<const T*>(a.qkv[position - 1]) + q_offset + a.H * d;
  }
  const auto values_of = [&](int position) {
    return position == 0 ? static_cast<const T*>(a.start_v) + h * d : static_cast<const T*>(a.qkv[position - 1]) + q_offset + 2 * a.H * d;
  };
  const T* query = static_cast<const T*>(a.qkv[count - 1]) + q_offset;
  if (lane == 0) {
    prefetch_l2(static_cast<const T*>(a.start_k) + h * d);
    prefetch_l2(static_cast<const T*>(a.start_v) + h * d);
  }
  release_successor();
  wait_for_predecessor();
  if (!is_inside) return;

  float value[POSITIONS][2];
  const auto load_values = [&](int channel) {
#pragma unroll
    for (int j = 0; j < POSITIONS; j++) {
      value[j][0] = value[j][1] = 0.f;
      if (j <= count && channel < d) load(value[j], values_of(j) + channel);
    }
  };
  float score[ROUNDS] = {};
  for (int i = part * VEC; i < half; i += KEY_LANES * VEC) {
    float low[VEC], high[VEC];
    load(low, query + i);
    load(high, query + half + i);
    float key_low[ROUNDS][VEC], key_high[ROUNDS][VEC];
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
      load(key_low[k], keys[k] + i);
      load(key_high[k], keys[k] + half + i);
    }
    if (i == part * VEC) load_values(2 * lane);
    rotate_halves(low, high, a.cos + static_cast<int64_t>(count) * half + i, a.sin + static_cast<int64_t>(count) * half + i);
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
      const int position = min(k * KEYS_AT_ONCE + lane / KEY_LANES, count);
      if (position > 0) {
        rotate_halves(key_low[k], key_high[k], a.cos + static_cast<int64_t>(position) * half + i, a.sin + static_cast<int64_t>(position) * half + i);
      }
#pragma unroll
      for (int c = 0; c < VEC; c++) score[k] = fmaf(low[c], key_low[k][c], score[k]);
#pragma unroll
      for (int c = 0; c < VEC; c++) score[k] = fmaf(high[c], key_high[k][c], score[k]);
    }
  }
  if (part * VEC >= half) load_values(2 * lane);  // narrow heads leave lanes without keys

  const float scale = 1.f / sqrtf(static_cast<float>(d));
  float highest = -INFINITY;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const float total = sum_key_lanes(score[k]) * scale;
    score[k] = k * KEYS_AT_ONCE + lane / KEY_LANES <= count ? total : -INFINITY;
    highest = fmaxf(highest, score[k]);
  }
#pragma unroll
  for (int step = KEY_LANES; step < WARP; step <<= 1) highest = fmaxf(highest, __shfl_xor_sync(FULL_WARP, highest, step));
  float weight = 0.f;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    score[k] = expf(score[k] - highest);
    weight += score[k];
    if (part == 0) probabilities[warp][k * KEYS_AT_ONCE + lane / KEY_LANES] = score[k];
  }
#pragma unroll
  for (int step = KEY_LANES; step < WARP; step <<= 1) weight += __shfl_xor_sync(FULL_WARP, weight, step);
  __syncwarp();

  T* y = static_cast<T*>(a.y) + (b * a.H + h) * d;
  for (int channel = 2 * lane; channel < d; channel += 2 * WARP) {
    if (channel >= 2 * WARP) load_values(channel);
    float sum[2] = {};
#pragma unroll
    for (int j = 0; j < POSITIONS; j++) {
#pragma unroll
      for (int c = 0; c < 2; c++) sum[c] = fmaf(probabilities[warp][j], value[j][c], sum[c]);
    }
    sum[0] /= weight;
    sum[1] /= weight;
    store(y + channel, sum);
  }
}

template <typename T, int VEC>
void run(const PatchAttention& a, Stream stream) {
  const int blocks = divide_up(a.B * a.H, WARPS_PER_BLOCK);
  constexpr int THREADS = WARPS_PER_BLOCK * WARP;
  if (a.count < 8) return launch("PatchAttention", patch_attention_kernel<T, VEC, 8>, blocks, THREADS, 0, stream, a);
  if (a.count < 16) return launch("PatchAttention", patch_attention_kernel<T, VEC, 16>, blocks, THREADS, 0, stream, a);
  launch("PatchAttention", patch_attention_kernel<T, VEC, 40>, blocks, THREADS, 0, stream, a);
}

}  // namespace

void patch_attention(const PatchAttention& a, Stream stream) {
  if (a.count < 1 || a.count > MAX_PATCH || a.d % 2 != 0) return record_error(cudaErrorInvalidValue, "PatchAttention: count or head width");
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    has_wide_heads(a.d) ? run<T, 8>(a, stream) : run<T, 1>(a, stream);
  });
}

}  // namespace mblm
