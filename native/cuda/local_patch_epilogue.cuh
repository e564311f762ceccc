// A warp that finishes what the compute warps have summed, of some rows of the batch, and hands it to all blocks.
#pragma once
#include "local_patch_block.cuh"

namespace mblm::cuda::patch {

template <typename S>
struct Epilogue : Block<S> {
  static constexpr int M = S::M, ROWS = S::ROWS;
  static constexpr int LONG_ROUNDS = 6;  // of reading parts of scores, at once
  using Block<S>::lane;
  int first;  // of the warp's rows
  int number = 0;
  float x[S::OWN_ITEMS];  // item n · OWN + i: the residual stream's channel i of row first + n

  __device__ __forceinline__ explicit Epilogue(const Block<S>& block) : Block<S>(block), first((block.warp - EPILOGUE) * ROWS) {}

  /// Of a product's row. Where there are fewer slices than `SUM_STRIDE`, the others' places hold 0.
  __device__ __forceinline__ float total(int row, int m) const { return total_of<S::SUM_STRIDE>(this->sums(number) + (row * M + m) * S::SUM_STRIDE); }
  __device__ __forceinline__ float norm_factor(int m) const {
    const float square = total_of<S::SUM_STRIDE>(this->squares(number) + m * S::SUM_STRIDE);
    return fminf(rsqrtf(square * (1.f / S::WIDTH)), 1e8f);
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
      if (item < OWN * ROWS && lane % 4 < COPIES) store_word(address(lane % 4, first + item / OWN, item % OWN / 4), pack_floats(four, tag));
    }
  }

  __device__ __forceinline__ void publish_residual(int byte, int point) const {
    publish(x, this->byte_tag(byte), [&](int copy, int m, int part) {
      return this->residual(byte, point, copy) + m * (S::WIDTH / 4) + this->block * (OWN / 4) + part;
    });
  }

  /// What the first byte finds of the byte before it, and the start token's key and value.
  __device__ __forceinline__ void prepare() {
    const LocalPatch& a = this->p.a;
    const int num_layers = static_cast<int>(a.L);
    if (this->block >= S::BLOCKS / 2) {
      for (int i = lane; i < (2 * num_layers - 1) * (OWN / 4); i += WARP) {
        const int point = 1 + i / (OWN / 4);
        const int unit = this->block * (OWN / 4) + i % (OWN / 4);
        float row[4];
        load(row, this->vectors(point / 2) + (point % 2 == 0 ? 1 : 3) * S::WIDTH + 4 * unit);
        const uint4 word = pack_floats(row, this->byte_tag(-1));
        for (int m = first; m < first + ROWS; m++) {
          for (int copy = 0; copy < COPIES; copy++) store_word(this->residual(-1, point, copy) + m * (S::WIDTH / 4) + unit, word);
        }
      }
    }
#pragma unroll 4
    for (int i = lane; i < num_layers * OWN; i += WARP) {
      const int channel = this->block / S::BLOCKS_PER_HEAD * S::HEAD + this->head_channel(i % OWN);
      const __half* start = static_cast<const __half*>(a.starts) + i / OWN * 2 * S::WIDTH + channel;
      const __half key = start[0], value = start[S::WIDTH];
      for (int m = first; m < first + ROWS; m++) {
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
      const int m = first + min(item / OWN, ROWS - 1);
      const int k = this->block * OWN + item % OWN;
      const int from = min(max(__shfl_sync(FULL_WARP, id, m), 0), static_cast<int>(a.V) - 1);
      x[r] = __half2float(static_cast<const __half*>(a.table)[from * S::WIDTH + k]);
      if (a.pos_table != nullptr) x[r] += a.pos_table[byte * S::WIDTH + k];
      x[r] += __half2float(static_cast<const __half*>(a.contexts)[(a.slot[m] * a.children + byte) * S::WIDTH + k]);
    }
  }

  // Of a row, in shared memory: the block's channels of its query; of every position the score, and what softmax makes of it, not yet divided by the sum.
  __device__ __forceinline__ float* query_of(int m) const { return reinterpret_cast<float*>(this->shared + S::AT_ATTENTION) + m * OWN; }
  __device__ __forceinline__ float* scores_of(int m) const { return query_of(M) + m * SCORE_STRIDE; }
  __device__ __forceinline__ float* shares_of(int m) const { return scores_of(M) + m * SCORE_STRIDE; }

  /// Requests what earlier bytes left: keys and values of `own` positions of every row.
  __device__ __forceinline__ void request_entries(int layer, int own) const {
    constexpr int PIECES = sizeof(CacheEntry) / 16;
    const char* from = reinterpret_cast<const char*>(this->cache(layer, first));
    const uint32_t to = shared_address(this->entries(first));
    const int positions = static_cast<int>(this->p.a.P) + 1;
    for (int piece = lane; piece < own * PIECES; piece += WARP) {
#pragma unroll
      for (int m = 0; m < ROWS; m++) {
        const int at = m * positions * static_cast<int>(sizeof(CacheEntry)) + 16 * piece;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + m * entry_stride(positions) + 16 * piece), "l"(from + at) : "memory");
      }
    }
  }

  /// Hands over this block's part of every score. An item is a quad of positions of a row.
  __device__ __forceinline__ void publish_scores(int layer, int num_items, uint32_t tag) const {
    for (int item = lane; item < num_items; item += WARP) {
      const int m = first + item % ROWS, quad = item / ROWS;
      const CacheEntry* entries = this->entries(m) + quad * QUAD;
      float query[OWN], score[QUAD] = {};
      load(query, query_of(m));
#pragma unroll
      for (int j = 0; j < QUAD; j++) {
        float key[OWN];
        load(key, entries[j].key);
#pragma unroll
        for (int i = 0; i < OWN; i++) score[j] = fmaf(query[i], key[i], score[j]);
      }
      store_word(this->scores(layer, m, quad) + this->block % S::BLOCKS_PER_HEAD, pack_floats(score, tag));
    }
    __syncwarp();
  }

  /// Adds up the parts of ROUNDS times so many items as a warp can read at once, a lane for each block of the head.
  template <int ROUNDS>
  __device__ __forceinline__ void gather_scores(int layer, int first_item, int num_items, int own, uint32_t tag) {
    constexpr int LANES = S::BLOCKS_PER_HEAD, ITEMS = WARP / LANES;
    const int part = lane % LANES;
    const auto item_of = [&](int round) { return first_item + round * ITEMS + lane / LANES; };
    uint4 words[ROUNDS];
    poll(
        words, this->patience,
        [&](int round) {
          const int item = item_of(round);
          return item < num_items ? load_word(this->scores(layer, first + item % ROWS, item / ROWS) + part) : make_uint4(0, 0, 0, tag << 16);
        },
        [&](int, const uint4& word) { return has_tag(word, tag); });
    const float scale = 1.f / sqrtf(static_cast<float>(S::HEAD));
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
      float four[QUAD];
      unpack_floats(words[round], four);
      // Each step halves the lanes that a position's parts are spread over: the first two by giving half of the positions away.
      const bool is_high = (part & (LANES / 2)) != 0, is_odd = (part & (LANES / 4)) != 0;
      float two[2];
#pragma unroll
      for (int i = 0; i < 2; i++) two[i] = (is_high ? four[2 + i] : four[i]) + __shfl_xor_sync(FULL_WARP, is_high ? four[i] : four[2 + i], LANES / 2);
      float sum = (is_odd ? two[1] : two[0]) + __shfl_xor_sync(FULL_WARP, is_odd ? two[0] : two[1], LANES / 4);
#pragma unroll
      for (int step = LANES / 8; step > 0; step /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, step);
      const int item = item_of(round);
      const int position = item / ROWS * QUAD + (is_high ? 2 : 0) + (is_odd ? 1 : 0);
      if (item < num_items && part % (LANES / 4) == 0) scores_of(first + item % ROWS)[position] = position <= own ? sum * scale : -INFINITY;
    }
  }

  /// Gathers the scores of positions up to `own`, and sums the values. QUADS: of the positions, at most; few are unrolled.
  template <int QUADS>
  __device__ __forceinline__ void finish_attention(float (&result)[S::OWN_ITEMS], int layer, int own, uint32_t tag) {
    constexpr bool IS_SHORT = QUADS == SHORT_QUADS;
    constexpr int ITEMS = WARP / S::BLOCKS_PER_HEAD;  // that a warp reads at once
    constexpr int ROUNDS = (QUADS * ROWS + ITEMS - 1) / ITEMS;
    const int num_quads = quads_of(own + 1), num_items = num_quads * ROWS;
    if constexpr (IS_SHORT) {
      gather_scores<ROUNDS>(layer, 0, num_items, own, tag);
    } else {
      for (int item = 0; item < num_items; item += LONG_ROUNDS * ITEMS) gather_scores<LONG_ROUNDS>(layer, item, num_items, own, tag);
    }
    __syncwarp();
    constexpr int SHARE_ITEMS = (QUADS * QUAD * ROWS + WARP - 1) / WARP;
#pragma unroll(IS_SHORT ? SHARE_ITEMS : 1)
    for (int r = 0; r < SHARE_ITEMS; r++) {
      const int item = r * WARP + lane;
      if (item >= num_items * QUAD) continue;
      const int m = first + item % ROWS, position = item / ROWS;
      float highest = -INFINITY;
#pragma unroll
      for (int quad = 0; quad < QUADS; quad++) {
        if (quad >= num_quads) continue;
        float four[QUAD];
        load(four, scores_of(m) + quad * QUAD);
        highest = fmaxf(highest, fmaxf(fmaxf(four[0], four[1]), fmaxf(four[2], four[3])));
      }
      shares_of(m)[position] = expf(scores_of(m)[position] - highest);
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int m = first + min((r * WARP + lane) / OWN, ROWS - 1), i = lane % OWN;
      const CacheEntry* entries = this->entries(m);
      float weight = 0.f, sum = 0.f;
#pragma unroll(IS_SHORT ? QUADS : 1)
      for (int quad = 0; quad < QUADS; quad++) {
        if (quad >= num_quads) continue;
        float shares[QUAD];
        load(shares, shares_of(m) + quad * QUAD);
#pragma unroll
        for (int j = 0; j < QUAD; j++) {
          // Behind the byte's own position shares are 0, but entries may be anything.
          const int position = quad * QUAD + j;
          const float value = __half2float(entries[position].value[i]);
          weight += shares[j];
          sum = fmaf(shares[j], position <= own ? value : 0.f, sum);
        }
      }
      result[r] = __half2float(__float2half_rn(__fdividef(sum, weight)));
    }
  }

  /// From the sums of query, key and value to the block's channels of what the head attends to.
  __device__ __forceinline__ void attend(int byte, int layer) {
    const LocalPatch& a = this->p.a;
    const int own = byte + 1;  // the byte's own position; 0 is the start token
    const int num_quads = quads_of(own + 1);
    request_entries(layer, own);
    const int pair = this->head_channel(lane % 4);
    const float cosine = a.cos[own * (S::HEAD / 2) + pair];
    const float sine = a.sin[own * (S::HEAD / 2) + pair];

    wait_sums<S::WORKING>(number);
#pragma unroll
    for (int r = 0; r < S::QKV_ITEMS; r++) {
      const int item = min(r * WARP + lane, 3 * OWN * ROWS - 1);
      const int m = first + item / (3 * OWN), which = item / OWN % 3, i = item % OWN;
      float v = total(which * OWN + i, m) * (norm_factor(m) * (1.f / INPUT_SCALE));
      v = __half2float(__float2half_rn(v));  // as the operator gives it
      const float other = __shfl_xor_sync(FULL_WARP, v, 4);
      if (which < 2) v = fmaf(v, cosine, i < 4 ? -__fmul_rn(other, sine) : __fmul_rn(other, sine));
      if (r * WARP + lane < 3 * OWN * ROWS) {
        CacheEntry &kept = this->cache(layer, m)[own], &entry = this->entries(m)[own];
        if (which == 0) query_of(m)[i] = v;
        if (which == 1) kept.key[i] = entry.key[i] = v;
        if (which == 2) kept.value[i] = entry.value[i] = __float2half_rn(v);
      }
    }
    number++;
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();

    const uint32_t tag = this->layer_tag(byte, layer);
    publish_scores(layer, num_quads * ROWS, tag);
    wait_until(static_cast<uint32_t>(clock()) + this->p.pauses.score);
    float result[S::OWN_ITEMS];
    if (num_quads <= SHORT_QUADS) {
      finish_attention<SHORT_QUADS>(result, layer, own, tag);
    } else {
      finish_attention<MAX_QUADS>(result, layer, own, tag);
    }
    publish(result, tag, [&](int copy, int m, int part) {
      const int channel = this->block / S::BLOCKS_PER_HEAD * S::HEAD + this->head_channel(4 * part);
      return this->attended(layer, copy) + m * (S::WIDTH / 4) + channel / 4;
    });
    __syncwarp();
  }

  __device__ __forceinline__ void add(const float* bias) {
#pragma unroll
    for (int r = 0; r < S::OWN_ITEMS; r++) {
      const int item = min(r * WARP + lane, OWN * ROWS - 1);
      const float sum = total(item % OWN, first + item / OWN);
      x[r] += bias == nullptr ? sum : sum + bias[r];
    }
    number++;
  }

  __device__ __forceinline__ void activate(int byte, int layer, const float* vectors) {
    constexpr int CHANNELS = OWN * S::FF;
    __half* halves = reinterpret_cast<__half*>(this->shared + S::AT_HIDDEN);  // [M][UNITS · 6]
    float bias[S::FF_ITEMS];
#pragma unroll
    for (int r = 0; r < S::FF_ITEMS; r++) bias[r] = vectors[5 * S::WIDTH + this->hidden_channel(min(r * WARP + lane, CHANNELS * ROWS - 1) % CHANNELS)];
    wait_sums<S::WORKING>(number);
#pragma unroll
    for (int r = 0; r < S::FF_ITEMS; r++) {
      const int item = min(r * WARP + lane, CHANNELS * ROWS - 1);
      const int m = first + item / CHANNELS, i = item % CHANNELS;
      const float v = fmaf(total(i, m), norm_factor(m) * (1.f / INPUT_SCALE), bias[r]);
      halves[m * S::UNITS * 6 + i] = __float2half_rn(gelu(v));
    }
    number++;
    __syncwarp();
    const uint32_t tag = this->layer_tag(byte, layer);
    for (int i = lane; i < ROWS * S::UNITS * COPIES; i += WARP) {
      const int copy = i % COPIES, index = first * S::UNITS + i / COPIES;
      const uint32_t* from = reinterpret_cast<const uint32_t*>(halves) + index * 3;
      uint4* to = this->hidden(layer, copy) + index / S::UNITS * S::BLOCKS * S::UNITS + this->block * S::UNITS + index % S::UNITS;
      store_word(to, make_uint4(from[0], from[1], from[2], tag));
    }
    __syncwarp();
  }

  __device__ __forceinline__ void layers(int byte) {
    const int num_layers = static_cast<int>(this->p.a.L);
    for (int layer = 0; layer < num_layers; layer++) {
      const float* vectors = this->vectors(layer);
      attend(byte, layer);
      signal_published<S::WORKING>();
      wait_sums<S::WORKING>(number);
      add(nullptr);
      publish_residual(byte, 2 * layer + 1);
      signal_published<S::WORKING>();
      activate(byte, layer, vectors);
      signal_published<S::WORKING>();
      float bias[S::OWN_ITEMS];
#pragma unroll
      for (int r = 0; r < S::OWN_ITEMS; r++) bias[r] = vectors[4 * S::WIDTH + this->block * OWN + lane % OWN];
      wait_sums<S::WORKING>(number);
      add(bias);
      publish_residual(byte, 2 * layer + 2);
      signal_published<S::WORKING>();
    }
  }

  __device__ __forceinline__ void publish_logits(int byte) {
    const LocalPatch& a = this->p.a;
    constexpr int ITEMS = (S::HEAD_ROWS * ROWS + WARP - 1) / WARP;
    float bias[ITEMS];
#pragma unroll
    for (int r = 0; r < ITEMS; r++) bias[r] = a.head_bias[min(this->block + (r * WARP + lane) / ROWS * S::BLOCKS, static_cast<int>(a.V) - 1)];
    wait_sums<S::WORKING>(number);
#pragma unroll
    for (int r = 0; r < ITEMS; r++) {
      const int item = r * WARP + lane;
      const int id = this->block + item / ROWS * S::BLOCKS, m = first + item % ROWS;
      if (item >= S::HEAD_ROWS * ROWS || id >= a.V) continue;
      const float logit = fmaf(total(item / ROWS, m), norm_factor(m), bias[r]);
      store_pair(this->logits(m) + id, __float_as_uint(logit), this->layer_tag(byte, 63));
    }
    number++;
    __syncwarp();
  }
};

}  // namespace mblm::cuda::patch
