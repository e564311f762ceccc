// The warp that brings the weights into the ring.
#pragma once
#include "local_patch_block.cuh"

namespace mblm::cuda::patch {

template <typename S>
__device__ void produce(Block<S>& c) {
  const LocalPatch& a = c.p.a;
  if (c.lane >= OWN) return;
  constexpr unsigned LANES = (1u << OWN) - 1;
  const uint64_t policy = evict_first_policy();
  int stage = 0;
  uint32_t parity = 0;
  bool is_first_round = true;
  const int pause = c.p.pauses.stage;
  uint32_t issued = clock() - pause;
  const auto copy = [&](const char* row) {
    if (!is_first_round) {
      for (int count = 0; __any_sync(LANES, !has_phase(c.empty + 8 * stage, parity ^ 1));) {
        if (c.patience.is_over(++count)) break;
      }
    }
    wait_until(issued + pause);
    issued = clock();
    const uint32_t full = c.full + 8 * stage;
    if (c.lane == 0) expect_bytes(full, OWN * S::ROW_BYTES);
    __syncwarp(LANES);
    copy_bulk(c.ring + stage * S::STAGE_BYTES + c.lane * S::ROW_STRIDE, row, S::ROW_BYTES, full, policy);
    if (++stage == c.p.stages) {
      stage = 0;
      parity ^= 1;
      is_first_round = false;
    }
  };
  const int own_row = c.block * OWN + c.lane;
  const int head_row = c.block / S::BLOCKS_PER_HEAD * S::HEAD + c.head_channel(c.lane);
  for (int byte = 0; byte < a.P; byte++) {
    for (int layer = 0; layer < a.L; layer++) {
      for (int which = 0; which < 3; which++) copy(c.matrix(layer, 0) + (which * S::WIDTH + head_row) * S::ROW_BYTES);
      copy(c.matrix(layer, 1) + own_row * S::ROW_BYTES);
      for (int g = 0; g < S::FF; g++) copy(c.matrix(layer, 2) + c.hidden_channel(g * OWN + c.lane) * S::ROW_BYTES);
      for (int g = 0; g < S::FF; g++) copy(c.matrix(layer, 3) + (own_row * S::FF + g) * S::ROW_BYTES);
    }
  }
}

}  // namespace mblm::cuda::patch
