#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "kernels/ops.h"
#include "kernels/testing.h"
#include "quant/gguf_blocks.h"

namespace kvasir {
namespace {

using testing::FormatName;
using testing::kAllFormats;
using testing::Random;
using testing::RoundTo;

/// A row-major matrix of some type, at an odd address.
struct Source {
  DType dtype;
  int64_t rows;
  int64_t cols;
  std::vector<std::byte> bytes;  // the first is not used
  std::vector<float> values;     // what the elements mean

  int64_t row_bytes() const { return *DTypeBytes(dtype, cols); }
  const std::byte* data() const { return bytes.data() + 1; }
};

void Append(std::vector<std::byte>& bytes, const void* p, size_t n) {
  const std::byte* from = static_cast<const std::byte*>(p);
  bytes.insert(bytes.end(), from, from + n);
}

template <typename T>
void AppendCast(Source& s, float x) {
  const T value = static_cast<T>(x);
  Append(s.bytes, &value, sizeof(value));
  s.values.push_back(static_cast<float>(value));
}

/// A block of any type, of bytes that hold no fp16 number beyond 1 wherever such numbers lie.
void AppendBlock(Source& s, Random& random) {
  std::byte block[256];
  const size_t bytes = static_cast<size_t>(DTypeBlockBytes(s.dtype));
  for (size_t i = 0; i < bytes; ++i) block[i] = static_cast<std::byte>(random.Below(256) & 0x3b);
  Append(s.bytes, block, bytes);
  float values[256];
  DequantizeGgufBlocks(s.dtype, block, 1, values);
  s.values.insert(s.values.end(), values, values + DTypeBlockSize(s.dtype));
}

/// A block of q8_0 or q4_0, worked out here.
void AppendQuantized(Source& s, Random& random) {
  const Float16 scale = ToFloat16(0.01f + 0.02f * std::abs(random.Normal()));
  Append(s.bytes, &scale, 2);
  int quants[32];
  for (int& q : quants) {
    q = static_cast<int>(s.dtype == DType::kQ8_0 ? random.Below(256) - 128 : random.Below(16) - 8);
    s.values.push_back(static_cast<float>(q) * ToFloat(scale));
  }
  if (s.dtype == DType::kQ8_0) {
    for (int q : quants) s.bytes.push_back(static_cast<std::byte>(q));
  } else {
    for (int i = 0; i < 16; ++i)
      s.bytes.push_back(static_cast<std::byte>((quants[i] + 8) | ((quants[i + 16] + 8) << 4)));
  }
}

Source MakeSource(DType dtype, int64_t rows, int64_t cols) {
  Source s{dtype, rows, cols, {std::byte{0}}, {}};
  Random random(static_cast<uint32_t>(rows * 1000 + cols));
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (DTypeBlockSize(dtype) > 1) {
      const bool own = dtype == DType::kQ8_0 || dtype == DType::kQ4_0;
      own ? AppendQuantized(s, random) : AppendBlock(s, random);
      i += DTypeBlockSize(dtype) - 1;
      continue;
    }
    const float x = random.Normal();
    switch (dtype) {
      case DType::kF32: AppendCast<float>(s, x); break;
      case DType::kF64: AppendCast<double>(s, x); break;
      case DType::kI8: AppendCast<int8_t>(s, 40.0f * x); break;
      case DType::kI16: AppendCast<int16_t>(s, 4000.0f * x); break;
      case DType::kI32: AppendCast<int32_t>(s, 4000.0f * x); break;
      case DType::kI64: AppendCast<int64_t>(s, 4000.0f * x); break;
      case DType::kU8:
      case DType::kBool: AppendCast<uint8_t>(s, std::abs(x)); break;
      case DType::kU16: AppendCast<uint16_t>(s, std::abs(x)); break;
      case DType::kU32: AppendCast<uint32_t>(s, std::abs(x)); break;
      case DType::kU64: AppendCast<uint64_t>(s, std::abs(x)); break;
      case DType::kF16: {
        const Float16 value = ToFloat16(x);
        Append(s.bytes, &value, 2);
        s.values.push_back(ToFloat(value));
        break;
      }
      case DType::kBF16: {
        const BFloat16 value = ToBFloat16(x);
        Append(s.bytes, &value, 2);
        s.values.push_back(ToFloat(value));
        break;
      }
      default: break;  // block types: above
    }
  }
  return s;
}

std::vector<PackSource> RowsOf(const Source& s) {
  std::vector<PackSource> rows;
  for (int64_t r = 0; r < s.rows; ++r) rows.push_back({s.data() + r * s.row_bytes(), 1, s.dtype});
  return rows;
}

Buffer Pack(std::span<const PackSource> rows, int64_t cols, WeightFormat format) {
  const PackedWeight shape{format, static_cast<int64_t>(rows.size()), cols, nullptr};
  auto buffer = Buffer::Allocate(shape.bytes() + 64, MemoryOwner::kOther);
  EXPECT_TRUE(buffer.ok());
  std::memset(buffer->data(), 0x5a, static_cast<size_t>(buffer->size()));
  PackPanel(rows, cols, format, buffer->data());
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(buffer->data()[shape.bytes() + i], std::byte{0x5a});
  return *std::move(buffer);
}

/// Element (n, k) by the definition of the layout.
float ElementAt(const std::byte* data, WeightFormat format, int64_t cols, int64_t n, int64_t k) {
  const int64_t width = WeightFormatBytes(format);
  const int64_t g = 4 / width;
  const int64_t panel = RoundUp(cols, kWeightColAlign) / g * 64;
  const std::byte* p = data + n / 16 * panel + k / g * 64 + ((n % 16) * g + k % g) * width;
  if (format == WeightFormat::kF32) {
    float value;
    std::memcpy(&value, p, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return format == WeightFormat::kF16 ? ToFloat(Float16{bits}) : ToFloat(BFloat16{bits});
}

void CheckPacked(const Source& s, WeightFormat format, std::span<const PackSource> rows) {
  SCOPED_TRACE(fmt::format("{} to {}, {} × {}", DTypeName(s.dtype), FormatName(format), s.rows, s.cols));
  const Buffer buffer = Pack(rows, s.cols, format);
  const PackedWeight weight{format, s.rows, s.cols, buffer.data()};
  std::vector<float> unpacked(static_cast<size_t>(s.cols));
  for (int64_t n = 0; n < RoundUp(s.rows, 16); ++n) {
    if (n < s.rows) UnpackRow(weight, n, unpacked.data());
    for (int64_t k = 0; k < RoundUp(s.cols, kWeightColAlign); ++k) {
      const bool inside = n < s.rows && k < s.cols;
      const float expected = inside ? RoundTo(format, s.values[static_cast<size_t>(n * s.cols + k)]) : 0.0f;
      ASSERT_EQ(ElementAt(buffer.data(), format, s.cols, n, k), expected) << n << "," << k;
      if (inside) {
        ASSERT_EQ(unpacked[static_cast<size_t>(k)], expected) << n << "," << k;
      }
    }
  }
}

TEST(PackTest, EveryTypeToEveryFormat) {
  for (int type = 0; type <= static_cast<int>(DType::kMXFP4); ++type) {
    const DType dtype = static_cast<DType>(type);
    for (WeightFormat format : kAllFormats) {
      for (int64_t rows : {1, 15, 16, 17, 40}) {
        for (int64_t cols : {32, 96, 256, 544, 768, 1056}) {
          if (cols % DTypeBlockSize(dtype) != 0) continue;
          const Source s = MakeSource(dtype, rows, cols);
          CheckPacked(s, format, RowsOf(s));
        }
      }
    }
  }
}

TEST(PackTest, EveryWidth) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    for (WeightFormat format : kAllFormats) {
      for (int64_t cols = 1; cols <= 70; ++cols) {
        const Source s = MakeSource(dtype, 19, cols);
        CheckPacked(s, format, RowsOf(s));
      }
    }
  }
}

TEST(PackTest, ColumnsOfARowMajorMatrix) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    for (WeightFormat format : kAllFormats) {
      for (int64_t cols : {1, 31, 513, 700}) {
        const Source s = MakeSource(dtype, 21, cols);
        // The transposed copy, as GPT-2 stores its matrices: [in, out].
        const int64_t size = DTypeBlockBytes(dtype);
        std::vector<std::byte> transposed(static_cast<size_t>(21 * cols * size));
        for (int64_t n = 0; n < 21; ++n) {
          for (int64_t k = 0; k < cols; ++k) {
            std::memcpy(transposed.data() + (k * 21 + n) * size, s.data() + (n * cols + k) * size,
                        static_cast<size_t>(size));
          }
        }
        std::vector<PackSource> rows;
        for (int64_t n = 0; n < 21; ++n) rows.push_back({transposed.data() + n * size, 21, dtype});
        CheckPacked(s, format, rows);
      }
    }
  }
}

TEST(PackTest, RowsInAnyOrderAndOfDifferentTypes) {
  const Source a = MakeSource(DType::kF32, 10, 40);
  const Source b = MakeSource(DType::kBF16, 10, 40);
  std::vector<PackSource> rows = RowsOf(a);
  const std::vector<PackSource> more = RowsOf(b);
  rows.insert(rows.end(), more.rbegin(), more.rend());
  const Buffer buffer = Pack(rows, 40, WeightFormat::kF32);
  for (int64_t k = 0; k < 40; ++k) {
    for (int64_t n = 0; n < 10; ++n) {
      EXPECT_EQ(ElementAt(buffer.data(), WeightFormat::kF32, 40, n, k), a.values[static_cast<size_t>(n * 40 + k)]);
      EXPECT_EQ(ElementAt(buffer.data(), WeightFormat::kF32, 40, 10 + n, k),
                b.values[static_cast<size_t>((9 - n) * 40 + k)]);
    }
  }
}

TEST(PackTest, SpecialValuesSurvive) {
  std::vector<float> values = {0.0f,
                               -0.0f,
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               1e-40f,
                               -1e-40f,
                               3.4e38f,
                               65504.0f,
                               65520.0f,
                               1e-7f,
                               6e-8f,
                               2e-8f,
                               1.00390625f,
                               1.01171875f};
  values.push_back(std::numeric_limits<float>::quiet_NaN());
  const int64_t cols = static_cast<int64_t>(values.size());
  const PackSource row{reinterpret_cast<const std::byte*>(values.data()), 1, DType::kF32};
  for (WeightFormat format : kAllFormats) {
    const Buffer buffer = Pack({&row, 1}, cols, format);
    for (int64_t k = 0; k < cols; ++k) {
      const float expected = RoundTo(format, values[static_cast<size_t>(k)]);
      const float got = ElementAt(buffer.data(), format, cols, 0, k);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(got));
      } else {
        EXPECT_EQ(got, expected) << FormatName(format) << " " << values[static_cast<size_t>(k)];
        EXPECT_EQ(std::signbit(got), std::signbit(expected));
      }
    }
  }
}

/// The sets' own conversions against the scalar ones, for every 16-bit pattern and at every tail.
class PackKernelsTest : public ::testing::TestWithParam<const KernelSet*> {};

bool SameFloat(float a, float b) { return std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b)); }

TEST_P(PackKernelsTest, EveryHalf) {
  const PackKernels& kernels = *GetParam()->pack;
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(bits.size());
  std::vector<uint16_t> narrow(bits.size());
  const std::byte* in = reinterpret_cast<const std::byte*>(bits.data());
  kernels.f16_to_f32(in, 65536, wide.data());
  kernels.f32_to_f16(wide.data(), 65536, narrow.data());
  for (size_t i = 0; i < bits.size(); ++i) {
    ASSERT_TRUE(SameFloat(wide[i], ToFloat(Float16{bits[i]}))) << i;
    ASSERT_TRUE(narrow[i] == bits[i] || std::isnan(wide[i])) << i;
  }
  kernels.bf16_to_f32(in, 65536, wide.data());
  kernels.f32_to_bf16(wide.data(), 65536, narrow.data());
  for (size_t i = 0; i < bits.size(); ++i) {
    ASSERT_TRUE(SameFloat(wide[i], ToFloat(BFloat16{bits[i]}))) << i;
    ASSERT_TRUE(narrow[i] == bits[i] || std::isnan(wide[i])) << i;
  }
}

TEST_P(PackKernelsTest, RoundsToNearestEvenAtEveryTail) {
  const PackKernels& kernels = *GetParam()->pack;
  Random random(3);
  for (int64_t n = 0; n <= 70; ++n) {
    std::vector<float> in = random.Normals(n);
    for (float& x : in) x = std::ldexp(x, static_cast<int>(random.Below(60)) - 40);
    std::vector<uint16_t> out(static_cast<size_t>(n + 1), 0xabcd);
    kernels.f32_to_f16(in.data(), n, out.data());
    for (size_t i = 0; i < in.size(); ++i) ASSERT_EQ(out[i], ToFloat16(in[i]).bits) << in[i];
    EXPECT_EQ(out.back(), 0xabcd);
    kernels.f32_to_bf16(in.data(), n, out.data());
    for (size_t i = 0; i < in.size(); ++i) ASSERT_EQ(out[i], ToBFloat16(in[i]).bits) << in[i];
    EXPECT_EQ(out.back(), 0xabcd);
  }
}

TEST_P(PackKernelsTest, Dequantize) {
  const PackKernels& kernels = *GetParam()->pack;
  for (DType dtype : {DType::kQ8_0, DType::kQ4_0}) {
    for (int64_t blocks = 1; blocks <= 20; ++blocks) {
      const Source s = MakeSource(dtype, 1, 32 * blocks);
      std::vector<float> out(static_cast<size_t>(32 * blocks));
      (dtype == DType::kQ8_0 ? kernels.q8_0_to_f32 : kernels.q4_0_to_f32)(s.data(), blocks, out.data());
      EXPECT_EQ(out, s.values);
    }
  }
}

TEST_P(PackKernelsTest, Interleave) {
  const PackKernels& kernels = *GetParam()->pack;
  for (int64_t dwords = 1; dwords <= 40; ++dwords) {
    std::vector<uint8_t> bytes(static_cast<size_t>(16 * dwords * 4 + 1));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 + i / 251);
    const std::byte* rows[16];
    for (int64_t r = 0; r < 16; ++r) rows[r] = reinterpret_cast<const std::byte*>(bytes.data()) + 1 + r * dwords * 4;
    alignas(64) std::byte out[40 * 64];
    kernels.interleave(rows, dwords, out);
    for (int64_t d = 0; d < dwords; ++d) {
      for (int64_t r = 0; r < 16; ++r) ASSERT_EQ(std::memcmp(out + d * 64 + r * 4, rows[r] + d * 4, 4), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, PackKernelsTest,
                         ::testing::ValuesIn(testing::SetsThatDiffer([](const KernelSet& set) { return set.pack; })),
                         [](const auto& set) { return std::string(KernelSetName(*set.param)); });

}  // namespace
}  // namespace kvasir
