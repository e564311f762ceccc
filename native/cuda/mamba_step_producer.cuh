// The warp that brings the weights into the ring, and the states nearer.
#pragma once
#include "mamba_step_block.cuh"

namespace mblm::cuda::mamba {

template <typename S>
__device__ void produce(Block<S>& c) {
  const MambaStep& a = c.p.a;
  if (c.lane >= OWN) return;
  constexpr unsigned LANES = (1u << OWN) - 1;
  const uint64_t policy = evict_first_policy();
  int stage = 0;
  uint32_t parity = 0;
  bool is_first_round = true;
  uint32_t next = clock();
  // Each of the first `count` lanes brings one row.
  const auto copy = [&](const char* row, int count) {
    if (!is_first_round) {
      for (int polls = 0; __any_sync(LANES, !has_phase(c.empty + 8 * stage, parity ^ 1));) {
        if (c.patience.is_over(++polls)) break;
      }
    }
    wait_until(next);
    next = clock() + count * S::PAUSES.row;
    const uint32_t full = c.full + 8 * stage;
    if (c.lane == 0) expect_bytes(full, count * ROW_BYTES);
    __syncwarp(LANES);
    if (c.lane < count) copy_bulk(c.ring + stage * STAGE_BYTES + c.lane * ROW_STRIDE, row, ROW_BYTES, full, policy);
    if (++stage == c.p.stages) {
      stage = 0;
      parity ^= 1;
      is_first_round = false;
    }
  };
  // The four blocks of a head ask for a quarter each of its state: the whole will be in the cache.
  const auto ask_for_state = [&](int layer) {
    if (c.lane < S::M) {
      constexpr int QUARTER = S::N * HEAD_WIDTH / BLOCKS_PER_HEAD;
      const int place = c.places()[c.lane];
      const int64_t at = (static_cast<int64_t>(place < 0 ? 0 : place) * HEADS + c.head()) * S::N * HEAD_WIDTH + c.block % BLOCKS_PER_HEAD * QUARTER;
      prefetch_bulk((place < 0 ? a.ssm_initial[layer] : a.ssm_state[layer]) + at, QUARTER * 4);
    }
    next += S::M * S::PAUSES.state;
  };
  for (int layer = 0; layer < a.L; layer++) {
    ask_for_state(layer);
    const char* in = static_cast<const char*>(a.in_proj[layer]);
    for (int g = 0; g < 4; g++) copy(in + (g / 2 * INNER + c.block * INNER_OWN + g % 2 * OWN + c.lane) * ROW_BYTES, OWN);
    const int few[3] = {c.block % S::N, S::N + c.block % S::N, 2 * S::N + c.head()};
    copy(in + (2 * INNER + few[min(c.lane, 2)]) * ROW_BYTES, 3);
    const char* out = static_cast<const char*>(a.out_proj[layer]) + (c.block * OWN + c.lane) * OUT_STAGES * ROW_BYTES;
    for (int g = 0; g < OUT_STAGES; g++) copy(out + g * ROW_BYTES, OWN);
  }
}

}  // namespace mblm::cuda::mamba
