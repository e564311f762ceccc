// Attention over a cache. Entries are the start token (0) and the cache's rows (row j is entry j + 1), in tiles of 32; tile i is warp i mod 8's, which
// keeps a running softmax; the warps' results are joined in their order. So a query's bits depend on its own keys only, not on the steps it came with.
#include "attention.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int NUM_WARPS = 8;
constexpr int THREADS = NUM_WARPS * WARP;
constexpr int TILE = 32;
constexpr int ROUNDS = TILE / KEYS_AT_ONCE;

/// Writes the key (rotated) and the value of row m, head h to the cache; `first`, `stride`: which of the d/2 pairs are this thread's.
template <typename T>
__device__ void append(const CachedAttention& a, int64_t m, int64_t h, int first, int stride) {
  const int half = static_cast<int>(a.d / 2);
  const int64_t steps = a.M / a.R;
  const int64_t r = m / steps;
  const int64_t position = a.position[r] + m % steps;
  const T* key = static_cast<const T*>(a.qkv) + m * 3 * a.H * a.d + a.H * a.d + h * a.d;
  const T* value = key + a.H * a.d;
  const int64_t offset = ((a.slot[r] * a.H + h) * a.capacity + position) * a.d;
  T* k_row = static_cast<T*>(a.k_cache) + offset;
  T* v_row = static_cast<T*>(a.v_cache) + offset;
  for (int i = first; i < half; i += stride) {
    float low[1] = {to_float(key[i])};
    float high[1] = {to_float(key[half + i])};
    rotate_halves(low, high, a.cos + (position + 1) * half + i, a.sin + (position + 1) * half + i);
    k_row[i] = from_float<T>(low[0]);
    k_row[half + i] = from_float<T>(high[0]);
    v_row[i] = value[i];
    v_row[half + i] = value[half + i];
  }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) append_kernel(const CachedAttention a) {
  release_successor();
  wait_for_predecessor();
  const int64_t half = a.d / 2;
  const int64_t index = blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x;
  if (index >= a.M * a.H * half) return;
  append<T>(a, index / (a.H * half), index / half % a.H, static_cast<int>(index % half), static_cast<int>(half));
}

/// One block: QUERIES steps of one head of one sequence. SLICES: d ≤ 64·SLICES. With `appends` (one step each) the block writes its own key first.
template <typename T, int VEC, int QUERIES, int SLICES>
__global__ void __launch_bounds__(THREADS) cached_attention_kernel(const CachedAttention a, bool appends) {
  extern __shared__ float4 shared[];
  const int d = static_cast<int>(a.d);
  const int half = d / 2;
  float* queries = reinterpret_cast<float*>(shared);  // [QUERIES][d], rotated and scaled
  float* results = queries + QUERIES * d;             // [NUM_WARPS][QUERIES][d]
  __shared__ float highests[NUM_WARPS][QUERIES];
  __shared__ float weights[NUM_WARPS][QUERIES];
  release_successor();
  wait_for_predecessor();

  const int lane = threadIdx.x % WARP;
  const int warp = threadIdx.x / WARP;
  const int part = lane % KEY_LANES;
  const int64_t h = blockIdx.y;
  const int64_t r = blockIdx.z;
  const int64_t steps = a.M / a.R;
  const int64_t first_step = blockIdx.x * static_cast<int64_t>(QUERIES);
  const int num_queries = static_cast<int>(min(static_cast<int64_t>(QUERIES), steps - first_step));
  const int64_t first_row = r * steps + first_step;
  const int64_t position = a.position[r] + first_step;
  if (appends) append<T>(a, first_row, h, threadIdx.x, THREADS);
  const float scale = 1.f / sqrtf(static_cast<float>(d));
  for (int i = threadIdx.x; i < QUERIES * half; i += THREADS) {
    const int q = i / half;
    const int c = i % half;
    if (q >= num_queries) break;
    const T* query = static_cast<const T*>(a.qkv) + (first_row + q) * 3 * a.H * d + h * d;
    float low[1] = {to_float(query[c])};
    float high[1] = {to_float(query[half + c])};
    rotate_halves(low, high, a.cos + (position + q + 1) * half + c, a.sin + (position + q + 1) * half + c);
    queries[q * d + c] = low[0] * scale;
    queries[q * d + half + c] = high[0] * scale;
  }
  __syncthreads();

  const int64_t cache = (a.slot[r] * a.H + h) * a.capacity * d;
  const T* k_cache = static_cast<const T*>(a.k_cache) + cache;
  const T* v_cache = static_cast<const T*>(a.v_cache) + cache;
  const auto key_of = [&](int64_t entry) { return entry == 0 ? static_cast<const T*>(a.start_k) + h * d : k_cache + (entry - 1) * d; };
  const auto value_of = [&](int64_t entry) { return entry == 0 ? static_cast<const T*>(a.start_v) + h * d : v_cache + (entry - 1) * d; };
  const int64_t num_entries = position + num_queries + 1;  // of the last query

  float highest[QUERIES], weight[QUERIES], result[QUERIES][SLICES][2];
#pragma unroll
  for (int q = 0; q < QUERIES; q++) {
    highest[q] = -INFINITY;
    weight[q] = 0.f;
#pragma unroll
    for (int s = 0; s < SLICES; s++) result[q][s][0] = result[q][s][1] = 0.f;
  }
  for (int64_t tile = warp * TILE; tile < num_entries; tile += NUM_WARPS * TILE) {
    float score[QUERIES][ROUNDS] = {};
    for (int i = part * VEC; i < half; i += KEY_LANES * VEC) {
      float key_low[ROUNDS][VEC], key_high[ROUNDS][VEC];
#pragma unroll
      for (int k = 0; k < ROUNDS; k++) {
        const T* key = key_of(min(tile + k * KEYS_AT_ONCE + lane / KEY_LANES, num_entries - 1));
        load(key_low[k], key + i);
        load(key_high[k], key + half + i);
      }
#pragma unroll
      for (int q = 0; q < QUERIES; q++) {
        float low[VEC], high[VEC];
        load(low, queries + min(q, num_queries - 1) * d + i);
        load(high, queries + min(q, num_queries - 1) * d + half + i);
#pragma unroll
        for (int k = 0; k < ROUNDS; k++) {
#pragma unroll
          for (int c = 0; c < VEC; c++) score[q][k] = fmaf(low[c], key_low[k][c], score[q][k]);
#pragma unroll
          for (int c = 0; c < VEC; c++) score[q][k] = fmaf(high[c], key_high[k][c], score[q][k]);
        }
      }
    }
#pragma unroll
    for (int q = 0; q < QUERIES; q++) {
      const int64_t last = position + q + 1;
      float best = highest[q];
#pragma unroll
      for (int k = 0; k < ROUNDS; k++) {
        const float total = sum_key_lanes(score[q][k]);
        score[q][k] = tile + k * KEYS_AT_ONCE + lane / KEY_LANES <= last ? total : -INFINITY;
        best = fmaxf(best, score[q][k]);
      }
#pragma unroll
      for (int step = KEY_LANES; step < WARP; step <<= 1) best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, step));
      const float shrink = best == -INFINITY ? 1.f : expf(highest[q] - best);
      float added = 0.f;
#pragma unroll
      for (int k = 0; k < ROUNDS; k++) {
        score[q][k] = score[q][k] == -INFINITY ? 0.f : expf(score[q][k] - best);
        added += score[q][k];
      }
#pragma unroll
      for (int step = KEY_LANES; step < WARP; step <<= 1) added += __shfl_xor_sync(FULL_WARP, added, step);
      highest[q] = best;
      weight[q] = fmaf(weight[q], shrink, added);
#pragma unroll
      for (int s = 0; s < SLICES; s++) {
        result[q][s][0] *= shrink;
        result[q][s][1] *= shrink;
      }
    }
#pragma unroll
    for (int s = 0; s < SLICES; s++) {
      const int channel = s * 2 * WARP + 2 * lane;
      const bool has_channel = channel < d;
#pragma unroll
      for (int e = 0; e < TILE; e++) {
        float value[2] = {};
        if (has_channel && tile + e < num_entries) load(value, value_of(tile + e) + channel);
#pragma unroll
        for (int q = 0; q < QUERIES; q++) {
          const float probability = __shfl_sync(FULL_WARP, score[q][e / KEYS_AT_ONCE], e % KEYS_AT_ONCE * KEY_LANES);
          result[q][s][0] = fmaf(probability, value[0], result[q][s][0]);
          result[q][s][1] = fmaf(probability, value[1], result[q][s][1]);
        }
      }
    }
  }
#pragma unroll
  for (int q = 0; q < QUERIES; q++) {
    if (lane == 0) {
      highests[warp][q] = highest[q];
      weights[warp][q] = weight[q];
    }
#pragma unroll
    for (int s = 0; s < SLICES; s++) {
      const int channel = s * 2 * WARP + 2 * lane;
      if (channel < d) store(results + (warp * QUERIES + q) * d + channel, result[q][s]);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_queries * d; i += THREADS) {
    const int q = i / d;
    const int c = i % d;
    float best = -INFINITY;
#pragma unroll
    for (int w = 0; w < NUM_WARPS; w++) best = fmaxf(best, highests[w][q]);
    float total = 0.f;
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < NUM_WARPS; w++) {
      const float share = expf(highests[w][q] - best);  // 0 of a warp without entries
      total = fmaf(weights[w][q], share, total);
      sum = fmaf(results[(w * QUERIES + q) * d + c], share, sum);
    }
    static_cast<T*>(a.y)[(first_row + q) * a.H * d + h * d + c] = from_float<T>(sum / total);
  }
}

template <typename T, int VEC, int QUERIES, int SLICES>
void run(const CachedAttention& a, Stream stream) {
  const int64_t steps = a.M / a.R;
  const size_t shared_bytes = sizeof(float) * a.d * QUERIES * (1 + NUM_WARPS);
  launch("CachedAttention", cached_attention_kernel<T, VEC, QUERIES, SLICES>, dim3(divide_up(steps, QUERIES), a.H, a.R), THREADS, shared_bytes, stream, a,
         steps == 1);
}

template <typename T, int VEC>
void run_steps(const CachedAttention& a, Stream stream) {
  if (a.M > a.R) {
    launch("CachedAttention: append", append_kernel<T>, divide_up(a.M * a.H * (a.d / 2), THREADS), THREADS, 0, stream, a);
    return a.d <= 64 ? run<T, VEC, 4, 1>(a, stream) : run<T, VEC, 4, 2>(a, stream);
  }
  return a.d <= 64 ? run<T, VEC, 1, 1>(a, stream) : run<T, VEC, 1, 2>(a, stream);
}

}  // namespace

void cached_attention(const CachedAttention& a, Stream stream) {
  if (a.M == 0) return;
  if (a.d % 2 != 0 || a.d > 128) return record_error(cudaErrorInvalidValue, "CachedAttention: head width");
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    has_wide_heads(a.d) ? run_steps<T, 8>(a, stream) : run_steps<T, 1>(a, stream);
  });
}

}  // namespace mblm
