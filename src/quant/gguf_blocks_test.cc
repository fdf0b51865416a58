// Every GGUF type against values that the gguf package computed (tools/fixtures/make_quant_fixtures.py).
#include "quant/gguf_blocks.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/test_paths.h"

namespace kvasir {
namespace {

constexpr DType kTypes[] = {DType::kQ4_0,   DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                            DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                            DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

/// The same bits; all NaNs are one.
bool Same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

class GgufBlocks : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const std::string path = std::string(kFixtures) + "/quant/" + std::string(DTypeName(type())) + ".bin";
    std::ifstream stream(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(stream), {});
    const size_t each = static_cast<size_t>(block_bytes() + 4 * size());
    ASSERT_GT(bytes_.size(), 0u) << path;
    ASSERT_EQ(bytes_.size() % each, 0u);
    blocks_ = static_cast<int64_t>(bytes_.size() / each);
    expected_.resize(static_cast<size_t>(blocks_ * size()));
    std::memcpy(expected_.data(), bytes_.data() + blocks_ * block_bytes(), expected_.size() * sizeof(float));
    // Exactly the blocks, at an odd address, so that sanitizers see a byte too much.
    bytes_.resize(static_cast<size_t>(blocks_ * block_bytes()));
    bytes_.insert(bytes_.begin(), '\0');
    bytes_.shrink_to_fit();
  }

  DType type() const { return GetParam(); }
  int64_t size() const { return DTypeBlockSize(type()); }
  int64_t block_bytes() const { return DTypeBlockBytes(type()); }
  const std::byte* block(int64_t b) const {
    return reinterpret_cast<const std::byte*>(bytes_.data()) + 1 + b * block_bytes();
  }

  std::string bytes_;
  int64_t blocks_ = 0;
  std::vector<float> expected_;
};

TEST_P(GgufBlocks, EqualTheReferenceToTheBit) {
  std::vector<float> out(expected_.size() + 1, 7.0f);
  DequantizeGgufBlocks(type(), block(0), blocks_, out.data());
  for (size_t i = 0; i < expected_.size(); ++i) {
    ASSERT_TRUE(Same(out[i], expected_[i])) << "value " << i << ": " << out[i] << ", not " << expected_[i];
  }
  EXPECT_EQ(out.back(), 7.0f);
}

TEST_P(GgufBlocks, OneByOneAsAllTogether) {
  std::vector<float> out(static_cast<size_t>(size()));
  for (int64_t b = 0; b < blocks_; ++b) {
    DequantizeGgufBlocks(type(), block(b), 1, out.data());
    for (int64_t i = 0; i < size(); ++i) {
      ASSERT_TRUE(Same(out[static_cast<size_t>(i)], expected_[static_cast<size_t>(b * size() + i)])) << b << " " << i;
    }
  }
}

/// The formulas of GgufBlock's comment, each operation rounded by itself.
float ValueOf(DType type, const GgufBlock& block, int64_t i) {
  const bool short_blocks = type == DType::kQ2_K || type == DType::kQ3_K || type == DType::kQ6_K;
  const int64_t j = i / (short_blocks ? 16 : 32);
  const int c = block.codes[i];
  const int scale = block.scales[j];
  const float d = ToFloat(Float16{block.d});
  const float dmin = ToFloat(Float16{block.dmin});
  switch (type) {
    case DType::kQ4_0: return d * static_cast<float>(c - 8);
    case DType::kQ5_0: return d * static_cast<float>(c - 16);
    case DType::kQ8_0: return d * static_cast<float>(c - 128);
    case DType::kQ4_1:
    case DType::kQ5_1: return d * static_cast<float>(c) + dmin;
    case DType::kQ2_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return d * static_cast<float>(scale) * static_cast<float>(c) - dmin * static_cast<float>(block.mins[j]);
    case DType::kQ3_K: return d * static_cast<float>(scale - 32) * static_cast<float>(c - 4);
    case DType::kQ6_K: return d * static_cast<float>(static_cast<int8_t>(scale)) * static_cast<float>(c - 32);
    case DType::kIQ4_NL: return d * static_cast<float>(kIq4Values[c]);
    case DType::kIQ4_XS: return d * static_cast<float>(scale - 32) * static_cast<float>(kIq4Values[c]);
    case DType::kMXFP4: return std::ldexp(static_cast<float>(kMxfp4Values[c]), scale - 128);
    default: return NAN;
  }
}

TEST_P(GgufBlocks, TakenApartMeanTheSame) {
  for (int64_t b = 0; b < blocks_; ++b) {
    GgufBlock parts;
    DecodeGgufBlock(type(), block(b), &parts);
    for (int64_t i = 0; i < size(); ++i) {
      ASSERT_TRUE(Same(ValueOf(type(), parts, i), expected_[static_cast<size_t>(b * size() + i)])) << b << " " << i;
    }
  }
}

TEST_P(GgufBlocks, ScalesThatAreNotFiniteShowInAllValues) {
  if (type() == DType::kMXFP4) return;  // an exponent is always finite
  int64_t seen = 0;
  for (int64_t b = 0; b < blocks_; ++b) {
    GgufBlock parts;
    DecodeGgufBlock(type(), block(b), &parts);
    if (std::isfinite(ToFloat(Float16{parts.d})) && std::isfinite(ToFloat(Float16{parts.dmin}))) continue;
    ++seen;
    for (int64_t i = 0; i < size(); ++i) EXPECT_FALSE(std::isfinite(expected_[static_cast<size_t>(b * size() + i)]));
  }
  EXPECT_GE(seen, 3);
}

INSTANTIATE_TEST_SUITE_P(Types, GgufBlocks, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return std::string(DTypeName(type.param)); });

TEST(GgufBlockTypes, AreAllThatHaveBlocks) {
  int found = 0;
  for (int i = 0; i <= static_cast<int>(DType::kMXFP4); ++i) {
    const DType type = static_cast<DType>(i);
    EXPECT_EQ(IsGgufBlockType(type), DTypeBlockSize(type) > 1) << DTypeName(type);
    found += IsGgufBlockType(type);
  }
  EXPECT_EQ(found, static_cast<int>(std::size(kTypes)));
}

}  // namespace
}  // namespace kvasir
