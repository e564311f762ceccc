#include "matvec.cuh"

namespace mblm {

void linear_add(const LinearAdd& a, Stream stream) {
  using namespace cuda::matvec;
  Problem p{};
  p.M = static_cast<int>(a.M), p.N = static_cast<int>(a.N), p.K = a.K;
  p.x = a.x, p.w = a.w, p.bias = a.bias, p.residual = a.residual, p.y = a.y;
  run<Kind::linear_add>("LinearAdd", a.type, p, stream);
}

}  // namespace mblm
