// Sizes of the kernel of a step through all Mamba-2 layers, and what all warps of a block share.
#pragma once
#include "resident.cuh"
#include "ssm_order.cuh"

namespace mblm::cuda::mamba {

using namespace resident;

constexpr int WIDTH = 1024;
constexpr int OWN = 8;  // channels of the residual stream, and rows of a matrix that make a stage of the ring
constexpr int BLOCKS = WIDTH / OWN;
constexpr int INNER = 2 * WIDTH;
constexpr int INNER_OWN = INNER / BLOCKS;
constexpr int HEAD_WIDTH = 64;
constexpr int HEADS = INNER / HEAD_WIDTH;
constexpr int BLOCKS_PER_HEAD = BLOCKS / HEADS;
constexpr int TAPS = 4;
constexpr int ROW_BYTES = 2 * WIDTH;
/// Between rows in shared memory: two rows, read at once, lie in different banks.
constexpr int ROW_STRIDE = ROW_BYTES + 64;
constexpr int STAGE_BYTES = OWN * ROW_STRIDE;
/// Rows of in_proj that a block has: z and x of its channels, one channel of B and C each, dt of its head.
constexpr int AT_Z = 0, AT_X = INNER_OWN, AT_B = 2 * INNER_OWN, AT_DT = AT_B + 2;
constexpr int IN_STAGES = 5;   // the last is not full
constexpr int OUT_STAGES = 2;  // the halves of the inner channels
constexpr int UNITS = 3;       // words in which a block hands over its gated channels of a row: six in each, and the sum of their squares
/// The compute warps are at most one product ahead of what the epilogue warp still reads.
constexpr int SUM_BUFFERS = 2;
/// Products are this much smaller in 16 bits than they are: their inputs are not normalised yet.
constexpr float INPUT_SCALE = 1.f / 16.f;

/// Pauses, in cycles, found by trial on an H100. The memory is at rest between two stages of a block's weights: where all blocks ask for as much as they have
/// room for, words that are waited for are late. Who asks for such a word before it can be there makes others late, too.
struct Pauses {
  int row;       // of the producer behind each row of a stage
  int state;     // and behind asking for a row's state
  int mixed;     // before asking for B and C
  int gated;     // before asking for the gated channels
  int residual;  // before asking for the residual stream
};

constexpr Pauses pauses_of(int rows) {
  switch (rows) {
    case 1: return {181, 0, 500, 900, 0};
    case 2: return {190, 600, 400, 900, 600};
    case 4: return {140, 300, 400, 1200, 0};
    default: return {140, 600, 400, 1300, 600};
  }
}

/// Where things are in the scratch memory, in bytes.
struct Layout {
  uint32_t residual, mixed, gated, end;
};

struct Parameters {
  MambaStep a;
  Layout at;
  int stages;     // of the ring
  uint32_t zero;  // 0, which the compiler does not know
};

/// M: rows of the batch. N: channels of the state.
template <int M_, int N_>
struct Shape {
  static constexpr int M = M_, N = N_;
  static constexpr Pauses PAUSES = pauses_of(M);
  static constexpr int PAIRS = (M + 1) / 2;      // of rows, whose B and C are handed over together
  static constexpr int PLACES = N / 64;          // channels of the state that a lane has
  static constexpr int EARLY_ROWS = M < 4 ? M : M == 4 ? 0 : 2;  // rows whose state is read before B and C can be there
  static constexpr int INNER_ITEMS = (INNER_OWN * M + WARP - 1) / WARP;
  static constexpr int OWN_ITEMS = (OWN * M + WARP - 1) / WARP;
  static constexpr int CHANNELS = INNER + 2 * N;  // of the convolution

  // A layer's vectors.
  static constexpr int KERNEL = WIDTH, CONV_BIAS = KERNEL + TAPS * CHANNELS, DT_BIAS = CONV_BIAS + CHANNELS, RATE = DT_BIAS + HEADS, SKIP = RATE + HEADS,
                       GATED_GAIN = SKIP + HEADS, VECTORS = GATED_GAIN + INNER;

  // Shared memory behind the ring.
  static constexpr int SPLIT_ROW = 320;                  // bytes of 128 channels in 16 bits, and a gap for the banks
  static constexpr int GATED_ROW = 256 * OUT_STAGES + 64;  // of two slices of 128 channels
  static constexpr int STAGING = M * 2 * SPLIT_ROW;
  static_assert(GATED_ROW <= 2 * SPLIT_ROW);
  static constexpr int SUMS = (IN_STAGES * OWN + 1) * M * COMPUTE_WARPS * 4;
  static constexpr int AT_SUMS = COMPUTE_WARPS * STAGING;
  static constexpr int STEP = INNER_OWN + 4;  // dt·x of the block's channels, decay
  static constexpr int AT_STEP = AT_SUMS + SUM_BUFFERS * SUMS;
  static constexpr int AT_GATED = AT_STEP + M * STEP * 4;
  static constexpr int AT_PLACES = AT_GATED + M * UNITS * 12;
  static constexpr int AT_BARRIERS = (AT_PLACES + M * 4 + 15) / 16 * 16;
  static constexpr int BYTES_BESIDE_RING = AT_BARRIERS;  // and two barriers of 8 bytes for each stage
};

template <typename S>
Layout layout_of() {
  Layout at{};
  uint32_t end = 128;
  const auto take = [&](uint32_t words) {
    const uint32_t start = end;
    end += 2 * COPIES * words * 16;
    return start;
  };
  at.residual = take(S::M * (WIDTH / 4));
  at.mixed = take(S::PAIRS * S::N);
  at.gated = take(S::M * BLOCKS * UNITS);
  at.end = end;
  return at;
}

/// What every warp knows.
template <typename S>
struct Block {
  const Parameters& p;
  char* shared;  // behind the ring
  uint32_t ring, full, empty;
  int block, warp, lane;
  uint32_t epoch;
  Patience patience;

  /// Never 0, as fresh scratch memory is, and never what the word has from before.
  __device__ __forceinline__ uint32_t tag(int layer) const { return epoch + layer + 1; }

  __device__ __forceinline__ uint4* words(uint32_t at, int layer, int copy, int count) const {
    return reinterpret_cast<uint4*>(reinterpret_cast<char*>(p.a.scratch) + at) + (layer % 2 * COPIES + copy) * count;
  }
  /// What enters the layer; four channels a word.
  __device__ __forceinline__ uint4* residual(int layer, int copy) const { return words(p.at.residual, layer, copy, S::M * (WIDTH / 4)); }
  /// B and C of two rows a word.
  __device__ __forceinline__ uint4* mixed(int layer, int copy) const { return words(p.at.mixed, layer, copy, S::PAIRS * S::N); }
  __device__ __forceinline__ uint4* gated(int layer, int copy) const { return words(p.at.gated, layer, copy, S::M * BLOCKS * UNITS); }

  __device__ __forceinline__ float* sums(int number) const { return reinterpret_cast<float*>(shared + S::AT_SUMS + number % SUM_BUFFERS * S::SUMS); }
  __device__ __forceinline__ float* squares(int number) const { return sums(number) + IN_STAGES * OWN * S::M * COMPUTE_WARPS; }
  __device__ __forceinline__ float* step(int m) const { return reinterpret_cast<float*>(shared + S::AT_STEP) + m * S::STEP; }
  /// The row's place among the states; ~place at position 0, where the state before is the model's.
  __device__ __forceinline__ volatile int* places() const { return reinterpret_cast<volatile int*>(shared + S::AT_PLACES); }

  __device__ __forceinline__ const float* vectors(int layer) const { return p.a.vectors + layer * S::VECTORS; }
  __device__ __forceinline__ int head() const { return block / BLOCKS_PER_HEAD; }
};

}  // namespace mblm::cuda::mamba
