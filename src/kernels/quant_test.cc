// Block formats: packing, unpacking and products on every kernel set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "kernels/ops.h"
#include "kernels/quant_pack.h"
#include "kernels/testing.h"
#include "quant/coded_blocks.h"
#include "quant/gguf_blocks.h"

namespace kvasir {
namespace {

using testing::Misaligned;
using testing::Random;
using testing::TestContext;

constexpr DType kTypes[] = {DType::kQ8_0,   DType::kQ4_0,   DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                            DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                            DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};
constexpr DType kCodedTypes[] = {DType::kNF4,       DType::kFP4,      DType::kInt8,     DType::kInt8G128,
                                 DType::kInt4G128,  DType::kInt3G128, DType::kInt2G128, DType::kInt8G32,
                                 DType::kInt4G32,   DType::kInt3G32,  DType::kInt2G32,  DType::kScaledE4M3,
                                 DType::kScaledE5M2};

std::vector<DType> AllTypes() {
  std::vector<DType> types;
  for (DType type : kTypes) types.push_back(type);
  for (DType type : kCodedTypes) types.push_back(type);
  return types;
}

bool IsFloat8(DType type) { return type == DType::kScaledE4M3 || type == DType::kScaledE5M2; }

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && testing::SameBits(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

/// Where a block's fp16 scales stand.
std::vector<int64_t> ScaleOffsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K: return {0, 2};
    case DType::kQ2_K: return {80, 82};
    case DType::kQ3_K: return {108};
    case DType::kQ6_K: return {208};
    case DType::kMXFP4: return {};
    default: return {0};
  }
}

/// Random blocks with scales of a sensible size, of both signs, some of them zero; rows begin at odd addresses.
struct Blocks {
  Blocks(DType type, int64_t n_rows, int64_t n_cols, uint32_t seed)
      : dtype(type),
        rows(n_rows),
        cols(n_cols),
        row_bytes(n_cols / DTypeBlockSize(type) * DTypeBlockBytes(type)),
        bytes(static_cast<size_t>(n_rows * row_bytes + 1)) {
    Random random(seed);
    if (IsCodedType(type)) {
      std::vector<float> values(static_cast<size_t>(n_cols));
      for (int64_t r = 0; r < n_rows; ++r) {
        const float size = random.Below(16) == 0 ? 0.0f : 0.01f;
        for (float& value : values) value = random.Normal() * size;
        QuantizeCodedRow(type, values.data(), n_cols, bytes.data() + 1 + r * row_bytes);
      }
      return;
    }
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.Below(256));
    for (int64_t at = 1; at < static_cast<int64_t>(bytes.size()); at += DTypeBlockBytes(type)) {
      if (type == DType::kMXFP4) bytes[static_cast<size_t>(at)] = static_cast<std::byte>(118 + random.Below(16));
      for (int64_t offset : ScaleOffsets(type)) {
        const float scale = random.Below(16) == 0 ? 0.0f : random.Normal() * 0.01f;
        const Float16 half = ToFloat16(scale);
        std::memcpy(bytes.data() + at + offset, &half, 2);
      }
    }
  }
  std::vector<PackSource> Sources() const {
    std::vector<PackSource> sources;
    for (int64_t r = 0; r < rows; ++r) sources.push_back({bytes.data() + 1 + r * row_bytes, 1, dtype});
    return sources;
  }
  std::vector<float> Row(int64_t r) const {
    std::vector<float> values(static_cast<size_t>(cols));
    if (IsCodedType(dtype)) {
      DequantizeCodedBlocks(dtype, bytes.data() + 1 + r * row_bytes, cols / DTypeBlockSize(dtype), values.data());
      return values;
    }
    DequantizeGgufBlocks(dtype, bytes.data() + 1 + r * row_bytes, cols / DTypeBlockSize(dtype), values.data());
    return values;
  }
  DType dtype;
  int64_t rows;
  int64_t cols;
  int64_t row_bytes;
  std::vector<std::byte> bytes;
};

struct PackedBlocks {
  explicit PackedBlocks(const Blocks& blocks)
      : weight{.format = *BlockFormatOf(blocks.dtype), .rows = blocks.rows, .cols = blocks.cols} {
    auto allocated = Buffer::Allocate(std::max<int64_t>(weight.bytes(), 64), MemoryOwner::kOther);
    KVASIR_CHECK(allocated.ok());
    buffer = std::move(*allocated);
    const std::vector<PackSource> sources = blocks.Sources();
    PackPanel(sources, blocks.cols, weight.format, buffer.data());
    weight.data = buffer.data();
  }
  PackedWeight weight;
  Buffer buffer;
};

/// Sets what is beyond `limit` in magnitude apart, the largest first while there is room.
void SetApart(std::vector<double>& values, double limit, std::vector<double>& apart, int& room) {
  for (; room > 0; --room) {
    const auto largest =
        std::max_element(values.begin(), values.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
    if (std::abs(*largest) <= limit) return;
    apart[static_cast<size_t>(largest - values.begin())] = *largest;
    *largest = 0.0;
  }
}

/// x as products of block formats see it, in double.
std::vector<double> RoundActivations(DType type, const float* x, int64_t n) {
  std::vector<double> rounded(x, x + n);
  if (IsFloat8(type)) return rounded;
  for (int64_t begin = 0; begin < n; begin += 256) {
    const int64_t end = std::min<int64_t>(begin + 256, n);
    std::vector<double> chunk(x + begin, x + end);
    std::vector<double> apart(chunk.size(), 0.0);
    const auto largest = [&] {
      double size = 0.0;
      for (double v : chunk) size = std::max(size, std::abs(v));
      return size;
    };
    int room = 4;
    while (largest() > 1e-30) {
      const double limit = largest() / 8;
      if (std::count_if(chunk.begin(), chunk.end(), [&](double v) { return std::abs(v) > limit; }) > room) break;
      SetApart(chunk, limit, apart, room);
    }
    if (type == DType::kInt8) SetApart(chunk, 6.0, apart, room);
    const auto scale = static_cast<float>(largest());
    for (size_t i = 0; i < chunk.size(); ++i) {
      const double q = scale > 0 ? std::nearbyint(static_cast<float>(chunk[i]) * (127.0f / scale)) : 0.0;
      rounded[static_cast<size_t>(begin) + i] = q * (scale / 127.0f) + apart[i];
    }
  }
  return rounded;
}

std::vector<float> Product(const KernelSet* set, const PackedWeight& w, const std::vector<float>& x, int64_t tokens) {
  TestContext test(set);
  Misaligned in(tokens, w.cols);
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(x.data() + t * w.cols, w.cols, in.view().row(t));
  Misaligned out(tokens, w.rows);
  EXPECT_TRUE(MatMul(test.ctx, in.view(), w, {}, out.view()).ok());
  EXPECT_TRUE(out.Intact());
  std::vector<float> y(static_cast<size_t>(tokens * w.rows));
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(out.view().row(t), w.rows, y.data() + t * w.rows);
  return y;
}

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
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> w(static_cast<size_t>(cols));
    UnpackRow(packed.weight, r, w.data());
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<double> a = RoundActivations(type, x.data() + t * cols, cols);
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
    for (int64_t m : {1, 2, 5, 6, 7, 13, 30}) CheckProduct(GetParam(), type, m, 35, 1536, true);
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

INSTANTIATE_TEST_SUITE_P(Sets, QuantTest, ::testing::ValuesIn(AvailableKernelSets()),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

}  // namespace
}  // namespace kvasir
