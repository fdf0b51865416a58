// Reading of GGUF v2 and v3, also split into several files.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "io/tensor_source.h"

namespace kvasir {

/// An array of GGUF metadata; numbers widen to int64, uint64 or double, so that a reader needs few cases. Strings are
/// the file's bytes, not checked to be UTF-8: vocabularies hold pieces of characters. Arrays do not nest.
using GgufArray = std::variant<std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>, std::vector<bool>,
                               std::vector<std::string>>;
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string, GgufArray>;

/// A GGUF file (with all its splits). Immutable; thread-safe; owns its mappings.
class GgufFile final : public TensorSource {
 public:
  /// Opens `file`; if it is any part of a split set (NAME-00001-of-00003.gguf) opens all parts beside it and takes the
  /// metadata from the first. Fails, naming all of them, when parts are missing.
  static Result<std::unique_ptr<GgufFile>> Open(const std::filesystem::path& file);
  /// Parses bytes in memory (tests, fuzzing). `bytes` must outlive the result; splits are refused.
  static Result<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes, std::string_view what);

  const RawTensor* Find(std::string_view name) const override;
  std::span<const RawTensor> tensors() const override;
  const std::string& description() const override;

  const GgufValue* FindValue(std::string_view key) const;
  /// All metadata in file order.
  std::span<const std::pair<std::string, GgufValue>> metadata() const;

  // Typed getters with an error naming file and key; the default (if given) when the key is absent. Numbers that are
  // not finite are errors.
  Result<int64_t> Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback = {}) const;
  Result<double> Number(std::string_view key, std::optional<double> fallback = {}) const;
  Result<bool> Bool(std::string_view key, std::optional<bool> fallback = {}) const;
  Result<std::string> String(std::string_view key, std::optional<std::string> fallback = {}) const;
  /// Integers of an array, or of one number (per-layer values may be either); empty when absent. Truth values count as
  /// 0 and 1.
  Result<std::vector<int64_t>> IntList(std::string_view key, int64_t min, int64_t max) const;
  /// Null when absent; an error when it is not an array of strings.
  Result<const std::vector<std::string>*> StringList(std::string_view key) const;
  Result<const std::vector<double>*> NumberList(std::string_view key) const;

  ~GgufFile() override;

 private:
  GgufFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
