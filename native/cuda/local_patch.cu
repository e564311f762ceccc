// Which kernel runs a call of LocalPatch, and why none can.
#include <string>

#include "local_patch_shapes.h"
#include "resident.cuh"

namespace mblm {
namespace {

using namespace cuda;
using namespace cuda::patch;
using cuda::resident::problem_of_device;

struct CompiledShape {
  int width, ff, head;
  void (*run)(const LocalPatch&, Stream);
};

// Written by scripts/build-native.mjs: SHAPE(width, ff, head) for each that is compiled.
constexpr CompiledShape COMPILED[] = {
#define SHAPE(width, ff, head) {width, ff, head, local_patch_of<width, ff, head>},
#include <local_patch_compiled.h>
#undef SHAPE
};

std::string number(int64_t value) { return std::to_string(value); }

/// Sizes that no kernel of this kind has; empty when there could be one.
std::string problem_of_sizes(const LocalPatch& a) {
  if (a.type != DType::f16) return "its weights must be float16";
  if (a.D % 128 != 0 || a.D > 1024) return "its width must be a multiple of 128, at most 1024; it is " + number(a.D);
  if (a.H * a.d != a.D || (a.d != 32 && a.d != 64 && a.d != 128)) {
    return "its heads must have 32, 64 or 128 channels, together the width; they are " + number(a.H) + " of " + number(a.d) + ", the width is " + number(a.D);
  }
  if (a.F % a.D != 0 || a.F > 4 * a.D) {
    return "its feed-forward must be 1, 2, 3 or 4 times as wide as the stage (" + number(a.D) + "); it is " + number(a.F) + " wide";
  }
  if (a.P > MAX_PATCH || a.V > 512 || a.L > MAX_LOCAL_LAYERS) {
    return "patches may have 32 bytes, the vocabulary 512 ids, the stage 32 layers at most; they have " + number(a.P) + ", " + number(a.V) + ", " + number(a.L);
  }
  return a.B == 1 || a.B == 2 || a.B == 4 || a.B == 8 ? "" : "rows must be 1, 2, 4 or 8";
}

const CompiledShape* find_shape(const LocalPatch& a) {
  for (const CompiledShape& shape : COMPILED) {
    if (shape.width == a.D && shape.ff * a.D == a.F && shape.head == a.d) return &shape;
  }
  return nullptr;
}

/// What stands against the call; empty when nothing does. Of what there is no GPU for, sizes are told first.
std::string problem_of(const LocalPatch& a) {
  int device = 0;
  const std::string of_device = problem_of_device(static_cast<int>(a.D < 1024 ? a.D : 1024) / 8);
  const bool has_device = cudaGetDevice(&device) == cudaSuccess;
  if (has_device && !of_device.empty()) return of_device;
  const std::string of_sizes = problem_of_sizes(a);
  if (!of_sizes.empty()) return of_sizes;
  if (find_shape(a) == nullptr) {
    return "this library has no kernel for a width of " + number(a.D) + " with a feed-forward of " + number(a.F) + " and heads of " + number(a.d) +
           " channels; to add one: node scripts/build-native.mjs cuda --install --shape width=" + number(a.D) + ",ff=" + number(a.F / a.D) +
           ",head=" + number(a.d);
  }
  return of_device;
}

}  // namespace

void local_patch(const LocalPatch& a, Stream stream) {
  const std::string problem = problem_of(a);
  if (!problem.empty()) return record_refusal("LocalPatch: " + problem);
  find_shape(a)->run(a, stream);
}

}  // namespace mblm
