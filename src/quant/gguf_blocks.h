// GGUF's block types taken apart: the integers as they are stored, and what they mean.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace kvasir {

/// One stored block. With c = codes[i], and j the number of i's sub-block, a value is
///   q4_0 d·(c-8)   q5_0 d·(c-16)   q8_0 d·(c-128)   q4_1, q5_1 d·c + dmin
///   q2_k, q4_k, q5_k (d·scales[j])·c - dmin·mins[j]   q3_k (d·(scales[j]-32))·(c-4)   q6_k (d·int8(scales[j]))·(c-32)
///   iq4_nl d·table[c]   iq4_xs (d·(scales[j]-32))·table[c]   mxfp4 2^(scales[0]-128)·table[c]
/// in fp32, each operation rounded by itself. Sub-blocks hold 16 values (q2_k, q3_k, q6_k) or 32.
struct GgufBlock {
  uint8_t codes[256];    // as many as DTypeBlockSize, in the order of the values
  uint16_t d = 0;        // fp16 bits; unused for mxfp4
  uint16_t dmin = 0;     // fp16 bits; q4_1 and q5_1: the minimum
  uint8_t scales[16]{};  // q6_k: int8 bits; mxfp4: the exponent byte
  uint8_t mins[16]{};
};

/// Takes the block of `type` at `in` (DTypeBlockBytes bytes, any alignment) apart. Parts that the type does not have
/// keep their values. REQUIRES: IsGgufBlockType(type).
void DecodeGgufBlock(DType type, const std::byte* in, GgufBlock* out) noexcept;

/// Whether `type` is one of the types above.
bool IsGgufBlockType(DType type);

/// The 16 values that codes of iq4_nl and iq4_xs (and those of mxfp4, doubled) stand for.
extern const int8_t kIq4Values[16];
extern const int8_t kMxfp4Values[16];

/// in: `blocks` blocks, any alignment; out: blocks · DTypeBlockSize(type) values, equal to the published reference to
/// the bit. No value of a block whose fp16 numbers are not finite is finite. REQUIRES: IsGgufBlockType(type).
void DequantizeGgufBlocks(DType type, const std::byte* in, int64_t blocks, float* out) noexcept;

}  // namespace kvasir
