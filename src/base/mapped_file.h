// Read-only memory mapping of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "base/status.h"

namespace kvasir {

/// A mapped regular file. The bytes stay valid as long as the object lives. Thread-safe after opening.
class MappedFile {
 public:
  /// Maps the file; directories, devices and empty files are errors.
  static Result<std::unique_ptr<MappedFile>> Open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Tells the kernel that [begin, begin+size) is read soon. Only a hint; any range inside the file.
  void WillNeed(const std::byte* begin, size_t size) const;

  /// Drops the whole pages inside [begin, begin+size) from this process's memory; reading them again maps them again.
  void GiveBack(const std::byte* begin, size_t size) const;

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  std::filesystem::path path_;
  const std::byte* data_;
  size_t size_;
};

}  // namespace kvasir
