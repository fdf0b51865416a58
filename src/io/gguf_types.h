// The numbers by which GGUF names element types; internal to io/.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/dtype.h"

namespace kvasir {

/// What ggml's type number stands for.
struct GgmlType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;  // empty: kvasir does not read it
  std::string_view refusal;    // why, when it does not
};

/// Null for numbers that ggml never gave out.
const GgmlType* FindGgmlType(uint32_t id);
/// The inverse; nothing for types that GGUF lacks.
std::optional<uint32_t> FindGgmlTypeId(DType type);

}  // namespace kvasir
