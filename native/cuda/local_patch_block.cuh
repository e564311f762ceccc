// Sizes of the kernel of a whole local patch, and what all warps of a block share.
#pragma once
#include "resident.cuh"
#include "sample.cuh"

namespace mblm::cuda::patch {

using namespace resident;

constexpr int WIDTH = 1024;
constexpr int HEAD_WIDTH = 64;
constexpr int HEADS = WIDTH / HEAD_WIDTH;
constexpr int OWN = 8;  // channels of the residual stream, and rows of a matrix that make a stage of the ring
constexpr int BLOCKS = WIDTH / OWN;
constexpr int BLOCKS_PER_HEAD = BLOCKS / HEADS;
constexpr int ROW_BYTES = 2 * WIDTH;
/// Between rows in shared memory: two rows, read at once, lie in different banks.
constexpr int ROW_STRIDE = ROW_BYTES + 64;
constexpr int STAGE_BYTES = OWN * ROW_STRIDE;
// Found by trial on an H100, in cycles. The memory is at rest between two stages of a block's weights: where all blocks ask for as much as they have room for,
// words that are waited for are late. Who asks for such a word before it can be there makes others late, too.
constexpr int STAGE_CYCLES = 1450;
constexpr int SCORE_CYCLES = 650;
constexpr int ATTENDED_CYCLES = 600;
constexpr int HIDDEN_CYCLES = 600;
/// Inputs are this much smaller in 16 bits than they are: the residual stream is not normalised yet.
constexpr float INPUT_SCALE = 1.f / 16.f;

/// Where things are in the scratch memory, in bytes. `epoch`, `error` are its first words.
struct Layout {
  uint32_t next, logits, scores, attended, hidden, residual, cache, end;
};

struct Parameters {
  LocalPatch a;
  Layout at;
  int stages;     // of the ring
  uint32_t zero;  // 0, which the compiler does not know
};

/// M: rows of the batch. FF: thousands of channels of the feed-forward. BYTES: most bytes of a patch. PER_WORKER: ids that a thread of the sampler has.
template <int M_, int FF_, int BYTES_, int PER_WORKER_>
struct Shape {
  static constexpr int M = M_, FF = FF_, BYTES = BYTES_, PER_WORKER = PER_WORKER_;
  static constexpr int POSITIONS = BYTES + 1;
  static constexpr int UNITS = (OWN * FF + 5) / 6;  // words in which a block hands over its hidden channels of a row, six in each
  static constexpr int QKV_ITEMS = (3 * OWN * M + WARP - 1) / WARP;
  static constexpr int OWN_ITEMS = (OWN * M + WARP - 1) / WARP;
  static constexpr int FF_ITEMS = (OWN * FF * M + WARP - 1) / WARP;
  static constexpr int SCORE_ITEMS = (POSITIONS * M + WARP - 1) / WARP;
  static constexpr int HEAD_ROWS = 2 * PER_WORKER;  // of the block, at most

  // Shared memory behind the ring.
  static constexpr int SPLIT_ROW = 320;  // bytes of 128 channels in 16 bits, and a gap for the banks
  static constexpr int HIDDEN_ROW = 256 * FF + 64;
  static constexpr int STAGING = M * (2 * SPLIT_ROW > HIDDEN_ROW ? 2 * SPLIT_ROW : HIDDEN_ROW);
  static constexpr int SUMS = (3 * OWN * M + M) * COMPUTE_WARPS * 4;
  static constexpr int AT_SUMS = COMPUTE_WARPS * STAGING;
  static constexpr int AT_ATTENTION = AT_SUMS + NUM_SUMS * SUMS;
  static constexpr int ATTENTION = M * (3 * OWN + 2 * POSITIONS) * 4;
  static constexpr int AT_HIDDEN = AT_ATTENTION + ATTENTION;
  static constexpr int AT_SAMPLER = (AT_HIDDEN + M * UNITS * 12 + 15) / 16 * 16;
  static constexpr int AT_LOGITS = AT_SAMPLER + (sizeof(Scratch<PER_WORKER>) + 15) / 16 * 16;
  static constexpr int AT_NEXT = AT_LOGITS + PER_WORKER * NUM_WORKERS * 4;
  static constexpr int AT_BARRIERS = AT_NEXT + 32;
  static constexpr int BYTES_BESIDE_RING = AT_BARRIERS;  // and two barriers of 8 bytes for each stage
};

struct CacheEntry {  // a block's channels of a key, rotated, and of a value
  float key[OWN];
  __half value[OWN];
};
static_assert(sizeof(CacheEntry) == 48);

template <typename S>
Layout layout_of(const LocalPatch& a) {
  Layout at{};
  uint32_t end = 128;
  const auto take = [&](uint64_t bytes) {
    const uint32_t start = end;
    end += static_cast<uint32_t>((bytes + 127) / 128 * 128);
    return start;
  };
  at.next = take(S::M * 8);
  at.logits = take(S::M * a.V * 8);
  at.scores = take(uint64_t{2} * S::M * HEADS * S::POSITIONS * BLOCKS_PER_HEAD * 8);
  at.attended = take(uint64_t{2} * COPIES * S::M * (WIDTH / 4) * 16);
  at.hidden = take(uint64_t{2} * COPIES * S::M * BLOCKS * S::UNITS * 16);
  at.residual = take(uint64_t{2} * COPIES * (2 * a.L + 1) * S::M * (WIDTH / 4) * 16);
  at.cache = take(uint64_t{BLOCKS} * a.L * S::M * S::POSITIONS * sizeof(CacheEntry));
  at.end = end;
  return at;
}

/// The sampler's threads: compute warps and epilogue warp.
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
    return reinterpret_cast<uint4*>(scratch(p.at.residual)) + (((byte + 1) % 2 * COPIES + copy) * (2 * p.a.L + 1) + point) * S::M * (WIDTH / 4);
  }
  __device__ __forceinline__ uint4* attended(int layer, int copy) const {
    return reinterpret_cast<uint4*>(scratch(p.at.attended)) + (layer % 2 * COPIES + copy) * S::M * (WIDTH / 4);
  }
  __device__ __forceinline__ uint4* hidden(int layer, int copy) const {
    return reinterpret_cast<uint4*>(scratch(p.at.hidden)) + (layer % 2 * COPIES + copy) * S::M * BLOCKS * S::UNITS;
  }
  __device__ __forceinline__ uint2* scores(int layer, int m, int position) const {
    const int head = block / BLOCKS_PER_HEAD;
    return reinterpret_cast<uint2*>(scratch(p.at.scores)) + (((layer % 2 * S::M + m) * HEADS + head) * S::POSITIONS + position) * BLOCKS_PER_HEAD;
  }
  __device__ __forceinline__ uint2* logits(int m) const { return reinterpret_cast<uint2*>(scratch(p.at.logits)) + m * p.a.V; }
  __device__ __forceinline__ uint2* next(int m) const { return reinterpret_cast<uint2*>(scratch(p.at.next)) + m; }
  __device__ __forceinline__ CacheEntry* cache(int layer, int m) const {
    return reinterpret_cast<CacheEntry*>(scratch(p.at.cache)) + ((block * p.a.L + layer) * S::M + m) * S::POSITIONS;
  }

  __device__ __forceinline__ float* sums(int number) const { return reinterpret_cast<float*>(shared + S::AT_SUMS + number % NUM_SUMS * S::SUMS); }
  __device__ __forceinline__ float* squares(int number) const { return sums(number) + 3 * OWN * S::M * COMPUTE_WARPS; }

  __device__ __forceinline__ const float* vectors(int layer) const { return p.a.vectors + layer * (5 * WIDTH + S::FF * 1024); }
  __device__ __forceinline__ const char* matrix(int layer, int index) const { return static_cast<const char*>(p.a.matrices[4 * layer + index]); }

  /// The channel within a head of the block's row i of queries, keys and values: pairs that are rotated together are in one block.
  __device__ __forceinline__ int head_channel(int i) const { return (i % 4) + 4 * (block % BLOCKS_PER_HEAD) + i / 4 * (HEAD_WIDTH / 2); }
};

/// The ids that the rows go on with after a byte, for all warps of the block: the epilogue warp waits for them. Lane m has that of row m.
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
    asm volatile("bar.arrive 14, 288;" ::: "memory");
    return static_cast<int>(word.x);
  }
  asm volatile("bar.sync 14, 288;" ::: "memory");
  return ids[min(c.lane, S::M - 1)];
}

}  // namespace mblm::cuda::patch
