// A step through all layers of a Mamba-2 stage: the operators that the exporter would otherwise put into the graph, one after the other.
#include <algorithm>
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

void mamba_step(const MambaStep& a, Stream stream) {
  const int64_t inner = a.H * a.P;
  std::vector<char> u(a.B * a.W * size_of(a.type)), h(a.B * inner * size_of(a.type));
  std::vector<float> xbc(a.B * a.C), y(a.B * inner);
  std::copy_n(a.x, a.B * a.D, a.y);
  const float* vectors = a.vectors;
  const auto take = [&](int64_t count) {
    const float* first = vectors;
    vectors += count;
    return first;
  };
  for (int64_t l = 0; l < a.L; l++) {
    const float *gain = take(a.D), *kernel = take(a.C * a.taps), *bias = take(a.C);
    const float *dt_bias = take(a.H), *decay = take(a.H), *skip = take(a.H), *gated_gain = take(inner);
    norm_linear({a.type, a.B, a.D, a.W, Norm::epsilon, false, a.y, gain, a.in_proj[l], nullptr, nullptr, 0, u.data()}, stream);
    causal_conv({a.type, a.B, a.B, a.W, a.C, a.taps, inner, u.data(), kernel, bias, a.conv_state[l], a.conv_initial[l], a.slot, a.position, xbc.data()},
                stream);
    ssm_scan({a.type, a.B, a.B, a.W, a.H, a.P, a.N, inner + a.C, xbc.data(), u.data(), dt_bias, decay, skip, a.ssm_state[l], a.ssm_initial[l], a.slot,
              a.position, y.data()},
             stream);
    gated_norm({a.type, a.B, a.W, inner, y.data(), u.data(), gated_gain, h.data()}, stream);
    linear_add({a.type, a.B, inner, a.D, h.data(), a.out_proj[l], a.y, nullptr, a.y}, stream);
  }
}

}  // namespace mblm
