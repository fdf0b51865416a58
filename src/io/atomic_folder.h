// Writing folders so that nobody ever sees half of one.
#pragma once

#include <filesystem>
#include <memory>

#include "base/status.h"

namespace kvasir {

/// A folder that appears under its name only when it is whole: files are written into a temporary folder beside it,
/// which Commit renames. Destroyed without Commit, or when that fails, it leaves the old folder as it was and removes
/// the temporary one. Files in it are to be written by AtomicFile, which syncs them. Not thread-safe.
class AtomicFolder {
 public:
  /// The folder that holds `path` must exist.
  static Result<std::unique_ptr<AtomicFolder>> Create(const std::filesystem::path& path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  /// Where to write.
  const std::filesystem::path& temporary() const { return temporary_; }

  /// Gives the folder its name, in the place of a folder of that name with all that is in it. Once only.
  Status Commit();

 private:
  AtomicFolder(std::filesystem::path path, std::filesystem::path temporary)
      : path_(std::move(path)), temporary_(std::move(temporary)) {}

  std::filesystem::path path_;
  std::filesystem::path temporary_;
};

}  // namespace kvasir
