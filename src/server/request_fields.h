// Fields of a request's JSON object, checked as they are read.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "io/json.h"
#include "server/api_error.h"

namespace kvasir::server {

/// Reads typed fields; null counts as absent, unknown fields are ignored, as OpenAI's clients expect. The first field
/// that is wrong is kept as the error; what is read after it means nothing. Not thread-safe.
class RequestFields {
 public:
  /// REQUIRES: object outlives the reader. `prefix` stands before names in errors ("stream_options.").
  explicit RequestFields(const json::object& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  /// The value, or null when it is absent or JSON's null.
  const json::value* Find(std::string_view name) const;

  std::optional<int64_t> Int(std::string_view name, int64_t min, int64_t max);
  std::optional<double> Number(std::string_view name, double min, double max);
  std::optional<bool> Bool(std::string_view name);
  std::optional<std::string> Text(std::string_view name, size_t most_bytes = std::numeric_limits<size_t>::max());
  const json::object* Object(std::string_view name);
  const json::array* Array(std::string_view name, size_t most);

  void Fail(std::string_view name, std::string message);
  /// Takes over another reader's error.
  void Fail(const ApiError& error);
  bool ok() const { return !error_.has_value(); }
  const std::optional<ApiError>& error() const { return error_; }

 private:
  const json::object& object_;
  std::string prefix_;
  std::optional<ApiError> error_;
};

/// The JSON object of a request's body. Error 400: no JSON, no object, too deep, too many values.
struct RequestBody {
  json::value document;
  std::optional<ApiError> error;
  const json::object& object() const { return document.get_object(); }
};
RequestBody ParseRequestBody(const std::string& body);

}  // namespace kvasir::server
