#include "apps/bench_run.h"

#include <gtest/gtest.h>

namespace kvasir::apps {
namespace {

TEST(BenchTest, NamesAreReadAsTheyAreWritten) {
  for (const char* name : {"pp512", "tg128", "tg32@b16", "tg64@d1024", "tg8@b2@d100", "pp16@d32"}) {
    const auto test = ParseBenchTest(name);
    ASSERT_TRUE(test.ok()) << name;
    EXPECT_EQ(test->Name(), name);
  }
  for (const char* name : {"", "pp", "tg", "xx5", "pp0", "pp-5", "tg5@", "tg5@x3", "tg5@b", "tg5@b0", "tg5@b99999",
                           "pp99999999999999999999", "tg5 "}) {
    EXPECT_FALSE(ParseBenchTest(name).ok()) << name;
  }
}

TEST(BenchResult, MeanMedianAndSpread) {
  BenchResult result;
  result.tok_s = {4, 1, 1};
  EXPECT_DOUBLE_EQ(result.Mean(), 2);
  EXPECT_DOUBLE_EQ(result.Median(), 1);
  EXPECT_NEAR(result.StandardDeviation(), 1.7320508, 1e-6);
  result.tok_s = {3, 1};
  EXPECT_DOUBLE_EQ(result.Median(), 2);
  result.tok_s = {3};
  EXPECT_EQ(result.StandardDeviation(), 0);
}

TEST(ShareOfLimit, NamesTheLimitThatBinds) {
  const Ceilings best{.read_bytes_per_s = 100, .fp32_flops = 50, .bf16_flops = 200, .int8_ops = 400};
  BenchResult result;
  result.test = {.prefill = false, .tokens = 2, .batch = 5};
  result.tok_s = {8, 4, 6};
  // Each run is compared with what the machine gave at its own time.
  result.limits = {best, best, best};
  result.limits[1].read_bytes_per_s = 40;
  result.limits[2].read_bytes_per_s = 60;
  result.per_run = {.weight_bytes = 80, .kv_bytes = 20, .matmul_flops = 30, .attention_flops = 20};
  // 10 bytes and 5 operations per token: reading takes 0.1 s, computing 0.025 s.
  const LimitShare share = ShareOfLimit(result, best, DType::kBF16);
  EXPECT_EQ(share.limit, "bandwidth");
  EXPECT_DOUBLE_EQ(share.value, 60);
  EXPECT_DOUBLE_EQ(share.percent, 100);  // the median of 80, 100 and 100
  EXPECT_DOUBLE_EQ(share.best, 100);
  EXPECT_DOUBLE_EQ(share.percent_best, 60);
  EXPECT_DOUBLE_EQ(share.bytes_per_token, 10);
  EXPECT_DOUBLE_EQ(share.flops_per_token, 5);

  result.per_run.matmul_flops = 480;
  EXPECT_EQ(ShareOfLimit(result, best, DType::kBF16).limit, "bf16");
  EXPECT_EQ(ShareOfLimit(result, best, DType::kQ4_K).limit, "int8");
  const LimitShare fp32 = ShareOfLimit(result, best, DType::kF16);
  EXPECT_EQ(fp32.limit, "fp32");
  EXPECT_DOUBLE_EQ(fp32.percent, 600);
}

TEST(ShareOfLimit, IsOnlyTheWorkWhereNoLimitsWereMeasured) {
  BenchResult result;
  result.test = {.prefill = true, .tokens = 10};
  result.tok_s = {8};
  result.per_run = {.weight_bytes = 80, .kv_bytes = 20, .matmul_flops = 30, .attention_flops = 20};
  const LimitShare share = ShareOfLimit(result, {}, DType::kBF16);
  EXPECT_EQ(share.limit, "");
  EXPECT_DOUBLE_EQ(share.bytes_per_token, 10);
}

TEST(Ceilings, BetterIsTheBetterOfEach) {
  const Ceilings better = Better({.read_bytes_per_s = 1, .fp32_flops = 5, .bf16_flops = 2, .int8_ops = 3},
                                 {.read_bytes_per_s = 2, .fp32_flops = 4, .bf16_flops = 2, .int8_ops = 9});
  EXPECT_EQ(better.read_bytes_per_s, 2);
  EXPECT_EQ(better.fp32_flops, 5);
  EXPECT_EQ(better.bf16_flops, 2);
  EXPECT_EQ(better.int8_ops, 9);
}

}  // namespace
}  // namespace kvasir::apps
