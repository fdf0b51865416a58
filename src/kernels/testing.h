// What the kernel tests share: contexts on every kernel set, random data, packed matrices.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "kernels/exec.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"

namespace kvasir::testing {

/// A context with threads and scratch of its own.
struct TestContext {
  explicit TestContext(const KernelSet* set, int threads = 2) : pool(threads) {
    ctx.pool = &pool;
    ctx.scratch = &arena;
    ctx.kernels = set;
  }
  ThreadPool pool;
  Arena arena;
  ExecContext ctx;
};

/// The available sets without those that share what table(*set) points to with one before them.
template <class Fn>
std::vector<const KernelSet*> SetsThatDiffer(const Fn& table) {
  std::vector<const KernelSet*> sets;
  for (const KernelSet* set : AvailableKernelSets()) {
    const auto same = [&](const KernelSet* other) { return table(*other) == table(*set); };
    if (std::none_of(sets.begin(), sets.end(), same)) sets.push_back(set);
  }
  return sets;
}
inline std::vector<const KernelSet*> SetsOfBlockFormats() {
  return SetsThatDiffer([](const KernelSet& set) { return set.matmul->formats[kWeightFormats - 1]; });
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  std::vector<float> Normals(int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = Normal();
    return values;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

/// A rows × cols matrix with its rows `stride` apart, beginning at an address that is aligned to 4 bytes only.
struct Misaligned {
  Misaligned(int64_t rows_in, int64_t cols_in, int64_t extra = 3)
      : rows(rows_in), cols(cols_in), stride(cols_in + extra), values(static_cast<size_t>(rows * stride + 1), kGuard) {}
  MatView<float> view() { return {values.data() + 1, rows, cols, stride}; }
  /// Whether nothing outside the matrix was written.
  bool Intact() const {
    if (values[0] != kGuard) return false;
    for (size_t i = 1; i < values.size(); ++i) {
      if (static_cast<int64_t>(i - 1) % stride >= cols && values[i] != kGuard) return false;
    }
    return true;
  }
  static constexpr float kGuard = -12345.5f;
  int64_t rows;
  int64_t cols;
  int64_t stride;
  std::vector<float> values;
};

inline float RoundTo(WeightFormat format, float x) {
  if (format == WeightFormat::kBF16) return ToFloat(ToBFloat16(x));
  if (format == WeightFormat::kF16) return ToFloat(ToFloat16(x));
  return x;
}

/// A packed copy of a row-major matrix.
struct Packed {
  Packed(const std::vector<float>& values, int64_t rows, int64_t cols, WeightFormat format) {
    weight = {format, rows, cols, nullptr};
    auto allocated = Buffer::Allocate(weight.bytes(), MemoryOwner::kOther);
    EXPECT_TRUE(allocated.ok());
    buffer = *std::move(allocated);
    std::vector<PackSource> sources;
    for (int64_t n = 0; n < rows; ++n) {
      sources.push_back({reinterpret_cast<const std::byte*>(values.data() + n * cols), 1, DType::kF32});
    }
    PackPanel(sources, cols, format, buffer.data());
    weight.data = buffer.data();
  }
  Buffer buffer;
  PackedWeight weight;
};

inline std::string FormatName(WeightFormat format) {
  return format == WeightFormat::kF32 ? "f32" : format == WeightFormat::kF16 ? "f16" : "bf16";
}

inline constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16};

/// Whether two rows of floats are the same bits.
inline bool SameBits(const float* a, const float* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

}  // namespace kvasir::testing
