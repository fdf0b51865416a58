// Second moments against plain sums in fp64, and weights that make up for inputs that are off.
#include "apps/input_moments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace kvasir::apps {
namespace {

constexpr int64_t kCols = 37;
constexpr int64_t kTokens = 150;

std::vector<float> Random(int64_t count, uint32_t seed, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

class InputMomentsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto kernels = SelectKernelSet();
    ASSERT_TRUE(kernels.ok());
    kernels_ = *kernels;
    matrix_ = {.name = "layers.0.up", .part = LayerPart::kUp, .data = &now_, .cols = kCols};
    original_ = matrix_;
    original_.data = &then_;
  }
  PackedWeight Weight(const std::byte& key) const {
    return {.format = WeightFormat::kF32, .rows = 16, .cols = kCols, .data = &key};
  }

  std::byte now_{};
  std::byte then_{};
  ThreadPool pool_{2};
  const KernelSet* kernels_ = nullptr;
  LayerMatrix matrix_;
  LayerMatrix original_;
};

TEST_F(InputMomentsTest, AreTheSumsOverAllTokens) {
  const auto x = Random(kTokens * kCols, 1, 1.0f);
  const auto y = Random(kTokens * kCols, 2, 1.0f);
  InputKeeper keeper;
  keeper.Watch({&original_, 1});
  InputMoments moments(pool_, *kernels_);
  const LayerMatrix* const watched[] = {&matrix_};
  ASSERT_TRUE(moments.Watch(watched, &keeper).ok());
  // In two passes, of rows that do not divide into anything.
  for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 97}, {97, kTokens - 97}}) {
    keeper.OnMatMul(Weight(then_), MatView<const float>(y.data(), kTokens, kCols).Rows(begin, count));
    moments.OnMatMul(Weight(now_), MatView<const float>(x.data(), kTokens, kCols).Rows(begin, count));
  }
  ASSERT_TRUE(moments.status().ok()) << moments.status().message();
  const InputMoments::Moments& sums = moments.moments()[0];
  EXPECT_EQ(sums.tokens, kTokens);
  for (int64_t i = 0; i < kCols; ++i) {
    for (int64_t j = 0; j < kCols; ++j) {
      double sum = 0;
      double drift = 0;
      for (int64_t t = 0; t < kTokens; ++t) {
        const double xi = x[static_cast<size_t>(t * kCols + i)];
        const double xj = x[static_cast<size_t>(t * kCols + j)];
        sum += xi * xj;
        drift += xi * (static_cast<double>(y[static_cast<size_t>(t * kCols + j)]) - xj);
      }
      if (j <= i) {
        ASSERT_NEAR(sums.sum.as<float>()[i * kCols + j], sum, 1e-3) << i << " " << j;
      }
      ASSERT_NEAR(sums.drift.as<float>()[i * kCols + j], drift, 1e-3) << i << " " << j;
    }
  }
}

TEST_F(InputMomentsTest, WeightsMakeUpForInputsThatAreOff) {
  // The original inputs are a linear function of those that come now, so that other weights can give the same outputs.
  const auto x = Random(kTokens * kCols, 3, 1.0f);
  auto mix = Random(kCols * kCols, 4, 0.05f);
  for (int64_t i = 0; i < kCols; ++i) mix[static_cast<size_t>(i * kCols + i)] += 1.0f;
  std::vector<float> y(x.size());
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < kCols; ++i) {
      for (int64_t j = 0; j < kCols; ++j) {
        y[static_cast<size_t>(t * kCols + i)] +=
            mix[static_cast<size_t>(i * kCols + j)] * x[static_cast<size_t>(t * kCols + j)];
      }
    }
  }
  InputKeeper keeper;
  keeper.Watch({&original_, 1});
  keeper.OnMatMul(Weight(then_), MatView<const float>(y.data(), kTokens, kCols));
  InputMoments moments(pool_, *kernels_);
  const LayerMatrix* const watched[] = {&matrix_};
  ASSERT_TRUE(moments.Watch(watched, &keeper).ok());
  moments.OnMatMul(Weight(now_), MatView<const float>(x.data(), kTokens, kCols));
  const InputMoments::Moments& sums = moments.moments()[0];
  const auto factor = GptqFactor::Make(sums.sum.as<float>(), kCols, {.damping = 1e-6}, pool_);
  ASSERT_TRUE(factor.ok());
  constexpr int64_t kRows = 21;
  const auto weights = Random(kRows * kCols, 5, 0.1f);
  auto aimed = weights;
  ASSERT_TRUE(AimAtOriginals(sums, *factor, kRows, aimed.data(), pool_, *kernels_).ok());
  // weights · mix
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t j = 0; j < kCols; ++j) {
      double want = 0;
      for (int64_t i = 0; i < kCols; ++i) {
        want += static_cast<double>(weights[static_cast<size_t>(r * kCols + i)]) *
                static_cast<double>(mix[static_cast<size_t>(i * kCols + j)]);
      }
      ASSERT_NEAR(aimed[static_cast<size_t>(r * kCols + j)], want, 1e-3) << r << " " << j;
    }
  }
}

TEST_F(InputMomentsTest, InputsThatAreNotFiniteAreErrors) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    auto x = Random(kTokens * kCols, 6, 1.0f);
    x[77] = bad;
    InputMoments moments(pool_, *kernels_);
    const LayerMatrix* const watched[] = {&matrix_};
    ASSERT_TRUE(moments.Watch(watched, nullptr).ok());
    moments.OnMatMul(Weight(now_), MatView<const float>(x.data(), kTokens, kCols));
    EXPECT_EQ(moments.status().code(), StatusCode::kInvalidData);
    EXPECT_THAT(moments.status().message(), ::testing::HasSubstr("layers.0.up"));
  }
}

}  // namespace
}  // namespace kvasir::apps
