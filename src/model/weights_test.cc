#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "model/packed_file.h"
#include "model/weights_testing.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using weights_testing::Fixture;
using weights_testing::RowOf;

TEST(Weights, UndoesPackingQuirks) {
  Fixture fixture;
  ModelWeights weights;
  ThreadPool pool(2);
  const auto plan = fixture.Plan(weights);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto buffer = PackWeights(*plan, pool, {});
  ASSERT_TRUE(buffer.ok()) << buffer.status().message();
  const LayerWeights& layer = weights.layers[0];
  // Rows 0, 2, 4, 1, 3, 5 of "packed" are Q, 6–8 are K, the columns of "v" are V.
  const int64_t q_rows[] = {0, 2, 4, 1, 3, 5, 6, 7, 8};
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 6; ++c) {
      EXPECT_EQ(RowOf(layer.qkv.at(0), r)[static_cast<size_t>(c)], 100.0f + static_cast<float>(q_rows[r] * 6 + c));
    }
  }
  for (int64_t r = 0; r < 3; ++r) {
    EXPECT_EQ(RowOf(layer.qkv.at(0), 9 + r)[2], 200.0f + static_cast<float>(2 * 3 + r));
  }
  EXPECT_EQ(layer.qkv_bias[5], 15.0f);
  EXPECT_EQ(layer.qkv_bias[6], 20.0f);
  EXPECT_EQ(layer.qkv_bias[11], 32.0f);
  EXPECT_EQ(RowOf(layer.out.weight, 0)[0], 336.0f);  // the second matrix of the stack
}

TEST(Weights, AlternatesGateAndUpByPanels) {
  Fixture fixture;
  ModelWeights weights;
  ThreadPool pool(1);
  const auto plan = fixture.Plan(weights);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto buffer = PackWeights(*plan, pool, {});
  ASSERT_TRUE(buffer.ok());
  const Linear& up = weights.layers[0].ffn.up;
  EXPECT_EQ(up.weight.rows, 64);
  EXPECT_EQ(RowOf(up.weight, 0)[0], 400.0f);                // gate row 0
  EXPECT_EQ(RowOf(up.weight, 16)[0], 400.0f);               // up row 0
  EXPECT_EQ(RowOf(up.weight, 35)[1], 400.0f + 19 * 6 + 1);  // gate row 19
  EXPECT_EQ(RowOf(up.weight, 36)[1], 0.0f);                 // padding
  EXPECT_EQ(up.bias[3], 43.0f);
  EXPECT_EQ(up.bias[16 + 3], 73.0f);
  EXPECT_EQ(up.bias[32 + 3], 59.0f);
  EXPECT_EQ(up.bias[32 + 4], 0.0f);
  EXPECT_EQ(up.bias[48 + 3], 89.0f);
}

TEST(Weights, NamesAllMissingTensors) {
  Fixture fixture;
  fixture.source.Remove("gate");
  fixture.source.Remove("v");
  ModelWeights weights;
  EXPECT_THAT(fixture.Plan(weights).status().message(),
              AllOf(HasSubstr("2 tensors are missing"), HasSubstr("\"gate\""), HasSubstr("\"v\"")));
}

TEST(Weights, NamesTheTensorOfAWrongShapeOrType) {
  const auto message = [](const std::string& name, std::vector<int64_t> shape, DType dtype) {
    Fixture fixture;
    fixture.source.Remove(name);
    fixture.source.Add(name, std::move(shape), 1.0f, dtype);
    ModelWeights weights;
    const auto plan = fixture.Plan(weights);
    EXPECT_FALSE(plan.ok());
    return plan.status().message();
  };
  EXPECT_THAT(message("down", {6, 21}, DType::kF32),
              AllOf(HasSubstr("\"down\""), HasSubstr("[6, 21]"), HasSubstr("20")));
  EXPECT_THAT(message("down", {7, 20}, DType::kF32), AllOf(HasSubstr("\"down\""), HasSubstr("7 rows"), HasSubstr("6")));
  EXPECT_THAT(message("packed", {8, 6}, DType::kF32), AllOf(HasSubstr("\"packed\""), HasSubstr("8 rows")));
  EXPECT_THAT(message("embedding", {5, 6}, DType::kI64), AllOf(HasSubstr("\"embedding\""), HasSubstr("i64")));
  EXPECT_THAT(message("embedding", {30}, DType::kF32), HasSubstr("not a matrix"));
  EXPECT_THAT(message("stacked", {1, 6, 6}, DType::kF32), HasSubstr("\"stacked\""));
  EXPECT_THAT(message("q_bias", {5}, DType::kF32), HasSubstr("\"q_bias\""));
}

TEST(Weights, NanAndInfinityNameTheirTensor) {
  for (const char* name : {"packed", "down", "q_bias", "up", "up_bias"}) {
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      Fixture fixture;
      fixture.source.At(name, 5) = bad;
      ModelWeights weights;
      ThreadPool pool(2);
      const auto plan = fixture.Plan(weights);
      ASSERT_TRUE(plan.ok());
      EXPECT_THAT(PackWeights(*plan, pool, {}).status().message(), HasSubstr(std::string("\"") + name + "\""));
    }
  }
}

TEST(Weights, TheTypeThatIsAskedFor) {
  Fixture fixture;
  ModelWeights weights;
  ThreadPool pool(1);
  const auto plan = fixture.Plan(weights, DType::kBF16);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->dtypes.at(0), DType::kBF16);
  const auto buffer = PackWeights(*plan, pool, {});
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(weights.embedding.format, WeightFormat::kBF16);
  EXPECT_EQ(RowOf(weights.embedding, 4)[5], 29.0f);
}

TEST(Weights, NormalisedHead) {
  Fixture fixture;
  fixture.spec.head = {.normalized = true};
  fixture.rules.head.weight = WeightRule("head");
  fixture.source.Add("head", {5, 6}, 1.0f);
  ModelWeights weights;
  ThreadPool pool(1);
  const auto plan = fixture.Plan(weights);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto buffer = PackWeights(*plan, pool, {});
  ASSERT_TRUE(buffer.ok());
  double sum = 0.0;
  for (float value : RowOf(weights.head.weight, 3)) sum += static_cast<double>(value) * value;
  EXPECT_NEAR(sum, 1.0, 1e-6);
}

class PackedFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("kvasir_packed_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    auto plan = fixture_.Plan(weights_);
    ASSERT_TRUE(plan.ok());
    plan_ = *std::move(plan);
    auto buffer = PackWeights(plan_, pool_, {});
    ASSERT_TRUE(buffer.ok());
    buffer_ = *std::move(buffer);
    hash_ = FingerprintModel(fixture_.spec, fixture_.source);
    ASSERT_TRUE(WritePackedFile(file(), plan_, buffer_.data(), hash_, "model.gguf").ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path file() const { return folder_ / "model.kvpack"; }
  std::string Read() const {
    std::ifstream stream(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void Write(const std::string& content) const { std::ofstream(file(), std::ios::binary) << content; }

  std::filesystem::path folder_;
  Fixture fixture_;
  ModelWeights weights_;
  ThreadPool pool_{1};
  WeightPlan plan_;
  Buffer buffer_;
  std::string hash_;
};

TEST_F(PackedFileTest, HoldsExactlyWhatWasPacked) {
  EXPECT_TRUE(IsPackedFile(file()));
  const auto packed = OpenPackedFile(file(), plan_, hash_);
  ASSERT_TRUE(packed.ok()) << packed.status().message();
  EXPECT_EQ(std::memcmp(packed->data, buffer_.data(), static_cast<size_t>(plan_.bytes)), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(packed->data) % 64, 0u);
  const auto name = PackedModelName(file());
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(*name, "model.gguf");
  // Nothing else was left in the folder.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(PackedFileTest, RefusesOtherWeightsAndOtherPlans) {
  fixture_.source.At("down", 0) += 1.0f;
  EXPECT_THAT(OpenPackedFile(file(), plan_, FingerprintModel(fixture_.spec, fixture_.source)).status().message(),
              HasSubstr("other weights"));
  ModelWeights other;
  const auto plan = fixture_.Plan(other, DType::kF16);
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(OpenPackedFile(file(), *plan, hash_).status().message(), HasSubstr("other types"));
}

TEST_F(PackedFileTest, RefusesDamage) {
  const std::string whole = Read();
  for (size_t size : {size_t{1}, size_t{8}, size_t{71}, size_t{100}, whole.size() - 1}) {
    Write(whole.substr(0, size));
    EXPECT_FALSE(OpenPackedFile(file(), plan_, hash_).ok()) << size;
  }
  std::string newer = whole;
  newer[8] = 99;
  Write(newer);
  EXPECT_THAT(OpenPackedFile(file(), plan_, hash_).status().message(), HasSubstr("layout 99"));
  for (size_t at = 16; at < 40; ++at) {  // every byte of the sizes
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    Write(damaged);
    EXPECT_FALSE(OpenPackedFile(file(), plan_, hash_).ok()) << at;
  }
  Write(whole);
  EXPECT_TRUE(OpenPackedFile(file(), plan_, hash_).ok());
}

TEST_F(PackedFileTest, AFolderThatCannotBeWrittenIsAnError) {
  EXPECT_EQ(WritePackedFile(folder_ / "none" / "x", plan_, buffer_.data(), hash_, ".").code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace kvasir
