// Reading of GGUF's numbers, texts and metadata values; internal to io/.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/status.h"
#include "io/gguf.h"

namespace kvasir {

static_assert(std::endian::native == std::endian::little, "numbers of a file are taken as they lie in memory");

/// Reads one file front to back. Every read is bounded by the bytes that are there and names what it was for, so that
/// a truncated file's message says where it ends.
class GgufReader {
 public:
  /// REQUIRES: bytes outlive the reader.
  GgufReader(std::span<const std::byte> bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }

  /// What is being read from here on, for messages.
  void SetPlace(std::string place) { place_ = std::move(place); }

  /// The next number as it lies in the file.
  template <typename T>
  Status Read(T* value) {
    static_assert(std::is_arithmetic_v<T>);
    if (left() < sizeof(T)) return Truncated();
    std::memcpy(value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return OkStatus();
  }

  /// A key or tensor name: not empty and UTF-8, since it goes into messages and maps.
  Status ReadName(std::string* name);

  /// A key with its value, whatever its type.
  Status ReadEntry(std::vector<std::pair<std::string, GgufValue>>* metadata);

 private:
  Status Truncated() const;
  Status ReadText(uint64_t max_bytes, std::string_view* text);
  Status ReadBool(bool* value);
  template <typename File, typename Value>
  Status ReadNumber(Value* value);
  template <typename Value>
  Status ReadElement(uint32_t type, Value* value);
  template <typename Value>
  Status ReadScalar(uint32_t type, GgufValue* value);
  template <typename Value>
  Status ReadElements(uint32_t type, uint64_t count, GgufValue* value);
  Status CheckArray(uint32_t type, uint64_t count);
  Status ReadArray(GgufValue* value);
  Status ReadValue(uint32_t type, GgufValue* value);

  std::span<const std::byte> bytes_;
  std::string what_;
  uint64_t at_ = 0;
  uint64_t array_elements_ = 0;
  std::string place_ = "the header";
};

}  // namespace kvasir
