// The eight warps that multiply, and move the states.
#pragma once
#include "mamba_step_block.cuh"

namespace mblm::cuda::mamba {

/// Adds up over the lanes that are 16, 8 and 4 apart. While there are several values, each half of the lanes goes on with half of them; in the end
/// `leave(i, sum)` is called for those that a lane is left with.
template <int DISTANCE = 16, int COUNT, typename Leave>
__device__ __forceinline__ void join_lanes(const float (&values)[COUNT], int lane, int first, Leave&& leave) {
  if constexpr (DISTANCE < 4) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) leave(first + i, values[i]);
  } else if constexpr (COUNT == 1) {
    const float joined[1] = {values[0] + __shfl_xor_sync(FULL_WARP, values[0], DISTANCE)};
    join_lanes<DISTANCE / 2>(joined, lane, first, leave);
  } else {
    const bool is_upper = lane & DISTANCE;
    float joined[COUNT / 2];
#pragma unroll
    for (int i = 0; i < COUNT / 2; i++) {
      const float kept = is_upper ? values[i + COUNT / 2] : values[i];
      const float sent = is_upper ? values[i] : values[i + COUNT / 2];
      joined[i] = kept + __shfl_xor_sync(FULL_WARP, sent, DISTANCE);
    }
    join_lanes<DISTANCE / 2>(joined, lane, first + (is_upper ? COUNT / 2 : 0), leave);
  }
}

__device__ __forceinline__ void load_past_l1(float (&out)[4], const float* address) {
  asm volatile("ld.global.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(out[0]), "=f"(out[1]), "=f"(out[2]), "=f"(out[3])
               : "l"(address)
               : "memory");
}

template <typename S>
struct Compute : Block<S> {
  static constexpr int M = S::M;
  using Block<S>::lane;
  using Block<S>::warp;
  int stage = 0;
  uint32_t parity = 0;
  int number = 0;  // of the product
  int copy;

  __device__ __forceinline__ explicit Compute(const Block<S>& block) : Block<S>(block), copy(block.block % COPIES) {}

  __device__ __forceinline__ char* staging() const { return this->shared + warp * S::STAGING; }
  __device__ __forceinline__ int channel() const { return 128 * warp + 4 * lane; }

  /// The weights of the next G stages: of each four times 32 channels.
  template <int G>
  __device__ __forceinline__ void take_stages(uint4 (&weights)[G][4]) {
    uint32_t taken[G];
#pragma unroll
    for (int g = 0; g < G; g++) {
      wait_phase(this->full + 8 * stage, parity, this->patience);
      const uint32_t row = this->ring + stage * STAGE_BYTES + lane / 4 * ROW_STRIDE + lane % 4 * 16 + 256 * warp;
#pragma unroll
      for (int t = 0; t < 4; t++) weights[g][t] = load_shared(row + 64 * t);
      taken[g] = this->empty + 8 * stage;
      if (++stage == this->p.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
    __syncwarp();
    // Only when the weights are in registers may a stage be filled again: the barrier's address depends on them.
#pragma unroll
    for (int g = 0; g < G; g++) {
      const uint32_t none = (weights[g][0].w | weights[g][1].w | weights[g][2].w | weights[g][3].w) & this->p.zero;
      if (lane == 0) arrive(taken[g] + none);
    }
  }

  template <bool IS_SPLIT>
  __device__ __forceinline__ void leave(const float (&d)[4], int g, int group) {
    const auto [sum, m, is_mine] = partial_sum<IS_SPLIT>(d, lane, group);
    if (is_mine && m < M) this->sums(number)[((g * OWN + lane / 4) * M + m) * COMPUTE_WARPS + warp] = sum;
  }

  __device__ __forceinline__ void leave_square(float square, int m) {
    square = warp_sum(square);
    if (lane == 0) this->squares(number)[m * COMPUTE_WARPS + warp] = square;
  }

  __device__ __forceinline__ void read_residual(float (&x)[M][4], int layer) {
    if (layer == 0) {
#pragma unroll
      for (int m = 0; m < M; m++) load(x[m], this->p.a.x + m * WIDTH + channel());
      return;
    }
    const uint4* words = this->residual(layer, copy) + channel() / 4;
    const uint32_t tag = this->tag(layer);
    wait_published(S::PAUSES.residual);
    uint4 found[M];
    poll(found, this->patience, [&](int m) { return load_word(words + m * (WIDTH / 4)); }, [&](int, const uint4& word) { return has_tag(word, tag); });
#pragma unroll
    for (int m = 0; m < M; m++) unpack_floats(found[m], x[m]);
  }

  /// in_proj of the normalised input; the norm's factor is left to the epilogue.
  __device__ __forceinline__ void in_product(int layer) {
    float gain[4], x[M][4];
    load(gain, this->vectors(layer) + channel());
    uint4 weights[IN_STAGES][4];
    take_stages(weights);
    read_residual(x, layer);
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++) {
      __half high[4], low[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float h = x[m][i] * (gain[i] * INPUT_SCALE);
        high[i] = __float2half_rn(h);
        low[i] = __float2half_rn(h - __half2float(high[i]));
      }
      *reinterpret_cast<uint2*>(staging() + m * 2 * S::SPLIT_ROW + 8 * lane) = *reinterpret_cast<uint2*>(high);
      *reinterpret_cast<uint2*>(staging() + (m * 2 + 1) * S::SPLIT_ROW + 8 * lane) = *reinterpret_cast<uint2*>(low);
    }
    __syncwarp();
#pragma unroll
    for (int group = 0; group < (M + 1) / 2; group++) {
      float d[IN_STAGES][4] = {};
#pragma unroll
      for (int t = 0; t < 4; t++) {
        const uint2 b = activations<true>(staging(), lane, group, 32 * t, M, 2 * S::SPLIT_ROW, S::SPLIT_ROW);
#pragma unroll
        for (int g = 0; g < IN_STAGES; g++) multiply(d[g], weights[g][t], b);
      }
#pragma unroll
      for (int g = 0; g < IN_STAGES; g++) leave<true>(d[g], g, group);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
      float square = 0.f;
#pragma unroll
      for (int i = 0; i < 4; i++) square = fmaf(x[m][i], x[m][i], square);
      leave_square(square, m);
    }
    signal_sums(number++);
  }

  /// The block's channels of its head's state: moved, and multiplied with C. A lane has four of them, and of the state's channels one or two.
  __device__ __forceinline__ void update_state(int layer) {
    const MambaStep& a = this->p.a;
    constexpr int64_t OF_PLACE = int64_t{HEADS} * S::N * HEAD_WIDTH;
    const int n = 8 * warp + lane / 4;
    const int column = lane % 4 * 4;
    const int at = (this->head() * S::N + n) * HEAD_WIDTH + this->block % BLOCKS_PER_HEAD * INNER_OWN + column;
    float state[M][S::PLACES][4];
    const auto read = [&](int m) {
      const int place = this->places()[m];
      const float* from = (place < 0 ? a.ssm_initial[layer] : a.ssm_state[layer] + place * OF_PLACE) + at;
#pragma unroll
      for (int j = 0; j < S::PLACES; j++) {
        if constexpr (M < 8) {
          load(state[m][j], from + j * 64 * HEAD_WIDTH);
        } else {
          load_past_l1(state[m][j], from + j * 64 * HEAD_WIDTH);
        }
      }
    };
    // More at once would delay what the epilogue warp reads and writes meanwhile.
#pragma unroll
    for (int m = 0; m < S::EARLY_ROWS; m++) read(m);
    const uint4* words = this->mixed(layer, copy) + n;
    const uint32_t tag = this->tag(layer);
    wait_published(S::PAUSES.mixed);
#pragma unroll
    for (int m = S::EARLY_ROWS; m < M; m++) read(m);
    uint4 found[S::PAIRS * S::PLACES];
    poll(
        found, this->patience, [&](int i) { return load_word(words + i / S::PLACES * S::N + i % S::PLACES * 64); },
        [&](int, const uint4& word) { return has_tag(word, tag); });
    float sums[4 * M] = {};
#pragma unroll
    for (int m = 0; m < M; m++) {
      float dt_x[4];
      load(dt_x, this->step(m) + column);
      const float decay = this->step(m)[INNER_OWN];
      const int place = this->places()[m];
      float* to = a.ssm_state[layer] + (place < 0 ? ~place : place) * OF_PLACE + at;
#pragma unroll
      for (int j = 0; j < S::PLACES; j++) {
        float bc[4];
        unpack_floats(found[m / 2 * S::PLACES + j], bc);
#pragma unroll
        for (int i = 0; i < 4; i++) ssm_update(state[m][j][i], decay, dt_x[i], bc[m % 2 * 2], bc[m % 2 * 2 + 1], sums[4 * m + i]);
        store(to + j * 64 * HEAD_WIDTH, state[m][j]);
      }
    }
    join_lanes(sums, lane, 0, [&](int i, float sum) { this->sums(number)[((column + i % 4) * M + i / 4) * COMPUTE_WARPS + warp] = sum; });
    signal_sums(number++);
  }

  /// out_proj of what the gated norm's gain was applied to; its factor is left to the epilogue.
  __device__ __forceinline__ void out_product(int layer) {
    uint4 weights[OUT_STAGES][4];
    take_stages(weights);
    // This warp's channels are, of each half, those of eight blocks.
    constexpr int BLOCKS_PER_SLICE = 128 / INNER_OWN;
    constexpr int WORDS_PER_SLICE = BLOCKS_PER_SLICE * UNITS;
    constexpr int WORDS = OUT_STAGES * WORDS_PER_SLICE;
    constexpr int PER_LANE = (WORDS + WARP - 1) / WARP;
    const uint4* words = this->gated(layer, copy);
    const uint32_t tag = this->tag(layer);
    wait_published(S::PAUSES.gated);
    uint4 found[M * PER_LANE];
    poll(
        found, this->patience,
        [&](int i) {
          const int index = i % PER_LANE * WARP + lane;
          if (index >= WORDS) return make_uint4(0, 0, 0, tag);
          const int first = index / WORDS_PER_SLICE * (BLOCKS / OUT_STAGES) + BLOCKS_PER_SLICE * warp;
          return load_word(words + (i / PER_LANE * BLOCKS + first) * UNITS + index % WORDS_PER_SLICE);
        },
        [&](int, const uint4& word) { return word.w == tag; });
    float square[M] = {};
#pragma unroll
    for (int i = 0; i < M * PER_LANE; i++) {
      const int index = i % PER_LANE * WARP + lane;
      if (index >= WORDS) continue;
      const int unit = index % UNITS;
      const int k = index / WORDS_PER_SLICE * 128 + index % WORDS_PER_SLICE / UNITS * INNER_OWN + unit * 6;
      uint32_t* to = reinterpret_cast<uint32_t*>(staging() + i / PER_LANE * S::GATED_ROW + 2 * k);
      to[0] = found[i].x;
      to[1] = found[i].y;
      if (unit < UNITS - 1) {
        to[2] = found[i].z;
      } else {
        square[i / PER_LANE] += __uint_as_float(found[i].z);
      }
    }
    __syncwarp();
#pragma unroll
    for (int group = 0; group < (M + 3) / 4; group++) {
      float d[OUT_STAGES][4] = {};
#pragma unroll
      for (int t = 0; t < 4; t++) {
#pragma unroll
        for (int g = 0; g < OUT_STAGES; g++) {
          multiply(d[g], weights[g][t], activations<false>(staging(), lane, group, 128 * g + 32 * t, M, S::GATED_ROW, 0));
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i++) d[0][i] += d[1][i];
      leave<false>(d[0], 0, group);
    }
#pragma unroll
    for (int m = 0; m < M; m++) leave_square(square[m], m);
    signal_sums(number++);
  }

  __device__ __forceinline__ void layers() {
    for (int layer = 0; layer < this->p.a.L; layer++) {
      in_product(layer);
      update_state(layer);
      out_product(layer);
    }
  }
};

}  // namespace mblm::cuda::mamba
