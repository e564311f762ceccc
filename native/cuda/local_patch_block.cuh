// Sizes of the kernel of a whole local patch, and what all warps of a block share.
#pragma once
#include <algorithm>

#include "resident.cuh"
#include "sample.cuh"

namespace mblm::cuda::patch {

using namespace resident;

constexpr int OWN = 8;      // channels of the residual stream, and rows of a matrix that make a stage of the ring
constexpr int SLICE = 128;  // channels that a compute warp multiplies
constexpr int MAX_WIDTH = COMPUTE_WARPS * SLICE;
constexpr int MAX_VOCABULARY = 2 * NUM_WORKERS;
/// Positions whose parts of scores are handed over in one word.
constexpr int QUAD = 4;
/// Those of the longest patch, and of patches whose attention is unrolled.
constexpr int MAX_QUADS = (MAX_PATCH + 1 + QUAD - 1) / QUAD, SHORT_QUADS = 3;
/// Of scores of a row in shared memory; rows, read at once, lie in different banks.
constexpr int SCORE_STRIDE = MAX_QUADS * QUAD;
static_assert(SCORE_STRIDE / 4 % 2 == 1);
/// Inputs are this much smaller in 16 bits than they are: the residual stream is not normalised yet.
constexpr float INPUT_SCALE = 1.f / 16.f;

/// In cycles, found by trial on an H100. The memory is at rest between two stages of a block's weights: where all blocks ask for as much as they have room
/// for, words that are waited for are late. Who asks for such a word before it can be there makes others late, too.
struct Pauses {
  int stage, score, attended, hidden;
};

/// Where things are in the scratch memory, in bytes.
struct Layout {
  uint32_t next, logits, scores, attended, hidden, residual, cache, end;
};

struct Parameters {
  LocalPatch a;
  Layout at;
  Pauses pauses;
  int stages;             // of the ring
  int entries, barriers;  // where they are in shared memory behind the ring, in bytes
  int sampler;            // where its memory is behind that of the logits
  uint32_t zero;          // 0, which the compiler does not know
};

/// M: rows of the batch. WIDTH: channels of the residual stream. FF: channels of the feed-forward for each of them. HEAD: channels of a head.
template <int M_, int WIDTH_, int FF_, int HEAD_>
struct Shape {
  static constexpr int M = M_, WIDTH = WIDTH_, FF = FF_, HEAD = HEAD_;
  static_assert(WIDTH % SLICE == 0 && WIDTH <= MAX_WIDTH, "the width must be a multiple of 128, at most 1024");
  static_assert(FF >= 1 && FF <= 4, "the feed-forward must be 1 to 4 times as wide");
  static_assert(HEAD == 32 || HEAD == 64 || HEAD == 128, "heads must have 32, 64 or 128 channels");
  static_assert(WIDTH % HEAD == 0, "the width must be a multiple of the heads'");

  static constexpr int BLOCKS = WIDTH / OWN;
  static constexpr int SLICES = WIDTH / SLICE;  // compute warps that multiply; the others only sample
  static constexpr int EPILOGUES = M > 1 ? 2 : 1;  // warps that finish products, each of an equal part of the rows
  static constexpr int ROWS = M / EPILOGUES;       // of an epilogue warp
  static constexpr int PRODUCER = EPILOGUE + EPILOGUES;
  static constexpr int THREADS = (PRODUCER + 1) * WARP;
  static constexpr int WORKING = (SLICES + EPILOGUES) * WARP;     // threads that multiply and finish
  static constexpr int ALL = (COMPUTE_WARPS + EPILOGUES) * WARP;  // and those that only sample
  static constexpr int BLOCKS_PER_HEAD = HEAD / OWN;
  static constexpr int HEADS = WIDTH / HEAD;
  static constexpr int ROW_BYTES = 2 * WIDTH;
  static constexpr int ROW_STRIDE = ROW_BYTES + 64;  // two rows, read at once, lie in different banks
  static constexpr int STAGE_BYTES = OWN * ROW_STRIDE;
  static constexpr int UNITS = (OWN * FF + 5) / 6;  // words in which a block hands over its hidden channels of a row, six in each
  static constexpr int QKV_ITEMS = (3 * OWN * ROWS + WARP - 1) / WARP;
  static constexpr int OWN_ITEMS = (OWN * ROWS + WARP - 1) / WARP;
  static constexpr int FF_ITEMS = (OWN * FF * ROWS + WARP - 1) / WARP;
  static constexpr int HEAD_ROWS = (MAX_VOCABULARY + BLOCKS - 1) / BLOCKS;  // ids of the block, at most

  // Shared memory behind the ring. Where compute warps stage activations are the logits and the sampler's memory while bytes are chosen; behind that
  // the cache entries of a layer, and the ring's barriers.
  static constexpr int SPLIT_ROW = 320;  // bytes of 128 channels in 16 bits, and a gap for the banks
  static constexpr int HIDDEN_ROW = 256 * FF + 64;
  static constexpr int STAGING = M * (2 * SPLIT_ROW > HIDDEN_ROW ? 2 * SPLIT_ROW : HIDDEN_ROW);
  static constexpr int SUM_STRIDE = SLICES <= 4 ? 4 : 8;  // of a row's sums; what no warp writes is 0
  static constexpr int MAX_OF(int a, int b) { return a > b ? a : b; }
  static constexpr int SUM_ROWS = MAX_OF(MAX_OF(3, FF) * OWN, HEAD_ROWS);
  static constexpr int SUMS = (SUM_ROWS + 1) * M * SUM_STRIDE * 4;
  static constexpr int AT_SUMS = 0;
  static constexpr int AT_ATTENTION = AT_SUMS + NUM_SUMS * SUMS;
  static constexpr int ATTENTION = M * (OWN + 2 * SCORE_STRIDE) * 4;
  static constexpr int AT_HIDDEN = AT_ATTENTION + ATTENTION;
  static constexpr int AT_NEXT = AT_HIDDEN + (M * UNITS * 12 + 15) / 16 * 16;
  static constexpr int AT_STAGING = AT_NEXT + 32;
};

struct CacheEntry {  // a block's channels of a key, rotated, and of a value
  float key[OWN];
  __half value[OWN];
};
static_assert(sizeof(CacheEntry) == 48);

template <typename S>
Pauses pauses_of() {
  if (S::WIDTH == MAX_WIDTH) return S::M < 8 ? Pauses{1450, 650, 600, 600} : Pauses{1450, 300, 400, 1000};
  constexpr int SHARE = (S::WIDTH / SLICE) * (S::WIDTH / SLICE);  // of what all blocks read in a stage, in 64ths of the widest's
  return {1450 * SHARE / 64, 0, 300, S::M < 4 ? 0 : 600};
}

__host__ __device__ inline int quads_of(int positions) { return (positions + QUAD - 1) / QUAD; }

/// Bytes of a row's entries in shared memory, with a gap for the banks.
__host__ __device__ inline int entry_stride(int positions) { return quads_of(positions) * QUAD * static_cast<int>(sizeof(CacheEntry)) + 16; }

template <typename S>
Layout layout_of(const LocalPatch& a) {
  Layout at{};
  uint32_t end = 128;
  const auto take = [&](uint64_t bytes) {
    const uint32_t start = end;
    end += static_cast<uint32_t>((bytes + 127) / 128 * 128);
    return start;
  };
  const int positions = static_cast<int>(a.P) + 1;
  at.next = take(S::M * 8);
  at.logits = take(S::M * a.V * 8);
  at.scores = take(uint64_t{2} * S::M * S::BLOCKS * quads_of(positions) * 16);
  at.attended = take(uint64_t{2} * COPIES * S::M * (S::WIDTH / 4) * 16);
  at.hidden = take(uint64_t{2} * COPIES * S::M * S::BLOCKS * S::UNITS * 16);
  at.residual = take(uint64_t{2} * COPIES * (2 * a.L + 1) * S::M * (S::WIDTH / 4) * 16);
  at.cache = take(uint64_t{S::BLOCKS} * a.L * S::M * positions * sizeof(CacheEntry));
  at.end = end;
  return at;
}

/// Lays out the shared memory behind the ring as far as it depends on the call, and gives the ring what is left. Returns the bytes of all.
template <typename S>
size_t divide_shared_memory(Parameters& p) {
  const bool is_small = p.a.V <= NUM_WORKERS;
  p.sampler = (is_small ? NUM_WORKERS : MAX_VOCABULARY) * static_cast<int>(sizeof(float));
  const int sampler_bytes = p.sampler + static_cast<int>(is_small ? sizeof(Scratch<1>) : sizeof(Scratch<2>));
  p.entries = S::AT_STAGING + std::max((sampler_bytes + 15) / 16 * 16, S::SLICES * S::STAGING);
  p.barriers = p.entries + S::M * entry_stride(static_cast<int>(p.a.P) + 1);
  p.stages = (SHARED_BYTES - p.barriers) / (S::STAGE_BYTES + 16);  // two barriers each
  return p.stages * (S::STAGE_BYTES + 16) + p.barriers;
}

/// The sampler's threads: compute warps and the first epilogue warp.
struct SamplerThreads {
  static __device__ __forceinline__ void sync() { asm volatile("bar.sync 15, 288;" ::: "memory"); }
};
static_assert(SAMPLE_THREADS == 288);

/// What every warp knows.
template <typename S>
struct Block {
  const Parameters& p;
  char* shared;  // behind the ring
  uint32_t ring, full, empty;
  int block, warp, lane;
  uint32_t epoch;
  Patience patience;

  __device__ __forceinline__ char* scratch(uint32_t at) const { return reinterpret_cast<char*>(p.a.scratch) + at; }

  // Tags: of what is kept for the next byte, and of what is used within a layer. None of them is 0 in all of its bits, as fresh scratch memory is.
  __device__ __forceinline__ uint32_t byte_tag(int byte) const { return (epoch + byte + 2) & 0xffff; }
  __device__ __forceinline__ uint32_t layer_tag(int byte, int layer) const { return (epoch + byte + 2) * 64 + layer + 1; }

  // What one byte's layers leave behind. `point` 2l: what enters layer l; 2l + 1: what enters its feed-forward.
  __device__ __forceinline__ uint4* residual(int byte, int point, int copy) const {
    return reinterpret_cast<uint4*>(scratch(p.at.residual)) + (((byte + 1) % 2 * COPIES + copy) * (2 * p.a.L + 1) + point) * S::M * (S::WIDTH / 4);
  }
  __device__ __forceinline__ uint4* attended(int layer, int copy) const {
    return reinterpret_cast<uint4*>(scratch(p.at.attended)) + (layer % 2 * COPIES + copy) * S::M * (S::WIDTH / 4);
  }
  __device__ __forceinline__ uint4* hidden(int layer, int copy) const {
    return reinterpret_cast<uint4*>(scratch(p.at.hidden)) + (layer % 2 * COPIES + copy) * S::M * S::BLOCKS * S::UNITS;
  }
  /// Of the block's head: a word of each of its blocks for each row of the batch and quad of positions.
  __device__ __forceinline__ uint4* scores(int layer, int m, int quad) const {
    const int head = block / S::BLOCKS_PER_HEAD;
    const int num_quads = quads_of(static_cast<int>(p.a.P) + 1);
    return reinterpret_cast<uint4*>(scratch(p.at.scores)) + (((layer % 2 * S::HEADS + head) * num_quads + quad) * S::M + m) * S::BLOCKS_PER_HEAD;
  }
  __device__ __forceinline__ uint2* logits(int m) const { return reinterpret_cast<uint2*>(scratch(p.at.logits)) + m * p.a.V; }
  __device__ __forceinline__ uint2* next(int m) const { return reinterpret_cast<uint2*>(scratch(p.at.next)) + m; }
  __device__ __forceinline__ CacheEntry* cache(int layer, int m) const {
    return reinterpret_cast<CacheEntry*>(scratch(p.at.cache)) + ((block * p.a.L + layer) * S::M + m) * (p.a.P + 1);
  }
  /// The layer's entries of a row, in shared memory.
  __device__ __forceinline__ CacheEntry* entries(int m) const {
    return reinterpret_cast<CacheEntry*>(shared + p.entries + m * entry_stride(static_cast<int>(p.a.P) + 1));
  }

  __device__ __forceinline__ float* sums(int number) const { return reinterpret_cast<float*>(shared + S::AT_SUMS + number % NUM_SUMS * S::SUMS); }
  __device__ __forceinline__ float* squares(int number) const { return sums(number) + S::SUM_ROWS * S::M * S::SUM_STRIDE; }

  __device__ __forceinline__ const float* vectors(int layer) const { return p.a.vectors + layer * ((5 + S::FF) * S::WIDTH); }
  __device__ __forceinline__ const char* matrix(int layer, int index) const { return static_cast<const char*>(p.a.matrices[4 * layer + index]); }

  /// The channel within a head of the block's row i of queries, keys and values: pairs that are rotated together are in one block.
  __device__ __forceinline__ int head_channel(int i) const { return (i % 4) + 4 * (block % S::BLOCKS_PER_HEAD) + i / 4 * (S::HEAD / 2); }
  /// The channel of the feed-forward that is the block's row i: eight of each group of WIDTH.
  __device__ __forceinline__ int hidden_channel(int i) const { return i / OWN * S::WIDTH + block * OWN + i % OWN; }
};

/// The ids that the rows go on with after a byte, for all warps of the block: the first epilogue warp waits for them. Lane m has that of row m.
template <typename S>
__device__ __forceinline__ int take_next(Block<S>& c, int byte) {
  auto* ids = reinterpret_cast<volatile int*>(c.shared + S::AT_NEXT);
  if (c.warp == EPILOGUE) {
    const uint32_t tag = c.layer_tag(byte, 63);
    const uint2* address = c.next(min(c.lane, S::M - 1));
    uint2 word = load_pair(address);
    for (int count = 0; __any_sync(FULL_WARP, word.y != tag);) {
      if (c.patience.is_over(++count)) break;
      word = load_pair(address);
    }
    if (c.lane < S::M) ids[c.lane] = static_cast<int>(word.x);
    __syncwarp();
    asm volatile("bar.arrive 14, %0;" ::"n"(S::ALL) : "memory");
    return static_cast<int>(word.x);
  }
  asm volatile("bar.sync 14, %0;" ::"n"(S::ALL) : "memory");
  return ids[min(c.lane, S::M - 1)];
}

}  // namespace mblm::cuda::patch
