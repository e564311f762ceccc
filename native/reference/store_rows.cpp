#include <cstring>

#include "number_types.h"

namespace mblm {
using namespace reference;

void store_rows(const StoreRows& a, Stream) {
  const int64_t bytes = a.W * size_of(a.type);
  for (int64_t m = 0; m < a.M; m++) {
    std::memcpy(static_cast<char*>(a.dst) + a.row[m] * bytes, static_cast<const char*>(a.src) + m * bytes, bytes);
  }
  *a.done = 1;
}

}  // namespace mblm
