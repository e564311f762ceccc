#include "launch.h"

#include <cstdlib>
#include <string>

namespace mblm::cuda {
namespace {

thread_local std::string first_error;
thread_local std::string taken_error;

bool detect_programmatic_launch() {
  const char* off = std::getenv("MBLM_NO_PDL");
  if (off != nullptr && off[0] == '1') return false;
  int device = 0;
  int major = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) return false;
  return major >= 9;
}

}  // namespace

void record_error(cudaError_t error, const char* kernel) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // not sticky: the next launch starts clean
  if (first_error.empty()) first_error = std::string(kernel) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error);
}

void record_refusal(const std::string& what) {
  if (first_error.empty()) first_error = what;
}

bool has_programmatic_launch() {
  static const bool has = detect_programmatic_launch();
  return has;
}

}  // namespace mblm::cuda

namespace mblm {

const char* take_error() {
  if (cuda::first_error.empty()) return nullptr;
  cuda::taken_error.swap(cuda::first_error);
  cuda::first_error.clear();
  return cuda::taken_error.c_str();
}

}  // namespace mblm
