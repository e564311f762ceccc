#include "call.h"

#include <algorithm>
#include <cstring>

namespace mblm::onnx {

namespace {

std::string shape_text(const int64_t* dims, size_t rank) {
  std::string text = "[";
  for (size_t axis = 0; axis < rank; axis++) text += (axis == 0 ? "" : ", ") + std::to_string(dims[axis]);
  return text + "]";
}

std::string letters(const char* shape) {
  std::string text = "[";
  for (const char* letter = shape; *letter != '\0'; letter++) text += (letter == shape ? "" : ", ") + std::string(1, *letter);
  return text + "]";
}

}  // namespace

void check(const OrtApi* api, OrtStatus* status) {
  if (status == nullptr) return;
  release(api, status);
  throw CallError("ONNX Runtime did not give what every operator may ask for");
}

Call::Call(const Kernel& kernel, OrtKernelContext* context) : kernel_(kernel), context_(context) {
  std::fill(std::begin(dims_), std::end(dims_), UNKNOWN);
  check(kernel.api, KernelContext_GetInputCount(kernel.api, context, &num_inputs_));
  for (size_t index = 0; index < num_inputs_; index++) bind(index);
}

const Port& Call::port_of(size_t index) const {
  const auto& inputs = kernel_.definition->inputs;
  return inputs[std::min(index, inputs.size() - 1)];
}

const OrtValue* Call::value(size_t index) const {
  if (index >= num_inputs_) return nullptr;
  const OrtValue* value = nullptr;
  check(kernel_.api, KernelContext_GetInput(kernel_.api, context_, index, &value));
  return value;
}

void Call::bind(size_t index) {
  const OrtValue* tensor = value(index);
  if (tensor == nullptr) return;
  const Port& port = port_of(index);
  if (port.shape == ANY_SHAPE) return;
  int element;
  const int64_t* dims = nullptr;
  size_t rank = 0;
  check(kernel_.api, GetTensorElementTypeAndShapeDataReference(kernel_.api, tensor, &element, &dims, &rank));
  bool fits = rank == std::strlen(port.shape);
  for (size_t axis = 0; fits && port.shape != ANY_MATRIX && axis < rank; axis++) {
    int64_t& size = dims_[index_of(port.shape[axis])];
    if (size == UNKNOWN) size = dims[axis];
    fits = size == dims[axis];
  }
  if (fits) return;
  std::string known;
  for (const char* letter = port.shape; port.shape != ANY_MATRIX && *letter != '\0'; letter++) {
    const int64_t size = dims_[index_of(*letter)];
    if (size != UNKNOWN) known += std::string(known.empty() ? " with " : ", ") + *letter + " = " + std::to_string(size);
  }
  fail("input " + std::string(port.name) + " has shape " + shape_text(dims, rank) + ", must be " + letters(port.shape) + known);
}

int64_t Call::num_variadic() const { return int64_t(num_inputs_) - int64_t(kernel_.definition->inputs.size()) + 1; }

bool Call::is_tensor(int64_t index, DType type, std::initializer_list<int64_t> shape) const {
  int element;
  const int64_t* dims = nullptr;
  size_t rank = 0;
  check(kernel_.api, GetTensorElementTypeAndShapeDataReference(kernel_.api, value(kernel_.definition->inputs.size() - 1 + index), &element, &dims, &rank));
  return element == int(type) && rank == shape.size() && std::equal(shape.begin(), shape.end(), dims);
}

const int64_t* Call::variadic_shape(int64_t index, size_t rank) const {
  int element;
  const int64_t* dims = nullptr;
  size_t own_rank = 0;
  const OrtValue* tensor = value(kernel_.definition->inputs.size() - 1 + index);
  check(kernel_.api, GetTensorElementTypeAndShapeDataReference(kernel_.api, tensor, &element, &dims, &own_rank));
  return own_rank == rank ? dims : nullptr;
}

void Call::require(bool condition, const char* input, const char* what) const {
  if (!condition) fail("input " + std::string(input) + ": " + what);
}

int64_t Call::steps() const {
  const int64_t M = dim('M'), R = dim('R');
  require(R == 0 ? M == 0 : M % R == 0, "slot", "M must be a multiple of R");
  return R == 0 ? 0 : M / R;
}

void Call::require_below(int64_t limit, const char* input, const int32_t* values, int64_t count) const {
#ifndef MBLM_CUDA
  for (int64_t i = 0; i < count; i++) {
    if (values[i] >= 0 && values[i] < limit) continue;
    fail("input " + std::string(input) + " holds " + std::to_string(values[i]) + ", must be at least 0 and below " +
         std::to_string(limit));
  }
#else
  (void)limit, (void)input, (void)values, (void)count;
#endif
}

Stream Call::stream() const {
  Stream stream = nullptr;
#ifdef MBLM_CUDA
  check(kernel_.api, KernelContext_GetGPUComputeStream(kernel_.api, context_, &stream));
#endif
  return stream;
}

void Call::fail(const std::string& what) const { throw CallError(std::string(kernel_.name) + ": " + what); }

void* Call::input(size_t index) {
  const OrtValue* tensor = value(index);
  if (tensor == nullptr) return nullptr;
  void* data = nullptr;
  check(kernel_.api, GetTensorMutableData(kernel_.api, const_cast<OrtValue*>(tensor), &data));
  return data;
}

void* Call::output(size_t index) {
  const Port& port = kernel_.definition->outputs[index];
  const size_t rank = std::strlen(port.shape);
  int64_t dims[8];
  for (size_t axis = 0; axis < rank; axis++) dims[axis] = dim(port.shape[axis]);
  OrtValue* tensor = nullptr;
  check(kernel_.api, KernelContext_GetOutput(kernel_.api, context_, index, dims, rank, &tensor));
  if (tensor == nullptr) fail("output " + std::string(port.name) + " is missing");
  void* data = nullptr;
  check(kernel_.api, GetTensorMutableData(kernel_.api, tensor, &data));
  return data;
}

}  // namespace mblm::onnx
