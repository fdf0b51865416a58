// What a JSON value is, in words.
#pragma once

#include <boost/json/value.hpp>

#include <string_view>

namespace kvasir {

/// "a string", "an integer" …, for messages.
std::string_view JsonKindName(const boost::json::value& value);

}  // namespace kvasir
