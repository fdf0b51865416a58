// Quantisers of GGUF's block types: the codes and scales of least squared error, found by search and refitting.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "quant/gguf_blocks.h"

namespace kvasir {

/// The inverse of DecodeGgufBlock: writes DTypeBlockBytes bytes. Bits beyond what the type stores are dropped.
/// REQUIRES: IsGgufBlockType(type).
void EncodeGgufBlock(DType type, const GgufBlock& block, std::byte* out) noexcept;

/// Rounds one row of `cols` values (whole blocks) to `type` so that Σ importance[i] · (x[i] - rounded[i])² is small.
/// importance: [cols], not negative and finite, or null for equal ones. Deterministic; no state. A block's result
/// depends on that block alone. REQUIRES: IsGgufBlockType(type), |x[i]| <= LargestGgufValue(type).
void QuantizeGgufRow(DType type, const float* x, int64_t cols, const float* importance, std::byte* out);

/// The largest magnitude that blocks of `type` can hold: their scales are fp16 (mxfp4: a power of two).
float LargestGgufValue(DType type);

}  // namespace kvasir
