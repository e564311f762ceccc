// How kernels are launched: on the caller's stream, with launch errors kept for `take_error`.
//
// With MBLM_PDL (the default), kernels are launched as programmatic dependents: their blocks may become resident while the kernel before them still
// runs, fetch what no kernel writes (weights), and then wait for it (`wait_for_predecessor` in device.cuh). The rules that make this safe:
// every block executes the wait; nothing that a kernel produced is read, and nothing at all is written, before it. As a kernel completes only after
// its own wait, "the predecessor has completed" includes all earlier ones. A predecessor of another library never triggers early: then the wait is
// the ordinary dependency.
#pragma once
#include <cuda_runtime.h>

#include <string>
#include <utility>

#include "../ops.h"

#ifndef MBLM_PDL
#define MBLM_PDL 1
#endif

namespace mblm::cuda {

/// Keeps the first error of this thread until `take_error`.
void record_error(cudaError_t error, const char* kernel);

/// As an error: what a kernel cannot do, in words.
void record_refusal(const std::string& what);

/// Whether the current device knows programmatic dependent launch (compute capability 9 and up), and nobody switched it off (MBLM_NO_PDL=1).
bool has_programmatic_launch();

/// Launches with `shared_bytes` of dynamic shared memory; above 48 KB the kernel's limit is raised first.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return record_error(error, name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
#if MBLM_PDL
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  if (has_programmatic_launch()) {
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
#endif
  record_error(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...), name);
}

}  // namespace mblm::cuda
