// Pieces that reading and writing of safetensors share; internal to io/.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/status.h"
#include "io/tensor_source.h"

namespace kvasir {

/// "BF16" → kBF16; nothing for dtypes that kvasir does not read (F8_E8M0, F4, complex…).
std::optional<DType> ParseSafetensorsDType(std::string_view name);

/// The inverse; empty for block types, which safetensors lacks.
std::string_view SafetensorsDTypeName(DType type);

/// The tensors of a mapped file, pointing into it. REQUIRES: file outlives them.
Result<std::vector<RawTensor>> ReadSafetensors(const MappedFile& file);

}  // namespace kvasir
