/**
 * Positions in ONNX Runtime's function table (`struct OrtApi`). The table is append-only: a position never changes once it
 * has been released, so asking for an older version of it from a newer library is safe.
 */
export const ORT_API_VERSION = 24;

type Signature = readonly [index: number, result: string, parameters: readonly string[]];

/** A pointer result of `void *` is an OrtStatus, null on success, unless the name says otherwise. */
export const ORT_API = {
  GetErrorCode: [1, "int", ["void *"]],
  GetErrorMessage: [2, "const char *", ["void *"]],
  CreateEnv: [3, "void *", ["int", "const char *", "_Out_ void **"]],
  CreateSession: [7, "void *", ["void *", "const char *", "void *", "_Out_ void **"]],
  CreateSessionOptions: [10, "void *", ["_Out_ void **"]],
  SetSessionLogSeverityLevel: [22, "void *", ["void *", "int"]],
  SetSessionGraphOptimizationLevel: [23, "void *", ["void *", "int"]],
  SetIntraOpNumThreads: [24, "void *", ["void *", "int"]],
  SetInterOpNumThreads: [25, "void *", ["void *", "int"]],
  SessionGetInputCount: [30, "void *", ["void *", "_Out_ size_t *"]],
  SessionGetOutputCount: [31, "void *", ["void *", "_Out_ size_t *"]],
  SessionGetInputName: [36, "void *", ["void *", "size_t", "void *", "_Out_ void **"]],
  SessionGetOutputName: [37, "void *", ["void *", "size_t", "void *", "_Out_ void **"]],
  CreateRunOptions: [39, "void *", ["_Out_ void **"]],
  CreateTensorWithDataAsOrtValue: [
    49,
    "void *",
    ["void *", "void *", "size_t", "int64_t *", "size_t", "int", "_Out_ void **"],
  ],
  CreateMemoryInfo: [68, "void *", ["const char *", "int", "int", "int", "_Out_ void **"]],
  CreateCpuMemoryInfo: [69, "void *", ["int", "int", "_Out_ void **"]],
  AllocatorFree: [76, "void *", ["void *", "void *"]],
  GetAllocatorWithDefaultOptions: [78, "void *", ["_Out_ void **"]],
  ReleaseEnv: [92, "void", ["void *"]],
  ReleaseStatus: [93, "void", ["void *"]],
  ReleaseMemoryInfo: [94, "void", ["void *"]],
  ReleaseSession: [95, "void", ["void *"]],
  ReleaseValue: [96, "void", ["void *"]],
  ReleaseRunOptions: [97, "void", ["void *"]],
  ReleaseSessionOptions: [100, "void", ["void *"]],
  AddSessionConfigEntry: [130, "void *", ["void *", "const char *", "const char *"]],
  RunWithBinding: [133, "void *", ["void *", "void *", "void *"]],
  CreateIoBinding: [134, "void *", ["void *", "_Out_ void **"]],
  ReleaseIoBinding: [135, "void", ["void *"]],
  BindInput: [136, "void *", ["void *", "const char *", "void *"]],
  BindOutput: [137, "void *", ["void *", "const char *", "void *"]],
  AddRunConfigEntry: [165, "void *", ["void *", "const char *", "const char *"]],
  SessionOptionsAppendExecutionProvider_CUDA_V2: [204, "void *", ["void *", "void *"]],
  CreateCUDAProviderOptions: [205, "void *", ["_Out_ void **"]],
  UpdateCUDAProviderOptions: [206, "void *", ["void *", "const char **", "const char **", "size_t"]],
  ReleaseCUDAProviderOptions: [208, "void", ["void *"]],
  RegisterCustomOpsLibrary_V2: [228, "void *", ["void *", "const char *"]],
} as const satisfies Record<string, Signature>;

export type OrtFunctionName = keyof typeof ORT_API;
