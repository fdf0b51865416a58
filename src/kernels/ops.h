// The operations a forward pass is made of. Every op splits its own work over ctx.pool, takes temporary memory from
// ctx.scratch (and gives it back), and gives the same bits for any number of threads and any batch a row is in:
// each output is one chain of additions in a fixed order that depends only on the format and the instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/exec.h"
#include "kernels/views.h"

namespace kvasir {

/// The scalar definition, in fp32 (for references and tests).
float ApplyActivation(Activation activation, float x) noexcept;

/// What happens to W·x before it is stored. Applied in this order.
struct Epilogue {
  const float* bias = nullptr;  // [rows of W]; added
  Activation activation = Activation::kNone;
  /// W holds gate and up rows in alternating panels of 16 (gate rows 0–15, up rows 0–15, gate rows 16–31, …); the
  /// output has half as many columns: activation(gate) · up. The bias is laid out like W's rows (padded panels).
  bool gated = false;
  bool accumulate = false;  // y += result instead of y = result (residual connections)
  float scale = 1.0f;       // multiplies the result (after the activation)
};

/// y[t, n] = epilogue(Σ_k x[t, k] · w[n, k]).
/// x: [tokens, cols] fp32; y: [tokens, rows] fp32 (rows/2 rounded as the layout says when gated); y may not alias x.
/// fp32 weights: fp32 FMA. bf16 weights: x rounded to bf16, fp32 accumulation (vdpbf16ps where there is one).
/// fp16 weights: weights widened to fp32, fp32 FMA. Block formats: x rounded to eight bits (quant_layout.h), products
/// of integers; with ctx.round_weights and many tokens some formats' values are rounded to eight bits once more.
/// For gated W, w.rows counts all panels·16 rows and `y.cols` is the true number of outputs.
Status MatMul(ExecContext& ctx, MatView<const float> x, const PackedWeight& w, const Epilogue& epilogue,
              MatView<float> y);
/// What it takes of ctx.scratch meanwhile, in bytes: exactly for a context of this set, so many threads and this
/// round_weights. w.data is not looked at.
int64_t MatMulScratchBytes(const KernelSet& set, int threads, int64_t tokens, const PackedWeight& w, bool gated,
                           bool round_weights);

/// Packs part of a matrix into the N16K4 layout. Rows are given by `row(n)`: pointers to `cols` elements of `from`
/// type, `element_stride` elements apart (1 for rows of a row-major matrix). Elements are converted to `format` only
/// where a conversion is exact or asked for by the caller (see PackRows in weights).
/// out: the panels from row `first_row` (a multiple of 16) on. Thread-safe; uses no pool.
struct PackSource {
  const std::byte* data = nullptr;  // first element of the row; need not be aligned
  int64_t element_stride = 1;       // in elements; block types need 1
  DType dtype = DType::kF32;
};
void PackPanel(std::span<const PackSource> rows, int64_t cols, WeightFormat format, std::byte* out);

/// One row as fp32, `cols` values; out holds as many rounded up to whole blocks of the row's type.
void LoadRow(const PackSource& row, int64_t cols, float* out);

/// The inverse of PackPanel for one row: out[k] = w[row, k] as fp32. out: [cols].
void UnpackRow(const PackedWeight& w, int64_t row, float* out);

/// y[t] = w[ids[t]] · scale as fp32: the embedding gathered from a packed (tied or not) table.
/// Ids outside [0, w.rows) are a CHECK failure: the caller has validated them.
void GatherRows(ExecContext& ctx, const PackedWeight& w, std::span<const int32_t> ids, float scale, MatView<float> y);

/// y[t] = norm(x[t]); y may be x. Statistics in fp32 with pairwise-like sums.
void Normalize(ExecContext& ctx, MatView<const float> x, const NormArgs& args, MatView<float> y);

/// Rotates the first 2·(number of frequencies) elements of every head in place (RoPE, Su 2021, arXiv:2104.09864).
/// x: [tokens, heads·head_dim]; cos_sin: [tokens, 2·n_freq]: n_freq cosines, then n_freq sines, for each token.
/// half-split: pairs (i, i + n_freq); interleaved: pairs (2i, 2i + 1).
void RotateHeads(ExecContext& ctx, MatView<float> x, int64_t head_dim, MatView<const float> cos_sin, bool interleaved);

/// Per-head norm over head_dim (qk-norm). x: [tokens, heads·head_dim]; args.weight: [head_dim] or, with
/// `weight_per_head`, [heads·head_dim].
void NormalizeHeads(ExecContext& ctx, MatView<float> x, int64_t head_dim, const NormArgs& args, bool weight_per_head);

/// y += x · scale, element by element.
void AddInPlace(ExecContext& ctx, MatView<const float> x, float scale, MatView<float> y);
/// x = activation(x).
void ActivateInPlace(ExecContext& ctx, MatView<float> x, Activation activation);
/// x = clamp(x, -limit, limit).
void ClampInPlace(ExecContext& ctx, MatView<float> x, float limit);
/// x = cap · tanh(x / cap).
void SoftcapInPlace(ExecContext& ctx, MatView<float> x, float cap);
/// x *= factor.
void ScaleInPlace(ExecContext& ctx, MatView<float> x, float factor);

/// Writes rows of k and v ([tokens, kv_heads·head_dim] fp32, rounded to the cache's type) into slots
/// first_slot, first_slot+1, … of the view.
struct KvWrite {
  MatView<const float> k;
  MatView<const float> v;  // no data: values stay as they are
  KvView kv;
  int64_t first_slot = 0;
};
void WriteKv(ExecContext& ctx, std::span<const KvWrite> writes);

/// Attention of several sequences at once, tiled with a running maximum and sum (FlashAttention, Dao 2022,
/// arXiv:2205.14135) and split over the KV length for decoding (Flash-Decoding): KV is cut into chunks at absolute
/// slots, each chunk yields (max, sum, accumulator) from a fresh start, and partials merge in chunk order, so that
/// neither threads nor batch nor the prompt's chunking change a bit. Memory does not depend on the KV length of
/// prefills. Keys that a window or a stride leaves out cost nothing: a stride s takes 1/s of the products, and reads
/// the keys that it gathers (attention_strided.h). Head sizes 1…512.
Status Attention(ExecContext& ctx, std::span<const AttentionArgs> sequences);

/// What scratch memory depends on.
struct AttentionShape {
  int threads = 1;
  KvType type = KvType::kF32;
  int64_t n_heads = 1;
  int64_t kv_heads = 1;
  int64_t head_dim = 1;
  int64_t tokens = 0;     // new ones, of all sequences together
  int64_t slots = 0;      // that the longest sequence has
  int64_t sequences = 1;  // at most
  int64_t stride = 0;     // as in AttentionArgs
  int64_t local = 0;
};
/// The most that Attention takes of ctx.scratch meanwhile, in bytes.
int64_t AttentionScratchBytes(const AttentionShape& shape);

/// The same by materialised scores in fp32, plainly: what tests and A1 compare with. Any type of cache.
Status AttentionPlain(ExecContext& ctx, std::span<const AttentionArgs> sequences);

/// One query head's softmax: out[t, j] is what row t of args.q gives slot j of the cache, 0 for slots that it does not
/// see. out: [args.q.rows, args.kv.length]. Rows sum to 1, or to 0 where a row sees nothing. args.out is not looked at.
Status AttentionProbabilities(ExecContext& ctx, const AttentionArgs& args, int64_t query_head, MatView<float> out);

}  // namespace kvasir
