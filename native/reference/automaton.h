// The automaton's tables behind PatchRow::automaton, as src/core/byte-automaton.ts.
#pragma once
#include <cstdint>

#include "../ops.h"

namespace mblm::reference {

struct Automaton {
  static constexpr int32_t NO_STATE = 65535;

  const uint32_t* distance;  // [states]
  const uint16_t* next;      // [states · classes]
  const uint8_t* classes;    // [256]
  const uint8_t* accepting;  // [states]
  int32_t num_classes;

  explicit Automaton(const PatchRow& row)
      : distance(reinterpret_cast<const uint32_t*>(row.automaton)),
        next(reinterpret_cast<const uint16_t*>(distance + row.automaton_states)),
        classes(reinterpret_cast<const uint8_t*>(next + int64_t(row.automaton_states) * row.automaton_classes)),
        accepting(classes + 256),
        num_classes(row.automaton_classes) {}

  int32_t next_state(int32_t state, int64_t id) const {
    return id < 256 ? next[int64_t(state) * num_classes + classes[id]] : NO_STATE;
  }
};

}  // namespace mblm::reference
