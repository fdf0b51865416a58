// Element types of stored tensors and scalar conversions between the 16-bit floats and fp32.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kvasir {

/// How a stored tensor's elements are encoded. Block types hold `BlockSize` elements in `BlockBytes` bytes.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kBool,
  // GGUF block types (quant/gguf_blocks.h takes them apart).
  kQ4_0,
  kQ8_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  // Eight-bit floats (OCP 8-bit floating point; E4M3 without infinities, as PyTorch's float8_e4m3fn).
  kF8E4M3,
  kF8E5M2,
  // What other checkpoints' layouts and quantisation at load are brought to (quant/coded_blocks.h); never in files.
  kNF4,
  kFP4,
  kInt8,
  kInt8G128,
  kInt4G128,
  kInt3G128,
  kInt2G128,
  kInt8G32,
  kInt4G32,
  kInt3G32,
  kInt2G32,
  kScaledE4M3,
  kScaledE5M2,
};

/// The type's short lower-case name, e.g. "bf16", "q8_0".
std::string_view DTypeName(DType type);

/// Parses a name as used on the command line and in config.json ("bf16", "bfloat16", "float32", "f32", …).
std::optional<DType> ParseDType(std::string_view name);

/// Elements in one block: 1 for plain types, 32 or 256 for GGUF's block types.
int64_t DTypeBlockSize(DType type);

/// Bytes of one block (of one element for plain types).
int64_t DTypeBlockBytes(DType type);

/// Bytes of `elements` elements, or nothing when that is no whole number of blocks or overflows.
std::optional<int64_t> DTypeBytes(DType type, int64_t elements);

inline bool IsFloat16Bit(DType type) { return type == DType::kF16 || type == DType::kBF16; }

/// A bfloat16 value by its bits; a distinct type so that views cannot mix it up with fp16.
struct BFloat16 {
  uint16_t bits;
};
/// An IEEE binary16 value by its bits.
struct Float16 {
  uint16_t bits;
};

constexpr float ToFloat(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

/// Rounds to nearest even; NaN stays NaN (quiet).
constexpr BFloat16 ToBFloat16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

/// Exact, including subnormals, infinities and NaN.
constexpr float ToFloat(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fu;
  const uint32_t mantissa = x.bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  // Subnormal: mantissa · 2^-24 is exact in fp32.
  const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
}

/// Rounds to nearest even; too large becomes infinity; NaN stays NaN.
constexpr Float16 ToFloat16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (a >= 0x47800000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (a < 0x38800000u) {  // subnormal in fp16: add a constant whose ulp is 2^-24
    const float shifted = std::bit_cast<float>(a) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

/// Eight-bit floats: E4M3 (bias 7, NaN at 0x7f and 0xff, no infinities, at most 448) and E5M2 (the upper half of
/// fp16). Rounded to nearest even; too large becomes the largest finite value; NaN stays NaN.
constexpr float E5M2ToFloat(uint8_t x) { return ToFloat(Float16{static_cast<uint16_t>(x << 8)}); }
constexpr float E4M3ToFloat(uint8_t x) {
  if ((x & 0x7f) == 0x7f) return std::bit_cast<float>(0x7fc00000u | static_cast<uint32_t>(x & 0x80) << 24);
  // As fp16 bits with a bias eight too small.
  return ToFloat(Float16{static_cast<uint16_t>((x & 0x80) << 8 | (x & 0x7f) << 7)}) * 256.0f;
}
uint8_t ToE4M3(float x);
uint8_t ToE5M2(float x);

}  // namespace kvasir
