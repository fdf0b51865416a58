#include "quant/gguf_quantize.h"

#include <algorithm>

#include "base/status.h"
#include "quant/gguf_quantize_internal.h"

namespace kvasir {
namespace {

constexpr int kMaxBlock = 256;
constexpr float kLargestHalf = 65504.0f;

BlockQuantizer QuantizerOf(DType type) {
  if (const BlockQuantizer small = SmallBlockQuantizer(type)) return small;
  if (const BlockQuantizer scaled = ScaledBlockQuantizer(type)) return scaled;
  return AffineBlockQuantizer(type);
}

/// A block's weights with a mean of 1, so that sums neither overflow nor vanish. What was never seen counts a little
/// all the same, since a text is only a sample.
void Weights(const float* importance, int64_t n, float* w) {
  constexpr float kLeast = 1e-4f;
  double sum = 0.0;
  if (importance != nullptr) {
    for (int64_t i = 0; i < n; ++i) sum += importance[i];
  }
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) {
    w[i] = mean > 0.0 ? static_cast<float>(importance[i] / mean) + kLeast : 1.0f;
  }
}

}  // namespace

void QuantizeGgufRow(DType type, const float* x, int64_t cols, const float* importance, std::byte* out) {
  const BlockQuantizer quantize = QuantizerOf(type);
  KVASIR_CHECK(quantize != nullptr);
  const int64_t n = DTypeBlockSize(type);
  KVASIR_CHECK(cols % n == 0);
  float w[kMaxBlock];
  GgufBlock block;
  for (int64_t k = 0; k < cols; k += n, out += DTypeBlockBytes(type)) {
    if (k == 0 || importance != nullptr) Weights(importance != nullptr ? importance + k : nullptr, n, w);
    quantize(x + k, w, &block);
    EncodeGgufBlock(type, block, out);
  }
}

float LargestGgufValue(DType type) {
  switch (type) {
    case DType::kQ4_0: return kLargestHalf * 7.0f;
    case DType::kQ5_0: return kLargestHalf * 15.0f;
    case DType::kQ8_0: return kLargestHalf * 127.0f;
    case DType::kIQ4_NL: return kLargestHalf * 113.0f;
    case DType::kQ4_1:
    case DType::kQ5_1: return kLargestHalf;
    case DType::kQ2_K: return kLargestHalf * 15.0f;
    case DType::kQ4_K:
    case DType::kQ5_K: return kLargestHalf * 63.0f;
    case DType::kQ3_K: return kLargestHalf * 31.0f * 3.0f;
    case DType::kQ6_K: return kLargestHalf * 127.0f * 31.0f;
    case DType::kIQ4_XS: return kLargestHalf * 31.0f * 113.0f;
    case DType::kMXFP4: return 0x1p127f;
    default: KVASIR_CHECK(false); return 0.0f;
  }
}

}  // namespace kvasir
