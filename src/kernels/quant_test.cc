// Block formats: packing, unpacking and products on every kernel set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "kernels/ops.h"
#include "kernels/quant_pack.h"
#include "kernels/testing.h"
#include "quant/gguf_blocks.h"

namespace kvasir {
namespace {

using testing::Misaligned;
using testing::Random;
using testing::TestContext;

constexpr DType kTypes[] = {DType::kQ8_0,   DType::kQ4_0,   DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                            DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                            DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && testing::SameBits(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

/// Where a block's fp16 scales stand.
std::vector<int64_t> ScaleOffsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K: return {0, 2};
    case DType::kQ2_K: return {80, 82};
    case DType::kQ3_K: return {108};
    case DType::kQ6_K: return {208};
    case DType::kMXFP4: return {};
    default: return {0};
  }
}

/// Random blocks with scales of a sensible size, of both signs, some of them zero; rows begin at odd addresses.
struct Blocks {
  Blocks(DType type, int64_t n_rows, int64_t n_cols, uint32_t seed)
      : dtype(type),
        rows(n_rows),
        cols(n_cols),
        row_bytes(n_cols / DTypeBlockSize(type) * DTypeBlockBytes(type)),
        bytes(static_cast<size_t>(n_rows * row_bytes + 1)) {
    Random random(seed);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.Below(256));
    for (int64_t at = 1; at < static_cast<int64_t>(bytes.size()); at += DTypeBlockBytes(type)) {
      if (type == DType::kMXFP4) bytes[static_cast<size_t>(at)] = static_cast<std::byte>(118 + random.Below(16));
      for (int64_t offset : ScaleOffsets(type)) {
        const float scale = random.Below(16) == 0 ? 0.0f : random.Normal() * 0.01f;
        const Float16 half = ToFloat16(scale);
        std::memcpy(bytes.data() + at + offset, &half, 2);
      }
    }
  }
  std::vector<PackSource> Sources() const {
    std::vector<PackSource> sources;
    for (int64_t r = 0; r < rows; ++r) sources.push_back({bytes.data() + 1 + r * row_bytes, 1, dtype});
    return sources;
  }
  std::vector<float> Row(int64_t r) const {
    std::vector<float> values(static_cast<size_t>(cols));
    DequantizeGgufBlocks(dtype, bytes.data() + 1 + r * row_bytes, cols / DTypeBlockSize(dtype), values.data());
    return values;
  }
  DType dtype;
  int64_t rows;
  int64_t cols;
  int64_t row_bytes;
  std::vector<std::byte> bytes;
};

struct PackedBlocks {
  explicit PackedBlocks(const Blocks& blocks)
      : weight{.format = *BlockFormatOf(blocks.dtype), .rows = blocks.rows, .cols = blocks.cols} {
    auto allocated = Buffer::Allocate(std::max<int64_t>(weight.bytes(), 64), MemoryOwner::kOther);
    KVASIR_CHECK(allocated.ok());
    buffer = std::move(*allocated);
    const std::vector<PackSource> sources = blocks.Sources();
    PackPanel(sources, blocks.cols, weight.format, buffer.data());
    weight.data = buffer.data();
  }
  PackedWeight weight;
  Buffer buffer;
};

/// x as products of block formats see it, in double.
std::vector<double> RoundActivations(const float* x, int64_t n) {
  std::vector<double> rounded(static_cast<size_t>(n));
  for (int64_t begin = 0; begin < n; begin += 256) {
    const int64_t end = std::min<int64_t>(begin + 256, n);
    float largest = 0.0f;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
    for (int64_t i = begin; i < end; ++i) {
      const double q = largest > 0 ? std::nearbyint(x[i] * (127.0f / largest)) : 0.0;
      rounded[static_cast<size_t>(i)] = q * (largest / 127.0f);
    }
  }
  return rounded;
}

std::vector<float> Product(const KernelSet* set, const PackedWeight& w, const std::vector<float>& x, int64_t tokens) {
  TestContext test(set);
  Misaligned in(tokens, w.cols);
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(x.data() + t * w.cols, w.cols, in.view().row(t));
  Misaligned out(tokens, w.rows);
  EXPECT_TRUE(MatMul(test.ctx, in.view(), w, {}, out.view()).ok());
  EXPECT_TRUE(out.Intact());
  std::vector<float> y(static_cast<size_t>(tokens * w.rows));
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(out.view().row(t), w.rows, y.data() + t * w.rows);
  return y;
}

/// Every value against the sums in double, and the bits against the reference set's.
void CheckProduct(const KernelSet* set, DType type, int64_t tokens, int64_t rows, int64_t cols) {
  SCOPED_TRACE(fmt::format("{} {} m={} n={} k={}", KernelSetName(*set), DTypeName(type), tokens, rows, cols));
  const Blocks blocks(type, rows, cols, static_cast<uint32_t>(rows * 31 + cols));
  const PackedBlocks packed(blocks);
  Random random(static_cast<uint32_t>(tokens));
  const std::vector<float> x = random.Normals(tokens * cols);
  const std::vector<float> y = Product(set, packed.weight, x, tokens);
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<float> w = blocks.Row(r);
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<double> a = RoundActivations(x.data() + t * cols, cols);
      double sum = 0.0;
      double size = 0.0;
      for (int64_t k = 0; k < cols; ++k) {
        sum += a[static_cast<size_t>(k)] * w[static_cast<size_t>(k)];
        size += std::abs(a[static_cast<size_t>(k)] * w[static_cast<size_t>(k)]);
      }
      ASSERT_NEAR(y[static_cast<size_t>(t * rows + r)], sum, 4e-6 * size + 1e-30) << t << "," << r;
    }
  }
  ASSERT_TRUE(SameBits(y, Product(AvailableKernelSets().back(), packed.weight, x, tokens)));
}

class QuantTest : public ::testing::TestWithParam<const KernelSet*> {};

TEST(QuantPackTest, UnpacksToTheSameBits) {
  for (DType type : kTypes) {
    for (int64_t blocks : {1, 2, 3, 5, 9}) {
      const Blocks source(type, 21, blocks * DTypeBlockSize(type), 5);
      const PackedBlocks packed(source);
      std::vector<float> row(static_cast<size_t>(source.cols));
      for (int64_t r = 0; r < source.rows; ++r) {
        UnpackRow(packed.weight, r, row.data());
        ASSERT_TRUE(SameBits(row, source.Row(r))) << DTypeName(type) << " " << blocks << " row " << r;
      }
    }
  }
}

TEST_P(QuantTest, EveryNumberOfTokens) {
  for (DType type : kTypes) {
    for (int64_t m = 1; m <= 26; ++m) CheckProduct(GetParam(), type, m, 35, 512);
    CheckProduct(GetParam(), type, 40, 35, 256);
  }
}

TEST_P(QuantTest, EveryDepth) {
  for (DType type : kTypes) {
    for (int64_t blocks = 1; blocks <= 18; ++blocks) {
      CheckProduct(GetParam(), type, blocks % 4 + 1, 19, blocks * DTypeBlockSize(type));
    }
    CheckProduct(GetParam(), type, 30, 17, 7680);  // several blocks of k
    CheckProduct(GetParam(), type, 9, 17, 7680);
  }
}

TEST_P(QuantTest, EveryNumberOfRows) {
  for (DType type : kTypes) {
    for (int64_t n = 1; n <= 50; n += 3) CheckProduct(GetParam(), type, n % 2 == 0 ? 13 : 1, n, 256);
  }
}

TEST_P(QuantTest, ARowHasTheSameBitsInEveryBatch) {
  constexpr int64_t kTokens = 60;
  for (DType type : kTypes) {
    const Blocks blocks(type, 77, 1536, 3);
    const PackedBlocks packed(blocks);
    Random random(7);
    const std::vector<float> x = random.Normals(kTokens * blocks.cols);
    std::vector<float> alone;
    for (int64_t t = 0; t < kTokens; ++t) {
      const std::vector<float> one(x.begin() + t * blocks.cols, x.begin() + (t + 1) * blocks.cols);
      const std::vector<float> y = Product(GetParam(), packed.weight, one, 1);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    ASSERT_TRUE(SameBits(alone, Product(GetParam(), packed.weight, x, kTokens))) << DTypeName(type);
  }
}

TEST_P(QuantTest, ExtremeActivations) {
  for (DType type : {DType::kQ8_0, DType::kQ4_K}) {
    const Blocks blocks(type, 16, 512, 9);
    const PackedBlocks packed(blocks);
    // Zeros and values below the least that is rounded give zero; the second chunk is of its own size.
    std::vector<float> x(512, 0.0f);
    for (float y : Product(GetParam(), packed.weight, x, 1)) EXPECT_EQ(y, 0.0f);
    std::fill_n(x.begin(), 256, 1e-32f);
    for (float y : Product(GetParam(), packed.weight, x, 1)) EXPECT_EQ(y, 0.0f);
    // What is not finite is not hidden.
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      x[300] = bad;
      for (float y : Product(GetParam(), packed.weight, x, 1)) EXPECT_FALSE(std::isfinite(y));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, QuantTest, ::testing::ValuesIn(AvailableKernelSets()),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

}  // namespace
}  // namespace kvasir
