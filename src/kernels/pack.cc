// Packing into, and reading from, the N16K4 layout.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"
#include "kernels/quant_pack.h"
#include "quant/coded_blocks.h"
#include "quant/gguf_blocks.h"

namespace kvasir {
namespace {

constexpr int64_t kColumnsAhead = 16;  // elements fetched ahead of one another in columns
constexpr int64_t kChunk = 512;        // elements of a row handled at once; a whole number of blocks of every type

DType FormatDType(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32: return DType::kF32;
    case WeightFormat::kF16: return DType::kF16;
    case WeightFormat::kBF16: return DType::kBF16;
    default: KVASIR_CHECK(false); return DType::kF32;
  }
}

template <typename T>
float Cast(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return static_cast<float>(value);
}

/// One element of a plain type as fp32.
float LoadElement(DType dtype, const std::byte* p) {
  uint16_t bits = 0;
  if (IsFloat16Bit(dtype)) std::memcpy(&bits, p, sizeof(bits));
  switch (dtype) {
    case DType::kF32: return Cast<float>(p);
    case DType::kF16: return ToFloat(Float16{bits});
    case DType::kBF16: return ToFloat(BFloat16{bits});
    case DType::kF64: return Cast<double>(p);
    case DType::kI8: return Cast<int8_t>(p);
    case DType::kU8:
    case DType::kBool: return Cast<uint8_t>(p);
    case DType::kI16: return Cast<int16_t>(p);
    case DType::kU16: return Cast<uint16_t>(p);
    case DType::kI32: return Cast<int32_t>(p);
    case DType::kU32: return Cast<uint32_t>(p);
    case DType::kI64: return Cast<int64_t>(p);
    case DType::kU64: return Cast<uint64_t>(p);
    case DType::kF8E4M3: return E4M3ToFloat(static_cast<uint8_t>(*p));
    case DType::kF8E5M2: return E5M2ToFloat(static_cast<uint8_t>(*p));
    default: break;  // block types have no elements of their own
  }
  KVASIR_CHECK(false);
  return 0.0f;
}

/// in: `n` consecutive elements; out: [n], for block types rounded up to whole blocks.
void RowToF32(const PackKernels& kernels, DType dtype, const std::byte* in, int64_t n, float* out) {
  switch (dtype) {
    case DType::kF32: std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float)); return;
    case DType::kF16: kernels.f16_to_f32(in, n, out); return;
    case DType::kBF16: kernels.bf16_to_f32(in, n, out); return;
    case DType::kQ8_0: kernels.q8_0_to_f32(in, CeilDiv(n, 32), out); return;
    case DType::kQ4_0: kernels.q4_0_to_f32(in, CeilDiv(n, 32), out); return;
    default: break;
  }
  if (IsGgufBlockType(dtype)) return DequantizeGgufBlocks(dtype, in, CeilDiv(n, DTypeBlockSize(dtype)), out);
  if (IsCodedType(dtype)) return DequantizeCodedBlocks(dtype, in, CeilDiv(n, DTypeBlockSize(dtype)), out);
  const int64_t bytes = DTypeBlockBytes(dtype);
  for (int64_t i = 0; i < n; ++i) out[i] = LoadElement(dtype, in + i * bytes);
}

void F32ToFormat(const PackKernels& kernels, WeightFormat format, const float* in, int64_t n, std::byte* out) {
  switch (format) {
    case WeightFormat::kF32: std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float)); return;
    case WeightFormat::kF16: kernels.f32_to_f16(in, n, reinterpret_cast<uint16_t*>(out)); return;
    case WeightFormat::kBF16: kernels.f32_to_bf16(in, n, reinterpret_cast<uint16_t*>(out)); return;
    default: KVASIR_CHECK(false);
  }
}

/// Packs one panel, a chunk of k at a time.
class PanelPacker {
 public:
  PanelPacker(const PackKernels& kernels, std::span<const PackSource> rows, WeightFormat format)
      : kernels_(kernels), rows_(rows), format_(format), width_(WeightFormatBytes(format)) {}

  void Pack(int64_t cols, std::byte* out) {
    if (AreColumns()) return PackColumns(cols, out);
    for (int64_t k = 0; k < cols; k += kChunk) {
      const int64_t n = std::min(kChunk, cols - k);
      for (size_t r = 0; r < rows_.size(); ++r) pointers_[r] = RowChunk(r, k, n);
      for (size_t r = rows_.size(); r < kPanelRows; ++r) pointers_[r] = zeros_;
      if (UsesStrides()) CopyStrided(k, n);
      kernels_.interleave(pointers_, RoundUp(n, kWeightColAlign) * width_ / 4, out + k * kPanelRows * width_);
    }
  }

 private:
  bool IsStrided(const PackSource& row) const { return row.element_stride != 1; }
  bool UsesStrides() const {
    return std::any_of(rows_.begin(), rows_.end(), [this](auto& r) { return IsStrided(r); });
  }

  /// Whether the rows are 16 neighbouring columns of a row-major matrix: a line then comes from one or two places.
  bool AreColumns() const {
    if (rows_.size() != kPanelRows || !IsStrided(rows_[0])) return false;
    const int64_t size = DTypeBlockBytes(rows_[0].dtype);
    for (size_t r = 1; r < kPanelRows; ++r) {
      const PackSource& row = rows_[r];
      if (row.dtype != rows_[0].dtype || row.element_stride != rows_[0].element_stride) return false;
      if (row.data != rows_[0].data + static_cast<int64_t>(r) * size) return false;
    }
    return true;
  }

  /// The 16 elements for one k in the panel's format.
  void LoadColumnElements(int64_t k, int64_t cols, std::byte* out) {
    if (k >= cols) {
      std::memset(out, 0, static_cast<size_t>(kPanelRows * width_));
      return;
    }
    const PackSource& first = rows_[0];
    const int64_t step = first.element_stride * DTypeBlockBytes(first.dtype);
    const std::byte* const from = first.data + k * step;
    // Every k is far from the one before, where the processor does not expect it.
    if (k + kColumnsAhead < cols) __builtin_prefetch(from + kColumnsAhead * step);
    if (first.dtype == FormatDType(format_)) {
      std::memcpy(out, from, static_cast<size_t>(kPanelRows * width_));
    } else {
      RowToF32(kernels_, first.dtype, from, kPanelRows, wide_);
      F32ToFormat(kernels_, format_, wide_, kPanelRows, out);
    }
  }

  void PackColumns(int64_t cols, std::byte* out) {
    const int64_t padded = RoundUp(cols, kWeightColAlign);
    if (width_ == 4) {
      for (int64_t k = 0; k < padded; ++k) LoadColumnElements(k, cols, out + k * 64);
      return;
    }
    for (int64_t k = 0; k < padded; k += 2) {
      uint16_t even[kPanelRows];
      uint16_t odd[kPanelRows];
      uint16_t line[2 * kPanelRows];
      LoadColumnElements(k, cols, reinterpret_cast<std::byte*>(even));
      LoadColumnElements(k + 1, cols, reinterpret_cast<std::byte*>(odd));
      for (int64_t r = 0; r < kPanelRows; ++r) {
        line[2 * r] = even[r];
        line[2 * r + 1] = odd[r];
      }
      std::memcpy(out + k / 2 * 64, line, sizeof(line));
    }
  }

  /// The chunk in the panel's format, padded to kWeightColAlign: in place where the source has it so.
  const std::byte* RowChunk(size_t r, int64_t k, int64_t n) {
    const PackSource& row = rows_[r];
    if (IsStrided(row)) return converted_[r];  // CopyStrided fills it
    const int64_t block = DTypeBlockSize(row.dtype);
    const std::byte* from = row.data + k / block * DTypeBlockBytes(row.dtype);
    const bool same = row.dtype == FormatDType(format_);
    if (same && n % kWeightColAlign == 0) return from;
    if (same) {
      std::memcpy(converted_[r], from, static_cast<size_t>(n * width_));
    } else {
      RowToF32(kernels_, row.dtype, from, n, wide_);
      F32ToFormat(kernels_, format_, wide_, n, converted_[r]);
    }
    Pad(r, n);
    return converted_[r];
  }

  /// Rows that are columns of a row-major matrix: k is the outer loop, since their elements for one k are neighbours.
  void CopyStrided(int64_t k, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      for (size_t r = 0; r < rows_.size(); ++r) {
        const PackSource& row = rows_[r];
        if (!IsStrided(row)) continue;
        const int64_t size = DTypeBlockBytes(row.dtype);
        const std::byte* from = row.data + (k + i) * row.element_stride * size;
        if (row.dtype == FormatDType(format_)) {
          std::memcpy(converted_[r] + i * width_, from, static_cast<size_t>(width_));
        } else {
          const float value = LoadElement(row.dtype, from);
          F32ToFormat(kernels_, format_, &value, 1, converted_[r] + i * width_);
        }
      }
    }
    for (size_t r = 0; r < rows_.size(); ++r) {
      if (IsStrided(rows_[r])) Pad(r, n);
    }
  }

  void Pad(size_t r, int64_t n) {
    std::memset(converted_[r] + n * width_, 0, static_cast<size_t>((RoundUp(n, kWeightColAlign) - n) * width_));
  }

  const PackKernels& kernels_;
  std::span<const PackSource> rows_;
  WeightFormat format_;
  int64_t width_;  // bytes per element
  const std::byte* pointers_[kPanelRows];
  alignas(64) float wide_[kChunk];
  alignas(64) std::byte converted_[kPanelRows][kChunk * 4];
  alignas(64) static constexpr std::byte zeros_[kChunk * 4] = {};
};

}  // namespace

void PackPanel(std::span<const PackSource> rows, int64_t cols, WeightFormat format, std::byte* out) {
  // Every set packs the same bytes, so there is no need to ask which one the products use.
  const PackKernels& kernels = *AvailableKernelSets().front()->pack;
  const int64_t panel_bytes = PackedWeight{format, kPanelRows, cols, nullptr}.panel_bytes();
  for (size_t first = 0; first < rows.size(); first += kPanelRows) {
    const auto panel_rows = rows.subspan(first, std::min<size_t>(kPanelRows, rows.size() - first));
    for (const PackSource& row : panel_rows) KVASIR_CHECK(row.element_stride == 1 || DTypeBlockSize(row.dtype) == 1);
    if (GetQuantLayout(format) != nullptr) {
      PackQuantPanel(panel_rows, cols, format, out);
    } else {
      PanelPacker(kernels, panel_rows, format).Pack(cols, out);
    }
    out += panel_bytes;
  }
}

void LoadRow(const PackSource& row, int64_t cols, float* out) {
  if (row.element_stride == 1) return RowToF32(*AvailableKernelSets().front()->pack, row.dtype, row.data, cols, out);
  const int64_t step = row.element_stride * DTypeBlockBytes(row.dtype);
  for (int64_t k = 0; k < cols; ++k) out[k] = LoadElement(row.dtype, row.data + k * step);
}

void UnpackRow(const PackedWeight& w, int64_t row, float* out) {
  KVASIR_CHECK(row >= 0 && row < w.rows);
  if (GetQuantLayout(w.format) != nullptr) return UnpackQuantRow(w, row, out);
  const std::byte* panel = w.data + row / kPanelRows * w.panel_bytes();
  const int64_t n = row % kPanelRows;
  switch (w.format) {
    case WeightFormat::kF32: {
      const float* from = reinterpret_cast<const float*>(panel) + n;
      for (int64_t k = 0; k < w.cols; ++k) out[k] = from[k * kPanelRows];
      return;
    }
    case WeightFormat::kF16: {
      const Float16* from = reinterpret_cast<const Float16*>(panel) + 2 * n;
      for (int64_t k = 0; k < w.cols; ++k) out[k] = ToFloat(from[k / 2 * 2 * kPanelRows + k % 2]);
      return;
    }
    case WeightFormat::kBF16: {
      const BFloat16* from = reinterpret_cast<const BFloat16*>(panel) + 2 * n;
      for (int64_t k = 0; k < w.cols; ++k) out[k] = ToFloat(from[k / 2 * 2 * kPanelRows + k % 2]);
      return;
    }
    default: KVASIR_CHECK(false);
  }
}

}  // namespace kvasir
