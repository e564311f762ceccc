// What a stage reads: embedded patches and bytes, with their positions and contexts.
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

void embed_patch(const EmbedPatch& a, Stream) {
  const int64_t width = a.S * a.D;
  std::vector<float> patch(width);
  for (int64_t m = 0; m < a.M; m++) {
    for (int64_t s = 0; s < a.S; s++) {
      const int64_t id = a.ids[m * a.S + s];
      for (int64_t d = 0; d < a.D; d++) patch[s * a.D + d] = load(a.table, a.type, id * a.D + d);
    }
    layer_norm(patch.data(), a.gain, a.beta, width);
    for (int64_t k = 0; k < width; k++) store(a.y, a.type, m * width + k, patch[k]);
  }
}

void stage_input(const StageInput& a, Stream) {
  const int64_t T = a.R == 0 ? 0 : a.M / a.R;
  for (int64_t m = 0; m < a.M; m++) {
    const int64_t r = m / T, position = a.position[r] + m % T;
    float* x = a.x + m * a.D;
    for (int64_t d = 0; d < a.D; d++) x[d] = load(a.e, a.type, m * a.D + d) + a.bias[d];
    layer_norm(x, a.gain, a.beta, a.D);
    if (a.rope) rotate_interleaved(x, position, a.D);
    if (a.pos_table != nullptr) {
      for (int64_t d = 0; d < a.D; d++) x[d] += a.pos_table[position * a.D + d];
    }
    if (a.contexts != nullptr) {
      const int64_t vector = a.slot[r] * a.children + position;
      for (int64_t d = 0; d < a.D; d++) x[d] += load(a.contexts, a.type, vector * a.D + d);
    }
  }
}

void local_input(const LocalInput& a, Stream) {
  for (int64_t b = 0; b < a.B; b++) {
    float* x = a.x + b * a.D;
    for (int64_t d = 0; d < a.D; d++) x[d] = load(a.table, a.type, a.ids[b] * a.D + d);
    if (a.rope) rotate_interleaved(x, a.position, a.D);
    if (a.pos_table != nullptr) {
      for (int64_t d = 0; d < a.D; d++) x[d] += a.pos_table[a.position * a.D + d];
    }
    const int64_t vector = a.slot[b] * a.children + a.position;
    for (int64_t d = 0; d < a.D; d++) x[d] += load(a.contexts, a.type, vector * a.D + d);
  }
}

}  // namespace mblm
