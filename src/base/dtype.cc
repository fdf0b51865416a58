#include "base/dtype.h"

#include <array>

#include "base/checked.h"

namespace kvasir {
namespace {

struct DTypeInfo {
  DType type;
  std::string_view name;
  int64_t block_size;
  int64_t block_bytes;
};

constexpr std::array<DTypeInfo, 26> kInfos = {{
    {DType::kF32, "f32", 1, 4},           {DType::kF16, "f16", 1, 2},       {DType::kBF16, "bf16", 1, 2},
    {DType::kF64, "f64", 1, 8},           {DType::kI8, "i8", 1, 1},         {DType::kU8, "u8", 1, 1},
    {DType::kI16, "i16", 1, 2},           {DType::kU16, "u16", 1, 2},       {DType::kI32, "i32", 1, 4},
    {DType::kU32, "u32", 1, 4},           {DType::kI64, "i64", 1, 8},       {DType::kU64, "u64", 1, 8},
    {DType::kBool, "bool", 1, 1},         {DType::kQ4_0, "q4_0", 32, 18},   {DType::kQ8_0, "q8_0", 32, 34},
    {DType::kQ4_1, "q4_1", 32, 20},       {DType::kQ5_0, "q5_0", 32, 22},   {DType::kQ5_1, "q5_1", 32, 24},
    {DType::kQ2_K, "q2_k", 256, 84},      {DType::kQ3_K, "q3_k", 256, 110}, {DType::kQ4_K, "q4_k", 256, 144},
    {DType::kQ5_K, "q5_k", 256, 176},     {DType::kQ6_K, "q6_k", 256, 210}, {DType::kIQ4_NL, "iq4_nl", 32, 18},
    {DType::kIQ4_XS, "iq4_xs", 256, 136}, {DType::kMXFP4, "mxfp4", 32, 17},
}};

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

std::optional<int64_t> DTypeBytes(DType type, int64_t elements) {
  const DTypeInfo& info = Info(type);
  if (elements < 0 || elements % info.block_size != 0) return std::nullopt;
  return CheckedMul(elements / info.block_size, info.block_bytes);
}

}  // namespace kvasir
