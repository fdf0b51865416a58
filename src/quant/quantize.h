// One door to the quantisers of all types.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/status.h"

namespace kvasir {

/// Whether QuantizeRow makes this type: f32, f16, bf16, GGUF's block types and coded ones.
bool CanQuantizeTo(DType type);

/// Fails where a row holds NaN or infinity, or what `type` is too narrow for; names the column and the value.
/// REQUIRES: CanQuantizeTo(type).
Status CheckQuantizable(DType type, const float* x, int64_t cols);

/// Writes one row of `cols` values (whole blocks) as `type`: DTypeBytes(type, cols) bytes. `importance`: as for
/// QuantizeGgufRow; types without a search ignore it. REQUIRES: CheckQuantizable.
void QuantizeRow(DType type, const float* x, int64_t cols, const float* importance, std::byte* out);

/// The inverse. REQUIRES: CanQuantizeTo(type).
void DequantizeRow(DType type, const std::byte* in, int64_t cols, float* out);

}  // namespace kvasir
