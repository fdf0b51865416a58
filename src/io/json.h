// Strict, bounded JSON over Boost.JSON: the one door by which JSON from files and requests comes in.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace kvasir {

namespace json = boost::json;

struct JsonLimits {
  size_t max_bytes = 64u << 20;
  size_t max_depth = 64;          // of arrays and objects inside each other
  size_t max_values = 16u << 20;  // bounds memory: a value takes 24 bytes where "0," takes 2
};

/// Parses one document (RFC 8259) in linear time. Fails on invalid UTF-8, duplicate keys, deep nesting, trailing text,
/// numbers beyond a double's range and input over the limits, with line, column and byte of the place. Numbers with a
/// fraction or exponent are rounded to the nearest double. `what` (a file's name) begins the message. Never throws.
Result<json::value> ParseJson(std::string_view text, std::string_view what, const JsonLimits& limits = {});

/// Reads and parses a file; its size is checked against the limits before it is read.
Result<json::value> ParseJsonFile(const std::filesystem::path& path, const JsonLimits& limits = {});

/// Reads a whole regular file of at most `max_bytes`. Directories, devices and pipes are errors.
Result<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes);

/// Typed access to one JSON object with errors that name the file and key. Does not own the object.
/// Every getter takes several names (new and old spelling); the first that is present and not null counts.
class JsonReader {
 public:
  using Names = std::initializer_list<std::string_view>;

  /// REQUIRES: object outlives the reader.
  JsonReader(const json::object& object, std::string what) : object_(&object), what_(std::move(what)) {}

  bool Has(Names names) const { return Find(names) != nullptr; }
  /// The value, or null when absent or JSON null.
  const json::value* Find(Names names) const;

  /// An integer within [min, max]; floats with an integral value are accepted. The default when absent.
  Result<int64_t> Int(Names names, int64_t min, int64_t max, std::optional<int64_t> fallback = {}) const;
  /// A finite number.
  Result<double> Number(Names names, std::optional<double> fallback = {}) const;
  Result<bool> Bool(Names names, std::optional<bool> fallback = {}) const;
  Result<std::string> String(Names names, std::optional<std::string> fallback = {}) const;
  /// A list of integers, or one integer read as a list of one; empty when absent.
  Result<std::vector<int64_t>> IntList(Names names, int64_t min, int64_t max) const;
  /// The object under the name, or null when absent; an error when it is something else.
  Result<const json::object*> Object(Names names) const;

  const std::string& what() const { return what_; }
  const json::object& object() const { return *object_; }

 private:
  const json::object* object_;
  std::string what_;
};

}  // namespace kvasir
