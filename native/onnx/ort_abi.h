// The part of ONNX Runtime's C ABI that custom operators need. Its function table and this struct are append-only: positions and members
// never change once released, so a library built for one version works with every later one.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mblm::onnx {

struct OrtStatus;  // a null pointer is success
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;

/// Version of the table and of `OrtCustomOp` that is asked for: the first with GetTensorElementTypeAndShapeDataReference.
constexpr uint32_t API_VERSION = 24;

constexpr int INVALID_ARGUMENT = 2, RUNTIME_EXCEPTION = 6;  // OrtErrorCode
constexpr int MEMORY_OF_PROVIDER = 0;                       // OrtMemType
enum class Characteristic : int { required = 0, optional = 1, variadic = 2 };

struct OrtApi;  // a table of functions

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

inline void* function_at(const OrtApi* api, size_t position) {
  return reinterpret_cast<void* const*>(api)[position];
}

/// A function by its position in the table.
template <size_t position, class... Arguments>
struct ApiFunction {
  OrtStatus* operator()(const OrtApi* api, Arguments... arguments) const {
    return reinterpret_cast<OrtStatus* (*)(Arguments...)>(function_at(api, position))(arguments...);
  }
};

inline constexpr ApiFunction<0, int, const char*> CreateStatus;
inline constexpr ApiFunction<26, const char*, OrtCustomOpDomain**> CreateCustomOpDomain;
inline constexpr ApiFunction<27, OrtCustomOpDomain*, const struct OrtCustomOp*> CustomOpDomain_Add;
inline constexpr ApiFunction<28, OrtSessionOptions*, OrtCustomOpDomain*> AddCustomOpDomain;
inline constexpr ApiFunction<51, OrtValue*, void**> GetTensorMutableData;
inline constexpr ApiFunction<86, const OrtKernelInfo*, const char*, int64_t*> KernelInfoGetAttribute_int64;
inline constexpr ApiFunction<88, const OrtKernelContext*, size_t*> KernelContext_GetInputCount;
inline constexpr ApiFunction<90, const OrtKernelContext*, size_t, const OrtValue**> KernelContext_GetInput;
inline constexpr ApiFunction<91, OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**> KernelContext_GetOutput;
inline constexpr ApiFunction<193, const OrtKernelContext*, void**> KernelContext_GetGPUComputeStream;
inline constexpr ApiFunction<414, const OrtValue*, int*, const int64_t**, size_t*> GetTensorElementTypeAndShapeDataReference;

/// ReleaseStatus returns nothing.
inline void release(const OrtApi* api, OrtStatus* status) {
  reinterpret_cast<void (*)(OrtStatus*)>(function_at(api, 93))(status);
}

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  Characteristic (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int** input, int** output);
  void (*ReleaseMayInplace)(int* input, int* output);
  size_t (*GetAliasMap)(int** input, int** output);
  void (*ReleaseAliasMap)(int* input, int* output);
};
static_assert(sizeof(OrtCustomOp) == 26 * sizeof(void*), "one word per member");

}  // namespace mblm::onnx
