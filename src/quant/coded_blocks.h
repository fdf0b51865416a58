// Blocks of formats that GGUF does not have: what readers of other checkpoints and quantisation at load make, and the
// packer takes. They pass through memory row by row and are never stored.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace kvasir {

/// A block is this header and one byte for each of its DTypeBlockSize codes c:
///   nf4, fp4      scale · table[c]      (Dettmers 2023, arXiv:2305.14314; scale is the block's largest magnitude)
///   int8          scale · int8(c)       (Dettmers 2022, arXiv:2208.07339; the same scale in all blocks of a row)
///   intB_gN       scale · c + minimum   (c < 2^B; GPTQ's and AWQ's scale · (c - zero): minimum = -scale · zero)
///   fp8_e4m3, …   scale · float(c)        (the same scale in every kFp8Group values of a row)
struct CodedBlock {
  float scale = 0.0f;
  float minimum = 0.0f;  // intB_gN only
};

inline constexpr int64_t kFp8Group = 128;

/// Whether `type` is one of the types above.
bool IsCodedType(DType type);

/// The values of nf4's and fp4's codes, as bitsandbytes has them.
extern const float kNf4Values[16];
extern const float kFp4Values[16];

/// in: `blocks` blocks, any alignment; out: blocks · DTypeBlockSize(type) values. fp32, each operation rounded by
/// itself. REQUIRES: IsCodedType(type).
void DequantizeCodedBlocks(DType type, const std::byte* in, int64_t blocks, float* out) noexcept;

/// Rounds one row of `cols` values (whole blocks) to nearest. int8: one scale for the whole row; fp8: one for each
/// group. intB_gN: scale and minimum from each block's extremes. REQUIRES: IsCodedType(type), x is finite.
void QuantizeCodedRow(DType type, const float* x, int64_t cols, std::byte* out) noexcept;

}  // namespace kvasir
