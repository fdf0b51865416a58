#include "quant/quantize.h"

#include <cmath>
#include <cstring>

#include "quant/coded_blocks.h"
#include "quant/gguf_quantize.h"

namespace kvasir {
namespace {

/// The largest magnitude that does not become infinity.
float LargestValue(DType type) {
  if (IsGgufBlockType(type)) return LargestGgufValue(type);
  constexpr float kHalf = 65519.0f;  // rounds down to 65504
  constexpr float kAll = 3.3895314e38f;
  return type == DType::kF16 ? kHalf : kAll;
}

template <typename T>
void Store(T value, int64_t i, std::byte* out) {
  std::memcpy(out + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

template <typename T>
T Fetch(const std::byte* in, int64_t i) {
  T value;
  std::memcpy(&value, in + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

bool IsPlain(DType type) { return type == DType::kF32 || IsFloat16Bit(type); }

}  // namespace

bool CanQuantizeTo(DType type) { return IsPlain(type) || IsGgufBlockType(type) || IsCodedType(type); }

Status CheckQuantizable(DType type, const float* x, int64_t cols) {
  const float largest = LargestValue(type);
  for (int64_t i = 0; i < cols; ++i) {
    if (std::abs(x[i]) <= largest || (type == DType::kF32 && std::isfinite(x[i]))) continue;
    if (!std::isfinite(x[i])) return InvalidData("column {} holds {}", i, x[i]);
    return InvalidData("column {} holds {}, beyond what {} can hold ({:.4g}); keep it in bf16 or f32", i, x[i],
                       DTypeName(type), largest);
  }
  return OkStatus();
}

void QuantizeRow(DType type, const float* x, int64_t cols, const float* importance, std::byte* out) {
  if (IsGgufBlockType(type)) return QuantizeGgufRow(type, x, cols, importance, out);
  if (IsCodedType(type)) return QuantizeCodedRow(type, x, cols, out);
  KVASIR_CHECK(IsPlain(type));
  if (type == DType::kF32) {
    std::memcpy(out, x, static_cast<size_t>(cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < cols; ++i) {
    Store(type == DType::kF16 ? ToFloat16(x[i]).bits : ToBFloat16(x[i]).bits, i, out);
  }
}

void DequantizeRow(DType type, const std::byte* in, int64_t cols, float* out) {
  const int64_t blocks = cols / DTypeBlockSize(type);
  if (IsGgufBlockType(type)) return DequantizeGgufBlocks(type, in, blocks, out);
  if (IsCodedType(type)) return DequantizeCodedBlocks(type, in, blocks, out);
  KVASIR_CHECK(IsPlain(type));
  if (type == DType::kF32) {
    std::memcpy(out, in, static_cast<size_t>(cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < cols; ++i) {
    const auto bits = Fetch<uint16_t>(in, i);
    out[i] = type == DType::kF16 ? ToFloat(Float16{bits}) : ToFloat(BFloat16{bits});
  }
}

}  // namespace kvasir
