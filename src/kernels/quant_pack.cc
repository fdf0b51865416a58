#include "kernels/quant_pack.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "kernels/kernel_set.h"
#include "kernels/quant_record.h"
#include "quant/coded_blocks.h"
#include "quant/gguf_blocks.h"

namespace kvasir {
namespace {

constexpr std::pair<DType, WeightFormat> kBlockFormats[] = {
    {DType::kQ8_0, WeightFormat::kQ8_0},         {DType::kQ4_0, WeightFormat::kQ4_0},
    {DType::kQ4_1, WeightFormat::kQ4_1},         {DType::kQ5_0, WeightFormat::kQ5_0},
    {DType::kQ5_1, WeightFormat::kQ5_1},         {DType::kQ2_K, WeightFormat::kQ2_K},
    {DType::kQ3_K, WeightFormat::kQ3_K},         {DType::kQ4_K, WeightFormat::kQ4_K},
    {DType::kQ5_K, WeightFormat::kQ5_K},         {DType::kQ6_K, WeightFormat::kQ6_K},
    {DType::kIQ4_NL, WeightFormat::kIQ4_NL},     {DType::kIQ4_XS, WeightFormat::kIQ4_XS},
    {DType::kMXFP4, WeightFormat::kMXFP4},       {DType::kNF4, WeightFormat::kNF4},
    {DType::kFP4, WeightFormat::kFP4},           {DType::kInt8, WeightFormat::kInt8},
    {DType::kInt8G128, WeightFormat::kInt8G128}, {DType::kInt4G128, WeightFormat::kInt4G128},
    {DType::kInt3G128, WeightFormat::kInt3G128}, {DType::kInt2G128, WeightFormat::kInt2G128},
    {DType::kInt8G32, WeightFormat::kInt8G32},   {DType::kInt4G32, WeightFormat::kInt4G32},
    {DType::kInt3G32, WeightFormat::kInt3G32},   {DType::kInt2G32, WeightFormat::kInt2G32},
    {DType::kScaledE4M3, WeightFormat::kE4M3},   {DType::kScaledE5M2, WeightFormat::kE5M2},
};
static_assert(std::size(kBlockFormats) == kQuantFormats);

/// The codes of a record in lines of bytes, 16 rows × 4 inputs each, and what belongs to each row's blocks.
class RecordWriter {
 public:
  explicit RecordWriter(const QuantLayout& layout) : layout_(layout) {}

  void Clear(std::byte* record) {
    record_ = record;
    std::memset(record, 0, static_cast<size_t>(layout_.record_bytes()));
    std::memset(lines_, 0, sizeof(lines_));
  }

  /// One stored block of `row`: `values` codes from input k of the record on.
  void Put(int64_t row, int64_t k, int64_t values, const GgufBlock& block) {
    for (int64_t i = 0; i < values; i += 4) std::memcpy(lines_ + (k + i) * kPanelRows + row * 4, block.codes + i, 4);
    const int64_t blocks = std::max<int64_t>(values / layout_.block_k, 1);
    for (int64_t b = 0; b < blocks; ++b) PutScale(row, k / layout_.block_k + b, b, block);
    if (layout_.super()) {
      std::memcpy(record_ + layout_.super_at() + row * 2, &block.d, 2);
      if (layout_.minima) std::memcpy(record_ + layout_.super_at() + 32 + row * 2, &block.dmin, 2);
    }
  }

  /// The same for a block of quant/coded_blocks.h.
  void PutCoded(int64_t row, int64_t k, int64_t values, const CodedBlock& block, const uint8_t* codes) {
    const int flip = layout_.threshold() ? 128 : 0;  // int8 as what is 128 more
    for (int64_t i = 0; i < values; ++i) {
      lines_[(k + i) / 4 * 64 + row * 4 + (k + i) % 4] = static_cast<uint8_t>(codes[i] ^ flip);
    }
    std::byte* const at = record_ + layout_.scales_at() + k / layout_.block_k * layout_.scale_bytes();
    if (layout_.scale == ScaleKind::kF32) {
      std::memcpy(at + row * 4, &block.scale, 4);
      return;
    }
    const Float16 scale = ToFloat16(block.scale);
    std::memcpy(at + row * 2, &scale, 2);
    if (!layout_.minima) return;
    const Float16 minimum = ToFloat16(block.minimum + ToFloat(scale) * static_cast<float>(layout_.zero));
    std::memcpy(at + (layout_.minima_at() - layout_.scales_at()) + row * 2, &minimum, 2);
  }

  /// Folds the lines of bytes into the record's planes.
  void Finish() {
    constexpr int32_t kUnitGroups = kUnitInputs / 4;
    for (int32_t g = 0; g < layout_.record_k / 4; ++g) {
      const uint8_t* const line = lines_ + g * 64;
      std::byte* const unit = record_ + layout_.unit_at(g / kUnitGroups);
      const int32_t i = g % kUnitGroups;
      if (layout_.bytes) std::memcpy(unit + layout_.bytes_at() + i * 64, line, 64);
      if (layout_.nibbles) Or(unit + i / 2 * 64, line, 0, 15, i % 2 * 4);
      if (layout_.pairs) Or(unit + layout_.pairs_at() + i / 4 * 64, line, layout_.nibbles ? 4 : 0, 3, i % 4 * 2);
      if (layout_.bits) Or(unit + layout_.bits_at(), line, layout_.nibbles ? 4 : 2, 1, i);
    }
  }

 private:
  static void Or(std::byte* to, const uint8_t* line, int right, int mask, int left) {
    for (int i = 0; i < 64; ++i) {
      to[i] |= static_cast<std::byte>(((line[i] >> right) & mask) << left);
    }
  }

  void PutScale(int64_t row, int64_t block, int64_t b, const GgufBlock& from) {
    std::byte* const at = record_ + layout_.scales_at() + block * layout_.scale_bytes();
    std::byte* const minimum = record_ + layout_.minima_at() + block * layout_.scale_bytes();
    switch (layout_.scale) {
      case ScaleKind::kF16:
        std::memcpy(at + row * 2, &from.d, 2);
        if (layout_.minima) std::memcpy(minimum + row * 2, &from.dmin, 2);
        return;
      case ScaleKind::kE8M0: at[row] = static_cast<std::byte>(from.scales[0]); return;
      case ScaleKind::kSuperNibbles: at[row] = static_cast<std::byte>(from.scales[b] | from.mins[b] << 4); return;
      case ScaleKind::kF32: KVASIR_CHECK(false); return;
      case ScaleKind::kSuper: break;
    }
    at[row] = static_cast<std::byte>(from.scales[b]);
    if (layout_.minima) minimum[row] = static_cast<std::byte>(from.mins[b]);
  }

  const QuantLayout& layout_;
  std::byte* record_ = nullptr;
  alignas(64) uint8_t lines_[256 * kPanelRows];
};

/// Scales that GGUF stores less 32 are kept as the signed numbers that they stand for.
void CenterScales(DType dtype, GgufBlock* block) {
  if (dtype != DType::kQ3_K && dtype != DType::kIQ4_XS) return;
  for (uint8_t& scale : block->scales) scale = static_cast<uint8_t>(scale - 32);
}

}  // namespace

std::optional<WeightFormat> BlockFormatOf(DType dtype) {
  for (const auto& [type, format] : kBlockFormats) {
    if (type == dtype) return format;
  }
  return std::nullopt;
}

std::optional<DType> BlockTypeOf(WeightFormat format) {
  for (const auto& [type, own] : kBlockFormats) {
    if (own == format) return type;
  }
  return std::nullopt;
}

void PackQuantPanel(std::span<const PackSource> rows, int64_t cols, WeightFormat format, std::byte* out) {
  const QuantLayout& layout = *GetQuantLayout(format);
  RecordWriter writer(layout);
  GgufBlock block;
  for (int64_t k = 0; k < cols; k += layout.record_k, out += layout.record_bytes()) {
    writer.Clear(out);
    for (size_t r = 0; r < rows.size(); ++r) {
      const PackSource& row = rows[r];
      KVASIR_CHECK(BlockFormatOf(row.dtype) == format);
      const int64_t values = DTypeBlockSize(row.dtype);
      const int64_t end = std::min<int64_t>(layout.record_k, cols - k);
      for (int64_t i = 0; i < end; i += values) {
        const std::byte* const from = row.data + (k + i) / values * DTypeBlockBytes(row.dtype);
        if (IsCodedType(row.dtype)) {
          CodedBlock coded;
          std::memcpy(&coded, from, sizeof(coded));
          writer.PutCoded(static_cast<int64_t>(r), i, values, coded,
                          reinterpret_cast<const uint8_t*>(from) + sizeof(coded));
          continue;
        }
        DecodeGgufBlock(row.dtype, from, &block);
        CenterScales(row.dtype, &block);
        writer.Put(static_cast<int64_t>(r), i, values, block);
      }
    }
    writer.Finish();
  }
}

void UnpackQuantRow(const PackedWeight& w, int64_t row, float* out) {
  const QuantLayout& layout = *GetQuantLayout(w.format);
  const std::byte* record = w.data + row / kPanelRows * w.panel_bytes();
  const int64_t n = row % kPanelRows;
  for (int64_t first = 0; first < w.cols; first += layout.record_k, record += layout.record_bytes()) {
    const int64_t end = std::min<int64_t>(layout.record_k, w.cols - first);
    for (int64_t begin = 0; begin < end; begin += layout.block_k) {
      const int64_t block = begin / layout.block_k;
      const float scale = RecordScale(layout, record, n, block);
      const float minimum = RecordMinimum(layout, record, n, block);
      for (int64_t k = begin; k < std::min<int64_t>(begin + layout.block_k, end); ++k) {
        const float value = scale * RecordLevel(layout, record, n, k);
        out[first + k] = layout.minima ? value + minimum : value;
      }
    }
  }
}

}  // namespace kvasir
