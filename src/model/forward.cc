#include "model/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/moe.h"
#include "model/rope.h"
#include "model/token_tree.h"

namespace kvasir {
namespace {

/// New tokens of one sequence in consecutive slots: all of them, but where a bounded cache begins anew in its ring.
struct Piece {
  size_t sequence;  // index into the batch's
  int64_t first_row;
  int64_t rows;
  int64_t slot;
};

/// What all layers of one step share.
struct Step {
  ExecContext& ctx;
  const DecoderSpec& spec;
  const ForwardBatch& batch;
  KvCache& cache;
  std::vector<int64_t> first_position;     // per sequence: the position of its first new token
  std::vector<int64_t> positions;          // of all tokens
  std::vector<SequenceTree> trees;         // per sequence, or none where there are no trees
  std::vector<TokenTree> tree_views;       // of them
  std::vector<Piece> pieces;               // of all sequences, in order
  std::vector<KvSinks> sinks;              // per sequence: those to rotate anew
  int64_t sink_rows = 0;                   // of all sequences together
  MatView<const float> cos_sin = {};       // [tokens, dim], RoPE only
  MatView<const float> sink_cos_sin = {};  // [sink_rows, dim], RoPE only
  int cached_from = 0;                     // the model's layer that is the cache's layer 0
  LayerPart last = LayerPart::kDown;       // where each layer ends
};

std::span<const int32_t> ParentsOf(const ForwardBatch& batch, const ForwardSequence& sequence) {
  return std::span(batch.parents)
      .subspan(static_cast<size_t>(sequence.first_token), static_cast<size_t>(sequence.count));
}

Step MakeStep(ExecContext& ctx, const DecoderSpec& spec, const ForwardBatch& batch, KvCache& cache) {
  Step step{ctx, spec, batch, cache, {}, {}, {}, {}, {}, {}};
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const ForwardSequence& sequence = batch.sequences[s];
    const int64_t position = cache.NextPosition(sequence.seq);
    step.first_position.push_back(position);
    if (batch.parents.empty()) {
      for (int64_t t = 0; t < sequence.count; ++t) step.positions.push_back(position + t);
    } else {
      step.trees.push_back(MakeSequenceTree(ParentsOf(batch, sequence), position));
      const std::vector<int32_t>& of_tree = step.trees.back().positions;
      step.positions.insert(step.positions.end(), of_tree.begin(), of_tree.end());
    }
    for (int64_t t = 0; t < sequence.count;) {
      const KvRun run = cache.RunAt(sequence.seq, position + t);
      const int64_t rows = std::min(run.count, sequence.count - t);
      step.pieces.push_back({.sequence = s, .first_row = sequence.first_token + t, .rows = rows, .slot = run.slot});
      t += rows;
    }
    step.sinks.push_back(cache.MovedSinks(sequence.seq));
    step.sink_rows += step.sinks.back().count;
  }
  for (const SequenceTree& tree : step.trees) step.tree_views.push_back(tree.View());
  return step;
}

NormArgs ToArgs(const NormSpec& spec, const Norm& norm) {
  return {.weight = norm.weight,
          .bias = norm.bias,
          .eps = spec.eps,
          .layer_norm = spec.layer_norm,
          .plus_one = spec.plus_one};
}

Result<MatView<float>> NewMatrix(ExecContext& ctx, int64_t rows, int64_t cols) {
  ASSIGN_OR_RETURN(float* data, ctx.scratch->Allocate<float>(rows * cols));
  return MatView<float>(data, rows, cols);
}

void AddSinusoids(int64_t offset, const Step& step, MatView<float> x) {
  // [sin | cos] with frequencies 10000^(-i / (d/2 - 1)): Vaswani 2017 as fairseq lays it out.
  const int64_t half = x.cols / 2;
  for (int64_t r = 0; r < x.rows; ++r) {
    const auto position = static_cast<float>(step.positions[static_cast<size_t>(r)] + offset);
    float* row = x.row(r);
    for (int64_t i = 0; i < half; ++i) {
      const float frequency =
          static_cast<float>(std::exp(-static_cast<double>(i) * std::log(10000.0) / static_cast<double>(half - 1)));
      const double angle = position * frequency;
      row[i] += static_cast<float>(std::sin(angle));
      row[half + i] += static_cast<float>(std::cos(angle));
    }
  }
}

Status AddLearnedPositions(const LearnedPosition& learned, const PackedWeight& table, const Step& step,
                           MatView<float> x) {
  ASSIGN_OR_RETURN(MatView<float> rows, NewMatrix(step.ctx, x.rows, x.cols));
  std::vector<int32_t> ids;
  ids.reserve(step.positions.size());
  for (const int64_t position : step.positions) ids.push_back(static_cast<int32_t>(position + learned.offset));
  GatherRows(step.ctx, table, ids, 1.0f, rows);
  AddInPlace(step.ctx, rows, 1.0f, x);
  return OkStatus();
}

/// Token embedding, projection, position and norm, as far as the model has them. x: [tokens, width].
Status Embed(const Step& step, const ModelWeights& weights, MatView<float> x) {
  const DecoderSpec& spec = step.spec;
  if (spec.project_in) {
    ASSIGN_OR_RETURN(MatView<float> narrow, NewMatrix(step.ctx, x.rows, spec.embedding_width));
    GatherRows(step.ctx, weights.embedding, step.batch.tokens, spec.embedding_scale, narrow);
    RETURN_IF_ERROR(MatMul(step.ctx, narrow, weights.project_in, {}, x));
  } else {
    GatherRows(step.ctx, weights.embedding, step.batch.tokens, spec.embedding_scale, x);
  }
  if (const auto* learned = std::get_if<LearnedPosition>(&spec.position)) {
    RETURN_IF_ERROR(AddLearnedPositions(*learned, weights.positions, step, x));
  } else if (const auto* sinusoidal = std::get_if<SinusoidalPosition>(&spec.position)) {
    AddSinusoids(sinusoidal->offset, step, x);
  }
  if (spec.embedding_norm) Normalize(step.ctx, x, ToArgs(*spec.embedding_norm, weights.embedding_norm), x);
  return OkStatus();
}

Status FillRope(const RopePosition& rope, Step& step) {
  ASSIGN_OR_RETURN(MatView<float> table, NewMatrix(step.ctx, static_cast<int64_t>(step.batch.tokens.size()), rope.dim));
  ASSIGN_OR_RETURN(MatView<float> sinks, NewMatrix(step.ctx, step.sink_rows, rope.dim));
  RopeFrequencies frequencies;
  int64_t frequencies_length = -1;
  int64_t sink = 0;
  for (size_t s = 0; s < step.batch.sequences.size(); ++s) {
    const ForwardSequence& sequence = step.batch.sequences[s];
    if (sequence.planned_length != frequencies_length) {
      frequencies = ComputeRopeFrequencies(rope, step.spec.context, sequence.planned_length);
      frequencies_length = sequence.planned_length;
    }
    for (int64_t t = 0; t < sequence.count; ++t) {
      const int64_t row = sequence.first_token + t;
      FillCosSin(frequencies, step.positions[static_cast<size_t>(row)], table.row(row));
    }
    for (int64_t i = 0; i < step.sinks[s].count; ++i) {
      FillCosSin(frequencies, step.sinks[s].first_position + i, sinks.row(sink++));
    }
  }
  step.cos_sin = table;
  step.sink_cos_sin = sinks;
  return OkStatus();
}

/// Hands the keys of future sinks to the cache before they are rotated.
void KeepSinkKeys(const Step& step, int layer, MatView<const float> k) {
  for (size_t s = 0; s < step.batch.sequences.size(); ++s) {
    const ForwardSequence& sequence = step.batch.sequences[s];
    const MatView<float> sinks = step.cache.SinkKeys(sequence.seq, layer - step.cached_from);
    const int64_t first = step.first_position[s];
    for (int64_t t = 0; t < std::min<int64_t>(sequence.count, sinks.rows - first); ++t) {
      std::copy_n(k.row(sequence.first_token + t), k.cols, sinks.row(first + t));
    }
  }
}

/// Adds writes of the keys of sinks that this pass moves, rotated to where they stand in it.
Status RotateSinks(const Step& step, int layer, const AttentionSpec& spec, std::vector<KvWrite>& writes) {
  if (step.sink_rows == 0) return OkStatus();
  ASSIGN_OR_RETURN(MatView<float> keys, NewMatrix(step.ctx, step.sink_rows, int64_t{spec.n_kv_heads} * spec.head_dim));
  int64_t row = 0;
  for (size_t s = 0; s < step.batch.sequences.size(); ++s) {
    const int64_t count = step.sinks[s].count;
    if (count == 0) continue;
    const SeqId seq = step.batch.sequences[s].seq;
    const MatView<float> originals = step.cache.SinkKeys(seq, layer - step.cached_from);
    for (int64_t i = 0; i < count; ++i) std::copy_n(originals.row(i), originals.cols, keys.row(row + i));
    writes.push_back({.k = keys.Rows(row, count), .v = {}, .kv = step.cache.View(seq, layer - step.cached_from)});
    row += count;
  }
  const auto& rope = std::get<RopePosition>(step.spec.position);
  RotateHeads(step.ctx, keys, spec.head_dim, step.sink_cos_sin, rope.interleaved);
  return OkStatus();
}

/// q, k (and v) as they go into the cache: clipped, normalised per head, rotated.
void FinishQkv(const Step& step, int layer, const LayerWeights& weights, MatView<float> qkv, MatView<float> q,
               MatView<float> k) {
  const AttentionSpec& spec = step.spec.layers[static_cast<size_t>(layer)].attention;
  if (spec.qkv_clip > 0.0f) ClampInPlace(step.ctx, qkv, spec.qkv_clip);
  if (spec.qk_norm == QkNorm::kPerHead) {
    NormalizeHeads(step.ctx, q, spec.head_dim, ToArgs(spec.qk_norm_spec, weights.q_norm), false);
    NormalizeHeads(step.ctx, k, spec.head_dim, ToArgs(spec.qk_norm_spec, weights.k_norm), false);
  } else if (spec.qk_norm == QkNorm::kFullWidth) {
    Normalize(step.ctx, q, ToArgs(spec.qk_norm_spec, weights.q_norm), q);
    Normalize(step.ctx, k, ToArgs(spec.qk_norm_spec, weights.k_norm), k);
  }
  if (const auto* rope = std::get_if<RopePosition>(&step.spec.position)) {
    KeepSinkKeys(step, layer, k);
    RotateHeads(step.ctx, q, spec.head_dim, step.cos_sin, rope->interleaved);
    RotateHeads(step.ctx, k, spec.head_dim, step.cos_sin, rope->interleaved);
  }
}

/// h → concatenated heads, [tokens, n_heads·head_dim], before the output projection.
Result<MatView<float>> AttendHeads(const Step& step, int layer, const LayerWeights& weights, MatView<const float> h) {
  const AttentionSpec& spec = step.spec.layers[static_cast<size_t>(layer)].attention;
  const int64_t q_width = int64_t{spec.n_heads} * spec.head_dim;
  const int64_t kv_width = int64_t{spec.n_kv_heads} * spec.head_dim;
  ASSIGN_OR_RETURN(MatView<float> qkv, NewMatrix(step.ctx, h.rows, q_width + 2 * kv_width));
  ASSIGN_OR_RETURN(MatView<float> out, NewMatrix(step.ctx, h.rows, q_width));
  int64_t first = 0;
  for (const PackedWeight& part : weights.qkv) {
    const float* const bias = weights.qkv_bias ? weights.qkv_bias + first : nullptr;
    RETURN_IF_ERROR(MatMul(step.ctx, h, part, {.bias = bias}, qkv.Cols(first, part.rows)));
    first += part.rows;
  }
  if (step.last == LayerPart::kQkv) return out;
  const MatView<float> q = qkv.Cols(0, q_width);
  const MatView<float> k = qkv.Cols(q_width, kv_width);
  const MatView<float> v = qkv.Cols(q_width + kv_width, kv_width);
  FinishQkv(step, layer, weights, qkv, q, k);

  const auto* alibi = std::get_if<AlibiPosition>(&step.spec.position);
  const LayerPattern pattern = PatternOf(step.batch.attention, layer, spec.window);
  std::vector<KvWrite> writes;
  std::vector<AttentionArgs> sequences;
  RETURN_IF_ERROR(RotateSinks(step, layer, spec, writes));
  for (const Piece& piece : step.pieces) {
    KvView kv = step.cache.View(step.batch.sequences[piece.sequence].seq, layer - step.cached_from);
    if (kv.positions == nullptr) kv.length = piece.slot + piece.rows;
    writes.push_back({.k = k.Rows(piece.first_row, piece.rows),
                      .v = v.Rows(piece.first_row, piece.rows),
                      .kv = kv,
                      .first_slot = piece.slot});
    sequences.push_back({.q = q.Rows(piece.first_row, piece.rows),
                         .out = out.Rows(piece.first_row, piece.rows),
                         .kv = kv,
                         .first_slot = piece.slot,
                         .n_heads = spec.n_heads,
                         .scale = spec.scale,
                         .softcap = spec.softcap,
                         .window = pattern.window,
                         .stride = pattern.stride,
                         .local = pattern.local,
                         .alibi_slopes = alibi ? alibi->slopes.data() : nullptr,
                         .alibi_bf16 = alibi && alibi->bf16_rounding,
                         .alibi_scale = alibi ? alibi->scale : 1.0f,
                         .tree = step.tree_views.empty() ? nullptr : &step.tree_views[piece.sequence]});
  }
  WriteKv(step.ctx, writes);
  RETURN_IF_ERROR(step.batch.attention.plain ? AttentionPlain(step.ctx, sequences) : Attention(step.ctx, sequences));
  return out;
}

/// x += norm?(h · W): the end of a branch, with its own norm if it has one.
Status AddBranch(const Step& step, MatView<const float> h, const Linear& linear,
                 const std::optional<NormSpec>& norm_spec, const Norm& norm, MatView<float> x) {
  if (!norm_spec) return MatMul(step.ctx, h, linear.weight, {.bias = linear.bias, .accumulate = true}, x);
  ASSIGN_OR_RETURN(MatView<float> branch, NewMatrix(step.ctx, x.rows, x.cols));
  RETURN_IF_ERROR(MatMul(step.ctx, h, linear.weight, {.bias = linear.bias}, branch));
  Normalize(step.ctx, branch, ToArgs(*norm_spec, norm), branch);
  AddInPlace(step.ctx, branch, 1.0f, x);
  return OkStatus();
}

/// x += ffn(h).
Status RunFfn(const Step& step, const LayerSpec& spec, const LayerWeights& weights, MatView<const float> h,
              MatView<float> x) {
  if (spec.ffn.moe.n_experts > 0) {
    ASSIGN_OR_RETURN(MatView<float> mixed, NewMatrix(step.ctx, x.rows, x.cols));
    RETURN_IF_ERROR(RunExperts(step.ctx, spec.ffn, weights, h, mixed));
    if (spec.ffn_branch_norm) {
      Normalize(step.ctx, mixed, ToArgs(*spec.ffn_branch_norm, weights.ffn_branch_norm), mixed);
    }
    AddInPlace(step.ctx, mixed, 1.0f, x);
    return OkStatus();
  }
  ASSIGN_OR_RETURN(MatView<float> inner, NewMatrix(step.ctx, h.rows, spec.ffn.width));
  RETURN_IF_ERROR(MatMul(step.ctx, h, weights.ffn.up.weight,
                         {.bias = weights.ffn.up.bias, .activation = spec.ffn.activation, .gated = spec.ffn.gated},
                         inner));
  if (step.last == LayerPart::kUp) return OkStatus();
  return AddBranch(step, inner, weights.ffn.down, spec.ffn_branch_norm, weights.ffn_branch_norm, x);
}

/// The norm's output in `buffer`, or x itself when there is none.
MatView<const float> NormOrSelf(const Step& step, const std::optional<NormSpec>& spec, const Norm& norm,
                                MatView<const float> x, MatView<float> buffer) {
  if (!spec) return x;
  Normalize(step.ctx, x, ToArgs(*spec, norm), buffer);
  return buffer;
}

/// One decoder layer, in place on the residual stream x: [tokens, width].
Status RunLayer(const Step& step, int layer, const LayerWeights& weights, MatView<float> x) {
  const LayerSpec& spec = step.spec.layers[static_cast<size_t>(layer)];
  ASSIGN_OR_RETURN(MatView<float> attn_buffer, NewMatrix(step.ctx, x.rows, x.cols));
  const MatView<const float> attn_in = NormOrSelf(step, spec.attn_norm, weights.attn_norm, x, attn_buffer);
  ASSIGN_OR_RETURN(const MatView<float> heads, AttendHeads(step, layer, weights, attn_in));
  if (step.last == LayerPart::kQkv) return OkStatus();

  if (spec.parallel) {
    // Both branches read x as it was, so the FFN's input is made before attention is added.
    MatView<const float> ffn_in = attn_in;
    if (spec.ffn_norm || attn_in.data == x.data) {
      ASSIGN_OR_RETURN(MatView<float> ffn_buffer, NewMatrix(step.ctx, x.rows, x.cols));
      if (spec.ffn_norm) {
        Normalize(step.ctx, x, ToArgs(*spec.ffn_norm, weights.ffn_norm), ffn_buffer);
      } else {
        std::copy_n(x.data, x.rows * x.cols, ffn_buffer.data);
      }
      ffn_in = ffn_buffer;
    }
    RETURN_IF_ERROR(AddBranch(step, heads, weights.out, spec.attn_branch_norm, weights.attn_branch_norm, x));
    if (step.last == LayerPart::kOut) return OkStatus();
    return RunFfn(step, spec, weights, ffn_in, x);
  }

  RETURN_IF_ERROR(AddBranch(step, heads, weights.out, spec.attn_branch_norm, weights.attn_branch_norm, x));
  if (step.last == LayerPart::kOut) return OkStatus();
  if (spec.attn_residual_norm) {
    Normalize(step.ctx, x, ToArgs(*spec.attn_residual_norm, weights.attn_residual_norm), x);
  }
  const MatView<const float> ffn_in = NormOrSelf(step, spec.ffn_norm, weights.ffn_norm, x, attn_buffer);
  RETURN_IF_ERROR(RunFfn(step, spec, weights, ffn_in, x));
  if (spec.ffn_residual_norm) {
    Normalize(step.ctx, x, ToArgs(*spec.ffn_residual_norm, weights.ffn_residual_norm), x);
  }
  return OkStatus();
}

}  // namespace

Result<MatView<float>> RunForward(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights,
                                  const ForwardBatch& batch, KvCache& cache) {
  Step step = MakeStep(ctx, spec, batch, cache);
  const int64_t outputs = static_cast<int64_t>(batch.output_rows.size());
  const int64_t head_width = spec.project_out ? spec.embedding_width : spec.width;
  ASSIGN_OR_RETURN(MatView<float> hidden, NewMatrix(ctx, outputs, head_width));
  const Arena::Mark step_mark = ctx.scratch->GetMark();

  ASSIGN_OR_RETURN(MatView<float> x, NewMatrix(ctx, static_cast<int64_t>(batch.tokens.size()), spec.width));
  if (const auto* rope = std::get_if<RopePosition>(&spec.position)) RETURN_IF_ERROR(FillRope(*rope, step));
  const Arena::Mark layer_mark = ctx.scratch->GetMark();
  RETURN_IF_ERROR(Embed(step, weights, x));
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    ctx.scratch->Rewind(layer_mark);
    RETURN_IF_ERROR(RunLayer(step, static_cast<int>(layer), weights.layers[layer], x));
  }
  ctx.scratch->Rewind(layer_mark);

  MatView<float> kept = hidden;
  if (spec.project_out) {
    ASSIGN_OR_RETURN(kept, NewMatrix(ctx, outputs, spec.width));
  }
  for (int64_t r = 0; r < outputs; ++r) {
    std::copy_n(x.row(batch.output_rows[static_cast<size_t>(r)]), spec.width, kept.row(r));
  }
  if (spec.final_norm) Normalize(ctx, kept, ToArgs(*spec.final_norm, weights.final_norm), kept);
  if (spec.project_out) RETURN_IF_ERROR(MatMul(ctx, kept, weights.project_out, {}, hidden));
  ctx.scratch->Rewind(step_mark);
  return hidden;
}

Status RunEmbedding(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights, const ForwardBatch& batch,
                    KvCache& cache, MatView<float> x) {
  return Embed(MakeStep(ctx, spec, batch, cache), weights, x);
}

Status RunSingleLayer(ExecContext& ctx, const DecoderSpec& spec, const LayerWeights& weights, int layer,
                      const ForwardBatch& batch, KvCache& cache, LayerPart last, MatView<float> x) {
  Step step = MakeStep(ctx, spec, batch, cache);
  step.cached_from = layer;
  step.last = last;
  if (const auto* rope = std::get_if<RopePosition>(&spec.position)) RETURN_IF_ERROR(FillRope(*rope, step));
  return RunLayer(step, layer, weights, x);
}

Status RunHead(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights, MatView<const float> hidden,
               MatView<float> logits) {
  const PackedWeight& head = spec.head.tied ? weights.embedding : weights.head.weight;
  RETURN_IF_ERROR(MatMul(ctx, hidden, head, {.bias = weights.head.bias}, logits));
  if (spec.head.scale != 1.0f) ScaleInPlace(ctx, logits, spec.head.scale);
  if (spec.head.softcap > 0.0f) SoftcapInPlace(ctx, logits, spec.head.softcap);
  return OkStatus();
}

}  // namespace kvasir
