#include "rotary.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int THREADS = 128;

template <typename T, int PAIR>
__global__ void __launch_bounds__(THREADS) local_input_kernel(const LocalInput a) {
  release_successor();
  wait_for_predecessor();
  const int64_t b = blockIdx.y;
  const int64_t k = (blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x) * PAIR;
  if (k >= a.D) return;
  const int64_t id = min(max(static_cast<int64_t>(a.ids[b]), int64_t{0}), a.V - 1);
  float values[PAIR], context[PAIR];
  load(values, static_cast<const T*>(a.table) + id * a.D + k);
  load(context, static_cast<const T*>(a.contexts) + (a.slot[b] * a.children + a.position) * a.D + k);
  if constexpr (PAIR == 2) {
    if (a.rope) rotate_pair(values[0], values[1], rope_angle(a.position, k / 2, a.D));
  }
  if (a.pos_table != nullptr) {
    float row[PAIR];
    load(row, a.pos_table + a.position * a.D + k);
#pragma unroll
    for (int i = 0; i < PAIR; i++) values[i] += row[i];
  }
#pragma unroll
  for (int i = 0; i < PAIR; i++) values[i] += context[i];
  store(a.x + b * a.D + k, values);
}

}  // namespace

void local_input(const LocalInput& a, Stream stream) {
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const int pair = a.D % 2 == 0 ? 2 : 1;
    launch("LocalInput", pair == 2 ? local_input_kernel<T, 2> : local_input_kernel<T, 1>, dim3(divide_up(a.D, THREADS * pair), a.B), THREADS, 0, stream,
           a);
  });
}

}  // namespace mblm
