// The JSON reader, and what it promises: depth within the limit, and that its output parses again to the same value.
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/utf8.h"
#include "io/json.h"

namespace {

size_t Depth(const kvasir::json::value& value) {
  size_t deepest = 0;
  if (const auto* array = value.if_array()) {
    for (const auto& element : *array) deepest = std::max(deepest, 1 + Depth(element));
    return std::max<size_t>(deepest, 1);
  }
  if (const auto* object = value.if_object()) {
    for (const auto& member : *object) deepest = std::max(deepest, 1 + Depth(member.value()));
    return std::max<size_t>(deepest, 1);
  }
  return 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto value = kvasir::ParseJson(text, "fuzz");
  if (!value.ok()) {
    if (value.status().message().empty() || !kvasir::IsValidUtf8(value.status().message())) std::abort();
    return 0;
  }
  if (!kvasir::IsValidUtf8(text) || Depth(*value) > kvasir::JsonLimits{}.max_depth) std::abort();
  const std::string again = kvasir::json::serialize(*value);
  const auto second = kvasir::ParseJson(again, "again");
  if (!second.ok() || kvasir::json::serialize(*second) != again) std::abort();
  if (const auto* object = value->if_object()) {
    const kvasir::JsonReader reader(*object, "fuzz");
    for (const auto& member : *object) {
      const std::string_view key(member.key().data(), member.key().size());
      (void)reader.Int({key}, -5, 1000);
      (void)reader.Number({key});
      (void)reader.Bool({key}, true);
      (void)reader.String({key}, "");
      (void)reader.IntList({key}, 0, 1 << 20);
      (void)reader.Object({key});
    }
  }
  return 0;
}
