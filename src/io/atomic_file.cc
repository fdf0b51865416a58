#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

namespace kvasir {
namespace {

/// Makes a rename in the folder durable. File systems that cannot sync folders say EINVAL; there is nothing to do then.
int SyncFolder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = ::fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
  ::close(fd);
  return error;
}

std::filesystem::path FolderOf(const std::filesystem::path& path) {
  return path.parent_path().empty() ? std::filesystem::path(".") : path.parent_path();
}

}  // namespace

Result<std::unique_ptr<AtomicFile>> AtomicFile::Create(const std::filesystem::path& path) {
  if (path.filename().empty()) return InvalidArgument("{}: names no file to write", path.string());
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return InvalidArgument("{}: is a directory, a file cannot be written there", path.string());
  }
  std::random_device random;
  constexpr int kAttempts = 16;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    // The name itself may already be as long as names can be, so the temporary one does not contain it.
    const std::filesystem::path temporary =
        FolderOf(path) / fmt::format(".kvasir-{:08x}{:08x}.tmp", random(), random());
    // O_EXCL rather than mkstemp: the mode then follows the umask as for any other file.
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return std::unique_ptr<AtomicFile>(new AtomicFile(path, temporary, fd));
    if (errno != EEXIST) {
      return IoError("{}: cannot be written: {}: {}", path.string(), FolderOf(path).string(), std::strerror(errno));
    }
  }
  return IoError("{}: cannot be written: no free temporary name in its folder", path.string());
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status AtomicFile::Failure(const char* what, int error) const {
  return IoError("{}: {}: {}; the file is left as it was", path_.string(), what, std::strerror(error));
}

Status AtomicFile::Write(std::span<const std::byte> bytes) {
  KVASIR_CHECK(fd_ >= 0);
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB at once.
    constexpr size_t kMost = size_t{1} << 30;
    const ssize_t written = ::write(fd_, bytes.data(), std::min(bytes.size(), kMost));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Failure("cannot be written", written < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(written));
    size_ += written;
  }
  return OkStatus();
}

Status AtomicFile::Commit() {
  KVASIR_CHECK(fd_ >= 0);
  if (::fsync(fd_) != 0) return Failure("cannot be synced to disk", errno);
  // close may report a late error (NFS); the descriptor is gone either way.
  if (::close(std::exchange(fd_, -1)) != 0) return Failure("cannot be closed", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return Failure("cannot be renamed into place", errno);
  temporary_.clear();
  if (const int error = SyncFolder(FolderOf(path_)); error != 0) {
    return IoError("{}: is written, but its folder cannot be synced to disk: {}", path_.string(), std::strerror(error));
  }
  return OkStatus();
}

}  // namespace kvasir
