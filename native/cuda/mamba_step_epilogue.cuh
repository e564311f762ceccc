// The warp that finishes what the compute warps have summed, and hands it to all blocks.
#pragma once
#include "mamba_step_block.cuh"

namespace mblm::cuda::mamba {

template <typename S>
struct Epilogue : Block<S> {
  static constexpr int M = S::M;
  using Block<S>::lane;
  int number = 0;
  float x[S::OWN_ITEMS];      // item m · OWN + i: the residual stream's channel i of row m
  float input[S::INNER_ITEMS];  // item m · INNER_OWN + i: what the inner channel i of row m brings into the state
  float gate[S::INNER_ITEMS];

  __device__ __forceinline__ explicit Epilogue(const Block<S>& block) : Block<S>(block) {}

  /// One channel of the convolution for one row: what came before is requested early.
  struct Convolution {
    float* state;
    float before[TAPS - 1], kernel[TAPS], bias;
  };

  __device__ __forceinline__ Convolution begin_convolution(int layer, int m, int channel) const {
    const MambaStep& a = this->p.a;
    const int place = this->places()[m];
    Convolution c;
    c.state = a.conv_state[layer] + static_cast<int64_t>(place < 0 ? ~place : place) * (TAPS - 1) * S::CHANNELS + channel;
    const float* from = place < 0 ? a.conv_initial[layer] + channel : c.state;
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++) c.before[k] = from[k * S::CHANNELS];
    load(c.kernel, this->vectors(layer) + S::KERNEL + TAPS * channel);
    c.bias = this->vectors(layer)[S::CONV_BIAS + channel];
    return c;
  }

  static __device__ __forceinline__ float end_convolution(const Convolution& c, float u, bool is_mine) {
    float sum = c.bias;
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++) sum = fmaf(c.kernel[k], c.before[k], sum);
    sum = fmaf(c.kernel[TAPS - 1], u, sum);
    if (is_mine) {
#pragma unroll
      for (int k = 0; k < TAPS - 1; k++) c.state[k * S::CHANNELS] = k + 1 < TAPS - 1 ? c.before[k + 1] : u;
    }
    return silu(sum);
  }

  __device__ __forceinline__ float total(int row, int m) const { return total_of(this->sums(number) + (row * M + m) * COMPUTE_WARPS); }
  /// What the product's rows are multiplied with: lane m has that of row m.
  __device__ __forceinline__ float norm_factors(int width) const {
    const float square = total_of(this->squares(number) + min(lane, M - 1) * COMPUTE_WARPS);
    return rsqrtf(fmaf(square, 1.f / static_cast<float>(width), 1e-5f)) * (1.f / INPUT_SCALE);
  }
  /// A channel of in_proj's result, as the operator gives it.
  __device__ __forceinline__ float projected(int row, int m, float factors) const {
    return __half2float(__float2half_rn(total(row, m) * __shfl_sync(FULL_WARP, factors, m)));
  }
  static __device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.f + __expf(-x)); }

  static __device__ __forceinline__ int row_of(int item, int width) { return min(item / width, M - 1); }

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = r * WARP + lane;
      x[r] = this->p.a.x[row_of(item, OWN) * WIDTH + this->block * OWN + item % OWN];
    }
  }

  /// From the sums of in_proj to what moves the state: B and C for all blocks, dt·x and the decay for this one's compute warps.
  __device__ __forceinline__ void mix(int layer) {
    const float* vectors = this->vectors(layer);
    // Three lanes a row have B, C and dt.
    const int few_m = min(lane / 3, M - 1), kind = lane % 3;
    const bool has_mixed = this->block < S::N;
    Convolution few = begin_convolution(layer, few_m, INNER + min(kind, 1) * S::N + this->block % S::N);
    const float dt_bias = vectors[S::DT_BIAS + this->head()], rate = vectors[S::RATE + this->head()];
    Convolution own[S::INNER_ITEMS];
#pragma unroll
    for (int r = 0; r < S::INNER_ITEMS; r++) {
      own[r] = begin_convolution(layer, row_of(r * WARP + lane, INNER_OWN), this->block * INNER_OWN + lane % INNER_OWN);
    }

    wait_sums(number);
    const float factors = norm_factors(WIDTH);
    const float u = projected(AT_B + kind, few_m, factors);
    const float few_value = end_convolution(few, u, has_mixed && kind < 2 && lane < 3 * M);
    const uint32_t tag = this->tag(layer);
    if (has_mixed) {
      const int pair = min(lane / COPIES, S::PAIRS - 1);
      float values[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int m = 2 * pair + i / 2;
        const float value = __shfl_sync(FULL_WARP, few_value, min(3 * m + i % 2, WARP - 1));
        values[i] = m < M ? value : 0.f;
      }
      if (lane < S::PAIRS * COPIES) store_word(this->mixed(layer, lane % COPIES) + pair * S::N + this->block, pack_floats(values, tag));
    }
    const SsmStep step = ssm_step(u, dt_bias, rate);
#pragma unroll
    for (int r = 0; r < S::INNER_ITEMS; r++) {
      const int item = r * WARP + lane;
      const int m = row_of(item, INNER_OWN);
      const float dt = __shfl_sync(FULL_WARP, step.dt, 3 * m + 2), decay = __shfl_sync(FULL_WARP, step.decay, 3 * m + 2);
      const bool is_mine = item < INNER_OWN * M;
      input[r] = end_convolution(own[r], projected(AT_X + lane % INNER_OWN, m, factors), is_mine);
      if (is_mine) this->step(m)[lane % INNER_OWN] = __fmul_rn(dt, input[r]);
      if (is_mine && lane % INNER_OWN == 0) this->step(m)[INNER_OWN] = decay;
    }
    signal_published();
    // The gates are not needed before the state has moved.
#pragma unroll
    for (int r = 0; r < S::INNER_ITEMS; r++) {
      gate[r] = silu(projected(AT_Z + lane % INNER_OWN, row_of(r * WARP + lane, INNER_OWN), factors));
    }
    number++;
  }

  /// From the state's products with C to the gated channels, for all blocks.
  __device__ __forceinline__ void hand_over_gated(int layer) {
    const float* vectors = this->vectors(layer);
    char* rows = this->shared + S::AT_GATED;  // [M][UNITS] of 12 bytes
    const float skip = vectors[S::SKIP + this->head()];
    const float gain = vectors[S::GATED_GAIN + this->block * INNER_OWN + lane % INNER_OWN] * INPUT_SCALE;
    wait_sums(number);
#pragma unroll
    for (int r = 0; r < S::INNER_ITEMS; r++) {
      const int item = r * WARP + lane;
      const int m = row_of(item, INNER_OWN);
      const float v = fmaf(skip, input[r], total(lane % INNER_OWN, m)) * gate[r];
      float square = v * v;
#pragma unroll
      for (int distance = INNER_OWN / 2; distance > 0; distance /= 2) square += __shfl_xor_sync(FULL_WARP, square, distance);
      if (item >= INNER_OWN * M) continue;
      char* row = rows + m * UNITS * 12;
      reinterpret_cast<__half*>(row)[lane % INNER_OWN] = __float2half_rn(v * gain);
      if (lane % INNER_OWN == 0) *reinterpret_cast<float*>(row + 2 * INNER_OWN) = square;
    }
    number++;
    __syncwarp();
    const uint32_t tag = this->tag(layer);
    for (int i = lane; i < M * UNITS * COPIES; i += WARP) {
      const int index = i / COPIES;
      const uint32_t* from = reinterpret_cast<const uint32_t*>(rows) + index * 3;
      uint4* to = this->gated(layer, i % COPIES) + (index / UNITS * BLOCKS + this->block) * UNITS + index % UNITS;
      store_word(to, make_uint4(from[0], from[1], from[2], tag));
    }
    signal_published();
  }

  __device__ __forceinline__ void add() {
    wait_sums(number);
    const float factors = norm_factors(INNER);
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = r * WARP + lane;
      const int m = row_of(item, OWN);
      x[r] = fmaf(total(item % OWN, m), __shfl_sync(FULL_WARP, factors, m), x[r]);
    }
    number++;
  }

  /// Hands over what enters the layer, four lanes' channels in a word.
  __device__ __forceinline__ void hand_over_residual(int layer) {
    const uint32_t tag = this->tag(layer);
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      float four[4];
#pragma unroll
      for (int i = 0; i < 4; i++) four[i] = __shfl_sync(FULL_WARP, x[r], (lane & ~3) + i);
      const int item = r * WARP + lane;
      if (item >= OWN * M || lane % 4 >= COPIES) continue;
      uint4* row = this->residual(layer, lane % 4) + item / OWN * (WIDTH / 4);
      store_word(row + this->block * (OWN / 4) + item % OWN / 4, pack_floats(four, tag));
    }
    signal_published();
  }

  __device__ __forceinline__ void give(bool has_failed) const {
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = r * WARP + lane;
      if (item < OWN * M) this->p.a.y[item / OWN * WIDTH + this->block * OWN + item % OWN] = has_failed ? __int_as_float(0x7fffffff) : x[r];
    }
  }

  __device__ __forceinline__ void layers() {
    const int num_layers = static_cast<int>(this->p.a.L);
    for (int layer = 0; layer < num_layers; layer++) {
      mix(layer);
      hand_over_gated(layer);
      add();
      if (layer + 1 < num_layers) hand_over_residual(layer + 1);
    }
  }
};

}  // namespace mblm::cuda::mamba
