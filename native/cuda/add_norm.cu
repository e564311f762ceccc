#include "row_norm.cuh"

namespace mblm {
namespace {

using namespace cuda;

struct Previous {
  const float* row;
  template <int VEC>
  __device__ __forceinline__ void read(int64_t k, float (&out)[VEC]) const {
    load(out, row + k);
  }
};

template <typename T, int VEC>
__global__ void __launch_bounds__(ROW_THREADS) add_norm_kernel(const AddNorm a) {
  __shared__ float scratch[ROW_THREADS / WARP];
  release_successor();
  wait_for_predecessor();
  const int64_t m = blockIdx.x;
  const T* delta = static_cast<const T*>(a.delta);
  const RowSum<T> own{a.x + m * a.K, delta == nullptr ? nullptr : delta + m * a.K, a.bias};
  const Previous previous{a.prev == nullptr ? nullptr : a.prev + (a.prev_rows == 1 ? 0 : m) * a.K};
  norm_row<T, VEC>(a.K, a.norm, own, a.prev != nullptr, previous, a.gain, a.sum + m * a.K, static_cast<T*>(a.h) + m * a.K, scratch);
}

}  // namespace

void add_norm(const AddNorm& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    launch("AddNorm", has_wide_rows(a.K) ? add_norm_kernel<T, 4> : add_norm_kernel<T, 1>, a.M, ROW_THREADS, 0, stream, a);
  });
}

}  // namespace mblm
