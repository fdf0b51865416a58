#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "base/status.h"
#include "base/utf8.h"

namespace kvasir {
namespace {

TEST(Utf8, RoundTripsEveryCodePoint) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(text, c);
    const Utf8Unit unit = DecodeUtf8(text, 0);
    ASSERT_TRUE(unit.valid);
    ASSERT_EQ(unit.code_point, c);
    ASSERT_EQ(unit.length, text.size());
  }
}

TEST(Utf8, ReplacesMaximalInvalidPartsAsPythonDoes) {
  // bytes.decode("utf-8", "replace") in Python gives the same strings.
  EXPECT_EQ(ReplaceInvalidUtf8("a\xff"
                               "b"),
            "a\uFFFDb");
  EXPECT_EQ(ReplaceInvalidUtf8("\xe2\x82"), "\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xe2\x28\xa1"), "\uFFFD(\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xc0\xaf"), "\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xf0\x9f\x98"), "\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xf4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_TRUE(IsValidUtf8("\xf0\x9f\x98\x80"));
  EXPECT_FALSE(IsValidUtf8("\x80"));
}

TEST(Utf8, FindsTheIncompleteSuffix) {
  const std::string emoji = "\xf0\x9f\x98\x80";
  for (size_t n = 1; n < 4; ++n) EXPECT_EQ(IncompleteUtf8Suffix("ab" + emoji.substr(0, n)), n);
  EXPECT_EQ(IncompleteUtf8Suffix("ab" + emoji), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix(""), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("\x80\x80"), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("\xe0\x80"), 0u);  // can never become valid
}

TEST(DType, Float16RoundTripsEveryValue) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = ToFloat(Float16{static_cast<uint16_t>(bits)});
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToFloat16(value))));
    } else {
      EXPECT_EQ(ToFloat16(value).bits, bits);
      const float as_bf16 = ToFloat(BFloat16{static_cast<uint16_t>(bits)});
      if (!std::isnan(as_bf16)) {
        EXPECT_EQ(ToBFloat16(as_bf16).bits, bits);
      }
    }
  }
}

TEST(DType, RoundsToNearestEven) {
  EXPECT_EQ(ToFloat16(1.0f + 0x1p-11f).bits, 0x3c00);      // halfway, even below
  EXPECT_EQ(ToFloat16(1.0f + 3 * 0x1p-11f).bits, 0x3c02);  // halfway, even above
  EXPECT_EQ(ToFloat16(65520.0f).bits, 0x7c00);             // rounds to infinity
  EXPECT_EQ(ToFloat16(0x1p-25f).bits, 0);                  // half of the smallest subnormal, to even
  EXPECT_EQ(ToFloat16(-0.0f).bits, 0x8000);
  EXPECT_EQ(ToBFloat16(1.0f + 0x1p-8f).bits, 0x3f80);
  EXPECT_EQ(ToBFloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(DType, SizesAndNames) {
  EXPECT_EQ(DTypeBytes(DType::kQ4_0, 64), 36);
  EXPECT_EQ(DTypeBytes(DType::kQ4_0, 33), std::nullopt);
  EXPECT_EQ(DTypeBytes(DType::kF64, INT64_MAX / 4), std::nullopt);
  EXPECT_EQ(DTypeBytes(DType::kF32, -1), std::nullopt);
  EXPECT_EQ(ParseDType("torch.bfloat16"), DType::kBF16);
  EXPECT_EQ(ParseDType("half"), DType::kF16);
  EXPECT_EQ(ParseDType("int4"), std::nullopt);
  EXPECT_EQ(ParseDType("mxfp4"), DType::kMXFP4);  // the table is in the order of the enumerators
  EXPECT_EQ(DTypeName(DType::kQ6_K), "q6_k");
  EXPECT_EQ(DTypeBytes(DType::kQ6_K, 512), 420);
  EXPECT_EQ(DTypeBytes(DType::kQ6_K, 32), std::nullopt);
}

TEST(Status, CarriesContext) {
  const Status status = InvalidData("{} is wrong", 7).WithContext("file.bin");
  EXPECT_EQ(status.message(), "file.bin: 7 is wrong");
  EXPECT_EQ(status.code(), StatusCode::kInvalidData);
  EXPECT_TRUE(OkStatus().WithContext("x").ok());
}

}  // namespace
}  // namespace kvasir
