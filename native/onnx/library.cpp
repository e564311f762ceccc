// The library as ONNX Runtime loads it: one custom operator per definition and work type, in the domain "mblm".
#include <deque>
#include <exception>
#include <memory>
#include <mutex>

#include "call.h"

namespace mblm::onnx {

namespace {

/// The members that ONNX Runtime knows, then ours.
struct Operator : OrtCustomOp {
  const Definition* definition;
  DType type;
  std::string name;
};

const Operator& self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

/// ONNXTensorElementDataType.
int element_type(Element element, DType type) {
  switch (element) {
    case Element::work: return int(type);
    case Element::f32: return 1;
    case Element::u8: return 2;
    case Element::i32: return 6;
    case Element::f64: return 11;
    case Element::any: return 0;
  }
  return 0;
}

OrtStatus* failure(const OrtApi* api, int code, const std::string& message) { return CreateStatus(api, code, message.c_str()); }

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  const Operator& it = self(op);
  auto created = std::make_unique<Kernel>(Kernel{api, it.definition, it.name.c_str(), it.type, {}});
  for (size_t i = 0; i < it.definition->attributes.size(); i++) {
    const auto& [name, has_default] = it.definition->attributes[i];
    OrtStatus* status = KernelInfoGetAttribute_int64(api, info, name, &created->attributes[i]);
    if (status == nullptr) continue;
    release(api, status);
    if (!has_default) return failure(api, INVALID_ARGUMENT, it.name + ": attribute " + name + " is missing");
    created->attributes[i] = 0;
  }
  *kernel = created.release();
  return nullptr;
}

OrtStatus* compute(void* opaque, OrtKernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(opaque);
  try {
    Call call(kernel, context);
    kernel.definition->run(call);
    const char* error = take_error();
    return error == nullptr ? nullptr : failure(kernel.api, RUNTIME_EXCEPTION, std::string(kernel.name) + ": " + error);
  } catch (const CallError& error) {
    return failure(kernel.api, INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return failure(kernel.api, RUNTIME_EXCEPTION, std::string(kernel.name) + ": " + error.what());
  }
}

Operator make_operator(const Definition& definition, DType type, const char* suffix) {
  Operator it{};
  it.version = API_VERSION;
  it.definition = &definition;
  it.type = type;
  it.name = std::string(definition.name) + suffix;
  it.GetName = [](const OrtCustomOp* op) { return self(op).name.c_str(); };
#ifdef MBLM_CUDA
  it.GetExecutionProviderType = [](const OrtCustomOp*) { return "CUDAExecutionProvider"; };
#else
  it.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
#endif
  it.GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).definition->inputs.size(); };
  it.GetInputType = [](const OrtCustomOp* op, size_t i) {
    return element_type(self(op).definition->inputs[i].element, self(op).type);
  };
  it.GetInputCharacteristic = [](const OrtCustomOp* op, size_t i) { return self(op).definition->inputs[i].characteristic; };
  it.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return MEMORY_OF_PROVIDER; };
  it.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  it.GetVariadicInputHomogeneity = [](const OrtCustomOp* op) { return self(op).definition->inputs.back().element == Element::any ? 0 : 1; };
  it.GetOutputTypeCount = [](const OrtCustomOp* op) { return self(op).definition->outputs.size(); };
  it.GetOutputType = [](const OrtCustomOp* op, size_t i) {
    return element_type(self(op).definition->outputs[i].element, self(op).type);
  };
  it.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return Characteristic::required; };
  it.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  it.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  it.CreateKernelV2 = create_kernel;
  it.KernelComputeV2 = compute;
  it.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  it.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  return it;
}

/// The domain's operators; their addresses must not change as long as a session exists.
const std::deque<Operator>& operators() {
  static const std::deque<Operator> all = [] {
    std::deque<Operator> list;
    for (const Definition& definition : definitions()) {
      if (definition.has_work_type) {
        list.push_back(make_operator(definition, DType::f32, "_f32"));
        list.push_back(make_operator(definition, DType::f16, "_f16"));
        list.push_back(make_operator(definition, DType::bf16, "_bf16"));
      } else {
        list.push_back(make_operator(definition, DType::f32, ""));
      }
    }
    return list;
  }();
  return all;
}

/// Made once and never released: sessions refer to it until the process ends.
OrtStatus* domain_of(const OrtApi* api, OrtCustomOpDomain** result) {
  static std::mutex mutex;
  static OrtCustomOpDomain* domain = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (domain == nullptr) {
    OrtCustomOpDomain* created = nullptr;
    if (OrtStatus* status = CreateCustomOpDomain(api, "mblm", &created)) return status;
    for (const Operator& it : operators()) {
      if (OrtStatus* status = CustomOpDomain_Add(api, created, &it)) return status;
    }
    domain = created;
  }
  *result = domain;
  return nullptr;
}

}  // namespace

}  // namespace mblm::onnx

/// What RegisterCustomOpsLibrary_V2 calls.
extern "C" mblm::onnx::OrtStatus* RegisterCustomOps(mblm::onnx::OrtSessionOptions* options,
                                                    const mblm::onnx::OrtApiBase* base) {
  using namespace mblm::onnx;
  const OrtApi* api = base->GetApi(API_VERSION);
  if (api == nullptr) {  // no table to make a newer version's status with, but every version has the first entries
    return CreateStatus(base->GetApi(1), RUNTIME_EXCEPTION, "the operators of mblm need ONNX Runtime 1.24 or later");
  }
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* status = domain_of(api, &domain)) return status;
  return AddCustomOpDomain(api, options, domain);
}
