// The kernels of one shape of a local stage: MBLM_WIDTH, MBLM_FF, MBLM_HEAD.
#include "local_patch_kernel.cuh"

namespace mblm::cuda::patch {

template <int WIDTH, int FF, int HEAD>
void local_patch_of(const LocalPatch& a, Stream stream) {
  switch (a.B) {
    case 1: return launch_patch<Shape<1, WIDTH, FF, HEAD>>(a, stream);
    case 2: return launch_patch<Shape<2, WIDTH, FF, HEAD>>(a, stream);
    case 4: return launch_patch<Shape<4, WIDTH, FF, HEAD>>(a, stream);
    case 8: return launch_patch<Shape<8, WIDTH, FF, HEAD>>(a, stream);
  }
}

template void local_patch_of<MBLM_WIDTH, MBLM_FF, MBLM_HEAD>(const LocalPatch&, Stream);

}  // namespace mblm::cuda::patch
