// The bytes of one GGUF file; internal to io/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "io/gguf.h"
#include "io/tensor_source.h"

namespace kvasir {

/// One file's content. The tensors point into the parsed bytes.
struct GgufPart {
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<RawTensor> tensors;
};

/// Parses one file, checking every count, size and offset against the bytes really there. Tensor names may repeat
/// (the caller joins several parts); keys may not. `file` may be null and goes into the tensors.
Result<GgufPart> ParseGgufPart(std::span<const std::byte> bytes, std::string_view what, const MappedFile* file);

/// The value of a key, by linear search; null when absent.
const GgufValue* FindGgufValue(std::span<const std::pair<std::string, GgufValue>> metadata, std::string_view key);

/// An integer of any width as int64; nothing when the value is something else or too large.
std::optional<int64_t> GgufInteger(const GgufValue& value);

}  // namespace kvasir
