// The warps that multiply: of each eight rows that are in the ring, a slice of 128 channels.
#pragma once
#include "local_patch_block.cuh"

namespace mblm::cuda::patch {

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

  __device__ __forceinline__ char* staging() const { return this->shared + S::AT_STAGING + warp * S::STAGING; }

  /// The first channel of this lane's four, where the second half of the channels is the byte before's: lanes 16 … 31 have that.
  __device__ __forceinline__ int shifted_channel() const { return lane / 16 * (S::WIDTH / 2) + 64 * warp + lane % 16 * 4; }
  __device__ __forceinline__ int channel() const { return SLICE * warp + 4 * lane; }

  /// The weights of the next G stages: of each four times 32 channels. IS_SHIFTED: which ones.
  template <bool IS_SHIFTED, int G>
  __device__ __forceinline__ void take_stages(uint4 (&weights)[G][4]) {
    uint32_t taken[G];
#pragma unroll
    for (int g = 0; g < G; g++) {
      wait_phase(this->full + 8 * stage, parity, this->patience);
      const uint32_t row = this->ring + stage * S::STAGE_BYTES + lane / 4 * S::ROW_STRIDE + lane % 4 * 16;
#pragma unroll
      for (int t = 0; t < 4; t++) {
        const int k = IS_SHIFTED ? t / 2 * (S::WIDTH / 2) + 64 * warp + t % 2 * 32 : SLICE * warp + 32 * t;
        weights[g][t] = load_shared(row + 2 * k);
      }
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

  /// Instructions for all rows of the batch, with split and with plain activations.
  static constexpr int SPLIT_GROUPS = (M + 1) / 2, GROUPS = (M + 3) / 4;

  template <bool IS_SPLIT>
  __device__ __forceinline__ uint2 activations(int group, int k, int stride) const {
    return resident::activations<IS_SPLIT>(staging(), lane, group, k, M, stride, S::SPLIT_ROW);
  }

  /// Leaves the sums of a stage's rows over this warp's channels.
  template <bool IS_SPLIT>
  __device__ __forceinline__ void leave(const float (&d)[4], int g, int group) {
    const auto [sum, m, is_mine] = partial_sum<IS_SPLIT>(d, lane, group);
    if (is_mine && m < M) this->sums(number)[((g * OWN + lane / 4) * M + m) * S::SUM_STRIDE + warp] = sum;
  }

  __device__ __forceinline__ void leave_square(float square, int m) {
    square = warp_sum(square);
    if (lane == 0) this->squares(number)[m * S::SUM_STRIDE + warp] = square;
  }

  /// What enters the first layer: the embedded byte, with the byte before in the second half of the channels.
  __device__ __forceinline__ void embed(float (&x)[M][4], int byte, int id, int id_before) const {
    const LocalPatch& a = this->p.a;
    const bool is_before = lane >= 16;
    const int k = shifted_channel();
    const int at = byte - is_before;
#pragma unroll
    for (int m = 0; m < M; m++) {
      const int own = __shfl_sync(FULL_WARP, id, m), before = __shfl_sync(FULL_WARP, id_before, m);
      if (at < 0) {
        load(x[m], this->vectors(0) + S::WIDTH + k);
        continue;
      }
      const int from = min(max(is_before ? before : own, 0), static_cast<int>(a.V) - 1);
      load(x[m], static_cast<const __half*>(a.table) + from * S::WIDTH + k);
      if (a.pos_table != nullptr) {
        float row[4];
        load(row, a.pos_table + at * S::WIDTH + k);
#pragma unroll
        for (int i = 0; i < 4; i++) x[m][i] += row[i];
      }
      float context[4];
      load(context, static_cast<const __half*>(a.contexts) + (a.slot[m] * a.children + at) * S::WIDTH + k);
#pragma unroll
      for (int i = 0; i < 4; i++) x[m][i] += context[i];
    }
  }

  __device__ __forceinline__ void read_shifted(float (&x)[M][4], int byte, int point) {
    const bool is_before = lane >= 16;
    const uint4* words = this->residual(byte - is_before, point, copy) + shifted_channel() / 4;
    const uint32_t tag = this->byte_tag(byte - is_before);
    wait_published<S::WORKING>(0);
    uint4 found[M];
    poll(found, this->patience, [&](int m) { return load_word(words + m * (S::WIDTH / 4)); }, [&](int, const uint4& word) { return has_tag(word, tag); });
#pragma unroll
    for (int m = 0; m < M; m++) unpack_floats(found[m], x[m]);
  }

  /// Products of G stages with the normalised input; the norm's factor is left to the epilogue.
  template <int G>
  __device__ __forceinline__ void product_of_shifted(const uint4 (&weights)[G][4], const float (&x)[M][4], const float (&gain)[4]) {
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++) {
      __half high[4], low[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float h = x[m][i] * gain[i];
        high[i] = __float2half_rn(h);
        low[i] = __float2half_rn(h - __half2float(high[i]));
      }
      *reinterpret_cast<uint2*>(staging() + m * 2 * S::SPLIT_ROW + 8 * lane) = *reinterpret_cast<uint2*>(high);
      *reinterpret_cast<uint2*>(staging() + (m * 2 + 1) * S::SPLIT_ROW + 8 * lane) = *reinterpret_cast<uint2*>(low);
    }
    __syncwarp();
#pragma unroll
    for (int group = 0; group < SPLIT_GROUPS; group++) {
      float d[G][4] = {};
#pragma unroll
      for (int t = 0; t < 4; t++) {
        const uint2 b = activations<true>(group, 32 * t, 2 * S::SPLIT_ROW);
#pragma unroll
        for (int g = 0; g < G; g++) multiply(d[g], weights[g][t], b);
      }
#pragma unroll
      for (int g = 0; g < G; g++) leave<true>(d[g], g, group);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
      float square = 0.f;
#pragma unroll
      for (int i = 0; i < 4; i++) square = fmaf(x[m][i], x[m][i], square);
      leave_square(square, m);
    }
    signal_sums<S::WORKING>(number++);
  }

  __device__ __forceinline__ void load_gain(float (&gain)[4], const float* from) const {
    load(gain, from + shifted_channel());
#pragma unroll
    for (int i = 0; i < 4; i++) gain[i] *= INPUT_SCALE;
  }

  __device__ __forceinline__ void attention_output(int byte, int layer) {
    uint4 weights[1][4];
    take_stages<false>(weights);
    const uint4* words = this->attended(layer, copy) + channel() / 4;
    const uint32_t tag = this->layer_tag(byte, layer);
    wait_published<S::WORKING>(this->p.pauses.attended);
    uint4 found[M];
    poll(found, this->patience, [&](int m) { return load_word(words + m * (S::WIDTH / 4)); }, [&](int, const uint4& word) { return has_tag(word, tag); });
#pragma unroll
    for (int m = 0; m < M; m++) {
      float x[4];
      unpack_floats(found[m], x);
      store(reinterpret_cast<__half*>(staging() + m * S::SPLIT_ROW + 8 * lane), x);
    }
    __syncwarp();
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
      float d[2][4] = {};
#pragma unroll
      for (int t = 0; t < 4; t++) multiply(d[t % 2], weights[0][t], activations<false>(group, 32 * t, S::SPLIT_ROW));
#pragma unroll
      for (int i = 0; i < 4; i++) d[0][i] += d[1][i];
      leave<false>(d[0], 0, group);
    }
    signal_sums<S::WORKING>(number++);
  }

  __device__ __forceinline__ void second_product(int byte, int layer) {
    uint4 weights[S::FF][4];
    take_stages<false>(weights);
    // This warp's hidden channels are, of each group of WIDTH, those of sixteen blocks, which have them in the same words.
    constexpr int WORDS = SLICE / OWN * S::UNITS;
    constexpr int PER_LANE = (WORDS + WARP - 1) / WARP;
    const uint4* words = this->hidden(layer, copy) + WORDS * warp;
    const uint32_t tag = this->layer_tag(byte, layer);
    wait_published<S::WORKING>(this->p.pauses.hidden);
    uint4 found[M * PER_LANE];
    poll(
        found, this->patience,
        [&](int i) {
          const int index = i % PER_LANE * WARP + lane;
          return index < WORDS ? load_word(words + i / PER_LANE * S::BLOCKS * S::UNITS + index) : make_uint4(0, 0, 0, tag);
        },
        [&](int, const uint4& word) { return word.w == tag; });
#pragma unroll
    for (int i = 0; i < M * PER_LANE; i++) {
      const int index = i % PER_LANE * WARP + lane;
      if (index >= WORDS) continue;
      // A word has three pairs of channels; eight channels of each group come one after the other.
      const uint32_t pairs[3] = {found[i].x, found[i].y, found[i].z};
#pragma unroll
      for (int j = 0; j < 3; j++) {
        const int row = index % S::UNITS * 6 + 2 * j;
        if (row >= OWN * S::FF) continue;
        const int k = row / OWN * SLICE + index / S::UNITS * OWN + row % OWN;
        *reinterpret_cast<uint32_t*>(staging() + i / PER_LANE * S::HIDDEN_ROW + 2 * k) = pairs[j];
      }
    }
    __syncwarp();
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
      float d[S::FF][4] = {};
#pragma unroll
      for (int t = 0; t < 4; t++) {
#pragma unroll
        for (int g = 0; g < S::FF; g++) multiply(d[g], weights[g][t], activations<false>(group, SLICE * g + 32 * t, S::HIDDEN_ROW));
      }
#pragma unroll
      for (int g = 1; g < S::FF; g++) {
#pragma unroll
        for (int i = 0; i < 4; i++) d[0][i] += d[g][i];
      }
      leave<false>(d[0], 0, group);
    }
    signal_sums<S::WORKING>(number++);
  }

  /// Logits of the block's ids, in float32.
  __device__ __forceinline__ void head_product(int byte) {
    constexpr int ROOM = M < 8 ? 8 : 4, AHEAD = S::HEAD_ROWS < ROOM ? S::HEAD_ROWS : ROOM;  // rows that there are registers for ahead
    const LocalPatch& a = this->p.a;
    const int V = static_cast<int>(a.V), k = channel();
    const auto load_row = [&](float (&row)[4], int r) {
      if (r * S::BLOCKS < V) load(row, a.head + min(this->block + r * S::BLOCKS, V - 1) * S::WIDTH + k);
    };
    float gain[4], rows[AHEAD][4];
    load(gain, a.gain + k);
#pragma unroll
    for (int r = 0; r < AHEAD; r++) load_row(rows[r], r);
    const uint4* words = this->residual(byte, 2 * static_cast<int>(a.L), copy) + k / 4;
    const uint32_t tag = this->byte_tag(byte);
    wait_published<S::WORKING>(0);
    uint4 found[M];
    poll(found, this->patience, [&](int m) { return load_word(words + m * (S::WIDTH / 4)); }, [&](int, const uint4& word) { return has_tag(word, tag); });
    float x[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
      float square = 0.f;
      unpack_floats(found[m], x[m]);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        square = fmaf(x[m][i], x[m][i], square);
        x[m][i] *= gain[i];
      }
      leave_square(square, m);
    }
    const auto multiply_rows = [&](int first) {
#pragma unroll
      for (int r = 0; r < AHEAD; r++) {
        if ((first + r) * S::BLOCKS >= V) continue;
#pragma unroll
        for (int m = 0; m < M; m++) {
          float sum = 0.f;
#pragma unroll
          for (int i = 0; i < 4; i++) sum = fmaf(x[m][i], rows[r][i], sum);
          sum = warp_sum(sum);
          if (lane == 0) this->sums(number)[((first + r) * M + m) * S::SUM_STRIDE + warp] = sum;
        }
      }
    };
    multiply_rows(0);
    for (int first = AHEAD; first < S::HEAD_ROWS; first += AHEAD) {
#pragma unroll
      for (int r = 0; r < AHEAD; r++) load_row(rows[r], first + r);
      multiply_rows(first);
    }
    signal_sums<S::WORKING>(number++);
  }

  __device__ __forceinline__ void layers(int byte, int id, int id_before) {
    const int num_layers = static_cast<int>(this->p.a.L);
    for (int layer = 0; layer < num_layers; layer++) {
      const float* vectors = this->vectors(layer);
      {
        float gain[4], x[M][4];
        load_gain(gain, vectors);
        uint4 weights[3][4];
        take_stages<true>(weights);
        if (layer == 0) {
          embed(x, byte, id, id_before);
        } else {
          read_shifted(x, byte, 2 * layer);
        }
        product_of_shifted(weights, x, gain);
      }
      attention_output(byte, layer);
      {
        float gain[4], x[M][4];
        load_gain(gain, vectors + 2 * S::WIDTH);
        uint4 weights[S::FF][4];
        take_stages<true>(weights);
        read_shifted(x, byte, 2 * layer + 1);
        product_of_shifted(weights, x, gain);
      }
      second_product(byte, layer);
    }
  }
};

}  // namespace mblm::cuda::patch
