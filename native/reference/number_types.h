// float16 and bfloat16 as the float32 values they stand for. Conversions round to nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

#include "../ops.h"

namespace mblm::reference {

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float from_f16(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 31) return float_of(sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = float(mantissa) * 0x1p-24f;  // subnormal or zero
  return float_of(sign | bits_of(magnitude));
}

inline uint16_t to_f16(float value) {
  const uint32_t bits = bits_of(value);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
  if (magnitude < 0x38800000) {                       // below 2^-14: subnormal, a multiple of 2^-24
    // Adding 0.5 leaves the mantissa bits of the sum in units of 2^-24, rounded by the addition itself.
    return sign | uint16_t(bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f));
  }
  const uint32_t odd = magnitude >> 13 & 1;
  return sign | uint16_t((magnitude - (112u << 23) + 0xfff + odd) >> 13);
}

inline float from_bf16(uint16_t value) { return float_of(uint32_t(value) << 16); }

inline uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);  // NaN stays one
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Element `index` of an array of the work type.
inline float load(const void* data, DType type, int64_t index) {
  switch (type) {
    case DType::f16: return from_f16(static_cast<const uint16_t*>(data)[index]);
    case DType::bf16: return from_bf16(static_cast<const uint16_t*>(data)[index]);
    case DType::f32: break;
  }
  return static_cast<const float*>(data)[index];
}

inline void store(void* data, DType type, int64_t index, float value) {
  switch (type) {
    case DType::f16: static_cast<uint16_t*>(data)[index] = to_f16(value); return;
    case DType::bf16: static_cast<uint16_t*>(data)[index] = to_bf16(value); return;
    case DType::f32: static_cast<float*>(data)[index] = value; return;
  }
}

inline int64_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }

}  // namespace mblm::reference
