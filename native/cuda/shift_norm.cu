#include "row_norm.cuh"

namespace mblm {
namespace {

using namespace cuda;

/// The row before: of the same sequence (`has_row`), else the kept state.
template <typename T>
struct Before {
  bool has_row;
  RowSum<T> row;
  const float* state;
  template <int VEC>
  __device__ __forceinline__ void read(int64_t k, float (&out)[VEC]) const {
    if (has_row) {
      row.read(k, out);
    } else {
      load(out, state + k);
    }
  }
};

template <typename T, int VEC>
__global__ void __launch_bounds__(ROW_THREADS) shift_norm_kernel(const ShiftNorm a) {
  __shared__ float scratch[ROW_THREADS / WARP];
  release_successor();
  wait_for_predecessor();
  const int64_t m = blockIdx.x;
  const int64_t T_steps = a.M / a.R;
  const int64_t r = m / T_steps;
  const int64_t t = m % T_steps;
  const T* delta = static_cast<const T*>(a.delta);
  const auto row_sum = [&](int64_t row) { return RowSum<T>{a.x + row * a.K, delta == nullptr ? nullptr : delta + row * a.K, a.bias}; };
  float* state = a.state + a.slot[r] * a.K;
  const Before<T> before{t > 0, row_sum(t > 0 ? m - 1 : m), a.position[r] == 0 ? a.initial : state};
  float* sum = a.sum + m * a.K;
  norm_row<T, VEC>(a.K, Norm::clamp, row_sum(m), true, before, a.gain, sum, static_cast<T*>(a.h) + m * a.K, scratch);
  if (T_steps > 1) return;  // another block may still have to read the state
  // Each thread stores the channels that it alone has read and summed.
  for (int64_t k = threadIdx.x * VEC; k < a.K; k += ROW_THREADS * VEC) {
    float values[VEC];
    load(values, sum + k);
    store(state + k, values);
  }
}

/// state[slot[r]] = sum of the sequence's last step.
__global__ void __launch_bounds__(ROW_THREADS) keep_last_kernel(const ShiftNorm a) {
  release_successor();
  wait_for_predecessor();
  const int64_t r = blockIdx.y;
  const int64_t k = blockIdx.x * static_cast<int64_t>(ROW_THREADS) + threadIdx.x;
  if (k < a.K) a.state[a.slot[r] * a.K + k] = a.sum[((r + 1) * (a.M / a.R) - 1) * a.K + k];
}

}  // namespace

void shift_norm(const ShiftNorm& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    launch("ShiftNorm", has_wide_rows(a.K) ? shift_norm_kernel<T, 4> : shift_norm_kernel<T, 1>, a.M, ROW_THREADS, 0, stream, a);
  });
  if (a.M > a.R) launch("ShiftNorm: state", keep_last_kernel, dim3(divide_up(a.K, ROW_THREADS), a.R), ROW_THREADS, 0, stream, a);
}

}  // namespace mblm
