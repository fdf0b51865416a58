// The quantisers: packing undone to the bit, errors against limits and against exhaustive search, hard blocks.
#include "quant/gguf_quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "quant/quantize.h"

namespace kvasir {
namespace {

constexpr DType kTypes[] = {DType::kQ4_0,   DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                            DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                            DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

std::vector<float> Normal(int64_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x) value = normal(random);
  return x;
}

std::vector<float> RoundTrip(DType type, const std::vector<float>& x, const float* importance = nullptr) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<std::byte> bytes(static_cast<size_t>(*DTypeBytes(type, n)));
  QuantizeGgufRow(type, x.data(), n, importance, bytes.data());
  std::vector<float> y(x.size());
  DequantizeGgufBlocks(type, bytes.data(), n / DTypeBlockSize(type), y.data());
  return y;
}

double Error(const std::vector<float>& x, const std::vector<float>& y, const float* w = nullptr) {
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = static_cast<double>(x[i]) - y[i];
    sum += difference * difference * (w != nullptr ? static_cast<double>(w[i]) : 1.0);
  }
  return sum;
}

double Power(const std::vector<float>& x) { return Error(x, std::vector<float>(x.size())); }

class GgufQuantize : public ::testing::TestWithParam<DType> {
 protected:
  DType type() const { return GetParam(); }
  int64_t size() const { return DTypeBlockSize(type()); }
};

TEST_P(GgufQuantize, EncodingUndoesDecoding) {
  std::mt19937 random(3);
  std::vector<std::byte> bytes(static_cast<size_t>(DTypeBlockBytes(type())) + 1);
  for (int trial = 0; trial < 50; ++trial) {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    const std::byte guard = bytes.back();
    GgufBlock block;
    DecodeGgufBlock(type(), bytes.data(), &block);
    std::vector<std::byte> again(bytes.size(), guard);
    EncodeGgufBlock(type(), block, again.data());
    EXPECT_EQ(again, bytes);
  }
}

// Relative errors on normal values; a good tenth above what was measured, far below the next narrower type.
TEST_P(GgufQuantize, NormalValuesLoseLittle) {
  double limit = 0.0;
  switch (type()) {
    case DType::kQ8_0: limit = 0.0062; break;
    case DType::kQ6_K: limit = 0.019; break;
    case DType::kQ5_K: limit = 0.039; break;
    case DType::kQ5_1: limit = 0.037; break;
    case DType::kQ5_0: limit = 0.045; break;
    case DType::kQ4_K: limit = 0.078; break;
    case DType::kQ4_1: limit = 0.076; break;
    case DType::kQ4_0: limit = 0.091; break;
    case DType::kIQ4_NL:
    case DType::kIQ4_XS: limit = 0.082; break;
    case DType::kMXFP4: limit = 0.123; break;
    case DType::kQ3_K: limit = 0.16; break;
    default: limit = 0.29; break;  // q2_k
  }
  const std::vector<float> x = Normal(256 * 40, 1, 0.02f);
  const double error = std::sqrt(Error(x, RoundTrip(type(), x)) / Power(x));
  EXPECT_LT(error, limit);
  EXPECT_GT(error, 0.5 * limit) << "the limit says nothing";
}

TEST_P(GgufQuantize, ImportanceLowersTheWeightedError) {
  const std::vector<float> x = Normal(256 * 16, 2);
  std::vector<float> importance = Normal(256 * 16, 3);
  for (float& w : importance) w = std::exp(2.0f * w);
  const double plain = Error(x, RoundTrip(type(), x), importance.data());
  const double weighted = Error(x, RoundTrip(type(), x, importance.data()), importance.data());
  EXPECT_LT(weighted, type() == DType::kQ8_0 || type() == DType::kMXFP4 ? plain : 0.93 * plain);
  // Equal weights, whatever their size, are no weights.
  for (const float same : {1e-20f, 1.0f, 1e20f}) {
    const std::vector<float> equal(x.size(), same);
    EXPECT_NEAR(Error(x, RoundTrip(type(), x, equal.data())), Error(x, RoundTrip(type(), x)), 1e-3 * Power(x));
  }
  const std::vector<float> nothing(x.size(), 0.0f);
  EXPECT_EQ(RoundTrip(type(), x, nothing.data()), RoundTrip(type(), x));
}

TEST_P(GgufQuantize, HardBlocks) {
  const auto n = static_cast<size_t>(size());
  EXPECT_EQ(RoundTrip(type(), std::vector<float>(n, 0.0f)), std::vector<float>(n, 0.0f));
  for (const float constant : {1.0f, -3.5f, 0.001f, -1e-4f}) {
    const std::vector<float> x(n, constant);
    // mxfp4 has no number near 3.5 or 0.001 but those of its grid; the others have a scale of their own.
    const double limit = type() == DType::kMXFP4 ? 0.17 : 0.02;
    EXPECT_LT(std::sqrt(Error(x, RoundTrip(type(), x)) / Power(x)), limit) << constant;
  }
  std::vector<float> outlier(n, 0.0f);
  outlier[n / 2 + 3] = -1000.0f;
  const std::vector<float> rounded = RoundTrip(type(), outlier);
  EXPECT_NEAR(rounded[n / 2 + 3], -1000.0f, type() == DType::kMXFP4 ? 140.0f : 8.0f);
  for (size_t i = 0; i < n; ++i) {
    EXPECT_NEAR(rounded[i], outlier[i], i == n / 2 + 3 ? 140.0f : 8.0f) << i;
  }
  for (const float tiny : {1e-7f, 1e-30f, 1e-40f}) {
    std::vector<float> x = Normal(size(), 7, 1.0f);
    for (float& value : x) value *= tiny;
    for (const float value : RoundTrip(type(), x)) ASSERT_LE(std::abs(value), 5.0f * tiny + 1e-6f);
  }
  for (const float sign : {1.0f, -1.0f}) {
    std::vector<float> x = Normal(size(), 8);
    x[5] = 4.0f;
    const float scale = sign * 0.999f * LargestGgufValue(type()) / *std::max_element(x.begin(), x.end());
    for (float& value : x) value = std::max(value, -4.0f) * scale;
    for (const float value : RoundTrip(type(), x)) ASSERT_TRUE(std::isfinite(value));
  }
}

TEST_P(GgufQuantize, BlocksAreRoundedEachForItself) {
  const std::vector<float> x = Normal(3 * size(), 4);
  const std::vector<float> all = RoundTrip(type(), x);
  const std::vector<float> last = RoundTrip(type(), {x.begin() + 2 * size(), x.end()});
  EXPECT_TRUE(std::equal(last.begin(), last.end(), all.begin() + 2 * size()));
}

INSTANTIATE_TEST_SUITE_P(All, GgufQuantize, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return std::string(DTypeName(type.param)); });

/// The least error of any fp16 scale near what the block needs, every code the nearest: float64 brute force.
double BestOneScale(const std::vector<float>& x, const std::vector<double>& grid) {
  double largest = 0.0;
  for (const float value : x) largest = std::max(largest, std::abs(static_cast<double>(value)));
  double least = 1e300;
  for (int bits = 1; bits < 0x7c00; ++bits) {
    const double magnitude = ToFloat(Float16{static_cast<uint16_t>(bits)});
    const double reach = magnitude * std::max(std::abs(grid.front()), std::abs(grid.back()));
    if (reach < 0.5 * largest || reach > 2.0 * largest) continue;
    for (const double scale : {magnitude, -magnitude}) {
      double error = 0.0;
      for (const float value : x) {
        double nearest = 1e300;
        for (const double q : grid) nearest = std::min(nearest, std::abs(value - scale * q));
        error += nearest * nearest;
      }
      least = std::min(least, error);
    }
  }
  return least;
}

TEST(GgufQuantizeOptimum, OneScaleComesNearTheBest) {
  const auto integers = [](int low, int high) {
    std::vector<double> grid;
    for (int q = low; q <= high; ++q) grid.push_back(q);
    return grid;
  };
  const std::pair<DType, std::vector<double>> cases[] = {
      {DType::kQ4_0, integers(-8, 7)},
      {DType::kQ5_0, integers(-16, 15)},
      {DType::kIQ4_NL, {std::begin(kIq4Values), std::end(kIq4Values)}},
  };
  for (const auto& [type, grid] : cases) {
    double ours = 0.0;
    double best = 0.0;
    for (uint32_t seed = 0; seed < 6; ++seed) {
      const std::vector<float> x = Normal(32, 100 + seed);
      const double error = Error(x, RoundTrip(type, x));
      const double least = BestOneScale(x, grid);
      EXPECT_GE(error, 0.999 * least);
      ours += error;
      best += least;
    }
    EXPECT_LT(ours, 1.05 * best) << DTypeName(type);
  }
}

TEST(Quantize, RefusesWhatATypeCannotHold) {
  std::vector<float> x(256, 1.0f);
  x[70] = std::nanf("");
  for (const DType type : {DType::kF32, DType::kF16, DType::kQ4_K, DType::kMXFP4}) {
    const Status status = CheckQuantizable(type, x.data(), 256);
    EXPECT_NE(status.message().find("column 70 holds nan"), std::string::npos) << status.message();
    x[70] = -INFINITY;
    EXPECT_FALSE(CheckQuantizable(type, x.data(), 256).ok());
    x[70] = std::nanf("");
  }
  x[70] = -1e7f;
  EXPECT_TRUE(CheckQuantizable(DType::kF32, x.data(), 256).ok());
  EXPECT_TRUE(CheckQuantizable(DType::kBF16, x.data(), 256).ok());
  for (const DType type : {DType::kF16, DType::kQ4_0, DType::kQ2_K}) {
    const Status status = CheckQuantizable(type, x.data(), 256);
    EXPECT_NE(status.message().find("keep it in bf16"), std::string::npos) << status.message();
  }
}

TEST(Quantize, PlainTypesRoundToNearest) {
  const std::vector<float> x = Normal(37, 5);
  std::vector<float> y(37);
  std::vector<std::byte> bytes(37 * 4 + 1);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    QuantizeRow(type, x.data(), 37, nullptr, bytes.data() + 1);
    DequantizeRow(type, bytes.data() + 1, 37, y.data());
    const double limit = type == DType::kF32 ? 0.0 : type == DType::kF16 ? 0x1p-11 : 0x1p-8;
    for (size_t i = 0; i < x.size(); ++i) EXPECT_LE(std::abs(x[i] - y[i]), limit * std::abs(x[i]));
  }
}

}  // namespace
}  // namespace kvasir
