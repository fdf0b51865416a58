// Matrices that are rounded on loading, and those whose rows are made by an encoder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "model/input_scales.h"
#include "model/weights_testing.h"
#include "quant/coded_blocks.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using weights_testing::Fixture;
using weights_testing::RowOf;

/// Rows of int4_g32: value i of row r is base + r + i mod 16, before `order` moves it to input order[i].
class CountingRows final : public RowEncoder {
 public:
  CountingRows(int64_t cols, float base, std::vector<int32_t> order)
      : cols_(cols), base_(base), order_(std::move(order)) {}
  void Encode(int64_t row, std::byte* out) const override {
    for (int64_t k = 0; k < cols_; k += 32, out += 40) {
      const CodedBlock block{.scale = 1.0f, .minimum = base_ + static_cast<float>(row)};
      std::memcpy(out, &block, sizeof(block));
      for (int64_t i = 0; i < 32; ++i) out[8 + i] = static_cast<std::byte>((k + i) % 16);
    }
  }
  std::span<const int32_t> order() const override { return order_; }

 private:
  int64_t cols_;
  float base_;
  std::vector<int32_t> order_;
};

std::vector<int32_t> Reversed(int32_t n) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.rbegin(), order.rend(), 0);
  return order;
}

/// The fixture with an output projection [64, 64] that is made; everything else is as wide.
struct MadeFixture : Fixture {
  explicit MadeFixture(std::vector<int32_t> order) {
    spec.layers[0].attention.head_dim = 32;
    spec.width = spec.embedding_width = 64;
    for (const char* name :
         {"embedding", "packed", "v", "q_bias", "k_bias", "v_bias", "stacked", "gate", "up", "down"}) {
      source.Remove(name);
    }
    LayerRule& rule = rules.layers[0];
    rule.q.weight = WeightRule("q");
    rule.k.weight = WeightRule("k");
    rule.v.weight = WeightRule("v");
    rule.out.weight = WeightRule("out", true);  // as Conv1D would be stored; made rows are rows all the same
    source.Add("embedding", {5, 64}, 0.0f);
    source.Add("q", {64, 64}, 1.0f);
    source.AddMade("k", {32, 64}, DType::kInt4G32, std::make_shared<CountingRows>(64, 100.0f, order));
    source.AddMade("v", {32, 64}, DType::kInt4G32, std::make_shared<CountingRows>(64, 200.0f, order));
    source.AddMade("out", {64, 64}, DType::kInt4G32, std::make_shared<CountingRows>(64, 0.0f, order));
    source.Add("q_bias", {64}, 10.0f);
    source.Add("k_bias", {32}, 20.0f);
    source.Add("v_bias", {32}, 30.0f);
    source.AddMade("gate", {20, 64}, DType::kInt4G32, std::make_shared<CountingRows>(64, 0.0f, order));
    source.AddMade("up", {20, 64}, DType::kInt4G32, std::make_shared<CountingRows>(64, 0.0f, Reversed(64)));
    source.Add("down", {64, 20}, 1.0f);
  }
};

TEST(WeightsRounding, LayersAreRoundedAndNothingElse) {
  for (DType type : {DType::kInt8, DType::kNF4, DType::kFP4}) {
    Fixture fixture;
    ModelWeights weights;
    ThreadPool pool(2);
    const auto plan = fixture.Plan(weights, std::nullopt, type);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const auto buffer = PackWeights(*plan, pool, {});
    ASSERT_TRUE(buffer.ok()) << buffer.status().message();
    EXPECT_EQ(weights.embedding.format, WeightFormat::kF32);
    const PackedWeight& down = weights.layers[0].ffn.down.weight;
    EXPECT_EQ(PackedWeight{}.order, down.order);
    // Row 3 of "down": 460 … 479, a part of one block.
    float step = 0.0f;
    if (type == DType::kInt8) step = 479.0f / 127.0f / 2;
    if (type == DType::kNF4) step = 479.0f * (1.0f - 0.7229568f) / 2;
    if (type == DType::kFP4) step = 479.0f / 6;
    const std::vector<float> row = RowOf(down, 3);
    for (size_t i = 0; i < row.size(); ++i) EXPECT_NEAR(row[i], 460.0f + static_cast<float>(i), step * 1.01f + 1.0f);
    EXPECT_NE(row[0], 460.0f);
    // The transposed, strided and stacked ones too.
    EXPECT_NEAR(RowOf(weights.layers[0].qkv.at(0), 9)[2], 206.0f, 206.0f * 0.17f);
    EXPECT_NEAR(RowOf(weights.layers[0].out.weight, 0)[5], 341.0f, 341.0f * 0.17f);

    // Widened again, for comparison: the same values but for fp16 scales.
    ModelWeights wide;
    const auto wide_plan = fixture.Plan(wide, DType::kF32, type);
    ASSERT_TRUE(wide_plan.ok());
    const auto wide_buffer = PackWeights(*wide_plan, pool, {});
    ASSERT_TRUE(wide_buffer.ok());
    EXPECT_EQ(wide.layers[0].ffn.down.weight.format, WeightFormat::kF32);
    const std::vector<float> wide_row = RowOf(wide.layers[0].ffn.down.weight, 3);
    for (size_t i = 0; i < row.size(); ++i) EXPECT_NEAR(row[i], wide_row[i], 479.0f * 5e-3f);
  }
}

TEST(WeightsRounding, ColumnsOfOddSizesAreBroughtToTheTypicalOne) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> columns = {1.0f, 1.5f, 0.0f, 0.002f, 600.0f, 0.0625f, 16.0f, kInfinity, 1e-40f, 1.0f, 1.0f};
  InputScalesOf(columns);
  EXPECT_THAT(columns,
              ::testing::ElementsAre(1.0f, 1.0f, 1.0f, 1.0f / 256, 1024.0f, 1.0f, 1.0f, 1.0f, 0x1p-60f, 1.0f, 1.0f));
  std::vector<float> zeros(3, 0.0f);
  InputScalesOf(zeros);
  EXPECT_THAT(zeros, ::testing::Each(1.0f));
}

TEST(WeightsRounding, SmallColumnsAreNotLost) {
  for (DType type : {DType::kInt8, DType::kNF4, DType::kFP4}) {
    Fixture fixture;
    constexpr size_t kSmall = 7;
    for (size_t r = 0; r < 6; ++r) fixture.source.At("down", r * 20 + kSmall) /= 1024.0f;
    for (const auto dtype : {std::optional<DType>(), std::optional(DType::kF32)}) {
      ModelWeights weights;
      ThreadPool pool(2);
      const auto plan = fixture.Plan(weights, dtype, type);
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      const auto buffer = PackWeights(*plan, pool, {});
      ASSERT_TRUE(buffer.ok()) << buffer.status().message();
      EXPECT_EQ(weights.layers[0].out.weight.input_scales, nullptr);
      const PackedWeight& down = weights.layers[0].ffn.down.weight;
      ASSERT_NE(down.input_scales, nullptr);
      const std::vector<float> row = RowOf(down, 3);
      for (size_t i = 0; i < row.size(); ++i) {
        EXPECT_EQ(down.input_scales[i], i == kSmall ? 1.0f / 1024 : 1.0f) << i;
        EXPECT_NEAR(row[i], 460.0f + static_cast<float>(i), 460.0f * 0.17f);
      }
    }
  }
}

TEST(WeightsRounding, NanAndInfinityNameTheirTensor) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Fixture fixture;
    fixture.source.At("down", 5) = bad;
    ModelWeights weights;
    ThreadPool pool(1);
    const auto plan = fixture.Plan(weights, std::nullopt, DType::kInt8);
    ASSERT_TRUE(plan.ok());
    EXPECT_THAT(PackWeights(*plan, pool, {}).status().message(), AllOf(HasSubstr("\"down\""), HasSubstr("NaN")));
  }
}

/// Rows of fp8 codes, one of which is `special`.
class Float8Rows final : public RowEncoder {
 public:
  Float8Rows(DType type, uint8_t special) : type_(type), special_(special) {}
  void Encode(int64_t row, std::byte* out) const override {
    const std::vector<float> ones(64, 1.0f);
    QuantizeCodedRow(type_, ones.data(), 64, out);
    if (row == 17) out[8 + 5] = static_cast<std::byte>(special_);
  }

 private:
  DType type_;
  uint8_t special_;
};

TEST(WeightsRounding, Float8CodesThatAreNoNumbers) {
  const auto status = [](DType type, int special) {
    MadeFixture fixture({});
    fixture.source.Remove("out");
    fixture.source.AddMade("out", {64, 64}, type, std::make_shared<Float8Rows>(type, static_cast<uint8_t>(special)));
    ModelWeights weights;
    ThreadPool pool(1);
    const auto plan = fixture.Plan(weights);
    EXPECT_TRUE(plan.ok()) << plan.status().message();
    return PackWeights(*plan, pool, {}).status();
  };
  for (int code : {0x7f, 0xff}) {
    EXPECT_THAT(status(DType::kScaledE4M3, code).message(), HasSubstr("\"out\"")) << code;
  }
  for (int code : {0x7c, 0x7d, 0xfe, 0xff}) {
    EXPECT_THAT(status(DType::kScaledE5M2, code).message(), HasSubstr("\"out\"")) << code;
  }
  EXPECT_TRUE(status(DType::kScaledE4M3, 0x7e).ok());
  EXPECT_TRUE(status(DType::kScaledE4M3, 0x7c).ok());
  EXPECT_TRUE(status(DType::kScaledE5M2, 0x7b).ok());
}

TEST(WeightsRounding, MadeRowsInAnotherOrder) {
  const std::vector<int32_t> order = Reversed(64);
  MadeFixture fixture(order);
  ModelWeights weights;
  ThreadPool pool(2);
  const auto plan = fixture.Plan(weights);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto buffer = PackWeights(*plan, pool, {});
  ASSERT_TRUE(buffer.ok()) << buffer.status().message();
  const LayerWeights& layer = weights.layers[0];
  // Q is stored in fp32, K and V alike in four bits with one order.
  ASSERT_EQ(layer.qkv.size(), 2u);
  EXPECT_EQ(layer.qkv[0].format, WeightFormat::kF32);
  EXPECT_EQ(layer.qkv[0].order, nullptr);
  EXPECT_EQ(layer.qkv[1].format, WeightFormat::kInt4G32);
  ASSERT_NE(layer.qkv[1].order, nullptr);
  EXPECT_EQ(std::vector<int32_t>(layer.qkv[1].order, layer.qkv[1].order + 64), order);
  EXPECT_EQ(RowOf(layer.qkv[1], 2)[5], 107.0f);
  EXPECT_EQ(RowOf(layer.qkv[1], 32)[17], 201.0f);
  EXPECT_EQ(RowOf(layer.out.weight, 63)[3], 66.0f);
  // Gate and up agree in their order, too.
  EXPECT_EQ(layer.ffn.up.weight.format, WeightFormat::kInt4G32);
  ASSERT_NE(layer.ffn.up.weight.order, nullptr);

  // In fp32 every value is at its own input.
  ModelWeights wide;
  const auto wide_plan = fixture.Plan(wide, DType::kF32);
  ASSERT_TRUE(wide_plan.ok());
  const auto wide_buffer = PackWeights(*wide_plan, pool, {});
  ASSERT_TRUE(wide_buffer.ok()) << wide_buffer.status().message();
  EXPECT_EQ(wide.layers[0].out.weight.order, nullptr);
  EXPECT_EQ(RowOf(wide.layers[0].out.weight, 63)[63 - 3], 66.0f);
}

TEST(WeightsRounding, PartsOfDifferentOrdersAreWidened) {
  MadeFixture fixture({});
  ModelWeights weights;
  ThreadPool pool(1);
  const auto plan = fixture.Plan(weights);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto buffer = PackWeights(*plan, pool, {});
  ASSERT_TRUE(buffer.ok()) << buffer.status().message();
  const PackedWeight& up = weights.layers[0].ffn.up.weight;  // gate as stored, up reversed
  EXPECT_EQ(up.format, WeightFormat::kF32);
  EXPECT_EQ(RowOf(up, 1)[3], 4.0f);
  EXPECT_EQ(RowOf(up, 17)[63 - 3], 4.0f);
  EXPECT_EQ(weights.layers[0].out.weight.order, nullptr);
}

TEST(WeightsRounding, NothingLeftToRound) {
  MadeFixture fixture({});
  LayerRule& rule = fixture.rules.layers[0];
  rule.q.weight = WeightRule("q4");
  fixture.source.AddMade("q4", {64, 64}, DType::kInt4G32, std::make_shared<CountingRows>(64, 0.0f, Reversed(64)));
  fixture.source.Remove("up");
  fixture.source.AddMade("up", {20, 64}, DType::kInt4G32,
                         std::make_shared<CountingRows>(64, 0.0f, std::vector<int32_t>{}));
  fixture.source.Remove("down");
  fixture.spec.layers[0].ffn.width = 32;
  for (const char* name : {"gate", "up", "gate_bias", "up_bias"}) fixture.source.Remove(name);
  for (const char* name : {"gate", "up"}) {
    fixture.source.AddMade(name, {32, 64}, DType::kInt4G32,
                           std::make_shared<CountingRows>(64, 0.0f, std::vector<int32_t>{}));
  }
  fixture.source.Add("gate_bias", {32}, 1.0f);
  fixture.source.Add("up_bias", {32}, 1.0f);
  fixture.source.AddMade("down", {64, 32}, DType::kInt4G32,
                         std::make_shared<CountingRows>(32, 0.0f, std::vector<int32_t>{}));
  ModelWeights weights;
  EXPECT_THAT(fixture.Plan(weights, std::nullopt, DType::kNF4).status().message(),
              AllOf(HasSubstr("quantised already"), HasSubstr("nf4")));
}

}  // namespace
}  // namespace kvasir
