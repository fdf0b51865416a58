// Writing .npy files. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "base/status.h"
#include "io/atomic_file.h"

namespace kvasir::apps {

/// A two-dimensional fp32 array, written row by row; the file appears with Finish.
class NpyWriter {
 public:
  static Result<NpyWriter> Create(const std::filesystem::path& file, int64_t rows, int64_t cols);
  /// REQUIRES: row has `cols` values.
  Status Write(std::span<const float> row);
  /// REQUIRES: all rows were written.
  Status Finish();

 private:
  explicit NpyWriter(std::unique_ptr<AtomicFile> file) : file_(std::move(file)) {}
  std::unique_ptr<AtomicFile> file_;
};

}  // namespace kvasir::apps
