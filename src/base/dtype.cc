#include "base/dtype.h"

#include <array>
#include <cmath>

#include "base/checked.h"

namespace kvasir {
namespace {

struct DTypeInfo {
  DType type;
  std::string_view name;
  int64_t block_size;
  int64_t block_bytes;
};

constexpr std::array<DTypeInfo, 41> kInfos = {{
    {DType::kF32, "f32", 1, 4},
    {DType::kF16, "f16", 1, 2},
    {DType::kBF16, "bf16", 1, 2},
    {DType::kF64, "f64", 1, 8},
    {DType::kI8, "i8", 1, 1},
    {DType::kU8, "u8", 1, 1},
    {DType::kI16, "i16", 1, 2},
    {DType::kU16, "u16", 1, 2},
    {DType::kI32, "i32", 1, 4},
    {DType::kU32, "u32", 1, 4},
    {DType::kI64, "i64", 1, 8},
    {DType::kU64, "u64", 1, 8},
    {DType::kBool, "bool", 1, 1},
    {DType::kQ4_0, "q4_0", 32, 18},
    {DType::kQ8_0, "q8_0", 32, 34},
    {DType::kQ4_1, "q4_1", 32, 20},
    {DType::kQ5_0, "q5_0", 32, 22},
    {DType::kQ5_1, "q5_1", 32, 24},
    {DType::kQ2_K, "q2_k", 256, 84},
    {DType::kQ3_K, "q3_k", 256, 110},
    {DType::kQ4_K, "q4_k", 256, 144},
    {DType::kQ5_K, "q5_k", 256, 176},
    {DType::kQ6_K, "q6_k", 256, 210},
    {DType::kIQ4_NL, "iq4_nl", 32, 18},
    {DType::kIQ4_XS, "iq4_xs", 256, 136},
    {DType::kMXFP4, "mxfp4", 32, 17},
    {DType::kF8E4M3, "f8_e4m3", 1, 1},
    {DType::kF8E5M2, "f8_e5m2", 1, 1},
    // Eight bytes of scale and minimum, a byte for each code.
    {DType::kNF4, "nf4", 64, 72},
    {DType::kFP4, "fp4", 64, 72},
    {DType::kInt8, "int8", 64, 72},
    {DType::kInt8G128, "int8_g128", 128, 136},
    {DType::kInt4G128, "int4_g128", 128, 136},
    {DType::kInt3G128, "int3_g128", 128, 136},
    {DType::kInt2G128, "int2_g128", 128, 136},
    {DType::kInt8G32, "int8_g32", 32, 40},
    {DType::kInt4G32, "int4_g32", 32, 40},
    {DType::kInt3G32, "int3_g32", 32, 40},
    {DType::kInt2G32, "int2_g32", 32, 40},
    {DType::kScaledE4M3, "fp8_e4m3", 32, 40},
    {DType::kScaledE5M2, "fp8_e5m2", 32, 40},
}};

/// The code 0 … `largest` of the value nearest to |x|, even of two as near; values ascend with codes.
uint8_t NearestMagnitude(float x, uint8_t largest, float (*value)(uint8_t)) {
  uint8_t low = 0;
  uint8_t high = largest;
  while (high - low > 1) {
    const auto middle = static_cast<uint8_t>((low + high) / 2);
    (value(middle) <= x ? low : high) = middle;
  }
  const float below = x - value(low);
  const float above = value(high) - x;
  if (below == above) return low % 2 == 0 ? low : high;
  return below < above ? low : high;
}

uint8_t ToFloat8(float x, uint8_t largest, uint8_t nan, float (*value)(uint8_t)) {
  const auto sign = static_cast<uint8_t>(std::bit_cast<uint32_t>(x) >> 31 << 7);
  if (std::isnan(x)) return static_cast<uint8_t>(sign | nan);
  return static_cast<uint8_t>(sign | NearestMagnitude(std::abs(x), largest, value));
}

const DTypeInfo& Info(DType type) { return kInfos[static_cast<size_t>(type)]; }

}  // namespace

std::string_view DTypeName(DType type) { return Info(type).name; }
int64_t DTypeBlockSize(DType type) { return Info(type).block_size; }
int64_t DTypeBlockBytes(DType type) { return Info(type).block_bytes; }

std::optional<DType> ParseDType(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  if (name == "float32" || name == "fp32" || name == "float") return DType::kF32;
  if (name == "float16" || name == "fp16" || name == "half") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float64" || name == "double") return DType::kF64;
  for (const DTypeInfo& info : kInfos) {
    if (info.name == name) return info.type;
  }
  return std::nullopt;
}

uint8_t ToE4M3(float x) { return ToFloat8(x, 0x7e, 0x7f, &E4M3ToFloat); }
uint8_t ToE5M2(float x) { return ToFloat8(x, 0x7b, 0x7e, &E5M2ToFloat); }

std::optional<int64_t> DTypeBytes(DType type, int64_t elements) {
  const DTypeInfo& info = Info(type);
  if (elements < 0 || elements % info.block_size != 0) return std::nullopt;
  return CheckedMul(elements / info.block_size, info.block_bytes);
}

}  // namespace kvasir
