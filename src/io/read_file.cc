#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "io/json.h"

namespace kvasir {
namespace {

/// Reads to the end of the file, which may have grown or shrunk since its size was asked.
Result<std::string> ReadAll(int fd, const std::string& name, size_t expected, size_t max_bytes) {
  std::string text;
  size_t filled = 0;
  while (true) {
    if (filled == text.size()) text.resize(std::min(std::max(expected + 1, filled * 2), max_bytes + 1));
    const ssize_t got = ::read(fd, text.data() + filled, text.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("{}: cannot be read: {}", name, std::strerror(errno));
    if (got == 0) break;
    filled += static_cast<size_t>(got);
    if (filled > max_bytes) return ResourceExhausted("{}: longer than the limit of {} bytes", name, max_bytes);
  }
  text.resize(filled);
  return text;
}

}  // namespace

Result<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes) {
  const std::string name = path.string();
  // O_NONBLOCK: opening a pipe without a writer must not hang.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) return NotFound("{}: no such file", name);
    return IoError("{}: cannot be opened: {}", name, std::strerror(errno));
  }
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat info{};
  if (::fstat(fd, &info) != 0) return IoError("{}: cannot be examined: {}", name, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument("{}: is {}, not a regular file", name,
                           S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
  }
  const size_t size = static_cast<size_t>(info.st_size);
  if (size > max_bytes) {
    return ResourceExhausted("{}: {} bytes long, the limit is {} bytes", name, size, max_bytes);
  }
  try {
    return ReadAll(fd, name, size, max_bytes);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to read its {} bytes", name, size);
  }
}

}  // namespace kvasir
