// Attention of one position over those before it: within a patch, and over a cache.
#include <functional>
#include <vector>

#include "functions.h"
#include "number_types.h"

namespace mblm {
using namespace reference;

namespace {

using Vector = std::vector<float>;

/// d values of the work type from element `first` on.
Vector vector_at(const void* data, DType type, int64_t first, int64_t d) {
  Vector values(d);
  for (int64_t i = 0; i < d; i++) values[i] = load(data, type, first + i);
  return values;
}

/// Rotate-half: pairs (i, i + d/2) by row `position` of the tables [·, d/2].
Vector rotated(const Vector& x, const float* cos, const float* sin, int64_t position) {
  const int64_t half = int64_t(x.size()) / 2;
  Vector y(x.size());
  for (int64_t i = 0; i < half; i++) {
    const float c = cos[position * half + i], s = sin[position * half + i];
    y[i] = x[i] * c - x[i + half] * s;
    y[i + half] = x[i + half] * c + x[i] * s;
  }
  return y;
}

/// Σ_j softmax_j(q·k_j·d^-½)·v_j over `count` keys and values.
Vector attend(const Vector& q, int64_t count, const std::function<Vector(int64_t)>& key, const std::function<Vector(int64_t)>& value) {
  const int64_t d = int64_t(q.size());
  const float scale = 1.0f / std::sqrt(float(d));
  Vector scores(count);
  float highest = -INFINITY;
  for (int64_t j = 0; j < count; j++) {
    const Vector k = key(j);
    for (int64_t i = 0; i < d; i++) scores[j] += q[i] * k[i];
    scores[j] *= scale;
    highest = std::max(highest, scores[j]);
  }
  Vector y(d);
  float total = 0.0f;
  for (int64_t j = 0; j < count; j++) {
    const float weight = std::exp(scores[j] - highest);
    total += weight;
    const Vector v = value(j);
    for (int64_t i = 0; i < d; i++) y[i] += weight * v[i];
  }
  for (float& element : y) element /= total;
  return y;
}

void store_vector(void* data, DType type, int64_t first, const Vector& values) {
  for (int64_t i = 0; i < int64_t(values.size()); i++) store(data, type, first + i, values[i]);
}

}  // namespace

void patch_attention(const PatchAttention& a, Stream) {
  const int64_t width = a.H * a.d;
  for (int64_t b = 0; b < a.B; b++) {
    for (int64_t h = 0; h < a.H; h++) {
      // Part 0, 1, 2 = q, k, v of the byte at local position `position`.
      const auto part = [&](int64_t position, int64_t which) {
        return vector_at(a.qkv[position - 1], a.type, (b * 3 + which) * width + h * a.d, a.d);
      };
      const auto key = [&](int64_t j) {
        return j == 0 ? vector_at(a.start_k, a.type, h * a.d, a.d) : rotated(part(j, 1), a.cos, a.sin, j);
      };
      const auto value = [&](int64_t j) { return j == 0 ? vector_at(a.start_v, a.type, h * a.d, a.d) : part(j, 2); };
      const Vector q = rotated(part(a.count, 0), a.cos, a.sin, a.count);
      store_vector(a.y, a.type, b * width + h * a.d, attend(q, a.count + 1, key, value));
    }
  }
}

void cached_attention(const CachedAttention& a, Stream) {
  const int64_t width = a.H * a.d, T = a.R == 0 ? 0 : a.M / a.R;
  for (int64_t m = 0; m < a.M; m++) {
    const int64_t r = m / T, step = a.position[r] + m % T;
    for (int64_t h = 0; h < a.H; h++) {
      const auto part = [&](int64_t which) { return vector_at(a.qkv, a.type, (m * 3 + which) * width + h * a.d, a.d); };
      const auto cached = [&](int64_t row) { return ((a.slot[r] * a.H + h) * a.capacity + row) * a.d; };
      store_vector(a.k_cache, a.type, cached(step), rotated(part(1), a.cos, a.sin, step + 1));
      store_vector(a.v_cache, a.type, cached(step), part(2));
      const auto key = [&](int64_t j) {
        return j == 0 ? vector_at(a.start_k, a.type, h * a.d, a.d) : vector_at(a.k_cache, a.type, cached(j - 1), a.d);
      };
      const auto value = [&](int64_t j) {
        return j == 0 ? vector_at(a.start_v, a.type, h * a.d, a.d) : vector_at(a.v_cache, a.type, cached(j - 1), a.d);
      };
      const Vector q = rotated(part(0), a.cos, a.sin, step + 1);
      store_vector(a.y, a.type, m * width + h * a.d, attend(q, step + 2, key, value));
    }
  }
}

}  // namespace mblm
