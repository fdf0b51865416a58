// Random weights of block formats for tests, and what products of them should be.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/checked.h"
#include "kernels/ops.h"
#include "kernels/quant_pack.h"
#include "kernels/testing.h"
#include "quant/coded_blocks.h"
#include "quant/gguf_blocks.h"

namespace kvasir::testing {

inline constexpr DType kTypes[] = {DType::kQ8_0,   DType::kQ4_0,   DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                   DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                                   DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};
inline constexpr DType kCodedTypes[] = {DType::kNF4,       DType::kFP4,      DType::kInt8,     DType::kInt8G128,
                                        DType::kInt4G128,  DType::kInt3G128, DType::kInt2G128, DType::kInt8G32,
                                        DType::kInt4G32,   DType::kInt3G32,  DType::kInt2G32,  DType::kScaledE4M3,
                                        DType::kScaledE5M2};

inline std::vector<DType> AllTypes() {
  std::vector<DType> types;
  for (DType type : kTypes) types.push_back(type);
  for (DType type : kCodedTypes) types.push_back(type);
  return types;
}

inline bool IsFloat8(DType type) { return type == DType::kScaledE4M3 || type == DType::kScaledE5M2; }

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && SameBits(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

/// Where a block's fp16 scales stand.
inline std::vector<int64_t> ScaleOffsets(DType type) {
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
inline void SetApart(std::vector<double>& values, double limit, std::vector<double>& apart, int& room) {
  for (; room > 0; --room) {
    const auto largest =
        std::max_element(values.begin(), values.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
    if (std::abs(*largest) <= limit) return;
    apart[static_cast<size_t>(largest - values.begin())] = *largest;
    *largest = 0.0;
  }
}

/// x as products of block formats see it, in double.
inline std::vector<double> RoundActivations(DType type, const float* x, int64_t n) {
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

inline std::vector<float> Product(const KernelSet* set, const PackedWeight& w, const std::vector<float>& x,
                                  int64_t tokens, bool round_weights = false) {
  TestContext test(set);
  test.ctx.round_weights = round_weights;
  Misaligned in(tokens, w.cols);
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(x.data() + t * w.cols, w.cols, in.view().row(t));
  Misaligned out(tokens, w.rows);
  EXPECT_TRUE(MatMul(test.ctx, in.view(), w, {}, out.view()).ok());
  EXPECT_TRUE(out.Intact());
  std::vector<float> y(static_cast<size_t>(tokens * w.rows));
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(out.view().row(t), w.rows, y.data() + t * w.rows);
  return y;
}

}  // namespace kvasir::testing
