// Places in a JSON document: RFC 6901.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "io/json.h"

namespace kvasir {

/// A place below another one. Points into the document.
struct JsonPlace {
  const JsonPlace* above = nullptr;  // null: the document itself
  std::string_view key;
  int64_t index = -1;  // instead of a key
};

/// "#/properties/a"; null: "#". Long ones are cut at the front.
std::string PointerOf(const JsonPlace* place);

/// What "#", "#/$defs/x" … point to. InvalidArgument for references out of the document, or to nothing.
Result<const json::value*> ResolvePointer(const json::value& document, std::string_view reference);

}  // namespace kvasir
