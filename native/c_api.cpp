// The operators with C names and pointer arguments, so that a test can load either library and call it through ctypes.
#include "ops.h"

#define MBLM_C_API(name, Arguments) \
  extern "C" void mblm_##name(const mblm::Arguments* arguments, mblm::Stream stream) { mblm::name(*arguments, stream); }

MBLM_C_API(embed_patch, EmbedPatch)
MBLM_C_API(stage_input, StageInput)
MBLM_C_API(local_input, LocalInput)
MBLM_C_API(norm_linear, NormLinear)
MBLM_C_API(linear, Linear)
MBLM_C_API(linear_add, LinearAdd)
MBLM_C_API(add_norm, AddNorm)
MBLM_C_API(shift_norm, ShiftNorm)
MBLM_C_API(bias_gelu, BiasGelu)
MBLM_C_API(patch_attention, PatchAttention)
MBLM_C_API(cached_attention, CachedAttention)
MBLM_C_API(causal_conv, CausalConv)
MBLM_C_API(ssm_scan, SsmScan)
MBLM_C_API(gated_norm, GatedNorm)
MBLM_C_API(store_rows, StoreRows)
MBLM_C_API(sample, Sample)
MBLM_C_API(local_patch, LocalPatch)
MBLM_C_API(mamba_step, MambaStep)

extern "C" const char* mblm_take_error() { return mblm::take_error(); }
