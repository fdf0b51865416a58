// Values as text: Python's str() and repr(), and json.dumps.
#pragma once

#include <string>

#include "base/status.h"
#include "text/jinja_value.h"

namespace kvasir::jinja {

/// Python's repr of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
std::string PrintDouble(double value);

/// Appends str(value).
Status PrintTo(Budget& budget, const Value& value, StrBuilder& out);
/// str(value) as a string; strings are returned as they are.
Result<Str> ToStr(Budget& budget, const Value& value);
/// Appends repr(value).
Status ReprTo(Budget& budget, const Value& value, StrBuilder& out);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  Str indent;  // of one level, where indented
  Str item_separator = Str::Trusted(", ");
  Str key_separator = Str::Trusted(": ");
};
/// json.dumps(value). Fails for what JSON cannot express.
Result<Str> ToJson(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace kvasir::jinja
