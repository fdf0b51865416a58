#include "io/safetensors_types.h"

#include <algorithm>
#include <array>
#include <utility>

namespace kvasir {
namespace {

constexpr auto kNames = std::to_array<std::pair<DType, std::string_view>>({
    {DType::kF64, "F64"},
    {DType::kF32, "F32"},
    {DType::kF16, "F16"},
    {DType::kBF16, "BF16"},
    {DType::kI64, "I64"},
    {DType::kU64, "U64"},
    {DType::kI32, "I32"},
    {DType::kU32, "U32"},
    {DType::kI16, "I16"},
    {DType::kU16, "U16"},
    {DType::kI8, "I8"},
    {DType::kU8, "U8"},
    {DType::kBool, "BOOL"},
    {DType::kF8E4M3, "F8_E4M3"},
    {DType::kF8E4M3, "F8_E4M3FN"},  // PyTorch's own name for it, seen in files of some writers
    {DType::kF8E5M2, "F8_E5M2"},
});

}  // namespace

std::optional<DType> ParseSafetensorsDType(std::string_view name) {
  const auto at = std::ranges::find(kNames, name, [](const auto& pair) { return pair.second; });
  if (at == kNames.end()) return std::nullopt;
  return at->first;
}

std::string_view SafetensorsDTypeName(DType type) {
  const auto at = std::ranges::find(kNames, type, [](const auto& pair) { return pair.first; });
  return at == kNames.end() ? std::string_view() : at->second;
}

}  // namespace kvasir
