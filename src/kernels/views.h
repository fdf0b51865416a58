// Plain structs that describe memory to kernels. Nothing here owns anything.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/quant_layout.h"

namespace kvasir {

/// A row-major matrix: rows × cols, consecutive rows `stride` elements apart.
template <typename T>
struct MatView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  MatView() = default;
  MatView(T* data_in, int64_t rows_in, int64_t cols_in) : MatView(data_in, rows_in, cols_in, cols_in) {}
  MatView(T* data_in, int64_t rows_in, int64_t cols_in, int64_t stride_in)
      : data(data_in), rows(rows_in), cols(cols_in), stride(stride_in) {}
  template <typename U>
    requires(sizeof(U) == sizeof(T) && __is_same(const U, T))
  MatView(const MatView<U>& other)  // NOLINT(google-explicit-constructor): adds const
      : MatView(other.data, other.rows, other.cols, other.stride) {}

  T* row(int64_t r) const { return data + r * stride; }
  MatView Rows(int64_t begin, int64_t count) const { return {row(begin), count, cols, stride}; }
  MatView Cols(int64_t begin, int64_t count) const { return {data + begin, rows, count, stride}; }
};

enum class Activation : uint8_t { kNone, kRelu, kGelu, kGeluTanh, kGeluQuick, kSilu, kReluSquared };

/// What Normalize computes.
struct NormArgs {
  const float* weight = nullptr;  // [cols] or null (all ones)
  const float* bias = nullptr;    // [cols] or null
  float eps = 1e-5f;
  bool layer_norm = false;  // subtract the mean; else RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467)
  bool plus_one = false;    // the weight is stored as w - 1 (Gemma)
};

/// Formats of packed weights: plain elements, then blocks of integers with scales (quant_layout.h).
enum class WeightFormat : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  kNF4,
  kFP4,
  kInt8,
  kInt8G128,
  kInt4G128,
  kInt3G128,
  kInt2G128,
  kInt8G32,
  kInt4G32,
  kInt3G32,
  kInt2G32,
  kE4M3,
  kE5M2,
};
inline constexpr int kWeightFormats = 29;

/// Null for plain elements.
constexpr const QuantLayout* GetQuantLayout(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
    case WeightFormat::kF16:
    case WeightFormat::kBF16: return nullptr;
    case WeightFormat::kQ8_0: return &kQ8_0Layout;
    case WeightFormat::kQ4_0: return &kQ4_0Layout;
    case WeightFormat::kQ4_1: return &kQ4_1Layout;
    case WeightFormat::kQ5_0: return &kQ5_0Layout;
    case WeightFormat::kQ5_1: return &kQ5_1Layout;
    case WeightFormat::kQ2_K: return &kQ2_KLayout;
    case WeightFormat::kQ3_K: return &kQ3_KLayout;
    case WeightFormat::kQ4_K: return &kQ4_KLayout;
    case WeightFormat::kQ5_K: return &kQ5_KLayout;
    case WeightFormat::kQ6_K: return &kQ6_KLayout;
    case WeightFormat::kIQ4_NL: return &kIq4NlLayout;
    case WeightFormat::kIQ4_XS: return &kIq4XsLayout;
    case WeightFormat::kMXFP4: return &kMxfp4Layout;
    case WeightFormat::kNF4: return &kNf4Layout;
    case WeightFormat::kFP4: return &kFp4Layout;
    case WeightFormat::kInt8: return &kInt8Layout;
    case WeightFormat::kInt8G128: return &kInt8G128Layout;
    case WeightFormat::kInt4G128: return &kInt4G128Layout;
    case WeightFormat::kInt3G128: return &kInt3G128Layout;
    case WeightFormat::kInt2G128: return &kInt2G128Layout;
    case WeightFormat::kInt8G32: return &kInt8G32Layout;
    case WeightFormat::kInt4G32: return &kInt4G32Layout;
    case WeightFormat::kInt3G32: return &kInt3G32Layout;
    case WeightFormat::kInt2G32: return &kInt2G32Layout;
    case WeightFormat::kE4M3: return &kE4M3Layout;
    case WeightFormat::kE5M2: return &kE5M2Layout;
  }
  return nullptr;
}

/// Bytes of an element. REQUIRES: a plain format.
inline int64_t WeightFormatBytes(WeightFormat format) { return format == WeightFormat::kF32 ? 4 : 2; }

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kWeightColAlign = 4;

/// A weight matrix W of `rows` outputs × `cols` inputs in the N16K4 layout: panels of 16 output rows; within a panel,
/// lines, inputs ascending. A line of a plain format is 64 bytes, 16 rows × g consecutive inputs (g = 1 for fp32, 2
/// for the 16-bit types): element (n, k) stands at panel n/16, line k/g, position (n%16)·g + k%g. A line of a block
/// format is a record as quant_layout.h has it. rows are padded to 16, cols to kWeightColAlign or to whole records,
/// with zeros.
struct PackedWeight {
  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;  // 64-byte aligned
  /// Column k of the panels multiplies input order[k] (cols of them); null: input k.
  const int32_t* order = nullptr;
  /// Inputs are multiplied with these (cols of them, in the inputs' own order) first; null: they are taken as they are.
  const float* input_scales = nullptr;

  int64_t line_k() const;  // inputs per line
  int64_t line_bytes() const;
  int64_t lines() const;  // of a panel
  int64_t panel_bytes() const { return lines() * line_bytes(); }
  int64_t row_bytes() const { return panel_bytes() / kPanelRows; }
  int64_t bytes() const { return (rows + kPanelRows - 1) / kPanelRows * panel_bytes(); }
};

inline int64_t PackedWeight::line_k() const {
  if (const QuantLayout* layout = GetQuantLayout(format)) return layout->record_k;
  return format == WeightFormat::kF32 ? 1 : 2;
}
inline int64_t PackedWeight::line_bytes() const {
  const QuantLayout* layout = GetQuantLayout(format);
  return layout ? layout->record_bytes() : 64;
}
inline int64_t PackedWeight::lines() const {
  const int64_t align = line_k() > kWeightColAlign ? line_k() : kWeightColAlign;
  return (cols + align - 1) / align * (align / line_k());
}

/// Element types of a KV cache. kI8 and kI4 are codes with scales (kv_codes.h says how values become codes).
enum class KvType : uint8_t { kF32, kBF16, kF16, kI8, kI4 };

inline constexpr int64_t kTileTokens = 16;

/// Channels of a head that share a scale and a minimum in i4 caches.
inline constexpr int64_t kKvGroup = 32;

/// Bytes of a tile, keys or values, of heads of d values (padded to whole lines; tiles of values may end earlier).
constexpr int64_t KvTileBytes(KvType type, int64_t d) {
  switch (type) {
    case KvType::kF32: return d * 64;
    case KvType::kBF16:
    case KvType::kF16: return (d + 1) / 2 * 64;
    case KvType::kI8: return (d + 1) / 2 * 32 + 32;
    case KvType::kI4: break;
  }
  return (d + 3) / 4 * 32 + (d + kKvGroup - 1) / kKvGroup * 64;
}

/// Bytes of one token's key and value in one KV head, scales included, padding not.
constexpr int64_t KvTokenBytes(KvType type, int64_t d) {
  switch (type) {
    case KvType::kF32: return 2 * d * 4;
    case KvType::kBF16:
    case KvType::kF16: return 2 * d * 2;
    case KvType::kI8: return 2 * (d + 2);
    case KvType::kI4: break;
  }
  return 2 * ((d + 1) / 2 + (d + kKvGroup - 1) / kKvGroup * 4);
}

/// The keys and values of one sequence in one layer; knows nothing of policies.
///
/// A tile is 16 slots of one KV head. fp32: K as [d][16 slots], V as [16 slots][d]; 16-bit types: K as
/// [ceil(d/2)][16 slots][2], V as [8 slot pairs][d][2]; i8: the same order in bytes, then the slots' scales, bf16 [16].
/// i4: for each group of n <= 32 channels the codes, then {scale, minimum} of the slots, bf16 [16][2]. A byte holds two
/// codes of one slot, so that no two slots share a byte: of K, channels c (low half) and c + 2, as
/// [ceil(n/4)][16 slots][c = 0, 1]; of V, channels c and c + h with h = ceil(n/2), as [8 slot pairs][h][2]. Either way
/// a load is widened to pairs of 16-bit integers side by side for 16 slots of K or 16 channels of V, scales are read
/// where the codes end, and a load of 32 bytes never leaves a tile. Missing last channels of K are zero. A block holds
/// `block_tiles` tiles for every KV head of the layer:
///   K tile of (head, tile in block) at head·head_stride + tile·tile_stride, its V tile at + v_offset.
/// Slot s lives in block s / (16·block_tiles). New tiles are zeroed, since 0 × garbage NaN is NaN.
struct KvView {
  KvType type = KvType::kF32;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tiles = 0;
  int64_t head_stride = 0;             // bytes
  int64_t tile_stride = 0;             // bytes
  int64_t v_offset = 0;                // bytes
  std::byte* const* blocks = nullptr;  // block table
  int64_t length = 0;                  // slots in use, those of the running step included
  int64_t first_valid = 0;             // slots before it are not attended to (windows)
  const int32_t* positions = nullptr;  // of each slot, negative: empty, never attended to; null: the slot's index

  std::byte* k_tile(int64_t head, int64_t tile) const {
    return blocks[tile / block_tiles] + head * head_stride + (tile % block_tiles) * tile_stride;
  }
  std::byte* v_tile(int64_t head, int64_t tile) const { return k_tile(head, tile) + v_offset; }
};

/// New tokens that are guesses at several continuations of a text: each has one token before it, its parent, which is
/// one of them or the last token of the text (tree attention: Miao 2023, arXiv:2305.09781; Cai 2024, arXiv:2401.10774).
struct TokenTree {
  const int32_t* positions = nullptr;   // [tokens] that of the parent plus 1: several tokens may share one
  const uint64_t* ancestors = nullptr;  // [tokens, words] bit j of row t: token j is t or stands before it on its path
  int32_t words = 0;

  bool Sees(int64_t token, int64_t other) const {
    return (ancestors[token * words + other / 64] >> (other % 64) & 1) != 0;
  }
};

/// Attention of one sequence's new tokens over its cache (which already holds their keys and values).
/// out[t, h] = softmax_j(score(t, j)) · V[j], score = scale · q·k, softcapped, plus ALiBi bias, over the slots j that t
/// sees: with the distance d = position(t) - position(j), those with d >= min_distance (which is at least 0),
/// d < window where there is one, and, with a stride s > 1, d a multiple of s or d <= local (Child 2019,
/// arXiv:1904.10509). A row that sees nothing becomes 0.
struct AttentionArgs {
  MatView<const float> q;  // [tokens, n_heads · head_dim]
  MatView<float> out;      // [tokens, n_heads · head_dim]; may not alias q
  KvView kv;
  int64_t first_slot = 0;  // slot of q's first row; the rows' slots are consecutive
  int32_t n_heads = 0;     // query heads; a multiple of kv.kv_heads
  float scale = 1.0f;
  float softcap = 0.0f;  // 0: none; else s → softcap · tanh(s / softcap), before bias (Gemma 2)
  int64_t window = 0;    // 0: none; local attention of distances up to k is a window of k + 1
  int64_t min_distance = 0;
  int64_t stride = 0;  // 0 or 1: every distance; more: slots must be positions (no kv.positions), except for plain
  int64_t local = 0;   // with a stride > 1 only
  /// ALiBi (Press 2021): score += slope[h] · (position(j) - position(t)); null: none. [n_heads]
  const float* alibi_slopes = nullptr;
  /// The bias is formed as alibi_scale · bf16(bf16(slope) · position(j)), without subtracting position(t) before
  /// rounding, as checkpoints trained with that rounding expect (a constant per row may be subtracted after it).
  bool alibi_bf16 = false;
  float alibi_scale = 1.0f;  // multiplies the bias in both forms
  /// Of q's tokens, parents before children: each sees, besides what was there before, its own path only, and all
  /// distances are those of its positions. Null: each token is the child of the one before. REQUIRES: q's slots are the
  /// view's last, no kv.positions and, except for plain, no stride.
  const TokenTree* tree = nullptr;
};

}  // namespace kvasir
