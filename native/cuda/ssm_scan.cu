#include "ssm_chunk.cuh"
#include "ssm_step.cuh"

namespace mblm {
namespace {

using namespace cuda;

template <typename T, int VEC, int PLACES>
void run(const SsmScan& a, Stream stream) {
  if (a.M == a.R) {
    launch("SsmScan: step", ssm_step_kernel<T, VEC, PLACES>, dim3(a.H, divide_up(a.P, SSM_STEP_LANES * VEC), a.R), SSM_STEP_THREADS, 0, stream, a);
  } else {
    launch("SsmScan: chunk", ssm_chunk_kernel<T, VEC, PLACES>, dim3(a.H, divide_up(a.P, SSM_CHUNK_WARPS * VEC), a.R), SSM_CHUNK_THREADS,
           ssm_chunk_shared_bytes(a.N, VEC), stream, a);
  }
}

template <typename T, int VEC>
void run_places(const SsmScan& a, Stream stream) {
  if (a.N <= SSM_GROUPS) return run<T, VEC, 1>(a, stream);
  if (a.N <= 2 * SSM_GROUPS) return run<T, VEC, 2>(a, stream);
  if (a.N <= 4 * SSM_GROUPS) return run<T, VEC, 4>(a, stream);
  if (a.N <= 8 * SSM_GROUPS) return run<T, VEC, 8>(a, stream);
  record_error(cudaErrorInvalidValue, "SsmScan: state width");
}

}  // namespace

void ssm_scan(const SsmScan& a, Stream stream) {
  if (a.M == 0) return;
  with_type(a.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const bool is_wide = a.P % 4 == 0 && a.N % 2 == 0;
    is_wide ? run_places<T, 4>(a, stream) : run_places<T, 1>(a, stream);
  });
}

}  // namespace mblm
