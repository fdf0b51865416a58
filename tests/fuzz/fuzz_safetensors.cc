// The safetensors parser: whatever it accepts must tile the file's data exactly.
#include <cstdint>
#include <cstdlib>
#include <set>

#include "base/checked.h"
#include "base/dtype.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(data),
                                     reinterpret_cast<const std::byte*>(data) + size);
  const auto header = kvasir::ParseSafetensorsHeader(bytes, "fuzz");
  if (!header.ok()) {
    if (header.status().message().empty()) std::abort();
    return 0;
  }
  int64_t at = 0;
  std::set<std::string> names;
  for (const auto& entry : header->entries) {
    const auto elements = kvasir::CheckedProduct(entry.shape);
    if (!elements || kvasir::DTypeBytes(entry.dtype, *elements) != entry.end - entry.begin) std::abort();
    if (entry.begin != at || !names.insert(entry.name).second) std::abort();
    at = entry.end;
  }
  if (header->data_begin + at != static_cast<int64_t>(size)) std::abort();
  return 0;
}
