// Block formats: packing, unpacking and products on every kernel set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/quant_testing.h"

namespace kvasir {
namespace {

using testing::AllTypes;
using testing::Blocks;
using testing::IsFloat8;
using testing::kCodedTypes;
using testing::kTypes;
using testing::PackedBlocks;
using testing::Product;
using testing::Random;
using testing::RoundActivations;
using testing::SameBits;

/// Every value against the sums in double, and the bits against the reference set's.
void CheckProduct(const KernelSet* set, DType type, int64_t tokens, int64_t rows, int64_t cols, bool outliers = false) {
  SCOPED_TRACE(fmt::format("{} {} m={} n={} k={}", KernelSetName(*set), DTypeName(type), tokens, rows, cols));
  const Blocks blocks(type, rows, cols, static_cast<uint32_t>(rows * 31 + cols));
  const PackedBlocks packed(blocks);
  Random random(static_cast<uint32_t>(tokens));
  std::vector<float> x = random.Normals(tokens * cols);
  for (float& value : x) {
    if (outliers && random.Below(200) == 0) value *= 500.0f;
  }
  const std::vector<float> y = Product(set, packed.weight, x, tokens);
  std::vector<std::vector<double>> rounded;
  for (int64_t t = 0; t < tokens; ++t) rounded.push_back(RoundActivations(type, x.data() + t * cols, cols));
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> w(static_cast<size_t>(cols));
    UnpackRow(packed.weight, r, w.data());
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<double>& a = rounded[static_cast<size_t>(t)];
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

// int8 and fp8 are kept to the bit; the others have their scales (and minima) rounded to fp16, nf4 and fp4 their tables
// to integers.
TEST(QuantPackTest, UnpacksCodedBlocksAsNearAsFp16) {
  for (DType type : kCodedTypes) {
    for (int64_t blocks : {1, 2, 3, 5, 9}) {
      const Blocks source(type, 21, blocks * DTypeBlockSize(type), 5);
      const PackedBlocks packed(source);
      std::vector<float> row(static_cast<size_t>(source.cols));
      for (int64_t r = 0; r < source.rows; ++r) {
        UnpackRow(packed.weight, r, row.data());
        const std::vector<float> exact = source.Row(r);
        if (type == DType::kInt8 || IsFloat8(type)) {
          ASSERT_TRUE(SameBits(row, exact)) << DTypeName(type) << " " << blocks << " row " << r;
          continue;
        }
        float largest = 0.0f;
        for (float v : exact) largest = std::max(largest, std::abs(v));
        const float bound = type == DType::kNF4 || type == DType::kFP4 ? 5e-3f : 3e-3f;
        for (size_t k = 0; k < row.size(); ++k) ASSERT_NEAR(row[k], exact[k], bound * largest) << DTypeName(type);
      }
    }
  }
}

TEST_P(QuantTest, Outliers) {
  for (DType type : AllTypes()) {
    for (int64_t m : {1, 2, 5, 6, 7, 13, 22, 30}) CheckProduct(GetParam(), type, m, 35, 1536, true);
  }
}

// A few activations 500 times larger must not cost the others their precision.
TEST_P(QuantTest, OutliersSpoilNothing) {
  for (DType type : {DType::kQ8_0, DType::kQ4_0, DType::kInt8, DType::kInt4G128}) {
    constexpr int64_t kCols = 2048;
    const Blocks blocks(type, 16, kCols, 11);
    const PackedBlocks packed(blocks);
    Random random(3);
    std::vector<float> x = random.Normals(kCols);
    for (int64_t k : {100, 101, 1500, 2047}) x[static_cast<size_t>(k)] = 1500.0f + static_cast<float>(k);
    const std::vector<float> y = Product(GetParam(), packed.weight, x, 1);
    std::vector<float> w(kCols);
    for (int64_t r = 0; r < 16; ++r) {
      UnpackRow(packed.weight, r, w.data());
      double sum = 0.0;
      double others = 0.0;  // the length of what is not an outlier's product
      for (size_t k = 0; k < w.size(); ++k) {
        const double product = static_cast<double>(x[k]) * w[k];
        sum += product;
        if (std::abs(x[k]) < 1000.0f) others += product * product;
      }
      ASSERT_NEAR(y[static_cast<size_t>(r)], sum, 0.03 * std::sqrt(others) + 4e-6 * std::abs(sum)) << DTypeName(type);
    }
  }
}

TEST_P(QuantTest, ColumnsInAnotherOrderAndScaledInputs) {
  for (DType type : {DType::kInt4G128, DType::kInt8, DType::kScaledE4M3}) {
    constexpr int64_t kCols = 384;
    const Blocks blocks(type, 33, kCols, 4);
    PackedBlocks packed(blocks);
    std::vector<int32_t> order(kCols);
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i * 5 % kCols);
    std::vector<float> scales(kCols);
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = i % 3 == 0 ? 0.25f : 1.0f;
    Random random(8);
    for (int64_t m : {1, 7, 30}) {
      const std::vector<float> x = random.Normals(m * kCols);
      for (const bool reorders : {true, false}) {
        for (const bool rescales : {true, false}) {
          std::vector<float> changed(x.size());
          for (size_t i = 0; i < x.size(); ++i) {
            const size_t k = reorders ? static_cast<size_t>(order[i % kCols]) : i % kCols;
            changed[i] = x[i / kCols * kCols + k] * (rescales ? scales[k] : 1.0f);
          }
          packed.weight.order = nullptr;
          packed.weight.input_scales = nullptr;
          const std::vector<float> expected = Product(GetParam(), packed.weight, changed, m);
          if (reorders) packed.weight.order = order.data();
          if (rescales) packed.weight.input_scales = scales.data();
          EXPECT_TRUE(SameBits(Product(GetParam(), packed.weight, x, m), expected)) << DTypeName(type) << " " << m;
        }
      }
    }
  }
}

TEST_P(QuantTest, EveryNumberOfTokens) {
  for (DType type : AllTypes()) {
    for (int64_t m = 1; m <= 26; ++m) CheckProduct(GetParam(), type, m, 35, 512);
    CheckProduct(GetParam(), type, 40, 35, 256);
  }
}

TEST_P(QuantTest, EveryDepth) {
  for (DType type : AllTypes()) {
    for (int64_t blocks = 1; blocks <= 18; ++blocks) {
      CheckProduct(GetParam(), type, blocks % 4 + 1, 19, blocks * DTypeBlockSize(type));
    }
    CheckProduct(GetParam(), type, 30, 17, 7680);  // several blocks of k
    CheckProduct(GetParam(), type, 9, 17, 7680);
  }
}

TEST_P(QuantTest, EveryNumberOfRows) {
  for (DType type : AllTypes()) {
    for (int64_t n = 1; n <= 50; n += 3) CheckProduct(GetParam(), type, n % 2 == 0 ? 13 : 1, n, 256);
  }
}

TEST_P(QuantTest, ARowHasTheSameBitsInEveryBatch) {
  constexpr int64_t kTokens = 60;
  for (DType type : AllTypes()) {
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

INSTANTIATE_TEST_SUITE_P(Sets, QuantTest, ::testing::ValuesIn(testing::SetsOfBlockFormats()),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

}  // namespace
}  // namespace kvasir
