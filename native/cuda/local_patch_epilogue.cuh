// The warp that finishes what the compute warps have summed, and hands it to all blocks.
#pragma once
#include "local_patch_block.cuh"

namespace mblm::cuda::patch {

template <typename S>
struct Epilogue : Block<S> {
  static constexpr int M = S::M;
  using Block<S>::lane;
  int number = 0;
  float x[S::OWN_ITEMS];  // item m · OWN + i: the residual stream's channel i of row m

  __device__ __forceinline__ explicit Epilogue(const Block<S>& block) : Block<S>(block) {}

  /// Sum over the warps of a product's row.
  __device__ __forceinline__ float total(int row, int m) const {
    return total_of(this->sums(number) + (row * M + m) * COMPUTE_WARPS);
  }
  __device__ __forceinline__ float norm_factor(int m) const {
    const float square = total_of(this->squares(number) + m * COMPUTE_WARPS);
    return fminf(rsqrtf(square * (1.f / WIDTH)), 1e8f);
  }

  /// Hands over channels, four lanes' in a word; each of the four lanes writes one copy. `address(copy, m, i)`: of the word that begins with channel i.
  template <typename Address>
  __device__ __forceinline__ void publish(const float (&values)[S::OWN_ITEMS], uint32_t tag, Address&& address) const {
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      float four[4];
#pragma unroll
      for (int i = 0; i < 4; i++) four[i] = __shfl_sync(FULL_WARP, values[r], (lane & ~3) + i);
      const int item = r * WARP + lane;
      if (item < OWN * M && lane % 4 < COPIES) store_word(address(lane % 4, item / OWN, item % OWN / 4), pack_floats(four, tag));
    }
  }

  __device__ __forceinline__ void publish_residual(int byte, int point) const {
    publish(x, this->byte_tag(byte), [&](int copy, int m, int part) {
      return this->residual(byte, point, copy) + m * (WIDTH / 4) + this->block * (OWN / 4) + part;
    });
  }

  /// What the first byte finds of the byte before it, and the start token's key and value.
  __device__ __forceinline__ void prepare() {
    const LocalPatch& a = this->p.a;
    const int num_layers = static_cast<int>(a.L);
    if (this->block >= BLOCKS / 2) {
      for (int i = lane; i < (2 * num_layers - 1) * (OWN / 4); i += WARP) {
        const int point = 1 + i / (OWN / 4);
        const int unit = this->block * (OWN / 4) + i % (OWN / 4);
        float row[4];
        load(row, this->vectors(point / 2) + (point % 2 == 0 ? 1 : 3) * WIDTH + 4 * unit);
        const uint4 word = pack_floats(row, this->byte_tag(-1));
        for (int m = 0; m < M; m++) {
          for (int copy = 0; copy < COPIES; copy++) store_word(this->residual(-1, point, copy) + m * (WIDTH / 4) + unit, word);
        }
      }
    }
#pragma unroll 4
    for (int i = lane; i < num_layers * OWN; i += WARP) {
      const int channel = this->block / BLOCKS_PER_HEAD * HEAD_WIDTH + this->head_channel(i % OWN);
      const __half* start = static_cast<const __half*>(a.starts) + i / OWN * 2 * WIDTH + channel;
      const __half key = start[0], value = start[WIDTH];
      for (int m = 0; m < M; m++) {
        CacheEntry* entry = this->cache(i / OWN, m);
        entry->key[i % OWN] = __half2float(key);
        entry->value[i % OWN] = value;
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ void embed(int byte, int id) {
    const LocalPatch& a = this->p.a;
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = r * WARP + lane;
      const int m = min(item / OWN, M - 1);
      const int k = this->block * OWN + item % OWN;
      const int from = min(max(__shfl_sync(FULL_WARP, id, m), 0), static_cast<int>(a.V) - 1);
      x[r] = __half2float(static_cast<const __half*>(a.table)[from * WIDTH + k]);
      if (a.pos_table != nullptr) x[r] += a.pos_table[byte * WIDTH + k];
      x[r] += __half2float(static_cast<const __half*>(a.contexts)[(a.slot[m] * a.children + byte) * WIDTH + k]);
    }
  }

  /// From the sums of query, key and value to the block's channels of what the head attends to.
  __device__ __forceinline__ void attend(int byte, int layer) {
    const LocalPatch& a = this->p.a;
    float* queries = reinterpret_cast<float*>(this->shared + S::AT_ATTENTION);  // [M][3][OWN]
    float* scores = queries + M * 3 * OWN;                                      // [M][POSITIONS]
    float* weights = scores + M * S::POSITIONS;                                 // [M][POSITIONS]
    const int own = byte + 1;  // the byte's own position; 0 is the start token

    // What earlier bytes left is requested before the sums are there.
    float keys[S::SCORE_ITEMS][OWN];
#pragma unroll
    for (int r = 0; r < S::SCORE_ITEMS; r++) {
      const int item = r * WARP + lane;
      const int position = item % S::POSITIONS;
      if (item < M * S::POSITIONS && position < own) load(keys[r], this->cache(layer, item / S::POSITIONS)[position].key);
    }
    __half values[S::OWN_ITEMS][S::POSITIONS];
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = r * WARP + lane;
#pragma unroll
      for (int position = 0; position < S::POSITIONS; position++) {
        values[r][position] = __half(0.f);
        if (item < OWN * M && position < own) values[r][position] = this->cache(layer, item / OWN)[position].value[item % OWN];
      }
    }
    const int pair = this->head_channel(lane % 4);
    const float cosine = a.cos[own * (HEAD_WIDTH / 2) + pair];
    const float sine = a.sin[own * (HEAD_WIDTH / 2) + pair];

    wait_sums(number);
#pragma unroll
    for (int r = 0; r < S::QKV_ITEMS; r++) {
      const int item = min(r * WARP + lane, 3 * OWN * M - 1);
      const int m = item / (3 * OWN), which = item / OWN % 3, i = item % OWN;
      float v = total(which * OWN + i, m) * (norm_factor(m) * (1.f / INPUT_SCALE));
      v = __half2float(__float2half_rn(v));  // as the operator gives it
      const float other = __shfl_xor_sync(FULL_WARP, v, 4);
      CacheEntry& entry = this->cache(layer, m)[own];
      if (which < 2) v = fmaf(v, cosine, i < 4 ? -__fmul_rn(other, sine) : __fmul_rn(other, sine));
      if (r * WARP + lane < 3 * OWN * M) {
        queries[(m * 3 + which) * OWN + i] = v;
        if (which == 1) entry.key[i] = v;
        if (which == 2) entry.value[i] = __float2half_rn(v);
      }
    }
    number++;
    __syncwarp();

    // This block's part of every score, and the other blocks'.
    const uint32_t tag = this->layer_tag(byte, layer);
    uint4 parts[S::SCORE_ITEMS * 4];
    const auto is_used = [&](int r) { return r * WARP + lane < M * S::POSITIONS && (r * WARP + lane) % S::POSITIONS <= own; };
    const auto row = [&](int r) { return this->scores(layer, (r * WARP + lane) / S::POSITIONS, (r * WARP + lane) % S::POSITIONS); };
#pragma unroll
    for (int r = 0; r < S::SCORE_ITEMS; r++) {
      if (!is_used(r)) continue;
      const float* query = queries + (r * WARP + lane) / S::POSITIONS * 3 * OWN;
      const bool is_own = (r * WARP + lane) % S::POSITIONS == own;
      float score = 0.f;
#pragma unroll
      for (int i = 0; i < OWN; i++) score = fmaf(query[i], is_own ? query[OWN + i] : keys[r][i], score);
      store_pair(row(r) + this->block % BLOCKS_PER_HEAD, __float_as_uint(score), tag);
    }
    __syncwarp();
    wait_until(static_cast<uint32_t>(clock()) + SCORE_CYCLES);
    poll(
        parts, this->patience,
        [&](int i) { return is_used(i / 4) ? load_word(reinterpret_cast<const uint4*>(row(i / 4)) + i % 4) : make_uint4(0, tag, 0, tag); },
        [&](int, const uint4& word) { return word.y == tag && word.w == tag; });
    const float scale = 1.f / sqrtf(static_cast<float>(HEAD_WIDTH));
    float score[S::SCORE_ITEMS];
#pragma unroll
    for (int r = 0; r < S::SCORE_ITEMS; r++) {
      float sum[4];
#pragma unroll
      for (int i = 0; i < 4; i++) sum[i] = __uint_as_float(parts[4 * r + i].x) + __uint_as_float(parts[4 * r + i].z);
      score[r] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * scale;
      if (is_used(r)) scores[r * WARP + lane] = score[r];
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < S::SCORE_ITEMS; r++) {
      if (!is_used(r)) continue;
      const float* all = scores + (r * WARP + lane) / S::POSITIONS * S::POSITIONS;
      float highest = all[0];
#pragma unroll
      for (int position = 1; position < S::POSITIONS; position++) {
        if (position <= own) highest = fmaxf(highest, all[position]);
      }
      weights[r * WARP + lane] = expf(score[r] - highest);
    }
    __syncwarp();
    float result[S::OWN_ITEMS];
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int m = min((r * WARP + lane) / OWN, M - 1);
      const float* shares = weights + m * S::POSITIONS;
      float weight = 0.f, sum = 0.f;
#pragma unroll
      for (int position = 0; position < S::POSITIONS; position++) {
        if (position >= own) continue;
        weight += shares[position];
        sum = fmaf(shares[position], __half2float(values[r][position]), sum);
      }
      weight += shares[own];
      sum = fmaf(shares[own], queries[(m * 3 + 2) * OWN + lane % OWN], sum);
      result[r] = __half2float(__float2half_rn(__fdividef(sum, weight)));
    }
    publish(result, tag, [&](int copy, int m, int part) {
      const int channel = this->block / BLOCKS_PER_HEAD * HEAD_WIDTH + this->head_channel(4 * part);
      return this->attended(layer, copy) + m * (WIDTH / 4) + channel / 4;
    });
  }

  __device__ __forceinline__ void add(const float* bias) {
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = min(r * WARP + lane, OWN * M - 1);
      const float sum = total(item % OWN, item / OWN);
      x[r] += bias == nullptr ? sum : sum + bias[r];
    }
    number++;
  }

  __device__ __forceinline__ void activate(int byte, int layer, const float* vectors) {
    constexpr int ROWS = OWN * S::FF;
    __half* halves = reinterpret_cast<__half*>(this->shared + S::AT_HIDDEN);  // [M][UNITS · 6]
    float bias[S::FF_ITEMS];
#pragma unroll
    for (int r = 0; r < S::FF_ITEMS; r++) bias[r] = vectors[5 * WIDTH + this->block * ROWS + (r * WARP + lane) % ROWS];
    wait_sums(number);
#pragma unroll
    for (int r = 0; r < S::FF_ITEMS; r++) {
      const int item = min(r * WARP + lane, ROWS * M - 1);
      const int m = item / ROWS, i = item % ROWS;
      const float v = fmaf(total(i, m), norm_factor(m) * (1.f / INPUT_SCALE), bias[r]);
      halves[m * S::UNITS * 6 + i] = __float2half_rn(gelu(v));
    }
    number++;
    __syncwarp();
    const uint32_t tag = this->layer_tag(byte, layer);
    for (int i = lane; i < M * S::UNITS * COPIES; i += WARP) {
      const int copy = i % COPIES, index = i / COPIES;
      const uint32_t* from = reinterpret_cast<const uint32_t*>(halves) + index * 3;
      uint4* to = this->hidden(layer, copy) + index / S::UNITS * BLOCKS * S::UNITS + this->block * S::UNITS + index % S::UNITS;
      store_word(to, make_uint4(from[0], from[1], from[2], tag));
    }
    __syncwarp();
  }

  __device__ __forceinline__ void layers(int byte) {
    const int num_layers = static_cast<int>(this->p.a.L);
    for (int layer = 0; layer < num_layers; layer++) {
      const float* vectors = this->vectors(layer);
      attend(byte, layer);
      signal_published();
      wait_sums(number);
      add(nullptr);
      publish_residual(byte, 2 * layer + 1);
      signal_published();
      activate(byte, layer, vectors);
      signal_published();
      float bias[S::OWN_ITEMS];
#pragma unroll
      for (int r = 0; r < S::OWN_ITEMS; r++) bias[r] = vectors[4 * WIDTH + this->block * OWN + lane % OWN];
      wait_sums(number);
      add(bias);
      publish_residual(byte, 2 * layer + 2);
      signal_published();
    }
  }

  __device__ __forceinline__ void publish_logits(int byte) {
    const LocalPatch& a = this->p.a;
    constexpr int ITEMS = (S::HEAD_ROWS * M + WARP - 1) / WARP;
    float bias[ITEMS];
#pragma unroll
    for (int r = 0; r < ITEMS; r++) bias[r] = a.head_bias[min(this->block + (r * WARP + lane) / M * BLOCKS, static_cast<int>(a.V) - 1)];
    wait_sums(number);
#pragma unroll
    for (int r = 0; r < ITEMS; r++) {
      const int item = r * WARP + lane;
      const int id = this->block + item / M * BLOCKS, m = item % M;
      if (item >= S::HEAD_ROWS * M || id >= a.V) continue;
      const float logit = fmaf(total(item / M, m), norm_factor(m), bias[r]);
      store_pair(this->logits(m) + id, __float_as_uint(logit), this->layer_tag(byte, 63));
    }
    number++;
    __syncwarp();
  }
};

}  // namespace mblm::cuda::patch
