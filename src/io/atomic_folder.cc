#include "io/atomic_folder.h"

#include <random>
#include <system_error>

namespace kvasir {
namespace {

namespace fs = std::filesystem;

/// A name beside `path` that nobody has.
fs::path BesideName(const fs::path& path) {
  std::random_device random;
  const fs::path parent = path.parent_path().empty() ? fs::path(".") : path.parent_path();
  return parent / fmt::format(".kvasir-{:08x}{:08x}.tmp", random(), random());
}

/// Without the slash at the end that would make its file name empty.
fs::path Trimmed(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

Result<std::unique_ptr<AtomicFolder>> AtomicFolder::Create(const fs::path& path) {
  const fs::path target = Trimmed(path);
  if (target.filename().empty() || target.filename() == "." || target.filename() == "..") {
    return InvalidArgument("{}: names no folder to write", path.string());
  }
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    return InvalidArgument("{}: is a file, a folder cannot be written there", path.string());
  }
  const fs::path temporary = BesideName(target);
  if (!fs::create_directory(temporary, error)) {
    return IoError("{}: cannot be written: {}: {}", path.string(), temporary.parent_path().string(),
                   error ? error.message() : "no free temporary name");
  }
  return std::unique_ptr<AtomicFolder>(new AtomicFolder(target, temporary));
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Status AtomicFolder::Commit() {
  KVASIR_CHECK(!temporary_.empty());
  std::error_code error;
  fs::path old;
  if (fs::exists(path_, error)) {
    old = BesideName(path_);
    fs::rename(path_, old, error);
    if (error) return IoError("{}: cannot be moved away: {}", path_.string(), error.message());
  }
  fs::rename(temporary_, path_, error);
  if (error) {
    const std::string why = error.message();
    if (!old.empty()) fs::rename(old, path_, error);
    return IoError("{}: cannot be renamed into place: {}", path_.string(), why);
  }
  temporary_.clear();
  if (!old.empty()) {
    fs::remove_all(old, error);
    if (error) return IoError("{}: is written, but the old one is left at {}", path_.string(), old.string());
  }
  return OkStatus();
}

}  // namespace kvasir
