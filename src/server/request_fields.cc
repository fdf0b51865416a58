#include "server/request_fields.h"

#include <boost/json/serialize.hpp>

#include <cmath>
#include <utility>

#include "io/json_kind.h"

namespace kvasir::server {

const json::value* RequestFields::Find(std::string_view name) const {
  const json::value* const value = object_.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void RequestFields::Fail(std::string_view name, std::string message) {
  if (error_) return;
  std::string param = prefix_ + std::string(name);
  error_ = ApiError{.status = 400, .message = fmt::format("{}: {}", param, message), .param = param};
}

void RequestFields::Fail(const ApiError& error) {
  if (!error_) error_ = error;
}

std::optional<int64_t> RequestFields::Int(std::string_view name, int64_t min, int64_t max) {
  const json::value* const value = Find(name);
  if (value == nullptr) return {};
  std::optional<int64_t> number;
  if (value->is_int64()) number = value->get_int64();
  if (value->is_double()) {
    const double given = value->get_double();
    // Numbers of JavaScript and of some JSON libraries: 16.0 is 16.
    if (given == std::trunc(given) && std::abs(given) <= 9007199254740992.0) number = static_cast<int64_t>(given);
  }
  if (!number && !value->is_uint64()) {
    Fail(name, fmt::format("an integer was expected, not {}", JsonKindName(*value)));
    return {};
  }
  if (!number || *number < min || *number > max) {
    Fail(name, fmt::format("{} is out of range; {} to {} is possible", json::serialize(*value), min, max));
    return {};
  }
  return number;
}

std::optional<double> RequestFields::Number(std::string_view name, double min, double max) {
  const json::value* const value = Find(name);
  if (value == nullptr) return {};
  if (!value->is_number()) {
    Fail(name, fmt::format("a number was expected, not {}", JsonKindName(*value)));
    return {};
  }
  const double number = value->to_number<double>();
  if (!(number >= min && number <= max)) {
    Fail(name, fmt::format("{} is out of range; {} to {} is possible", json::serialize(*value), min, max));
    return {};
  }
  return number;
}

std::optional<bool> RequestFields::Bool(std::string_view name) {
  const json::value* const value = Find(name);
  if (value == nullptr) return {};
  if (!value->is_bool()) {
    Fail(name, fmt::format("true or false was expected, not {}", JsonKindName(*value)));
    return {};
  }
  return value->get_bool();
}

std::optional<std::string> RequestFields::Text(std::string_view name, size_t most_bytes) {
  const json::value* const value = Find(name);
  if (value == nullptr) return {};
  if (!value->is_string()) {
    Fail(name, fmt::format("a string was expected, not {}", JsonKindName(*value)));
    return {};
  }
  if (value->get_string().size() > most_bytes) {
    Fail(name, fmt::format("{} bytes are more than the {} allowed", value->get_string().size(), most_bytes));
    return {};
  }
  return std::string(value->get_string());
}

const json::object* RequestFields::Object(std::string_view name) {
  const json::value* const value = Find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_object()) {
    Fail(name, fmt::format("an object was expected, not {}", JsonKindName(*value)));
    return nullptr;
  }
  return &value->get_object();
}

const json::array* RequestFields::Array(std::string_view name, size_t most) {
  const json::value* const value = Find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    Fail(name, fmt::format("an array was expected, not {}", JsonKindName(*value)));
    return nullptr;
  }
  if (value->get_array().size() > most) {
    Fail(name, fmt::format("{} elements are more than the {} allowed", value->get_array().size(), most));
    return nullptr;
  }
  return &value->get_array();
}

RequestBody ParseRequestBody(const std::string& body) {
  // As deep as a tool's JSON Schema may be, and a few million token ids.
  const JsonLimits limits{.max_bytes = body.size() + 1, .max_depth = 128, .max_values = 4u << 20};
  RequestBody parsed;
  auto document = ParseJson(body, "request body", limits);
  if (!document.ok()) {
    parsed.error = ApiError{.status = 400, .message = document.status().message(), .code = "invalid_json"};
    return parsed;
  }
  parsed.document = *std::move(document);
  if (!parsed.document.is_object()) {
    parsed.error = ApiError{.status = 400, .message = "the request body is no JSON object", .code = "invalid_json"};
  }
  return parsed;
}

}  // namespace kvasir::server
