#include "matvec.cuh"

namespace mblm {

void linear(const Linear& a, Stream stream) {
  using namespace cuda::matvec;
  Problem p{};
  p.M = static_cast<int>(a.M), p.N = static_cast<int>(a.N), p.K = a.K;
  p.gelu = a.gelu;
  p.x = a.x, p.w = a.w, p.bias = a.bias, p.y = a.y;
  run<Kind::linear>("Linear", a.type, p, stream);
}

}  // namespace mblm
