// GPTQ against a plain fp64 oracle (tools/fixtures/make_gptq_fixtures.py), and what must hold for any input.
#include "quant/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>

#include "base/test_paths.h"
#include "quant/gptq_layout.h"

namespace kvasir {
namespace {

/// Second moments of inputs that depend on each other: `tokens` of them, mixed from a third as many sources.
std::vector<float> CorrelatedHessian(int64_t cols, int64_t tokens, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const int64_t sources = std::max<int64_t>(cols / 3, 1);
  std::vector<float> mix(static_cast<size_t>(sources * cols));
  for (float& x : mix) x = normal(random);
  std::vector<double> sum(static_cast<size_t>(cols * cols));
  std::vector<float> source(static_cast<size_t>(sources));
  std::vector<double> x(static_cast<size_t>(cols));
  for (int64_t t = 0; t < tokens; ++t) {
    for (float& s : source) s = normal(random);
    for (int64_t c = 0; c < cols; ++c) {
      x[static_cast<size_t>(c)] = normal(random);
      for (int64_t s = 0; s < sources; ++s) {
        x[static_cast<size_t>(c)] += source[static_cast<size_t>(s)] * mix[static_cast<size_t>(s * cols + c)];
      }
    }
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        sum[static_cast<size_t>(i * cols + j)] += x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)];
      }
    }
  }
  std::vector<float> hessian(sum.size());
  for (size_t i = 0; i < sum.size(); ++i) hessian[i] = static_cast<float>(2 * sum[i] / static_cast<double>(tokens));
  return hessian;
}

std::vector<float> RandomWeights(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> weights(static_cast<size_t>(count));
  for (float& w : weights) w = normal(random);
  return weights;
}

std::vector<float> Identity(int64_t n) {
  std::vector<float> hessian(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) hessian[static_cast<size_t>(i * n + i)] = 1.0f;
  return hessian;
}

Result<GptqResult> Quantize(const std::vector<float>& weights, int64_t rows, const std::vector<float>& hessian,
                            const GptqOptions& options, int threads = 2) {
  ThreadPool pool(threads);
  const int64_t cols = static_cast<int64_t>(weights.size()) / rows;
  ASSIGN_OR_RETURN(const GptqFactor factor, GptqFactor::Make(hessian.data(), cols, options, pool));
  return QuantizeGptq(weights.data(), rows, factor, options, pool);
}

/// Σ over rows of d·H·transpose(d) in fp64, by the lower triangle, with `damping` times the mean diagonal.
double ErrorOf(const std::vector<float>& weights, const GptqMatrix& m, const std::vector<float>& hessian,
               double damping) {
  const int64_t n = m.cols;
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(hessian[static_cast<size_t>(i * n + i)]);
  mean /= static_cast<double>(n);
  std::vector<float> d(static_cast<size_t>(n));
  double total = 0;
  for (int64_t r = 0; r < m.rows; ++r) {
    m.Dequantize(r, d.data());
    for (int64_t i = 0; i < n; ++i) d[static_cast<size_t>(i)] -= weights[static_cast<size_t>(r * n + i)];
    for (int64_t i = 0; i < n; ++i) {
      const double di = d[static_cast<size_t>(i)];
      total += di * di * (static_cast<double>(hessian[static_cast<size_t>(i * n + i)]) + damping * mean);
      for (int64_t j = 0; j < i; ++j) {
        total += 2 * di * static_cast<double>(d[static_cast<size_t>(j)]) * hessian[static_cast<size_t>(i * n + j)];
      }
    }
  }
  return total;
}

class GptqOracle : public ::testing::TestWithParam<const char*> {
 protected:
  template <typename T>
  std::vector<T> Read(int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    EXPECT_LE(at_ + values.size() * sizeof(T), bytes_.size());
    std::memcpy(values.data(), bytes_.data() + at_, values.size() * sizeof(T));
    at_ += values.size() * sizeof(T);
    return values;
  }
  void SetUp() override {
    const std::string path = std::string(kFixtures) + "/gptq/" + GetParam() + ".bin";
    std::ifstream stream(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(stream), {});
    ASSERT_GT(bytes_.size(), 32u) << path;
  }
  std::string bytes_;
  size_t at_ = 0;
};

TEST_P(GptqOracle, SameCodesUpToRoundingOfFp32) {
  const auto head = Read<int32_t>(8);
  const int64_t rows = head[0];
  const int64_t cols = head[1];
  const GptqOptions options{.bits = head[2],
                            .group_size = head[3],
                            .symmetric = head[4] != 0,
                            .act_order = head[5] != 0,
                            .search_grid = head[6] != 0,
                            .damping = head[7] / 10000.0};
  const auto weights = Read<float>(rows * cols);
  const auto hessian = Read<float>(cols * cols);
  const auto got = Quantize(weights, rows, hessian, options);
  ASSERT_TRUE(got.ok()) << got.status().message();
  const GptqMatrix& m = got->matrix;
  const auto codes = Read<uint8_t>(rows * cols);
  const auto scales = Read<uint16_t>(m.groups * rows);
  const auto zeros = Read<uint8_t>(m.groups * rows);
  EXPECT_EQ(m.group_of, Read<int32_t>(cols));
  // A tie that fp32 decides otherwise changes the rest of its row, so that rows are counted. Every first grid is made
  // of the weights as they came and must be the same.
  int64_t same_rows = 0;
  for (int64_t r = 0; r < rows; ++r) {
    EXPECT_EQ(m.scales[static_cast<size_t>(r)], scales[static_cast<size_t>(r)]) << r;
    EXPECT_EQ(m.zeros[static_cast<size_t>(r)], zeros[static_cast<size_t>(r)]) << r;
    bool same = std::equal(codes.begin() + r * cols, codes.begin() + (r + 1) * cols, m.codes.begin() + r * cols);
    for (int64_t g = 0; g < m.groups; ++g) {
      const auto i = static_cast<size_t>(g * rows + r);
      same = same && m.scales[i] == scales[i] && m.zeros[i] == zeros[i];
    }
    same_rows += same ? 1 : 0;
  }
  EXPECT_GE(same_rows, rows * 2 / 3);
  const double error = Read<double>(1)[0];
  EXPECT_NEAR(got->errors.gptq, error, 0.02 * error);
  EXPECT_LT(got->errors.gptq, got->errors.nearest);
}

INSTANTIATE_TEST_SUITE_P(Cases, GptqOracle,
                         ::testing::Values("b4_g128", "b4_g32_act", "b3_g64_sym", "b2_row", "b8_row_sym_act",
                                           "b4_g192"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Gptq, IndependentInputsAreRoundedToNearest) {
  const int64_t rows = 9;
  const int64_t cols = 270;
  const auto weights = RandomWeights(rows * cols, 1);
  ThreadPool pool(2);
  for (int bits : {2, 3, 4, 8}) {
    for (bool symmetric : {false, true}) {
      const GptqOptions options{.bits = bits, .group_size = 64, .symmetric = symmetric};
      const auto got = Quantize(weights, rows, Identity(cols), options);
      ASSERT_TRUE(got.ok());
      const auto nearest = QuantizeToNearest(weights.data(), rows, cols, options, pool);
      ASSERT_TRUE(nearest.ok());
      EXPECT_EQ(got->matrix.codes, nearest->codes);
      EXPECT_EQ(got->matrix.scales, nearest->scales);
      EXPECT_EQ(got->matrix.zeros, nearest->zeros);
      EXPECT_EQ(got->errors.gptq, got->errors.nearest);
    }
  }
}

TEST(Gptq, IsBetterThanRoundingOnDependentInputs) {
  const int64_t rows = 16;
  const int64_t cols = 192;
  const auto hessian = CorrelatedHessian(cols, 400, 7);
  for (int bits : {2, 3, 4, 8}) {
    for (bool act_order : {false, true}) {
      for (int64_t group : {int64_t{-1}, int64_t{32}, int64_t{128}}) {
        const auto weights = RandomWeights(rows * cols, static_cast<uint32_t>(bits));
        const auto got = Quantize(weights, rows, hessian, {.bits = bits, .group_size = group, .act_order = act_order});
        ASSERT_TRUE(got.ok());
        EXPECT_LT(got->errors.gptq, 0.7 * got->errors.nearest) << bits << " " << group;
      }
    }
  }
}

TEST(Gptq, ErrorsAreWhatTheMatrixSays) {
  const int64_t rows = 5;
  const int64_t cols = 200;
  const auto hessian = CorrelatedHessian(cols, 300, 3);
  const auto weights = RandomWeights(rows * cols, 4);
  for (bool act_order : {false, true}) {
    const GptqOptions options{.bits = 3, .group_size = 40, .act_order = act_order};
    const auto got = Quantize(weights, rows, hessian, options);
    ASSERT_TRUE(got.ok());
    const double plain = ErrorOf(weights, got->matrix, hessian, options.damping);
    EXPECT_NEAR(got->errors.gptq, plain, 1e-3 * plain);
    ThreadPool pool(1);
    const auto nearest = QuantizeToNearest(weights.data(), rows, cols, options, pool);
    ASSERT_TRUE(nearest.ok());
    const double rounded = ErrorOf(weights, *nearest, hessian, options.damping);
    EXPECT_NEAR(got->errors.nearest, rounded, 1e-3 * rounded);
  }
}

TEST(Gptq, TheSameForAnyNumberOfThreads) {
  const int64_t rows = 70;
  const int64_t cols = 333;
  const auto hessian = CorrelatedHessian(cols, 500, 11);
  const auto weights = RandomWeights(rows * cols, 12);
  const GptqOptions options{.bits = 4, .group_size = 64, .act_order = true};
  const auto one = Quantize(weights, rows, hessian, options, 1);
  const auto four = Quantize(weights, rows, hessian, options, 4);
  ASSERT_TRUE(one.ok() && four.ok());
  EXPECT_EQ(one->matrix.codes, four->matrix.codes);
  EXPECT_EQ(one->matrix.scales, four->matrix.scales);
  EXPECT_EQ(one->errors.gptq, four->errors.gptq);
}

TEST(Gptq, InputsThatAreAlwaysZeroAreRoundedAndDisturbNothing) {
  const int64_t cols = 64;
  auto hessian = CorrelatedHessian(cols, 200, 5);
  for (int64_t i = 0; i < cols; ++i) hessian[static_cast<size_t>(10 * cols + i)] = 0;
  for (int64_t i = 0; i < cols; ++i) hessian[static_cast<size_t>(i * cols + 10)] = 0;
  const auto weights = RandomWeights(4 * cols, 6);
  ThreadPool pool(1);
  const GptqOptions options{.group_size = -1};
  const auto factor = GptqFactor::Make(hessian.data(), cols, options, pool);
  ASSERT_TRUE(factor.ok());
  EXPECT_EQ(factor->dead(), 1);
  EXPECT_EQ(factor->damping(), 0.01);
  const auto got = QuantizeGptq(weights.data(), 4, *factor, options, pool);
  const auto nearest = QuantizeToNearest(weights.data(), 4, cols, options, pool);
  ASSERT_TRUE(got.ok() && nearest.ok());
  for (size_t r = 0; r < 4; ++r) EXPECT_EQ(got->matrix.codes[r * cols + 10], nearest->codes[r * cols + 10]);
  // No input at all ever came: everything is rounded.
  const std::vector<float> nothing(static_cast<size_t>(cols * cols));
  const auto empty = Quantize(weights, 4, nothing, options);
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->matrix.codes, nearest->codes);
}

TEST(Gptq, RaisesDampingWhereTheMomentsAreSingular) {
  const int64_t cols = 40;
  // All inputs are the same one, and rounding has made the matrix indefinite.
  std::vector<float> hessian(static_cast<size_t>(cols * cols), 1.0001f);
  for (int64_t i = 0; i < cols; ++i) hessian[static_cast<size_t>(i * cols + i)] = 1.0f;
  ThreadPool pool(1);
  const auto factor = GptqFactor::Make(hessian.data(), cols, {.damping = 0.0}, pool);
  ASSERT_TRUE(factor.ok()) << factor.status().message();
  EXPECT_GT(factor->damping(), 0.0);
  const auto weights = RandomWeights(3 * cols, 8);
  EXPECT_TRUE(QuantizeGptq(weights.data(), 3, *factor, {.group_size = 8}, pool).ok());
}

TEST(Gptq, SolvesByTheDampedMoments) {
  const int64_t cols = 150;
  const int64_t rows = 19;
  const auto hessian = CorrelatedHessian(cols, 300, 13);
  double mean = 0;
  for (int64_t i = 0; i < cols; ++i) mean += static_cast<double>(hessian[static_cast<size_t>(i * cols + i)]);
  mean /= static_cast<double>(cols);
  for (bool act_order : {false, true}) {
    const GptqOptions options{.act_order = act_order, .damping = 0.1};
    ThreadPool pool(2);
    const auto factor = GptqFactor::Make(hessian.data(), cols, options, pool);
    ASSERT_TRUE(factor.ok());
    // x · (H + damping) solved for gives x again.
    const auto x = RandomWeights(rows * cols, 14);
    std::vector<float> product(x.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < cols; ++j) {
        double sum = options.damping * mean * static_cast<double>(x[static_cast<size_t>(r * cols + j)]);
        for (int64_t i = 0; i < cols; ++i) {
          const float h = hessian[static_cast<size_t>(std::max(i, j) * cols + std::min(i, j))];
          sum += static_cast<double>(x[static_cast<size_t>(r * cols + i)]) * h;
        }
        product[static_cast<size_t>(r * cols + j)] = static_cast<float>(sum);
      }
    }
    factor->Solve(product.data(), rows, pool);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(product[i], x[i], 1e-4) << i;
  }
}

TEST(Gptq, RefusesWhatItCannotDo) {
  ThreadPool pool(1);
  const std::vector<float> one(1, 1.0f);
  EXPECT_FALSE(GptqFactor::Make(one.data(), 1, {.bits = 5}, pool).ok());
  EXPECT_FALSE(GptqFactor::Make(one.data(), 1, {.group_size = 0}, pool).ok());
  EXPECT_FALSE(GptqFactor::Make(one.data(), 1, {.damping = std::nan("")}, pool).ok());
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const std::vector<float> hessian(1, bad);
    EXPECT_EQ(GptqFactor::Make(hessian.data(), 1, {}, pool).status().code(), StatusCode::kInvalidData);
  }
  const std::vector<float> huge(1, 1e6f);
  EXPECT_EQ(QuantizeToNearest(huge.data(), 1, 1, {.bits = 2}, pool).status().code(), StatusCode::kInvalidData);
  EXPECT_TRUE(QuantizeToNearest(huge.data(), 1, 1, {.bits = 8}, pool).ok());
}

TEST(GptqLayout, IsOneStreamOfBits) {
  ThreadPool pool(2);
  for (int bits : {2, 3, 4, 8}) {
    const int64_t rows = 32;
    const int64_t cols = 64;
    const auto weights = RandomWeights(rows * cols, 9);
    const auto matrix = QuantizeToNearest(weights.data(), rows, cols, {.bits = bits, .group_size = 32}, pool);
    ASSERT_TRUE(matrix.ok());
    for (bool minus_one : {true, false}) {
      const GptqTensors tensors = PackGptqTensors(*matrix, minus_one, pool);
      ASSERT_EQ(tensors.qweight.size(), static_cast<size_t>(cols * bits / 32 * rows));
      ASSERT_EQ(tensors.qzeros.size(), static_cast<size_t>(2 * rows * bits / 32));
      const auto bit = [](const std::vector<uint32_t>& words, int64_t first, int64_t stride, int64_t i) {
        return words[static_cast<size_t>(first + i / 32 * stride)] >> (i % 32) & 1u;
      };
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          uint32_t code = 0;
          for (int b = 0; b < bits; ++b) code |= bit(tensors.qweight, r, rows, c * bits + b) << b;
          ASSERT_EQ(code, matrix->codes[static_cast<size_t>(r * cols + c)]);
        }
        for (int64_t g = 0; g < 2; ++g) {
          uint32_t zero = minus_one ? 1 : 0;
          for (int b = 0; b < bits; ++b) zero += bit(tensors.qzeros, g * rows * bits / 32, 1, r * bits + b) << b;
          ASSERT_EQ(zero, matrix->zeros[static_cast<size_t>(g * rows + r)]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
