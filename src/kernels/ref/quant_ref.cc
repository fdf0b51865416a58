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
constexpr float kTiny = 1e-30f;  // its inverse is finite

/// Packed x: for each chunk and token, its int8 values and their scale, and the values that are not rounded.
struct ChunkX {
  float scale;
  int8_t q[kChunk];
  float outliers[kChunk];  // 0: none
};

/// The largest magnitude of x [n].
float Largest(const float* x, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  return largest;
}

/// Moves up to `most` values of x [n] beyond `limit` to `outliers`, the largest first; returns how many.
int TakeOutliers(float* x, int64_t n, float limit, int most, float* outliers) {
  int taken = 0;
  for (; taken < most; ++taken) {
    float* const best = std::max_element(x, x + n, [](float a, float b) { return std::abs(a) < std::abs(b); });
    if (!(std::abs(*best) > limit)) break;
    outliers[best - x] = *best;
    *best = 0.0f;
  }
  return taken;
}

/// See kMaxOutliers.
void ChooseOutliers(const QuantLayout& layout, float* x, int64_t n, float* outliers) {
  int room = kMaxOutliers;
  float largest = Largest(x, n);
  while (largest > kTiny) {
    const float limit = largest / kOutlierGap;
    const auto beyond = std::count_if(x, x + n, [&](float v) { return std::abs(v) > limit; });
    if (beyond > room) break;
    room -= TakeOutliers(x, n, limit, room, outliers);
    largest = Largest(x, n);
  }
  if (layout.threshold()) TakeOutliers(x, n, kInt8Threshold, room, outliers);
}

template <const QuantLayout& kLayout>
void PackX(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  auto* to = reinterpret_cast<ChunkX*>(out);
  for (int64_t k = 0; k < cols; k += kChunk) {
    const int64_t n = std::min<int64_t>(kChunk, cols - k);
    for (int t = 0; t < tokens; ++t, ++to) {
      *to = {};
      float kept[kChunk];
      std::copy_n(x + t * stride + k, n, kept);
      float spoiled = 0.0f;
      for (int64_t i = 0; i < n; ++i) spoiled += kept[i] * 0.0f;
      if (spoiled == 0.0f) ChooseOutliers(kLayout, kept, n, to->outliers);
      const float largest = Largest(kept, n);
      const bool tiny = !(largest > kTiny);
      const float inverse = tiny ? 0.0f : 127.0f / largest;
      to->scale = (tiny ? 0.0f : largest / 127.0f) + spoiled;
      for (int64_t i = 0; i < n; ++i) {
        const float value = std::nearbyint(kept[i] * inverse);
        to->q[i] = std::isfinite(value) ? static_cast<int8_t>(value) : int8_t{0};
      }
    }
  }
}

/// What weights of one row are in a chunk that begins at `records`.
template <const QuantLayout& kLayout>
class RowOfChunk {
 public:
  RowOfChunk(const std::byte* records, int64_t row) : records_(records), row_(row) {}
  float Value(int64_t k) const {
    const std::byte* const record = Record(k);
    const int64_t in_record = k % kLayout.record_k;
    const int64_t block = in_record / kLayout.block_k;
    const float value = RecordScale(kLayout, record, row_, block) * RecordLevel(kLayout, record, row_, in_record);
    return kLayout.minima ? value + RecordMinimum(kLayout, record, row_, block) : value;
  }
  /// To each of the tokens' sums the block that begins at k times that token's q.
  template <int kTokens>
  void AddBlock(const ChunkX* x, int64_t k, float* sums) const {
    const std::byte* const record = Record(k);
    const int64_t in_record = k % kLayout.record_k;
    const int64_t block = in_record / kLayout.block_k;
    int32_t codes[kLayout.block_k];
    for (int32_t i = 0; i < kLayout.block_k; ++i) {
      codes[i] = RecordCode(kLayout, record, row_, in_record + i) - kLayout.zero;
    }
    const float scale = RecordScale(kLayout, record, row_, block);
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* const q = x[t].q + k;
      int32_t dot = 0;
      int32_t total = 0;
      for (int32_t i = 0; i < kLayout.block_k; ++i) {
        dot += codes[i] * q[i];
        total += q[i];
      }
      sums[t] = std::fma(static_cast<float>(dot), scale, sums[t]);
      if (kLayout.minima) {
        sums[t] = std::fma(RecordMinimum(kLayout, record, row_, block), static_cast<float>(total), sums[t]);
      }
    }
  }

 private:
  const std::byte* Record(int64_t k) const { return records_ + k / kLayout.record_k * kLayout.record_bytes(); }
  const std::byte* records_;
  int64_t row_;
};

template <const QuantLayout& kLayout, int kTokens>
void Tile(const MatMulTile& tile) noexcept {
  const auto* x = reinterpret_cast<const ChunkX*>(tile.x);
  if (!tile.resume) std::fill(tile.acc, tile.acc + kTokens * kPanelRows, 0.0f);
  constexpr int64_t kRecords = kChunk / kLayout.record_k;
  for (int64_t first = 0; first < tile.lines; first += kRecords, x += kTokens) {
    const int64_t inputs = std::min(kRecords, tile.lines - first) * kLayout.record_k;
    for (int64_t row = 0; row < kPanelRows; ++row) {
      const RowOfChunk<kLayout> w(tile.w + first * kLayout.record_bytes(), row);
      float sums[kTokens] = {};
      for (int64_t k = 0; k < inputs; k += kLayout.block_k) w.template AddBlock<kTokens>(x, k, sums);
      for (int t = 0; t < kTokens; ++t) {
        float& acc = tile.acc[t * kPanelRows + row];
        acc = std::fma(sums[t], x[t].scale, acc);
        for (int64_t k = 0; k < inputs; ++k) {
          if (x[t].outliers[k] != 0.0f) acc = std::fma(x[t].outliers[k], w.Value(k), acc);
        }
      }
    }
  }
}

/// Eight-bit floats: x stays fp32, zeros to whole records.
template <const QuantLayout& kLayout>
void PackFloats(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  auto* to = reinterpret_cast<float*>(out);
  for (int64_t k = 0; k < RoundUp(cols, kLayout.record_k); ++k) {
    for (int t = 0; t < tokens; ++t) *to++ = k < cols ? x[t * stride + k] : 0.0f;
  }
}

template <const QuantLayout& kLayout, int kTokens>
void FloatTile(const MatMulTile& tile) noexcept {
  const auto* x = reinterpret_cast<const float*>(tile.x);
  if (!tile.resume) std::fill(tile.acc, tile.acc + kTokens * kPanelRows, 0.0f);
  for (int64_t row = 0; row < kPanelRows; ++row) {
    const RowOfChunk<kLayout> w(tile.w, row);
    for (int64_t k = 0; k < tile.lines * kLayout.record_k; ++k) {
      const float value = w.Value(k);
      for (int t = 0; t < kTokens; ++t) {
        float& acc = tile.acc[t * kPanelRows + row];
        acc = std::fma(value, x[k * kTokens + t], acc);
      }
    }
  }
}

template <const QuantLayout& kLayout>
constexpr FormatKernels Make() noexcept {
  FormatKernels kernels;
  kernels.strip = 2;
  if (kLayout.float8()) {
    kernels.x_chunk_bytes = kLayout.record_k * 4;
    kernels.pack_x = &PackFloats<kLayout>;
    kernels.tile[0][0] = &FloatTile<kLayout, 1>;
    kernels.tile[0][1] = &FloatTile<kLayout, 2>;
    return kernels;
  }
  kernels.lines_per_chunk = kChunk / kLayout.record_k;
  kernels.x_chunk_bytes = sizeof(ChunkX);
  kernels.pack_x = &PackX<kLayout>;
  kernels.tile[0][0] = &Tile<kLayout, 1>;
  kernels.tile[0][1] = &Tile<kLayout, 2>;
  return kernels;
}

}  // namespace

constinit const FormatKernels kQuantKernels[kQuantFormats] = {
    Make<kQ8_0Layout>(),     Make<kQ4_0Layout>(),     Make<kQ4_1Layout>(),     Make<kQ5_0Layout>(),
    Make<kQ5_1Layout>(),     Make<kQ2_KLayout>(),     Make<kQ3_KLayout>(),     Make<kQ4_KLayout>(),
    Make<kQ5_KLayout>(),     Make<kQ6_KLayout>(),     Make<kIq4NlLayout>(),    Make<kIq4XsLayout>(),
    Make<kMxfp4Layout>(),    Make<kNf4Layout>(),      Make<kFp4Layout>(),      Make<kInt8Layout>(),
    Make<kInt8G128Layout>(), Make<kInt4G128Layout>(), Make<kInt3G128Layout>(), Make<kInt2G128Layout>(),
    Make<kInt8G32Layout>(),  Make<kInt4G32Layout>(),  Make<kInt3G32Layout>(),  Make<kInt2G32Layout>(),
    Make<kE4M3Layout>(),     Make<kE5M2Layout>()};

}  // namespace kvasir::ref
