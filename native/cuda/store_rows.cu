#include "device.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int THREADS = 256;

/// Copies of any element type: rows of `width` words.
template <typename Word>
__global__ void __launch_bounds__(THREADS) store_rows_kernel(const StoreRows a, int64_t width) {
  release_successor();
  wait_for_predecessor();
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *a.done = 1;
  const int64_t k = blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x;
  const int64_t m = blockIdx.y;
  if (m < a.M && k < width) static_cast<Word*>(a.dst)[a.row[m] * width + k] = static_cast<const Word*>(a.src)[m * width + k];
}

}  // namespace

void store_rows(const StoreRows& a, Stream stream) {
  const int64_t rows = a.M > 0 ? a.M : 1;  // without rows there is still `done` to set
  const int64_t bytes = a.W * (a.type == DType::f32 ? 4 : 2);
  if (bytes % 16 == 0) {
    const int64_t width = bytes / 16;
    launch("StoreRows", store_rows_kernel<uint4>, dim3(divide_up(width, THREADS), rows), THREADS, 0, stream, a, width);
  } else {
    const int64_t width = bytes / 2;
    launch("StoreRows", store_rows_kernel<uint16_t>, dim3(divide_up(width, THREADS), rows), THREADS, 0, stream, a, width);
  }
}

}  // namespace mblm
