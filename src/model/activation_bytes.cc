#include "model/activation_bytes.h"

#include <algorithm>

#include "base/buffer.h"
#include "base/checked.h"
#include "kernels/ops.h"

namespace kvasir {
namespace {

int64_t Floats(int64_t count) { return Arena::Occupied(count * static_cast<int64_t>(sizeof(float))); }

class Estimate {
 public:
  Estimate(const DecoderSpec& spec, std::span<const MatrixShape> matrices, const RunShape& run)
      : spec_(spec), run_(run), tokens_(std::min(run.chunk, std::max(run.context, int64_t{1}) * run.sequences)) {
    // Few tokens may take more for each thread than many do.
    for (const MatrixShape& m : matrices) {
      constexpr static int32_t kAnyOrder = 0;
      const PackedWeight w{
          .format = m.format, .rows = m.rows, .cols = m.cols, .order = m.changes_inputs ? &kAnyOrder : nullptr};
      for (int64_t tokens = 1; tokens < 2 * tokens_; tokens *= 2) {
        const int64_t count = std::min(tokens, tokens_);
        product_ =
            std::max(product_, MatMulScratchBytes(*run.kernels, run.threads, count, w, m.gated, run.round_weights));
      }
    }
  }

  int64_t Bytes() const {
    const int64_t hidden = Rows(spec_.project_out ? spec_.embedding_width : spec_.width);
    int64_t pass = Embedding();
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      pass = std::max(pass, Layer(spec_.layers[i], static_cast<int64_t>(i)));
    }
    if (spec_.project_out) pass = std::max(pass, Rows(spec_.width) + product_);
    pass += Rows(spec_.width);  // the residual stream
    if (const auto* rope = std::get_if<RopePosition>(&spec_.position)) {
      pass += Rows(rope->dim) + Floats(SinkRows() * rope->dim);
    }
    const int64_t text_logits = Floats(std::min(kTextLogitRows, tokens_) * spec_.vocab_size) + product_;
    return hidden + std::max(pass, text_logits) + Floats(run_.sequences * spec_.vocab_size);
  }

 private:
  int64_t Rows(int64_t width) const { return Floats(tokens_ * width); }

  /// Keys of sinks that a step rotates anew.
  int64_t SinkRows() const {
    return std::holds_alternative<RopePosition>(spec_.position) ? run_.bound.sinks * run_.sequences : 0;
  }

  int64_t Embedding() const {
    int64_t bytes = spec_.project_in ? Rows(spec_.embedding_width) + product_ : 0;
    if (std::holds_alternative<LearnedPosition>(spec_.position)) bytes += Rows(spec_.width);
    return bytes;
  }

  int64_t Attend(const AttentionSpec& a, int64_t layer) const {
    if (!run_.attention.plain) {
      const LayerPattern pattern = PatternOf(run_.attention, layer, a.window);
      return AttentionScratchBytes(
          {.threads = run_.threads,
           .type = run_.kv_type,
           .n_heads = a.n_heads,
           .kv_heads = a.n_kv_heads,
           .head_dim = a.head_dim,
           .tokens = tokens_,
           .slots = run_.context,
           .sequences = run_.sequences * (run_.bound.tokens > 0 ? 2 : 1),  // its ring may cut a pass in two
           .stride = pattern.stride,
           .local = pattern.local});
    }
    // All scores of a chunk, and keys and values as fp32.
    return Floats(tokens_ * a.n_heads * run_.context) + 2 * Floats(a.n_kv_heads * run_.context * a.head_dim);
  }

  int64_t Layer(const LayerSpec& layer, int64_t index) const {
    const AttentionSpec& a = layer.attention;
    const int64_t width = spec_.width;
    const int64_t heads = int64_t{a.n_heads} * a.head_dim;
    const int64_t kv = int64_t{a.n_kv_heads} * a.head_dim;
    // The branch's input, QKV and the heads' output stay until the layer ends.
    const int64_t kept = Rows(width) + Rows(heads + 2 * kv) + Rows(heads) + Floats(SinkRows() * kv);
    int64_t rest = layer.attn_branch_norm ? Rows(width) : 0;
    if (layer.parallel) rest += Rows(width);
    const FfnSpec& ffn = layer.ffn;
    if (ffn.moe.n_experts > 0) {
      // The mixture, the router's scores, and an expert's inputs, inner values and outputs.
      rest += 3 * Rows(width) + Rows(ffn.moe.n_experts) + Rows(ffn.width);
    } else {
      rest += Rows(ffn.width) + (layer.ffn_branch_norm ? Rows(width) : 0);
    }
    return kept + std::max(std::max(product_, Attend(a, index)), rest + product_);
  }

  const DecoderSpec& spec_;
  const RunShape& run_;
  int64_t tokens_;       // of the longest pass
  int64_t product_ = 0;  // scratch of the matrix product that takes most
};

}  // namespace

int64_t ActivationBytes(const DecoderSpec& spec, std::span<const MatrixShape> matrices, const RunShape& run) {
  return Estimate(spec, matrices, run).Bytes();
}

}  // namespace kvasir
