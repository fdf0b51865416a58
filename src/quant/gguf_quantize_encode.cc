// Blocks put together; the layouts are described where they are taken apart, in gguf_blocks.cc.
#include <cstring>

#include "base/status.h"
#include "quant/gguf_quantize.h"

namespace kvasir {
namespace {

void StoreBits(uint16_t bits, uint8_t* out) { std::memcpy(out, &bits, sizeof(bits)); }

/// The low nibbles of 2 · half codes: the first half low, the others high.
void JoinNibbles(const uint8_t* codes, int half, uint8_t* out) {
  for (int i = 0; i < half; ++i) out[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[half + i] & 15) << 4);
}

/// Bits [shift, shift + 2) of 256 codes into 64 bytes.
void JoinPairs(const uint8_t* codes, int shift, uint8_t* out) {
  std::memset(out, 0, 64);
  for (int half = 0; half < 2; ++half, out += 32) {
    for (int quarter = 0; quarter < 4; ++quarter, codes += 32) {
      for (int i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(out[i] | (codes[i] >> shift & 3) << 2 * quarter);
    }
  }
}

/// Bit `shift` of 256 codes into 32 bytes.
void JoinBits(const uint8_t* codes, int shift, uint8_t* out) {
  std::memset(out, 0, 32);
  for (int eighth = 0; eighth < 8; ++eighth, codes += 32) {
    for (int i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(out[i] | (codes[i] >> shift & 1) << eighth);
  }
}

/// q5_0, q5_1: bit 4 of 32 codes, in their order.
void JoinFifthBits(const uint8_t* codes, uint8_t* out) {
  std::memset(out, 0, 4);
  for (int i = 0; i < 32; ++i) out[i / 8] = static_cast<uint8_t>(out[i / 8] | (codes[i] >> 4 & 1) << i % 8);
}

void PackScalesAndMins(const GgufBlock& block, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = static_cast<uint8_t>((block.scales[j] & 63) | (block.scales[4 + j] >> 4 & 3) << 6);
    out[4 + j] = static_cast<uint8_t>((block.mins[j] & 63) | (block.mins[4 + j] >> 4 & 3) << 6);
    out[8 + j] = static_cast<uint8_t>((block.scales[4 + j] & 15) | (block.mins[4 + j] & 15) << 4);
  }
}

void PackQ3Scales(const uint8_t* scales, uint8_t* out) {
  JoinNibbles(scales, 8, out);
  std::memset(out + 8, 0, 4);
  for (int j = 0; j < 16; ++j) {
    out[8 + j % 4] = static_cast<uint8_t>(out[8 + j % 4] | (scales[j] >> 4 & 3) << j / 4 * 2);
  }
}

void PackIq4Scales(const uint8_t* scales, uint8_t* high, uint8_t* low) {
  uint16_t pairs = 0;
  std::memset(low, 0, 4);
  for (int j = 0; j < 8; ++j) {
    low[j / 2] = static_cast<uint8_t>(low[j / 2] | (scales[j] & 15) << j % 2 * 4);
    pairs = static_cast<uint16_t>(pairs | (scales[j] >> 4 & 3) << 2 * j);
  }
  StoreBits(pairs, high);
}

}  // namespace

void EncodeGgufBlock(DType type, const GgufBlock& block, std::byte* out_bytes) noexcept {
  KVASIR_CHECK(IsGgufBlockType(type));
  auto* const out = reinterpret_cast<uint8_t*>(out_bytes);
  const uint8_t* const codes = block.codes;
  switch (type) {
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      StoreBits(block.d, out);
      JoinNibbles(codes, 16, out + 2);
      break;
    case DType::kQ4_1:
      StoreBits(block.d, out);
      StoreBits(block.dmin, out + 2);
      JoinNibbles(codes, 16, out + 4);
      break;
    case DType::kQ5_0:
      StoreBits(block.d, out);
      JoinFifthBits(codes, out + 2);
      JoinNibbles(codes, 16, out + 6);
      break;
    case DType::kQ5_1:
      StoreBits(block.d, out);
      StoreBits(block.dmin, out + 2);
      JoinFifthBits(codes, out + 4);
      JoinNibbles(codes, 16, out + 8);
      break;
    case DType::kQ8_0:
      StoreBits(block.d, out);
      for (int i = 0; i < 32; ++i) out[2 + i] = codes[i] ^ 0x80;
      break;
    case DType::kQ2_K:
      for (int j = 0; j < 16; ++j) out[j] = static_cast<uint8_t>((block.scales[j] & 15) | (block.mins[j] & 15) << 4);
      JoinPairs(codes, 0, out + 16);
      StoreBits(block.d, out + 80);
      StoreBits(block.dmin, out + 82);
      break;
    case DType::kQ3_K:
      JoinBits(codes, 2, out);
      JoinPairs(codes, 0, out + 32);
      PackQ3Scales(block.scales, out + 96);
      StoreBits(block.d, out + 108);
      break;
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const int nibbles = type == DType::kQ4_K ? 16 : 48;
      StoreBits(block.d, out);
      StoreBits(block.dmin, out + 2);
      PackScalesAndMins(block, out + 4);
      if (type == DType::kQ5_K) JoinBits(codes, 4, out + 16);
      for (int quarter = 0; quarter < 4; ++quarter) JoinNibbles(codes + 64 * quarter, 32, out + nibbles + 32 * quarter);
      break;
    }
    case DType::kQ6_K:
      JoinNibbles(codes, 64, out);
      JoinNibbles(codes + 128, 64, out + 64);
      JoinPairs(codes, 4, out + 128);
      std::memcpy(out + 192, block.scales, 16);
      StoreBits(block.d, out + 208);
      break;
    case DType::kIQ4_XS:
      StoreBits(block.d, out);
      PackIq4Scales(block.scales, out + 2, out + 4);
      for (int j = 0; j < 8; ++j) JoinNibbles(codes + 32 * j, 16, out + 8 + 16 * j);
      break;
    default:  // mxfp4
      out[0] = block.scales[0];
      JoinNibbles(codes, 16, out + 1);
      break;
  }
}

}  // namespace kvasir
