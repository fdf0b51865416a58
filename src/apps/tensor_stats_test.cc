#include "apps/tensor_stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/dtype.h"
#include "quant/gguf_blocks.h"

namespace kvasir::apps {
namespace {

template <typename T>
RawTensor Tensor(DType dtype, const std::vector<T>& values, std::vector<int64_t> shape) {
  RawTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.data = reinterpret_cast<const std::byte*>(values.data());
  tensor.bytes = static_cast<int64_t>(values.size() * sizeof(T));
  return tensor;
}

TEST(ScanTensor, CountsWhatIsNotFiniteAndLeavesItOutOfTheRest) {
  ThreadPool pool(2);
  const std::vector<float> values = {1, -3, NAN, INFINITY, -INFINITY, 5};
  const auto stats = ScanTensor(Tensor(DType::kF32, values, {2, 3}), pool);
  ASSERT_TRUE(stats);
  EXPECT_FALSE(stats->clean());
  EXPECT_EQ(stats->elements, 6);
  EXPECT_EQ(stats->nans, 1);
  EXPECT_EQ(stats->infinities, 2);
  EXPECT_EQ(stats->min, -3);
  EXPECT_EQ(stats->max, 5);
  EXPECT_EQ(stats->mean, 1);
}

TEST(ScanTensor, ReadsUnalignedSixteenBitTypes) {
  ThreadPool pool(1);
  std::vector<char> bytes(1 + 4);
  const BFloat16 b[2] = {ToBFloat16(0.5f), ToBFloat16(-2.0f)};
  std::memcpy(bytes.data() + 1, b, 4);
  RawTensor tensor = Tensor(DType::kBF16, bytes, {2});
  tensor.data += 1;
  EXPECT_EQ(ScanTensor(tensor, pool)->mean, -0.75);
  const Float16 h[2] = {ToFloat16(0.5f), ToFloat16(-2.0f)};
  std::memcpy(bytes.data() + 1, h, 4);
  tensor.dtype = DType::kF16;
  EXPECT_EQ(ScanTensor(tensor, pool)->min, -2.0);
}

TEST(ScanTensor, ReadsBlocks) {
  ThreadPool pool(1);
  std::vector<uint8_t> q8(34);
  const Float16 half = ToFloat16(0.5f);
  std::memcpy(q8.data(), &half, 2);
  for (size_t i = 0; i < 32; ++i) q8[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(i) - 16);
  const auto stats8 = ScanTensor(Tensor(DType::kQ8_0, q8, {32}), pool);
  EXPECT_EQ(stats8->elements, 32);
  EXPECT_EQ(stats8->min, -8.0);
  EXPECT_EQ(stats8->max, 7.5);
  EXPECT_EQ(stats8->mean, -0.25);

  std::vector<uint8_t> q4(18);
  std::memcpy(q4.data(), &half, 2);
  for (size_t i = 0; i < 16; ++i) q4[2 + i] = static_cast<uint8_t>(i | (i << 4));
  const auto stats4 = ScanTensor(Tensor(DType::kQ4_0, q4, {32}), pool);
  EXPECT_EQ(stats4->min, -4.0);
  EXPECT_EQ(stats4->max, 3.5);
  EXPECT_EQ(stats4->mean, -0.25);

  // A scale that is not finite spoils all of its block.
  const Float16 inf = ToFloat16(INFINITY);
  std::memcpy(q4.data(), &inf, 2);
  const auto bad = ScanTensor(Tensor(DType::kQ4_0, q4, {32}), pool);
  EXPECT_EQ(bad->nans + bad->infinities, 32);
}

TEST(ScanTensor, ReadsEveryBlockType) {
  ThreadPool pool(1);
  for (int type = 0; type <= static_cast<int>(DType::kMXFP4); ++type) {
    const DType dtype = static_cast<DType>(type);
    if (!IsGgufBlockType(dtype)) continue;
    const int64_t elements = 3 * DTypeBlockSize(dtype);
    std::vector<uint8_t> bytes(static_cast<size_t>(3 * DTypeBlockBytes(dtype)));
    // 0x3b and less: fp16 numbers are finite wherever they lie.
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 89 % 251) & 0x3b;
    std::vector<float> values(static_cast<size_t>(elements));
    DequantizeGgufBlocks(dtype, reinterpret_cast<const std::byte*>(bytes.data()), 3, values.data());
    const auto stats = ScanTensor(Tensor(dtype, bytes, {elements}), pool);
    ASSERT_TRUE(stats) << DTypeName(dtype);
    EXPECT_TRUE(stats->clean());
    EXPECT_EQ(stats->elements, elements);
    EXPECT_EQ(stats->min, static_cast<double>(*std::ranges::min_element(values))) << DTypeName(dtype);
    EXPECT_EQ(stats->max, static_cast<double>(*std::ranges::max_element(values))) << DTypeName(dtype);
  }
}

TEST(ScanTensor, GivesTheSameFiguresForAnyNumberOfThreads) {
  std::vector<float> values(300'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) * 1e3f;
  const RawTensor tensor = Tensor(DType::kF32, values, {300'000});
  ThreadPool one(1);
  ThreadPool three(3);
  EXPECT_EQ(ScanTensor(tensor, one)->mean, ScanTensor(tensor, three)->mean);
}

TEST(ScanTensor, LeavesIntegersAlone) {
  ThreadPool pool(1);
  const std::vector<int64_t> values = {1, 2};
  EXPECT_FALSE(ScanTensor(Tensor(DType::kI64, values, {2}), pool));
  EXPECT_TRUE(ScanTensor(Tensor(DType::kF32, std::vector<float>(), {0}), pool)->clean());
}

}  // namespace
}  // namespace kvasir::apps
