// Products of block formats in plain code: the same integers, scales and order of additions as cpu/quant_impl.h.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"
#include "kernels/quant_record.h"

namespace kvasir::ref {
namespace {

constexpr int kChunk = kActivationChunk;

/// Packed x: for each chunk and token, its int8 values and its scale.
struct ChunkX {
  float scale;
  int8_t q[kChunk];
};

void PackX(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  auto* to = reinterpret_cast<ChunkX*>(out);
  for (int64_t k = 0; k < cols; k += kChunk) {
    const int64_t n = std::min<int64_t>(kChunk, cols - k);
    for (int t = 0; t < tokens; ++t, ++to) {
      const float* from = x + t * stride + k;
      float largest = 0.0f;
      float spoiled = 0.0f;
      for (int64_t i = 0; i < n; ++i) {
        largest = std::max(largest, std::abs(from[i]));
        spoiled += from[i] * 0.0f;
      }
      const bool tiny = !(largest > 1e-30f);
      const float inverse = tiny ? 0.0f : 127.0f / largest;
      to->scale = (tiny ? 0.0f : largest / 127.0f) + spoiled;
      for (int64_t i = 0; i < kChunk; ++i) {
        const float value = i < n ? std::nearbyint(from[i] * inverse) : 0.0f;
        to->q[i] = std::isfinite(value) ? static_cast<int8_t>(value) : int8_t{0};
      }
    }
  }
}

template <const QuantLayout& kLayout, int kTokens>
void Tile(const MatMulTile& tile) noexcept {
  const auto* x = reinterpret_cast<const ChunkX*>(tile.x);
  if (!tile.resume) std::fill(tile.acc, tile.acc + kTokens * kPanelRows, 0.0f);
  constexpr int64_t kRecords = kChunk / kLayout.record_k;
  for (int64_t first = 0; first < tile.lines; first += kRecords, x += kTokens) {
    for (int t = 0; t < kTokens; ++t) {
      for (int64_t row = 0; row < kPanelRows; ++row) {
        float sum = 0.0f;
        for (int64_t line = first; line < std::min(first + kRecords, tile.lines); ++line) {
          const std::byte* const record = tile.w + line * kLayout.record_bytes();
          for (int64_t block = 0; block < kLayout.blocks(); ++block) {
            int32_t dot = 0;
            int32_t total = 0;
            for (int64_t k = block * kLayout.block_k; k < (block + 1) * kLayout.block_k; ++k) {
              const int32_t q = x[t].q[(line - first) * kLayout.record_k + k];
              dot += (RecordCode(kLayout, record, row, k) - kLayout.zero) * q;
              total += q;
            }
            sum = std::fma(static_cast<float>(dot), RecordScale(kLayout, record, row, block), sum);
            if (kLayout.minima) {
              sum = std::fma(RecordMinimum(kLayout, record, row, block), static_cast<float>(total), sum);
            }
          }
        }
        float& acc = tile.acc[t * kPanelRows + row];
        acc = std::fma(sum, x[t].scale, acc);
      }
    }
  }
}

template <const QuantLayout& kLayout>
constexpr FormatKernels Make() {
  FormatKernels kernels;
  kernels.strip = 2;
  kernels.lines_per_chunk = kChunk / kLayout.record_k;
  kernels.x_chunk_bytes = sizeof(ChunkX);
  kernels.pack_x = &PackX;
  kernels.tile[0][0] = &Tile<kLayout, 1>;
  kernels.tile[0][1] = &Tile<kLayout, 2>;
  return kernels;
}

}  // namespace

constinit const FormatKernels kQuantKernels[kQuantFormats] = {
    Make<kQ8_0Layout>(),  Make<kQ4_0Layout>(),  Make<kQ4_1Layout>(), Make<kQ5_0Layout>(), Make<kQ5_1Layout>(),
    Make<kQ2_KLayout>(),  Make<kQ3_KLayout>(),  Make<kQ4_KLayout>(), Make<kQ5_KLayout>(), Make<kQ6_KLayout>(),
    Make<kIq4NlLayout>(), Make<kIq4XsLayout>(), Make<kMxfp4Layout>()};

}  // namespace kvasir::ref
