// A whole local patch: the operators that the exporter would otherwise put into the graph, one after the other.
#include <algorithm>
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

namespace {

/// `count` elements of the work type.
std::vector<char> work_buffer(DType type, int64_t count) { return std::vector<char>(count * size_of(type)); }

const void* element(const void* data, DType type, int64_t index) { return static_cast<const char*>(data) + index * size_of(type); }

/// What the layers of one stage keep from byte to byte.
struct Layer {
  const float* attention_prev;  // [prev_rows, D] the row that the next byte's second half comes from
  const float* hidden_prev;
  int64_t prev_rows = 1;
  std::vector<std::vector<char>> qkv;  // of every byte so far
};

}  // namespace

void local_patch(const LocalPatch& a, Stream stream) {
  const int64_t heads = a.H * a.d;
  std::vector<Layer> layers(a.L);
  const auto vectors = [&](int64_t layer) { return a.vectors + layer * (5 * a.D + a.F); };
  for (int64_t l = 0; l < a.L; l++) layers[l].attention_prev = vectors(l) + a.D, layers[l].hidden_prev = vectors(l) + 3 * a.D;
  // What entered the products of the byte before and of this one.
  std::vector<std::vector<float>> entered[2];
  for (auto& rows : entered) rows.assign(2 * a.L, std::vector<float>(a.B * a.D));
  std::vector<float> x(a.B * a.D), logits(a.B * a.V);
  std::vector<char> attended = work_buffer(a.type, a.B * heads), hidden = work_buffer(a.type, a.B * a.F);
  std::vector<int32_t> ids(a.first, a.first + a.B);

  for (int64_t j = 0; j < a.P; j++) {
    LocalInput input{a.type, a.B, a.D, a.V, a.children, j, false, ids.data(), a.slot, a.table, a.contexts, a.pos_table, x.data()};
    local_input(input, stream);
    auto& rows = entered[j % 2];
    for (int64_t l = 0; l < a.L; l++) {
      Layer& layer = layers[l];
      const void* const* matrix = a.matrices + 4 * l;
      rows[2 * l] = x;
      layer.qkv.push_back(work_buffer(a.type, a.B * 3 * heads));
      norm_linear({a.type, a.B, a.D, 3 * heads, Norm::clamp, false, x.data(), vectors(l), matrix[0], nullptr, layer.attention_prev, layer.prev_rows,
                   layer.qkv.back().data()},
                  stream);
      PatchAttention attention{};
      attention.type = a.type, attention.B = a.B, attention.H = a.H, attention.d = a.d, attention.count = j + 1;
      attention.start_k = element(a.starts, a.type, 2 * l * heads);
      attention.start_v = element(a.starts, a.type, (2 * l + 1) * heads);
      attention.cos = a.cos, attention.sin = a.sin, attention.y = attended.data();
      for (int64_t i = 0; i <= j; i++) attention.qkv[i] = layer.qkv[i].data();
      patch_attention(attention, stream);
      linear_add({a.type, a.B, heads, a.D, attended.data(), matrix[1], x.data(), nullptr, x.data()}, stream);
      rows[2 * l + 1] = x;
      norm_linear({a.type, a.B, a.D, a.F, Norm::clamp, true, x.data(), vectors(l) + 2 * a.D, matrix[2], vectors(l) + 5 * a.D, layer.hidden_prev,
                   layer.prev_rows, hidden.data()},
                  stream);
      linear_add({a.type, a.B, a.F, a.D, hidden.data(), matrix[3], x.data(), vectors(l) + 4 * a.D, x.data()}, stream);
      layer.attention_prev = rows[2 * l].data(), layer.hidden_prev = rows[2 * l + 1].data(), layer.prev_rows = a.B;
    }
    norm_linear({DType::f32, a.B, a.D, a.V, Norm::clamp, false, x.data(), a.gain, a.head, a.head_bias, nullptr, 0, logits.data()}, stream);
    sample({a.B, a.V, a.P, j, logits.data(), a.rows, a.forced, a.bias, a.counts, a.id_flags, a.cursor, a.ids_out, a.logits_out, ids.data()}, stream);
  }
  for (int64_t b = 0; b < a.B; b++) a.done[b] = a.ids_out[b * a.P + a.P - 1];
}

}  // namespace mblm
