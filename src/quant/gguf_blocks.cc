// The layouts are those of ggml (ggml-common.h); all numbers are little-endian.
#include "quant/gguf_blocks.h"

#include <bit>
#include <cstring>

#include "base/status.h"

static_assert(std::endian::native == std::endian::little, "blocks are taken as they lie in memory");

namespace kvasir {

constinit const int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constinit const int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

namespace {

uint16_t LoadBits(const uint8_t* in) {
  uint16_t bits;
  std::memcpy(&bits, in, sizeof(bits));
  return bits;
}

/// kHalf bytes: the low nibbles are the first kHalf codes, the high ones the next.
template <int kHalf>
void SplitNibbles(const uint8_t* in, uint8_t* codes) {
  for (int i = 0; i < kHalf; ++i) codes[i] = in[i] & 15;
  for (int i = 0; i < kHalf; ++i) codes[kHalf + i] = in[i] >> 4;
}

/// 64 bytes with four codes of two bits each, a quarter of a half block apart, go to bit `kShift` of the codes.
template <int kShift>
void AddPairs(const uint8_t* in, uint8_t* codes) {
  for (int half = 0; half < 2; ++half, in += 32) {
    for (int quarter = 0; quarter < 4; ++quarter, codes += 32) {
      for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | ((in[i] >> 2 * quarter & 3) << kShift));
    }
  }
}

/// 32 bytes with one bit for a code of each eighth of the block, to bit `kShift` of the codes.
template <int kShift>
void AddBits(const uint8_t* in, uint8_t* codes) {
  for (int eighth = 0; eighth < 8; ++eighth, codes += 32) {
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | ((in[i] >> eighth & 1) << kShift));
  }
}

/// q5_0, q5_1: 32 fifth bits in the order of the codes.
void AddFifthBits(const uint8_t* in, uint8_t* codes) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  for (int i = 0; i < 4; ++i, codes += 8) {
    // Eight bytes at once: each keeps another bit of in[i], and 127 more carries it to bit 7.
    const uint64_t bits = ((in[i] * kOnes & 0x8040201008040201) + 0x7f * kOnes) & 0x80 * kOnes;
    uint64_t eight;
    std::memcpy(&eight, codes, sizeof(eight));
    eight |= bits >> 3;
    std::memcpy(codes, &eight, sizeof(eight));
  }
}

/// q4_k, q5_k: eight scales and minima of six bits in 12 bytes; the upper two bits of the last four lie above those of
/// the first four.
void UnpackScalesAndMins(const uint8_t* in, GgufBlock* out) {
  for (int j = 0; j < 4; ++j) {
    out->scales[j] = in[j] & 63;
    out->mins[j] = in[4 + j] & 63;
    out->scales[4 + j] = static_cast<uint8_t>((in[8 + j] & 15) | (in[j] >> 6 << 4));
    out->mins[4 + j] = static_cast<uint8_t>(in[8 + j] >> 4 | (in[4 + j] >> 6 << 4));
  }
}

/// q3_k: 16 scales of six bits, the low nibbles as SplitNibbles has them, then the upper pairs, a quarter each.
void UnpackQ3Scales(const uint8_t* in, uint8_t* scales) {
  SplitNibbles<8>(in, scales);
  for (int j = 0; j < 16; ++j) scales[j] = static_cast<uint8_t>(scales[j] | ((in[8 + j % 4] >> j / 4 * 2 & 3) << 4));
}

template <DType kType>
void Decode(const uint8_t* in, GgufBlock* out) {
  uint8_t* const codes = out->codes;
  if constexpr (kType == DType::kQ4_0 || kType == DType::kIQ4_NL) {
    out->d = LoadBits(in);
    SplitNibbles<16>(in + 2, codes);
  } else if constexpr (kType == DType::kQ4_1) {
    out->d = LoadBits(in);
    out->dmin = LoadBits(in + 2);
    SplitNibbles<16>(in + 4, codes);
  } else if constexpr (kType == DType::kQ5_0) {
    out->d = LoadBits(in);
    SplitNibbles<16>(in + 6, codes);
    AddFifthBits(in + 2, codes);
  } else if constexpr (kType == DType::kQ5_1) {
    out->d = LoadBits(in);
    out->dmin = LoadBits(in + 2);
    SplitNibbles<16>(in + 8, codes);
    AddFifthBits(in + 4, codes);
  } else if constexpr (kType == DType::kQ8_0) {
    out->d = LoadBits(in);
    for (int i = 0; i < 32; ++i) codes[i] = in[2 + i] ^ 0x80;  // + 128
  } else if constexpr (kType == DType::kQ2_K) {
    for (int j = 0; j < 16; ++j) out->scales[j] = in[j] & 15;
    for (int j = 0; j < 16; ++j) out->mins[j] = in[j] >> 4;
    std::memset(codes, 0, 256);
    AddPairs<0>(in + 16, codes);
    out->d = LoadBits(in + 80);
    out->dmin = LoadBits(in + 82);
  } else if constexpr (kType == DType::kQ3_K) {
    std::memset(codes, 0, 256);
    AddPairs<0>(in + 32, codes);
    AddBits<2>(in, codes);
    UnpackQ3Scales(in + 96, out->scales);
    out->d = LoadBits(in + 108);
  } else if constexpr (kType == DType::kQ4_K || kType == DType::kQ5_K) {
    constexpr int kNibbles = kType == DType::kQ4_K ? 16 : 48;
    out->d = LoadBits(in);
    out->dmin = LoadBits(in + 2);
    UnpackScalesAndMins(in + 4, out);
    for (int quarter = 0; quarter < 4; ++quarter) {
      SplitNibbles<32>(in + kNibbles + 32 * quarter, codes + 64 * quarter);
    }
    if constexpr (kType == DType::kQ5_K) AddBits<4>(in + 16, codes);
  } else if constexpr (kType == DType::kQ6_K) {
    SplitNibbles<64>(in, codes);
    SplitNibbles<64>(in + 64, codes + 128);
    AddPairs<4>(in + 128, codes);
    std::memcpy(out->scales, in + 192, 16);
    out->d = LoadBits(in + 208);
  } else if constexpr (kType == DType::kIQ4_XS) {
    out->d = LoadBits(in);
    const int high = LoadBits(in + 2);
    for (int j = 0; j < 8; ++j) {
      out->scales[j] = static_cast<uint8_t>((in[4 + j / 2] >> j % 2 * 4 & 15) | (high >> 2 * j & 3) << 4);
      SplitNibbles<16>(in + 8 + 16 * j, codes + 32 * j);
    }
  } else {
    static_assert(kType == DType::kMXFP4);
    out->scales[0] = in[0];
    SplitNibbles<16>(in + 1, codes);
  }
}

/// 2^(exponent - 128), also where that is below the normal numbers.
float ExponentScale(uint8_t exponent) {
  const uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23;
  return std::bit_cast<float>(bits);
}

/// What is subtracted from a code to get the signed number it stands for.
constexpr int CodeOffset(DType type) {
  switch (type) {
    case DType::kQ4_0: return 8;
    case DType::kQ5_0: return 16;
    case DType::kQ8_0: return 128;
    case DType::kQ3_K: return 4;
    case DType::kQ6_K: return 32;
    default: return 0;
  }
}

/// The table that codes are looked up in, or null.
constexpr const int8_t* CodeTable(DType type) {
  if (type == DType::kMXFP4) return kMxfp4Values;
  return type == DType::kIQ4_NL || type == DType::kIQ4_XS ? kIq4Values : nullptr;
}

constexpr int SubBlockSize(DType type) {
  return type == DType::kQ2_K || type == DType::kQ3_K || type == DType::kQ6_K ? 16 : 32;
}

/// A sub-block's values are factor · integer + addend, both operations rounded.
struct SubBlockScale {
  float factor;
  float addend = -0.0f;  // changes nothing, not even the sign of a zero
};

template <DType kType>
SubBlockScale ScaleOf(const GgufBlock& block, int j) {
  const float d = ToFloat(Float16{block.d});
  const float dmin = ToFloat(Float16{block.dmin});
  if constexpr (kType == DType::kQ4_1 || kType == DType::kQ5_1) {
    return {d, dmin};
  } else if constexpr (kType == DType::kQ2_K || kType == DType::kQ4_K || kType == DType::kQ5_K) {
    return {d * static_cast<float>(block.scales[j]), -(dmin * static_cast<float>(block.mins[j]))};
  } else if constexpr (kType == DType::kQ3_K || kType == DType::kIQ4_XS) {
    return {d * static_cast<float>(block.scales[j] - 32)};
  } else if constexpr (kType == DType::kQ6_K) {
    return {d * static_cast<float>(static_cast<int8_t>(block.scales[j]))};
  } else if constexpr (kType == DType::kMXFP4) {
    return {ExponentScale(block.scales[0])};
  } else {
    return {d};
  }
}

template <DType kType>
void Dequantize(const uint8_t* in, int64_t blocks, float* out) {
  constexpr int kSub = SubBlockSize(kType);
  constexpr const int8_t* kTable = CodeTable(kType);
  const int sub_blocks = static_cast<int>(DTypeBlockSize(kType)) / kSub;
  const int64_t bytes = DTypeBlockBytes(kType);
  GgufBlock block;
  for (int64_t b = 0; b < blocks; ++b, in += bytes) {
    Decode<kType>(in, &block);
    const uint8_t* codes = block.codes;
    for (int j = 0; j < sub_blocks; ++j, codes += kSub, out += kSub) {
      const SubBlockScale scale = ScaleOf<kType>(block, j);
      if constexpr (kTable != nullptr) {
        float values[16];
        for (int i = 0; i < 16; ++i) values[i] = scale.factor * static_cast<float>(kTable[i]);
        for (int i = 0; i < kSub; ++i) out[i] = values[codes[i]];
      } else {
        for (int i = 0; i < kSub; ++i) {
          out[i] = scale.factor * static_cast<float>(codes[i] - CodeOffset(kType)) + scale.addend;
        }
      }
    }
  }
}

/// Both functions of a type.
struct BlockFunctions {
  void (*decode)(const uint8_t*, GgufBlock*);
  void (*dequantize)(const uint8_t*, int64_t, float*);
};

template <DType kType>
constexpr BlockFunctions kFunctions = {&Decode<kType>, &Dequantize<kType>};

/// Null for types without blocks.
const BlockFunctions* FunctionsOf(DType type) {
  switch (type) {
    case DType::kQ4_0: return &kFunctions<DType::kQ4_0>;
    case DType::kQ8_0: return &kFunctions<DType::kQ8_0>;
    case DType::kQ4_1: return &kFunctions<DType::kQ4_1>;
    case DType::kQ5_0: return &kFunctions<DType::kQ5_0>;
    case DType::kQ5_1: return &kFunctions<DType::kQ5_1>;
    case DType::kQ2_K: return &kFunctions<DType::kQ2_K>;
    case DType::kQ3_K: return &kFunctions<DType::kQ3_K>;
    case DType::kQ4_K: return &kFunctions<DType::kQ4_K>;
    case DType::kQ5_K: return &kFunctions<DType::kQ5_K>;
    case DType::kQ6_K: return &kFunctions<DType::kQ6_K>;
    case DType::kIQ4_NL: return &kFunctions<DType::kIQ4_NL>;
    case DType::kIQ4_XS: return &kFunctions<DType::kIQ4_XS>;
    case DType::kMXFP4: return &kFunctions<DType::kMXFP4>;
    default: return nullptr;
  }
}

}  // namespace

bool IsGgufBlockType(DType type) { return FunctionsOf(type) != nullptr; }

void DecodeGgufBlock(DType type, const std::byte* in, GgufBlock* out) noexcept {
  const BlockFunctions* functions = FunctionsOf(type);
  KVASIR_CHECK(functions != nullptr);
  functions->decode(reinterpret_cast<const uint8_t*>(in), out);
}

void DequantizeGgufBlocks(DType type, const std::byte* in, int64_t blocks, float* out) noexcept {
  const BlockFunctions* functions = FunctionsOf(type);
  KVASIR_CHECK(functions != nullptr);
  functions->dequantize(reinterpret_cast<const uint8_t*>(in), blocks, out);
}

}  // namespace kvasir
