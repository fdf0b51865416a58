#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ops.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

using testing::Misaligned;
using testing::Packed;
using testing::Random;
using testing::SameBits;
using testing::TestContext;

constexpr Activation kActivations[] = {Activation::kNone,       Activation::kRelu, Activation::kGelu,
                                       Activation::kGeluTanh,   Activation::kSilu, Activation::kGeluQuick,
                                       Activation::kReluSquared};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class ElementwiseTest : public ::testing::TestWithParam<const KernelSet*> {
 protected:
  TestContext test_{GetParam()};
  ExecContext& ctx_ = test_.ctx;
  Random random_{11};

  Misaligned RandomMatrix(int64_t rows, int64_t cols, float scale = 1.0f) {
    Misaligned m(rows, cols);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) m.view().row(r)[c] = scale * random_.Normal();
    }
    return m;
  }
};

double ActivationInDouble(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return std::max(x, 0.0);
    case Activation::kGelu: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      // As x · sigmoid(2z), since 1 + tanh(z) cancels in double too.
      return x / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluQuick: return x / (1.0 + std::exp(-1.702 * x));
    case Activation::kSilu: return x / (1.0 + std::exp(-x));
    case Activation::kReluSquared: return std::max(x, 0.0) * std::max(x, 0.0);
  }
  return x;
}

TEST_P(ElementwiseTest, ActivationsEverywhere) {
  for (Activation activation : kActivations) {
    std::vector<float> in;
    for (float x = -120.0f; x <= 120.0f; x += 0.0071f) in.push_back(x);
    for (float x = 1e-30f; x < 100.0f; x *= 1.7f) in.insert(in.end(), {x, -x});
    in.insert(in.end(), {0.0f, -0.0f, 1e15f, -1e15f});
    std::vector<float> out = in;
    ActivateInPlace(ctx_, {out.data(), 1, static_cast<int64_t>(out.size())}, activation);
    for (size_t i = 0; i < in.size(); ++i) {
      const double expected = ActivationInDouble(activation, static_cast<double>(in[i]));
      // The exponent's own rounding grows with the argument; below 1e-30 the result counts for nothing.
      const double relative = 3e-7 * (1.0 + std::min(static_cast<double>(in[i]) * in[i], 100.0));
      ASSERT_NEAR(out[i], expected, relative * std::abs(expected) + 1e-30)
          << static_cast<int>(activation) << " at " << in[i];
    }
  }
}

TEST_P(ElementwiseTest, ActivationsAreAccurateWhereItMatters) {
  for (Activation activation : kActivations) {
    std::vector<float> in;
    for (float x = -6.0f; x <= 6.0f; x += 0.00037f) in.push_back(x);
    std::vector<float> out = in;
    ActivateInPlace(ctx_, {out.data(), 1, static_cast<int64_t>(out.size())}, activation);
    for (size_t i = 0; i < in.size(); ++i) {
      const double expected = ActivationInDouble(activation, static_cast<double>(in[i]));
      ASSERT_NEAR(out[i], expected, 4e-7 * std::max(std::abs(expected), 0.1))
          << static_cast<int>(activation) << " at " << in[i];
    }
  }
}

TEST_P(ElementwiseTest, SpecialValuesOfActivations) {
  for (Activation activation : kActivations) {
    std::vector<float> x = {kInfinity, kNan, 1.0f};
    ActivateInPlace(ctx_, {x.data(), 1, 3}, activation);
    EXPECT_EQ(x[0], kInfinity) << static_cast<int>(activation);
    EXPECT_TRUE(std::isnan(x[1])) << static_cast<int>(activation);
    EXPECT_FALSE(std::isnan(x[2]));
  }
}

TEST_P(ElementwiseTest, Softcap) {
  for (float cap : {1.0f, 30.0f, 50.0f}) {
    std::vector<float> in = {0.0f, -0.0f, kInfinity, -kInfinity};
    for (float x = -300.0f; x <= 300.0f; x += 0.0173f) in.push_back(x);
    for (float x = 1e-30f; x < 1e30f; x *= 1.9f) in.insert(in.end(), {x, -x});
    std::vector<float> out = in;
    SoftcapInPlace(ctx_, {out.data(), 1, static_cast<int64_t>(out.size())}, cap);
    for (size_t i = 0; i < in.size(); ++i) {
      const double expected = cap * std::tanh(static_cast<double>(in[i]) / cap);
      ASSERT_NEAR(out[i], expected, 3.5e-7 * std::abs(expected)) << in[i];
    }
    float nan = kNan;
    SoftcapInPlace(ctx_, {&nan, 1, 1}, cap);
    EXPECT_TRUE(std::isnan(nan));
  }
}

TEST_P(ElementwiseTest, ClampScaleAndAdd) {
  for (int64_t cols = 1; cols <= 70; ++cols) {
    const Misaligned x = RandomMatrix(3, cols);
    const Misaligned y = RandomMatrix(3, cols);
    Misaligned clamped = x;
    Misaligned scaled = x;
    Misaligned sum = y;
    Misaligned source = x;
    ClampInPlace(ctx_, clamped.view(), 0.5f);
    ScaleInPlace(ctx_, scaled.view(), 0.7f);
    AddInPlace(ctx_, source.view(), 1.5f, sum.view());
    EXPECT_TRUE(clamped.Intact() && scaled.Intact() && sum.Intact() && source.Intact());
    for (size_t i = 0; i < x.values.size(); ++i) {
      if (x.values[i] == Misaligned::kGuard) continue;
      EXPECT_EQ(clamped.values[i], std::clamp(x.values[i], -0.5f, 0.5f));
      EXPECT_EQ(scaled.values[i], x.values[i] * 0.7f);
      EXPECT_EQ(sum.values[i], y.values[i] + x.values[i] * 1.5f);
    }
  }
  std::vector<float> special = {kNan, kInfinity, -kInfinity};
  ClampInPlace(ctx_, {special.data(), 1, 3}, 2.0f);
  EXPECT_TRUE(std::isnan(special[0]));
  EXPECT_EQ(special[1], 2.0f);
  EXPECT_EQ(special[2], -2.0f);
}

TEST_P(ElementwiseTest, LongRowsAreCutWithoutAGap) {
  constexpr int64_t kCols = 100003;
  Misaligned x = RandomMatrix(2, kCols);
  const Misaligned before = x;
  ScaleInPlace(ctx_, x.view(), 2.0f);
  EXPECT_TRUE(x.Intact());
  for (size_t i = 0; i < x.values.size(); ++i) {
    if (before.values[i] != Misaligned::kGuard) {
      ASSERT_EQ(x.values[i], 2.0f * before.values[i]);
    }
  }
}

std::vector<double> NormalizedInDouble(const float* x, int64_t n, const NormArgs& args) {
  double mean = 0.0;
  for (int64_t i = 0; args.layer_norm && i < n; ++i) mean += static_cast<double>(x[i]) / static_cast<double>(n);
  double variance = 0.0;
  for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(n);
  std::vector<double> y;
  for (int64_t i = 0; i < n; ++i) {
    double v = (x[i] - mean) / std::sqrt(variance + static_cast<double>(args.eps));
    if (args.weight != nullptr) v *= args.weight[i] + (args.plus_one ? 1.0 : 0.0);
    if (args.bias != nullptr) v += args.bias[i];
    y.push_back(v);
  }
  return y;
}

TEST_P(ElementwiseTest, NormalizeEveryWidth) {
  std::vector<int64_t> widths = {127, 128, 129, 255, 768, 1000, 2048, 4097};
  for (int64_t n = 1; n <= 70; ++n) widths.push_back(n);
  for (int64_t n : widths) {
    const std::vector<float> weight = random_.Normals(n);
    const std::vector<float> bias = random_.Normals(n);
    for (int bits = 0; bits < 16; ++bits) {
      const NormArgs args{.weight = bits & 1 ? weight.data() : nullptr,
                          .bias = bits & 2 ? bias.data() : nullptr,
                          .eps = 1e-5f,
                          .layer_norm = (bits & 4) != 0,
                          .plus_one = (bits & 8) != 0};
      Misaligned x = RandomMatrix(2, n, 3.0f);
      for (int64_t i = 0; i < n; ++i) x.view().row(1)[i] += 20.0f;  // a mean much larger than the spread
      Misaligned y(2, n);
      Normalize(ctx_, x.view(), args, y.view());
      EXPECT_TRUE(y.Intact());
      for (int64_t r = 0; r < 2; ++r) {
        const std::vector<double> expected = NormalizedInDouble(x.view().row(r), n, args);
        for (int64_t i = 0; i < n; ++i) {
          const double value = expected[static_cast<size_t>(i)];
          // The mean's own rounding, 2e-6 for one of 20, shows in the second row; one value alone is 0 / √eps.
          const double tolerance = n == 1 && args.layer_norm ? 1e-2 : args.layer_norm && r == 1 ? 8e-6 : 2e-6;
          ASSERT_NEAR(y.view().row(r)[i], value, tolerance * (1.0 + std::abs(value))) << n << " bits " << bits;
        }
      }
      Misaligned in_place = x;
      Normalize(ctx_, in_place.view(), args, in_place.view());
      for (int64_t r = 0; r < 2; ++r) EXPECT_TRUE(SameBits(in_place.view().row(r), y.view().row(r), n));
    }
  }
}

TEST_P(ElementwiseTest, NormalizeKeepsNotANumberInItsRow) {
  Misaligned x = RandomMatrix(3, 100);
  x.view().row(1)[57] = kNan;
  for (bool layer_norm : {false, true}) {
    Misaligned y(3, 100);
    Normalize(ctx_, x.view(), {.layer_norm = layer_norm}, y.view());
    for (int64_t i = 0; i < 100; ++i) {
      EXPECT_TRUE(std::isnan(y.view().row(1)[i]));
      EXPECT_TRUE(std::isfinite(y.view().row(0)[i]) && std::isfinite(y.view().row(2)[i]));
    }
  }
}

TEST_P(ElementwiseTest, NormalizeHeads) {
  for (int64_t head_dim : {1, 5, 16, 64, 80}) {
    constexpr int64_t kHeads = 3;
    const std::vector<float> weight = random_.Normals(kHeads * head_dim);
    for (bool per_head : {false, true}) {
      Misaligned x = RandomMatrix(4, kHeads * head_dim);
      const Misaligned before = x;
      const NormArgs args{.weight = weight.data(), .eps = 1e-6f};
      NormalizeHeads(ctx_, x.view(), head_dim, args, per_head);
      EXPECT_TRUE(x.Intact());
      Misaligned original = before;
      for (int64_t t = 0; t < 4; ++t) {
        for (int64_t h = 0; h < kHeads; ++h) {
          NormArgs head_args = args;
          if (per_head) head_args.weight = weight.data() + h * head_dim;
          const auto expected = NormalizedInDouble(original.view().row(t) + h * head_dim, head_dim, head_args);
          for (int64_t i = 0; i < head_dim; ++i) {
            const double value = expected[static_cast<size_t>(i)];
            ASSERT_NEAR(x.view().row(t)[h * head_dim + i], value, 2e-6 * (1.0 + std::abs(value)));
          }
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, RotateEveryNumberOfFrequencies) {
  for (bool interleaved : {false, true}) {
    for (int64_t n_freq = 0; n_freq <= 40; ++n_freq) {
      constexpr int64_t kTokens = 3;
      constexpr int64_t kHeads = 2;
      const int64_t head_dim = 2 * n_freq + 5;  // the last five are not rotated
      Misaligned x = RandomMatrix(kTokens, kHeads * head_dim);
      Misaligned before = x;
      Misaligned cos_sin(kTokens, 2 * n_freq);
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t i = 0; i < n_freq; ++i) {
          const float angle = random_.Normal() * 3.0f;
          cos_sin.view().row(t)[i] = std::cos(angle);
          cos_sin.view().row(t)[n_freq + i] = std::sin(angle);
        }
      }
      RotateHeads(ctx_, x.view(), head_dim, cos_sin.view(), interleaved);
      EXPECT_TRUE(x.Intact());
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t h = 0; h < kHeads; ++h) {
          const float* in = before.view().row(t) + h * head_dim;
          std::vector<double> expected(in, in + head_dim);
          for (int64_t i = 0; i < n_freq; ++i) {
            const int64_t a = interleaved ? 2 * i : i;
            const int64_t b = interleaved ? 2 * i + 1 : i + n_freq;
            const double c = cos_sin.view().row(t)[i];
            const double s = cos_sin.view().row(t)[n_freq + i];
            expected[static_cast<size_t>(a)] = in[a] * c - in[b] * s;
            expected[static_cast<size_t>(b)] = in[b] * c + in[a] * s;
          }
          for (int64_t i = 0; i < head_dim; ++i) {
            ASSERT_NEAR(x.view().row(t)[h * head_dim + i], expected[static_cast<size_t>(i)], 1e-6)
                << "interleaved " << interleaved << " n_freq " << n_freq << " at " << i;
          }
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, ARowHasTheSameBitsAtEveryPlace) {
  constexpr int64_t kCols = 203;
  Misaligned x = RandomMatrix(40, kCols);
  const std::vector<float> weight = random_.Normals(kCols);
  const NormArgs args{.weight = weight.data(), .layer_norm = true};
  Misaligned together(40, kCols);
  Normalize(ctx_, x.view(), args, together.view());
  Misaligned activated = x;
  ActivateInPlace(ctx_, activated.view(), Activation::kGelu);
  for (int64_t t = 0; t < 40; ++t) {
    std::vector<float> alone(x.view().row(t), x.view().row(t) + kCols);
    std::vector<float> y(kCols);
    Normalize(ctx_, {alone.data(), 1, kCols}, args, {y.data(), 1, kCols});
    EXPECT_TRUE(SameBits(y.data(), together.view().row(t), kCols));
    // Elements on their own: the tail of a vector computes as its middle does.
    for (int64_t i = 0; i < kCols; ++i) {
      ActivateInPlace(ctx_, {alone.data() + i, 1, 1}, Activation::kGelu);
    }
    EXPECT_TRUE(SameBits(alone.data(), activated.view().row(t), kCols));
  }
}

TEST_P(ElementwiseTest, GatherRows) {
  constexpr int64_t kRows = 37;
  constexpr int64_t kCols = 51;
  const std::vector<float> values = random_.Normals(kRows * kCols);
  for (WeightFormat format : testing::kAllFormats) {
    const Packed packed(values, kRows, kCols, format);
    const std::vector<int32_t> ids = {0, 36, 5, 5, 17};
    for (float scale : {1.0f, 7.5f}) {
      Misaligned y(5, kCols);
      GatherRows(ctx_, packed.weight, ids, scale, y.view());
      EXPECT_TRUE(y.Intact());
      for (size_t t = 0; t < ids.size(); ++t) {
        for (int64_t k = 0; k < kCols; ++k) {
          const float w = testing::RoundTo(format, values[static_cast<size_t>(ids[t] * kCols + k)]);
          ASSERT_EQ(y.view().row(static_cast<int64_t>(t))[k], w * scale);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, ElementwiseTest,
                         ::testing::ValuesIn(testing::SetsThatDiffer([](const KernelSet& set) { return set.rows; })),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

TEST(ActivationTest, ScalarDefinitions) {
  for (Activation activation : kActivations) {
    for (float x = -8.0f; x <= 8.0f; x += 0.01f) {
      const double expected = ActivationInDouble(activation, static_cast<double>(x));
      EXPECT_NEAR(ApplyActivation(activation, x), expected, 1e-6 * (std::abs(expected) + 0.1));
    }
    EXPECT_TRUE(std::isnan(ApplyActivation(activation, kNan)));
  }
}

}  // namespace
}  // namespace kvasir
