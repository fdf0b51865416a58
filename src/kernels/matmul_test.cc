#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

using testing::FormatName;
using testing::kAllFormats;
using testing::Misaligned;
using testing::Packed;
using testing::Random;
using testing::SameBits;
using testing::TestContext;

/// The product in double, of operands rounded as the format rounds them.
struct Reference {
  Reference(const std::vector<float>& x, const std::vector<float>& w, int64_t m, int64_t n, int64_t k,
            WeightFormat format)
      : value(static_cast<size_t>(m * n)), magnitude(value.size()) {
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t r = 0; r < n; ++r) {
        double sum = 0.0;
        double size = 0.0;
        for (int64_t i = 0; i < k; ++i) {
          float a = x[static_cast<size_t>(t * k + i)];
          if (format == WeightFormat::kBF16) a = testing::RoundTo(format, a);
          const double product = static_cast<double>(a) * testing::RoundTo(format, w[static_cast<size_t>(r * k + i)]);
          sum += product;
          size += std::abs(product);
        }
        value[static_cast<size_t>(t * n + r)] = sum;
        magnitude[static_cast<size_t>(t * n + r)] = size;
      }
    }
  }
  std::vector<double> value;
  std::vector<double> magnitude;  // Σ |x·w|
};

class MatMulTest : public ::testing::TestWithParam<const KernelSet*> {};

/// x into a misaligned matrix.
Misaligned Spread(const std::vector<float>& values, int64_t rows, int64_t cols) {
  Misaligned m(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.view().row(r)[c] = values[static_cast<size_t>(r * cols + c)];
  }
  return m;
}

void CheckProduct(const KernelSet* set, WeightFormat format, int64_t m, int64_t n, int64_t k) {
  SCOPED_TRACE(fmt::format("{} {} m={} n={} k={}", KernelSetName(*set), FormatName(format), m, n, k));
  TestContext test(set);
  Random random(static_cast<uint32_t>(m * 1000003 + n * 1009 + k));
  const std::vector<float> x = random.Normals(m * k);
  const std::vector<float> w = random.Normals(n * k);
  const Packed packed(w, n, k, format);
  const Reference reference(x, w, m, n, k, format);
  Misaligned spread = Spread(x, m, k);
  Misaligned y(m, n);
  ASSERT_TRUE(MatMul(test.ctx, spread.view(), packed.weight, {}, y.view()).ok());
  EXPECT_TRUE(y.Intact());
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t r = 0; r < n; ++r) {
      const size_t i = static_cast<size_t>(t * n + r);
      ASSERT_NEAR(y.view().row(t)[r], reference.value[i], 1e-6 * reference.magnitude[i] + 1e-30) << t << "," << r;
    }
  }
  EXPECT_EQ(test.ctx.counters.matmul_flops, 2 * m * n * k);
  EXPECT_EQ(test.ctx.counters.weight_bytes, m == 0 ? 0 : packed.weight.bytes());
}

TEST_P(MatMulTest, EveryNumberOfTokens) {
  for (WeightFormat format : kAllFormats) {
    for (int64_t m = 1; m <= 40; ++m) CheckProduct(GetParam(), format, m, 70, 37);
  }
}

TEST_P(MatMulTest, EveryDepth) {
  for (WeightFormat format : kAllFormats) {
    for (int64_t k = 1; k <= 70; ++k) CheckProduct(GetParam(), format, k % 5 + 1, 19, k);
    CheckProduct(GetParam(), format, 3, 33, 1237);
    CheckProduct(GetParam(), format, 27, 33, 2051);  // several blocks of k
    CheckProduct(GetParam(), format, 14, 17, 5003);
  }
}

TEST_P(MatMulTest, EveryNumberOfRows) {
  for (WeightFormat format : kAllFormats) {
    for (int64_t n = 1; n <= 70; ++n) CheckProduct(GetParam(), format, n % 3 == 0 ? 13 : 1, n, 24);
    CheckProduct(GetParam(), format, 1, 1000, 260);
    CheckProduct(GetParam(), format, 300, 150, 40);  // several blocks of strips
  }
}

TEST_P(MatMulTest, EmptyProducts) {
  for (WeightFormat format : kAllFormats) {
    CheckProduct(GetParam(), format, 0, 20, 8);
    CheckProduct(GetParam(), format, 2, 20, 0);
  }
}

TEST_P(MatMulTest, ARowHasTheSameBitsInEveryBatch) {
  constexpr int64_t kRows = 77;
  constexpr int64_t kCols = 1531;
  constexpr int64_t kTokens = 300;
  for (WeightFormat format : kAllFormats) {
    Random random(7);
    const std::vector<float> x = random.Normals(kTokens * kCols);
    const Packed packed(random.Normals(kRows * kCols), kRows, kCols, format);
    TestContext test(GetParam());
    std::vector<float> alone(static_cast<size_t>(kTokens * kRows));
    for (int64_t t = 0; t < kTokens; ++t) {
      ASSERT_TRUE(
          MatMul(test.ctx, {x.data() + t * kCols, 1, kCols}, packed.weight, {}, {alone.data() + t * kRows, 1, kRows})
              .ok());
    }
    std::vector<float> together(alone.size());
    for (int64_t batch : {2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 17, 25, 48, 299, 300}) {
      for (int64_t t = 0; t < kTokens; t += batch) {
        const int64_t m = std::min(batch, kTokens - t);
        ASSERT_TRUE(MatMul(test.ctx, {x.data() + t * kCols, m, kCols}, packed.weight, {},
                           {together.data() + t * kRows, m, kRows})
                        .ok());
      }
      EXPECT_TRUE(SameBits(alone.data(), together.data(), kTokens * kRows)) << FormatName(format) << " " << batch;
    }
  }
}

TEST_P(MatMulTest, ThreadsChangeNothing) {
  constexpr int64_t kRows = 600;
  constexpr int64_t kCols = 777;
  for (WeightFormat format : kAllFormats) {
    for (int64_t m : {1, 9, 130}) {
      Random random(8);
      const std::vector<float> x = random.Normals(m * kCols);
      const Packed packed(random.Normals(kRows * kCols), kRows, kCols, format);
      std::vector<float> first;
      for (int threads : {1, 2, 3, 7}) {
        TestContext test(GetParam(), threads);
        std::vector<float> y(static_cast<size_t>(m * kRows));
        ASSERT_TRUE(MatMul(test.ctx, {x.data(), m, kCols}, packed.weight, {}, {y.data(), m, kRows}).ok());
        if (first.empty()) first = y;
        EXPECT_TRUE(SameBits(first.data(), y.data(), m * kRows)) << FormatName(format) << " " << m << " " << threads;
      }
    }
  }
}

struct EpilogueCase {
  bool bias;
  Activation activation;
  bool gated;
  bool accumulate;
  float scale;
};

void CheckEpilogue(const KernelSet* set, WeightFormat format, const EpilogueCase& c, int64_t m, int64_t outputs) {
  SCOPED_TRACE(fmt::format("{} {} m={} n={} bias={} activation={} gated={} accumulate={} scale={}", KernelSetName(*set),
                           FormatName(format), m, outputs, c.bias, static_cast<int>(c.activation), c.gated,
                           c.accumulate, c.scale));
  constexpr int64_t kCols = 45;
  const int64_t n = c.gated ? RoundUp(outputs, kPanelRows) * 2 : outputs;
  Random random(static_cast<uint32_t>(m * 100 + outputs));
  const std::vector<float> x = random.Normals(m * kCols);
  std::vector<float> w = random.Normals(n * kCols);
  for (float& v : w) v *= 0.3f;
  const std::vector<float> bias = random.Normals(n);
  const std::vector<float> before = random.Normals(m * outputs);
  const Packed packed(w, n, kCols, format);
  const Reference reference(x, w, m, n, kCols, format);
  TestContext test(set);
  Misaligned y = Spread(before, m, outputs);
  const Epilogue epilogue{c.bias ? bias.data() : nullptr, c.activation, c.gated, c.accumulate, c.scale};
  ASSERT_TRUE(MatMul(test.ctx, {x.data(), m, kCols}, packed.weight, epilogue, y.view()).ok());
  EXPECT_TRUE(y.Intact());
  for (int64_t t = 0; t < m; ++t) {
    const auto product = [&](int64_t row) {
      return reference.value[static_cast<size_t>(t * n + row)] + (c.bias ? bias[static_cast<size_t>(row)] : 0.0f);
    };
    for (int64_t col = 0; col < outputs; ++col) {
      const int64_t row = c.gated ? col / 16 * 32 + col % 16 : col;
      const double in = product(row);
      double expected = static_cast<double>(ApplyActivation(c.activation, static_cast<float>(in)));
      if (c.gated) expected *= product(row + 16);
      expected *= static_cast<double>(c.scale);
      if (c.accumulate) expected += before[static_cast<size_t>(t * outputs + col)];
      const double size = reference.magnitude[static_cast<size_t>(t * n + row)];
      ASSERT_NEAR(y.view().row(t)[col], expected, 2e-6 * (1.0 + std::abs(expected) + size * size)) << t << "," << col;
    }
  }
}

/// A thread of the pool that multiplies does it by itself, whichever it is.
TEST_P(MatMulTest, InsideTheWorkOfAThread) {
  constexpr int64_t kSize = 300;
  Random random(7);
  const std::vector<float> x = random.Normals(kSize);
  const Packed packed(random.Normals(kSize * kSize), kSize, kSize, WeightFormat::kF32);
  const MatView<const float> in(x.data(), 1, kSize);
  TestContext test(GetParam(), 3);
  std::vector<float> expected(kSize);
  ASSERT_TRUE(MatMul(test.ctx, in, packed.weight, {}, MatView<float>(expected.data(), 1, kSize)).ok());
  for (const int chosen : {0, 1, 2}) {
    std::vector<float> y(kSize);
    test.ctx.pool->Run([&](int worker) {
      if (worker != chosen) return;
      EXPECT_TRUE(MatMul(test.ctx, in, packed.weight, {}, MatView<float>(y.data(), 1, kSize)).ok());
    });
    EXPECT_EQ(y, expected) << chosen;
  }
}

TEST_P(MatMulTest, Epilogues) {
  const Activation activations[] = {Activation::kNone,       Activation::kRelu,      Activation::kGelu,
                                    Activation::kGeluTanh,   Activation::kGeluQuick, Activation::kSilu,
                                    Activation::kReluSquared};
  for (WeightFormat format : kAllFormats) {
    for (Activation activation : activations) {
      for (int bits = 0; bits < 16; ++bits) {
        const EpilogueCase c{(bits & 1) != 0, activation, (bits & 2) != 0, (bits & 4) != 0, bits & 8 ? 0.37f : 1.0f};
        for (int64_t m : {1, 5, 30}) {
          for (int64_t n : {3, 16, 53}) CheckEpilogue(GetParam(), format, c, m, n);
        }
      }
    }
  }
}

TEST_P(MatMulTest, NotANumberAndInfinityStayWhereTheyBelong) {
  constexpr int64_t kRows = 40;
  constexpr int64_t kCols = 30;
  constexpr int64_t kTokens = 15;
  for (WeightFormat format : kAllFormats) {
    TestContext test(GetParam());
    Random random(9);
    std::vector<float> x = random.Normals(kTokens * kCols);
    std::vector<float> w = random.Normals(kRows * kCols);
    x[3 * kCols + 29] = std::numeric_limits<float>::quiet_NaN();
    w[17 * kCols + 5] = std::numeric_limits<float>::infinity();
    const Packed packed(w, kRows, kCols, format);
    std::vector<float> y(kTokens * kRows);
    ASSERT_TRUE(MatMul(test.ctx, {x.data(), kTokens, kCols}, packed.weight, {}, {y.data(), kTokens, kRows}).ok());
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t n = 0; n < kRows; ++n) {
        const float v = y[static_cast<size_t>(t * kRows + n)];
        if (t == 3) {
          EXPECT_TRUE(std::isnan(v)) << n;
        } else if (n == 17) {
          EXPECT_TRUE(std::isinf(v)) << t;
          EXPECT_EQ(std::signbit(v), std::signbit(x[static_cast<size_t>(t * kCols + 5)]));
        } else {
          EXPECT_TRUE(std::isfinite(v)) << t << "," << n;
        }
      }
    }
  }
}

TEST_P(MatMulTest, GivesItsScratchBack) {
  TestContext test(GetParam());
  Random random(10);
  const std::vector<float> x = random.Normals(20 * 64);
  const Packed packed(random.Normals(64 * 64), 64, 64, WeightFormat::kF32);
  std::vector<float> y(20 * 64);
  ASSERT_TRUE(MatMul(test.ctx, {x.data(), 20, 64}, packed.weight, {}, {y.data(), 20, 64}).ok());
  const int64_t capacity = test.arena.capacity();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(MatMul(test.ctx, {x.data(), 20, 64}, packed.weight, {}, {y.data(), 20, 64}).ok());
  }
  EXPECT_EQ(test.arena.capacity(), capacity);
}

INSTANTIATE_TEST_SUITE_P(Sets, MatMulTest, ::testing::ValuesIn(AvailableKernelSets()),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

}  // namespace
}  // namespace kvasir
