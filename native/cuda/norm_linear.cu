#include "matvec.cuh"

namespace mblm {

void norm_linear(const NormLinear& a, Stream stream) {
  using namespace cuda::matvec;
  Problem p{};
  p.M = static_cast<int>(a.M), p.N = static_cast<int>(a.N), p.K = a.K;
  p.norm = a.norm, p.gelu = a.gelu;
  p.x = a.x, p.gain = a.gain, p.w = a.w, p.bias = a.bias;
  p.prev = a.prev, p.prev_rows = static_cast<int>(a.prev_rows);
  p.y = a.y;
  run<Kind::norm_linear>("NormLinear", a.type, p, stream);
}

}  // namespace mblm
