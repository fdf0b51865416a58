// Writing files so that nobody ever sees half of one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "base/status.h"

namespace kvasir {

/// A file that appears under its name only when it is whole: bytes go to a temporary file in the same folder, which
/// Commit syncs and renames over the old one. Destroyed without Commit, or when that fails, it leaves the old file as
/// it was and removes the temporary one. A symbolic link of that name is replaced, not followed. Not thread-safe.
class AtomicFile {
 public:
  static Result<std::unique_ptr<AtomicFile>> Create(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends all bytes, or fails (disk full, quota).
  Status Write(std::span<const std::byte> bytes);

  /// Bytes written so far.
  int64_t size() const { return size_; }

  /// Makes the file durable and gives it its name. Once only; nothing may be written afterwards.
  Status Commit();

 private:
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
  Status Failure(const char* what, int error) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_;
  int64_t size_ = 0;
};

}  // namespace kvasir
