// Products of many tokens with weights rounded to eight bits.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/quant_record.h"
#include "kernels/quant_testing.h"

namespace kvasir {
namespace {

using testing::Blocks;
using testing::PackedBlocks;
using testing::Product;
using testing::Random;
using testing::RoundActivations;
using testing::SameBits;

constexpr DType kRoundedTypes[] = {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

const FormatKernels& KernelsOf(const KernelSet* set, DType type) {
  return *set->matmul->formats[static_cast<int>(*BlockFormatOf(type))];
}

/// Row `row` of w as the documentation of RoundRecords has it, in plain code.
std::vector<float> RoundedRow(const PackedWeight& w, int64_t row) {
  const QuantLayout& layout = *GetQuantLayout(w.format);
  constexpr int kBlock = 128;
  std::vector<float> values(static_cast<size_t>(w.cols));
  for (int64_t begin = 0; begin < w.cols; begin += kBlock) {
    const std::byte* const record =
        w.data + row / kPanelRows * w.panel_bytes() + begin / layout.record_k * layout.record_bytes();
    const auto scale_of = [&](int64_t k) {
      return RecordScale(layout, record, row % kPanelRows, k % layout.record_k / layout.block_k);
    };
    const auto least_of = [&](int64_t k) {
      const float minimum = RecordMinimum(layout, record, row % kPanelRows, k % layout.record_k / layout.block_k);
      return std::fma(scale_of(k), static_cast<float>(-layout.zero), minimum);
    };
    float bound = 1e-30f;
    for (int64_t k = begin; k < begin + kBlock; k += layout.block_k) {
      const float most = std::fma(scale_of(k), static_cast<float>(layout.codes() - 1), least_of(k));
      bound = std::max({bound, std::abs(least_of(k)), std::abs(most)});
    }
    const float inverse = 127.0f * 256.0f / bound;
    for (int64_t k = begin; k < begin + kBlock && k < w.cols; ++k) {
      const auto a = static_cast<int>(std::nearbyint(scale_of(k) * inverse));
      const auto b = static_cast<int>(std::nearbyint(std::fma(least_of(k), inverse, 128.0f * 256.0f + 128.0f)));
      const int u = RecordCode(layout, record, row % kPanelRows, k % layout.record_k);
      values[static_cast<size_t>(k)] = static_cast<float>(((u * a + b) >> 8) - 128) * (bound / 127.0f);
    }
  }
  return values;
}

class RoundedProductTest : public ::testing::TestWithParam<const KernelSet*> {
 protected:
  void SetUp() override {
    if (KernelsOf(GetParam(), DType::kQ4_K).rounded == nullptr) GTEST_SKIP() << "this set never rounds weights";
  }
};
class RoundingTest : public ::testing::TestWithParam<const KernelSet*> {};

void CheckProduct(const KernelSet* set, DType type, int64_t tokens, int64_t rows, int64_t cols, bool outliers = false) {
  SCOPED_TRACE(fmt::format("{} {} m={} n={} k={}", KernelSetName(*set), DTypeName(type), tokens, rows, cols));
  const Blocks blocks(type, rows, cols, static_cast<uint32_t>(rows * 31 + cols));
  const PackedBlocks packed(blocks);
  Random random(static_cast<uint32_t>(tokens));
  std::vector<float> x = random.Normals(tokens * cols);
  for (float& value : x) {
    if (outliers && random.Below(200) == 0) value *= 500.0f;
  }
  const std::vector<float> y = Product(set, packed.weight, x, tokens, true);
  double error = 0.0;  // of the rounding itself
  double whole = 0.0;
  std::vector<std::vector<double>> rounded;
  for (int64_t t = 0; t < tokens; ++t) rounded.push_back(RoundActivations(type, x.data() + t * cols, cols));
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<float> w = RoundedRow(packed.weight, r);
    std::vector<float> exact(static_cast<size_t>(cols));
    UnpackRow(packed.weight, r, exact.data());
    for (size_t k = 0; k < w.size(); ++k) {
      error += std::pow(static_cast<double>(w[k]) - exact[k], 2);
      whole += std::pow(static_cast<double>(exact[k]), 2);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<double>& a = rounded[static_cast<size_t>(t)];
      double sum = 0.0;
      double size = 0.0;
      for (size_t k = 0; k < w.size(); ++k) {
        sum += a[k] * w[k];
        size += std::abs(a[k] * w[k]);
      }
      ASSERT_NEAR(y[static_cast<size_t>(t * rows + r)], sum, 4e-6 * size + 1e-30) << t << "," << r;
    }
  }
  EXPECT_LT(std::sqrt(error / whole), 0.012);
}

TEST_P(RoundedProductTest, EveryShape) {
  for (DType type : kRoundedTypes) {
    for (int64_t m = 32; m <= 44; ++m) CheckProduct(GetParam(), type, m, 35, 512);
    for (int64_t n = 1; n <= 50; n += 3) CheckProduct(GetParam(), type, 33, n, 256);
    for (int64_t k = 256; k <= 2560; k += 256) CheckProduct(GetParam(), type, 32, 17, k);
    CheckProduct(GetParam(), type, 65, 33, 7680);  // several blocks of k
    CheckProduct(GetParam(), type, 40, 35, 1536, true);
  }
}

TEST_P(RoundingTest, OnlyManyTokensAreRoundedAndOnlyIfAllowed) {
  for (DType type : testing::AllTypes()) {
    const FormatKernels& kernels = KernelsOf(GetParam(), type);
    const Blocks blocks(type, 40, 1024, 3);
    const PackedBlocks packed(blocks);
    Random random(7);
    for (int64_t m : {1, 31, 32, 70}) {
      const std::vector<float> x = random.Normals(m * blocks.cols);
      const bool rounds = kernels.rounded != nullptr && m >= kernels.round_from;
      const std::vector<float> exact = Product(GetParam(), packed.weight, x, m);
      EXPECT_EQ(SameBits(exact, Product(GetParam(), packed.weight, x, m, true)), !rounds)
          << DTypeName(type) << " " << m;
    }
  }
}

TEST_P(RoundedProductTest, ARowHasTheSameBitsInEveryBatchOfMany) {
  for (DType type : kRoundedTypes) {
    const Blocks blocks(type, 77, 1536, 3);
    const PackedBlocks packed(blocks);
    Random random(7);
    const std::vector<float> x = random.Normals(90 * blocks.cols);
    const std::vector<float> all = Product(GetParam(), packed.weight, x, 90, true);
    for (int64_t first : {0, 13, 50}) {
      const std::vector<float> some(x.begin() + first * blocks.cols, x.begin() + (first + 37) * blocks.cols);
      const std::vector<float> expected(all.begin() + first * blocks.rows, all.begin() + (first + 37) * blocks.rows);
      ASSERT_TRUE(SameBits(expected, Product(GetParam(), packed.weight, some, 37, true))) << DTypeName(type);
    }
  }
}

// What is not finite is not hidden, and weights of nothing but zeros are zero.
TEST_P(RoundedProductTest, ExtremeScales) {
  for (DType type : {DType::kQ4_K, DType::kQ6_K}) {
    for (uint16_t half : {uint16_t{0}, uint16_t{0x7c00}, uint16_t{0x7e00}}) {
      Blocks blocks(type, 16, 512, 9);
      for (size_t row = 0; row < 16; ++row) {
        for (int64_t offset : testing::ScaleOffsets(type)) {
          for (size_t block = 0; block < 2; ++block) {
            std::byte* const at = blocks.bytes.data() + 1 + row * static_cast<size_t>(blocks.row_bytes) +
                                  block * static_cast<size_t>(DTypeBlockBytes(type)) + offset;
            std::memcpy(at, &half, 2);
          }
        }
      }
      const PackedBlocks packed(blocks);
      for (float y : Product(GetParam(), packed.weight, std::vector<float>(32 * 512, 1.0f), 32, true)) {
        if (half == 0) {
          EXPECT_EQ(y, 0.0f);
        } else {
          EXPECT_FALSE(std::isfinite(y));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, RoundingTest, ::testing::ValuesIn(testing::SetsOfBlockFormats()),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });
INSTANTIATE_TEST_SUITE_P(Sets, RoundedProductTest, ::testing::ValuesIn(testing::SetsOfBlockFormats()),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

}  // namespace
}  // namespace kvasir
