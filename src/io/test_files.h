// Helpers of the tests in io/: folders that vanish, files of given bytes, and GGUF files built field by field.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "base/test_paths.h"

namespace kvasir::testing {

/// A new empty folder, removed with its content at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "kvasir-io-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path Write(const std::string& name, std::string_view content) const {
    std::ofstream out(path_ / name, std::ios::binary);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    return path_ / name;
  }

  size_t CountFiles() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

inline std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::filesystem::path Fixture(std::string_view name) { return std::filesystem::path(kFixtures) / "io" / name; }

inline std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

/// The number's bytes as they lie in a little-endian file.
template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

/// How far this process's memory has grown at most since the meter was made.
class PeakMeter {
 public:
  PeakMeter() {
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak starts anew from what is resident now
    start_ = PeakResidentMemory();
  }
  int64_t Growth() const { return PeakResidentMemory() - start_; }

 private:
  int64_t start_;
};

/// True when the status is an error whose message holds every part.
inline ::testing::AssertionResult Fails(const Status& status, std::initializer_list<std::string_view> parts) {
  if (status.ok()) return ::testing::AssertionFailure() << "no error";
  for (std::string_view part : parts) {
    if (status.message().find(part) == std::string::npos) {
      return ::testing::AssertionFailure() << "\"" << part << "\" is not in: " << status.message();
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace kvasir::testing
