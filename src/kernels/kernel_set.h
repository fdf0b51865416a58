// The implementations behind ops.h, as tables of functions over raw pointers: one table per concern and instruction
// set. Files compiled for an instruction set include only this header, the vector type of their set and intrinsics:
// an inline function or a std:: container used there could leak code that other processors cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/views.h"

namespace kvasir {

struct CpuFeatures;

/// Most tokens that one tile of a matrix product may have, and most panels.
inline constexpr int kMaxStrip = 12;
inline constexpr int kMaxTilePanels = 2;

/// A strip of tokens times a few neighbouring panels over a range of k: acc[p, t, n] (+)= Σ_k w[p·16 + n, k] · x[t, k],
/// every output one chain of additions in ascending k, whatever the numbers of tokens and panels.
struct MatMulTile {
  const std::byte* x = nullptr;  // strip as pack_x made it, at the first line of the range
  const std::byte* w = nullptr;  // first panel, at the first line of the range
  int64_t panel_bytes = 0;       // from one panel to the next
  int64_t lines = 0;             // lines per panel in the range; not the last range: a multiple of lines_per_chunk
  int64_t ahead = 0;             // bytes ahead of the weights in use that are fetched into the second-level cache
  int64_t near = 0;              // and into the first-level cache; 0: none
  // What tiles that can (FormatKernels::fetches_next) fetch into the second-level cache meanwhile, evenly spread: of
  // each of the tile's panels `next_bytes`, a multiple of 64, from `next` on. Null: nothing.
  const std::byte* next = nullptr;
  int64_t next_panel_bytes = 0;  // from one panel to the next
  int64_t next_bytes = 0;
  float* acc = nullptr;  // [panels][tokens][16], 64-byte aligned
  bool resume = false;   // continue the sums in acc; else start from zero
};

/// acc with its epilogue applied, stored to y (see Epilogue in ops.h).
struct MatMulFinish {
  const float* acc = nullptr;  // [panels][tokens][16]
  int32_t panels = 0;          // even when gated
  int32_t tokens = 0;
  float* y = nullptr;  // first output of the first token
  int64_t y_stride = 0;
  int64_t y_cols = 0;           // outputs to store per token; panels·16 (gated: panels·8), less at the right edge
  const float* bias = nullptr;  // of the first panel's first row; as many as there are rows
  int64_t bias_rows = 0;        // rows from the first panel on that have a bias
  Activation activation = Activation::kNone;
  bool gated = false;
  bool accumulate = false;
  float scale = 1.0f;
};

/// The product for one weight format. A line is PackedWeight's.
struct FormatKernels {
  int32_t strip = 0;            // tokens per strip in prefill, at most kMaxStrip
  int32_t lines_per_chunk = 1;  // x is packed, and k cut into ranges, by so many lines
  int32_t x_chunk_bytes = 0;    // bytes of packed x per token and chunk
  /// Packs x[tokens][cols] for tile: each token's values side by side for each k, zeros beyond cols to whole lines.
  /// out: tokens · chunks · x_chunk_bytes bytes, 64-byte aligned.
  void (*pack_x)(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept = nullptr;
  /// tile[panels - 1][tokens - 1]; null where a tile of that size does not exist. One panel exists for 1…strip tokens.
  void (*tile[kMaxTilePanels][kMaxStrip])(const MatMulTile&) noexcept = {};
  /// The same for several strips in turn, whose tiles fetch MatMulTile::next instead of what lies ahead of the weights
  /// in use. Null where `tile` serves for that, too.
  const FormatKernels* swept = nullptr;
  /// Turns lines of a panel into the form that `wide` takes, where that pays for many tokens: the same sums from the
  /// same packed x. Null where the format's own tiles are as fast.
  void (*widen)(const std::byte* w, int64_t lines, int64_t ahead, std::byte* out) noexcept = nullptr;
  const FormatKernels* wide = nullptr;  // its pack_x is not used
  int32_t wide_lines = 0;               // lines of `wide` that one line becomes
  int32_t wide_line_bytes = 0;          // of one such line
  int32_t widen_from = 0;               // tokens of which on widening pays
  bool fetches_next = false;            // tiles fetch MatMulTile::next
  /// For round_from tokens and more, where the caller allows it: weights rounded to eight bits, of which products are
  /// faster than of the format's own. Null where they would not be.
  const FormatKernels* rounded = nullptr;
  int32_t round_from = 0;
  int32_t ahead = 0;      // bytes best fetched ahead of one panel that is read once, but on Intel's processors; 0: as
                          // for plain formats
  int32_t ahead_few = 0;  // the same for one or two tokens
};

/// The block formats come last in WeightFormat.
inline constexpr int kQuantFormats = kWeightFormats - static_cast<int>(WeightFormat::kQ8_0);

struct MatMulKernels {
  const FormatKernels* formats[kWeightFormats];  // by WeightFormat
  void (*finish)(const MatMulFinish&) noexcept = nullptr;
};

/// Row-wise and element-wise operations; the ops of ops.h call them for rows or spans.
struct RowKernels {
  void (*normalize)(const float* x, int64_t n, const NormArgs& args, float* y) noexcept = nullptr;
  /// One token: `heads` heads in place; cos_sin: n_freq cosines, then n_freq sines.
  void (*rotate)(float* x, int64_t heads, int64_t head_dim, const float* cos_sin, int64_t n_freq,
                 bool interleaved) noexcept = nullptr;
  void (*add)(const float* x, int64_t n, float scale, float* y) noexcept = nullptr;
  void (*activate)(float* x, int64_t n, Activation activation) noexcept = nullptr;
  void (*clamp)(float* x, int64_t n, float limit) noexcept = nullptr;
  void (*softcap)(float* x, int64_t n, float cap) noexcept = nullptr;
  void (*scale)(float* x, int64_t n, float factor) noexcept = nullptr;
};

/// Conversions and transposition for packing. All are exact or round to nearest even, so that every set packs the
/// same bytes.
struct PackKernels {
  /// out[j][r] = rows[r][j] for 16 rows of `dwords` 4-byte units; rows need not be aligned. out: dwords · 64 bytes,
  /// 64-byte aligned.
  void (*interleave)(const std::byte* const rows[16], int64_t dwords, std::byte* out) noexcept = nullptr;
  void (*f16_to_f32)(const std::byte* in, int64_t n, float* out) noexcept = nullptr;
  void (*bf16_to_f32)(const std::byte* in, int64_t n, float* out) noexcept = nullptr;
  void (*f32_to_f16)(const float* in, int64_t n, uint16_t* out) noexcept = nullptr;
  void (*f32_to_bf16)(const float* in, int64_t n, uint16_t* out) noexcept = nullptr;
  void (*q8_0_to_f32)(const std::byte* in, int64_t blocks, float* out) noexcept = nullptr;
  void (*q4_0_to_f32)(const std::byte* in, int64_t blocks, float* out) noexcept = nullptr;
};

/// Loops that measure a core's limits (see ceilings.h).
struct ProbeKernels {
  /// Reads [data, data + bytes) by pattern 0 … read_patterns-1; bytes is a multiple of 4096. Returns a checksum.
  uint64_t (*read)(const std::byte* data, int64_t bytes, int pattern) noexcept = nullptr;
  int read_patterns = 0;
  /// Each runs `rounds` rounds from registers only and returns the operations done (a multiply and an add are two);
  /// null where there is no such instruction. `sink` takes a result, so that nothing is optimised away.
  int64_t (*fp32)(int64_t rounds, float* sink) noexcept = nullptr;
  int64_t (*bf16)(int64_t rounds, float* sink) noexcept = nullptr;
  int64_t (*int8)(int64_t rounds, float* sink) noexcept = nullptr;
};

/// Defined by the attention kernels (attention_kernels.h).
struct AttentionKernels;

struct KernelSet {
  const char* name = nullptr;
  bool (*accepts)(const CpuFeatures&) = nullptr;
  const MatMulKernels* matmul = nullptr;
  const RowKernels* rows = nullptr;
  const PackKernels* pack = nullptr;
  const ProbeKernels* probes = nullptr;
  const AttentionKernels* attention = nullptr;
};

/// The sets compiled for this architecture, best first, "ref" last (cpu/sets_<architecture>.cc).
struct KernelSetList {
  const KernelSet* const* sets;
  int count;
};
KernelSetList CompiledKernelSets();

// The tables, each defined in one file of cpu/ or ref/ compiled for its set; cpu/sets_*.cc puts them together.
#define KVASIR_DECLARE_KERNELS(isa)                        \
  namespace isa {                                          \
  extern const FormatKernels kF32Kernels;                  \
  extern const FormatKernels kF16Kernels;                  \
  extern const FormatKernels kQuantKernels[kQuantFormats]; \
  extern const MatMulKernels kMatMulKernels;               \
  extern const RowKernels kRowKernels;                     \
  extern const PackKernels kPackKernels;                   \
  extern const ProbeKernels kProbeKernels;                 \
  extern const AttentionKernels kAttentionKernels;         \
  }
KVASIR_DECLARE_KERNELS(avx512bf16)
KVASIR_DECLARE_KERNELS(avx512)
KVASIR_DECLARE_KERNELS(avx2)
KVASIR_DECLARE_KERNELS(neon)
KVASIR_DECLARE_KERNELS(ref)
#undef KVASIR_DECLARE_KERNELS

}  // namespace kvasir
