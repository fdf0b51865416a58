#include "quant/coded_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/status.h"

namespace kvasir {

// The quantiles of a normal distribution, scaled to [-1, 1] (QLoRA, appendix E).
const float kNf4Values[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};
// Sign, two bits of exponent, one of mantissa; in twelfths.
const float kFp4Values[16] = {
    0.0f,  0.0625f / 12.0f,  8.0f / 12.0f,  1.0f,  4.0f / 12.0f,  6.0f / 12.0f,  2.0f / 12.0f,  3.0f / 12.0f,
    -0.0f, -0.0625f / 12.0f, -8.0f / 12.0f, -1.0f, -4.0f / 12.0f, -6.0f / 12.0f, -2.0f / 12.0f, -3.0f / 12.0f};

namespace {

/// Bits of a code of intB_gN, or 0 for other types.
int GroupBits(DType type) {
  switch (type) {
    case DType::kInt8G128:
    case DType::kInt8G32: return 8;
    case DType::kInt4G128:
    case DType::kInt4G32: return 4;
    case DType::kInt3G128:
    case DType::kInt3G32: return 3;
    case DType::kInt2G128:
    case DType::kInt2G32: return 2;
    default: return 0;
  }
}

const float* TableOf(DType type) {
  if (type == DType::kNF4) return kNf4Values;
  return type == DType::kFP4 ? kFp4Values : nullptr;
}

float LargestMagnitude(const float* x, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  return largest;
}

/// A table's codes by ascending value, and the middles between neighbours.
struct SortedTable {
  explicit SortedTable(const float* table) {
    for (int c = 0; c < 16; ++c) codes[c] = static_cast<uint8_t>(c);
    std::stable_sort(codes, codes + 16, [&](uint8_t a, uint8_t b) { return table[a] < table[b]; });
    for (int i = 0; i < 15; ++i) middles[i] = (table[codes[i]] + table[codes[i + 1]]) / 2;
  }
  /// The code of the value nearest to x, the lower of two as near.
  uint8_t Nearest(float x) const {
    int rank = 0;
    for (float middle : middles) rank += static_cast<int>(x > middle);
    return codes[rank];
  }
  uint8_t codes[16];
  float middles[15];
};

const SortedTable& Sorted(DType type) {
  static const SortedTable nf4(kNf4Values);
  static const SortedTable fp4(kFp4Values);
  return type == DType::kNF4 ? nf4 : fp4;
}

uint8_t NearestFp8(DType type, float x) { return type == DType::kScaledE4M3 ? ToE4M3(x) : ToE5M2(x); }

/// The header and codes of one block. `shared`: the scale of a row (int8) or group (fp8).
CodedBlock QuantizeBlock(DType type, const float* x, int64_t n, float shared, uint8_t* codes) {
  if (TableOf(type) != nullptr) {
    const SortedTable& table = Sorted(type);
    const float largest = LargestMagnitude(x, n);
    const float scale = largest > 0.0f ? largest : 1.0f;
    for (int64_t i = 0; i < n; ++i) codes[i] = table.Nearest(x[i] / scale);
    return {.scale = largest};
  }
  if (type == DType::kInt8) {
    for (int64_t i = 0; i < n; ++i) {
      const float q = shared > 0.0f ? std::nearbyint(x[i] / shared) : 0.0f;
      codes[i] = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f)));
    }
    return {.scale = shared};
  }
  if (const int bits = GroupBits(type)) {
    const auto [low, high] = std::minmax_element(x, x + n);
    const float minimum = std::min(*low, 0.0f);
    const float levels = static_cast<float>((1 << bits) - 1);
    const float scale = (std::max(*high, 0.0f) - minimum) / levels;
    for (int64_t i = 0; i < n; ++i) {
      const float q = scale > 0.0f ? std::nearbyint((x[i] - minimum) / scale) : 0.0f;
      codes[i] = static_cast<uint8_t>(std::clamp(q, 0.0f, levels));
    }
    return {.scale = scale, .minimum = minimum};
  }
  for (int64_t i = 0; i < n; ++i) codes[i] = shared > 0.0f ? NearestFp8(type, x[i] / shared) : uint8_t{0};
  return {.scale = shared};
}

/// The scale that the block at k of a row shares with others.
float SharedScale(DType type, const float* x, int64_t cols, int64_t k) {
  if (type == DType::kInt8) return LargestMagnitude(x, cols) / 127.0f;
  if (type != DType::kScaledE4M3 && type != DType::kScaledE5M2) return 0.0f;
  const int64_t begin = k / kFp8Group * kFp8Group;
  return LargestMagnitude(x + begin, std::min(kFp8Group, cols - begin)) /
         (type == DType::kScaledE4M3 ? 448.0f : 57344.0f);
}

}  // namespace

bool IsCodedType(DType type) {
  return TableOf(type) != nullptr || GroupBits(type) > 0 || type == DType::kInt8 || type == DType::kScaledE4M3 ||
         type == DType::kScaledE5M2;
}

void DequantizeCodedBlocks(DType type, const std::byte* in, int64_t blocks, float* out) noexcept {
  KVASIR_CHECK(IsCodedType(type));
  const float* const table = TableOf(type);
  const int64_t n = DTypeBlockSize(type);
  for (int64_t b = 0; b < blocks; ++b, in += DTypeBlockBytes(type), out += n) {
    CodedBlock block;
    std::memcpy(&block, in, sizeof(block));
    const auto* const codes = reinterpret_cast<const uint8_t*>(in) + sizeof(block);
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t c = codes[i];
      if (table != nullptr) {
        out[i] = block.scale * table[c & 15];
      } else if (GroupBits(type) > 0) {
        out[i] = block.scale * static_cast<float>(c) + block.minimum;
      } else if (type == DType::kInt8) {
        out[i] = block.scale * static_cast<float>(static_cast<int8_t>(c));
      } else {
        out[i] = block.scale * (type == DType::kScaledE4M3 ? E4M3ToFloat(c) : E5M2ToFloat(c));
      }
    }
  }
}

void QuantizeCodedRow(DType type, const float* x, int64_t cols, std::byte* out) noexcept {
  KVASIR_CHECK(IsCodedType(type));
  const int64_t n = DTypeBlockSize(type);
  KVASIR_CHECK(cols % n == 0);
  float shared = 0.0f;
  for (int64_t k = 0; k < cols; k += n, out += DTypeBlockBytes(type)) {
    if (k == 0 || type != DType::kInt8) shared = SharedScale(type, x, cols, k);
    const CodedBlock block =
        QuantizeBlock(type, x + k, n, shared, reinterpret_cast<uint8_t*>(out) + sizeof(CodedBlock));
    std::memcpy(out, &block, sizeof(block));
  }
}

}  // namespace kvasir
