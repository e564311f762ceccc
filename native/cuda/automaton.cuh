// A byte automaton in device memory, as src/core/byte-automaton.ts; its layout is said in ops.h.
#pragma once
#include "../ops.h"

namespace mblm::cuda {

constexpr int NO_STATE = 65535;

struct Automaton {
  const uint32_t* distance;
  const uint16_t* next;
  const uint8_t* classes;
  const uint8_t* accepting;
  int num_classes;

  __device__ explicit Automaton(const PatchRow& row) {
    const int64_t states = row.automaton_states;
    num_classes = row.automaton_classes;
    distance = reinterpret_cast<const uint32_t*>(row.automaton);
    next = reinterpret_cast<const uint16_t*>(distance + states);
    classes = reinterpret_cast<const uint8_t*>(next + states * num_classes);
    accepting = classes + 256;
  }

  /// The state after one more id; NO_STATE where no match goes on that way.
  __device__ int after(int state, int id) const { return id < 256 ? next[static_cast<int64_t>(state) * num_classes + classes[id]] : NO_STATE; }

  /// Whether `id` may come next when `num_left` ids may still be generated, it included.
  __device__ bool allows(int state, int id, int num_left, bool may_end, bool is_end_id, bool can_end_by_mismatch) const {
    const bool is_end_allowed = may_end && accepting[state] == 1;
    if (is_end_allowed && is_end_id) return true;
    const int following = after(state, id);
    if (following == NO_STATE) return is_end_allowed && can_end_by_mismatch;
    return static_cast<int64_t>(distance[following]) <= static_cast<int64_t>(num_left) - 1;
  }
};

}  // namespace mblm::cuda
