#include "../ops.h"

namespace mblm {

const char* take_error() { return nullptr; }

}  // namespace mblm
