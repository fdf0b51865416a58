// Writing of GGUF v3. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/atomic_file.h"
#include "io/gguf.h"
#include "io/tensor_source.h"

namespace kvasir {

/// A key of the metadata with its value as it lies in a file: type number, then value. Readers demand the very types
/// that others write, which GgufValue does not keep.
struct GgufEntry {
  std::string key;
  std::string value;
};

GgufEntry GgufUint32(std::string key, uint32_t value);
GgufEntry GgufFloat32(std::string key, float value);
GgufEntry GgufBool(std::string key, bool value);
GgufEntry GgufText(std::string key, std::string_view value);
GgufEntry GgufTexts(std::string key, std::span<const std::string> values);
GgufEntry GgufInts32(std::string key, std::span<const int32_t> values);
GgufEntry GgufFloats32(std::string key, std::span<const float> values);
GgufEntry GgufBytes(std::string key, std::string_view bytes);  // an array of uint8

/// The metadata of a GGUF file, to be written again unchanged. Of a split set: of this file alone.
Result<std::vector<GgufEntry>> ReadGgufEntries(const std::filesystem::path& file);

/// Replaces the entry of that key, or appends it.
void SetGgufEntry(GgufEntry entry, std::vector<GgufEntry>* entries);

/// What the file says about a tensor.
struct GgufTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // outermost first; rows of whole blocks
};

/// Writes a file front to back; nobody sees it under its name before Finish. Not thread-safe.
class GgufWriter {
 public:
  /// Checks everything and writes the header. Errors: names that are empty, too long, given twice; types that GGUF
  /// lacks; rows that do not divide into blocks; keys given twice.
  static Result<std::unique_ptr<GgufWriter>> Create(const std::filesystem::path& file,
                                                    std::span<const GgufEntry> entries,
                                                    std::span<const GgufTensor> tensors);

  /// Appends data of the tensors, in their order and in pieces of any size that do not reach over a tensor's end.
  /// Fails when the disk is full.
  Status Append(std::span<const std::byte> data);

  /// Makes the file durable and gives it its name. REQUIRES: all data has been appended.
  Status Finish();

  /// Bytes of the whole file.
  int64_t size() const { return size_; }

 private:
  GgufWriter(std::unique_ptr<AtomicFile> file, std::vector<int64_t> sizes, int64_t size)
      : file_(std::move(file)), sizes_(std::move(sizes)), size_(size) {}
  Status NextTensor();

  std::unique_ptr<AtomicFile> file_;
  std::vector<int64_t> sizes_;  // of the tensors
  int64_t size_;
  size_t tensor_ = 0;    // that data is appended to
  int64_t written_ = 0;  // of it
};

/// A file that could be written, opened without writing it: for asking readers what they make of its metadata and
/// names. All tensors read as zeros but those that `contents` begins with (one per tensor, in order).
class GgufDraft {
 public:
  static Result<std::unique_ptr<GgufDraft>> Make(std::span<const GgufEntry> entries,
                                                 std::span<const GgufTensor> tensors,
                                                 std::span<const std::string> contents, std::string_view what);
  ~GgufDraft();
  GgufDraft(const GgufDraft&) = delete;
  GgufDraft& operator=(const GgufDraft&) = delete;

  const GgufFile& file() const { return *file_; }

 private:
  GgufDraft() = default;
  void* memory_ = nullptr;
  size_t size_ = 0;
  std::unique_ptr<GgufFile> file_;
};

}  // namespace kvasir
