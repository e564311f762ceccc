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

/// The usual case, heads of up to 64 channels: as above, in one go. The start token's part needs nothing that a kernel wrote but the query, and only the
/// query is turned, by how far it is from the key. Group g of four lanes has bytes g + 1, g + 9, …
template <typename T, int ROUNDS>
__global__ void __launch_bounds__(WARPS_PER_BLOCK* WARP) narrow_patch_attention_kernel(const __grid_constant__ PatchAttention a) {
  constexpr int VEC = 8;
  const int lane = threadIdx.x % WARP;
  const int64_t index = blockIdx.x * static_cast<int64_t>(WARPS_PER_BLOCK) + threadIdx.x / WARP;
  const bool is_inside = index < a.B * a.H;
  const int64_t b = is_inside ? index / a.H : 0;
  const int64_t h = is_inside ? index % a.H : 0;
  const int d = static_cast<int>(a.d);
  const int half = d / 2;
  const int count = static_cast<int>(a.count);
  const int64_t q_offset = b * 3 * a.H * d + h * d;
  const int channel = lane % KEY_LANES * VEC;
  const bool has_channels = channel < half;
  const bool has_values = 2 * lane < d;

  const T* keys[ROUNDS];
  float cosine[ROUNDS][VEC], sine[ROUNDS][VEC];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const int position = min(k * KEYS_AT_ONCE + lane / KEY_LANES + 1, count);
    keys[k] = static_cast<const T*>(a.qkv[position - 1]) + q_offset + a.H * d + channel;
    if (has_channels) {
      load(cosine[k], a.cos + static_cast<int64_t>(count - position) * half + channel);
      load(sine[k], a.sin + static_cast<int64_t>(count - position) * half + channel);
    }
  }
  float start_low[VEC] = {}, start_high[VEC] = {};
  if (has_channels) {
    const T* start = static_cast<const T*>(a.start_k) + h * d + channel;
    load(start_low, start);
    load(start_high, start + half);
    float start_cosine[VEC], start_sine[VEC];
    load(start_cosine, a.cos + static_cast<int64_t>(count) * half + channel);
    load(start_sine, a.sin + static_cast<int64_t>(count) * half + channel);
#pragma unroll
    for (int i = 0; i < VEC; i++) {  // turned back, in place of turning the query forward
      const float turned = start_low[i] * start_cosine[i] + start_high[i] * start_sine[i];
      start_high[i] = start_high[i] * start_cosine[i] - start_low[i] * start_sine[i];
      start_low[i] = turned;
    }
  }
  float start_value[2] = {};
  if (has_values) load(start_value, static_cast<const T*>(a.start_v) + h * d + 2 * lane);
  release_successor();
  wait_for_predecessor();
  if (!is_inside) return;

  float low[VEC] = {}, high[VEC] = {};
  float key_low[ROUNDS][VEC] = {}, key_high[ROUNDS][VEC] = {};
  if (has_channels) {
    const T* query = static_cast<const T*>(a.qkv[count - 1]) + q_offset + channel;
    load(low, query);
    load(high, query + half);
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
      load(key_low[k], keys[k]);
      load(key_high[k], keys[k] + half);
    }
  }
  Vector<T, 2> values[ROUNDS * KEYS_AT_ONCE];
  if (has_values) {
#pragma unroll
    for (int j = 0; j < ROUNDS * KEYS_AT_ONCE; j++) {
      const T* value = static_cast<const T*>(a.qkv[min(j, count - 1)]) + q_offset + 2 * a.H * d + 2 * lane;
      values[j] = *reinterpret_cast<const Vector<T, 2>*>(value);
    }
  }

  const float scale = 1.f / sqrtf(static_cast<float>(d));
  float start_score = 0.f;
  float score[ROUNDS] = {};
#pragma unroll
  for (int i = 0; i < VEC; i++) start_score = fmaf(low[i], start_low[i], fmaf(high[i], start_high[i], start_score));
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
#pragma unroll
    for (int i = 0; i < VEC; i++) {
      const float turned_low = low[i] * cosine[k][i] - high[i] * sine[k][i];
      const float turned_high = high[i] * cosine[k][i] + low[i] * sine[k][i];
      if (has_channels) score[k] = fmaf(turned_low, key_low[k][i], fmaf(turned_high, key_high[k][i], score[k]));
    }
  }
  start_score = sum_key_lanes(start_score) * scale;
  float highest = start_score;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const float total = sum_key_lanes(score[k]) * scale;
    score[k] = k * KEYS_AT_ONCE + lane / KEY_LANES < count ? total : -INFINITY;
    highest = fmaxf(highest, score[k]);
  }
#pragma unroll
  for (int step = KEY_LANES; step < WARP; step <<= 1) highest = fmaxf(highest, __shfl_xor_sync(FULL_WARP, highest, step));
  float weight = 0.f;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    score[k] = expf(score[k] - highest);
    weight += score[k];
  }
#pragma unroll
  for (int step = KEY_LANES; step < WARP; step <<= 1) weight += __shfl_xor_sync(FULL_WARP, weight, step);
  const float start_weight = expf(start_score - highest);
  weight += start_weight;

  float sum[2] = {start_weight * start_value[0], start_weight * start_value[1]};
#pragma unroll
  for (int j = 0; j < ROUNDS * KEYS_AT_ONCE; j++) {
    const float share = __shfl_sync(FULL_WARP, score[j / KEYS_AT_ONCE], j % KEYS_AT_ONCE * KEY_LANES);
    if (j < count) {
      sum[0] = fmaf(share, to_float(values[j].at[0]), sum[0]);
      sum[1] = fmaf(share, to_float(values[j].at[1]), sum[1]);
    }
  }
  sum[0] /= weight;
  sum[1] /= weight;
  if (has_values) store(static_cast<T*>(a.y) + (b * a.H + h) * d + 2 * lane, sum);
}

template <typename T>
void run_narrow(const PatchAttention& a, Stream stream) {
  const int blocks = divide_up(a.B * a.H, WARPS_PER_BLOCK);
  constexpr int THREADS = WARPS_PER_BLOCK * WARP;
  if (a.count <= 8) return launch("PatchAttention", narrow_patch_attention_kernel<T, 1>, blocks, THREADS, 0, stream, a);
  if (a.count <= 16) return launch("PatchAttention", narrow_patch_attention_kernel<T, 2>, blocks, THREADS, 0, stream, a);
  launch("PatchAttention", narrow_patch_attention_kernel<T, 4>, blocks, THREADS, 0, stream, a);
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
    if (has_wide_heads(a.d) && a.d <= 64) return run_narrow<T>(a, stream);
    has_wide_heads(a.d) ? run<T, 8>(a, stream) : run<T, 1>(a, stream);
  });
}

}  // namespace mblm
