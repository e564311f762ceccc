// The shapes of local stages that this library has a kernel for. scripts/build-native.mjs compiles local_patch_shape.cu once for each.
#pragma once
#include "launch.h"

namespace mblm::cuda::patch {

/// Launches the kernel of this shape, for 1, 2, 4 or 8 rows. FF: channels of the feed-forward for each of the width's; HEAD: channels of a head.
template <int WIDTH, int FF, int HEAD>
void local_patch_of(const LocalPatch& a, Stream stream);

}  // namespace mblm::cuda::patch
