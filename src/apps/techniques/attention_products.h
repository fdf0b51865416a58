// A1 as fast as products of matrices can make it: the baseline that A2's speed is compared with.
#pragma once

#include <vector>

#include "apps/techniques/attention_layer.h"

namespace kvasir::apps {

/// Causal attention of a prompt to itself in three steps for each head: S = Q·Kᵀ · scale into a matrix of T² scores in
/// fp32, softmax over its rows, S·V. The products are MatMul's, in the cache's type (bf16 or f32), and leave out the
/// blocks above the diagonal. Keys and values are packed beforehand, as a cache has them ready.
class AttentionByProducts {
 public:
  /// REQUIRES: as many KV heads as query heads; type f32 or bf16; `layer` outlives this.
  static Result<AttentionByProducts> Make(const AttentionLayer& layer, int64_t tokens);

  /// Writes to layer.out(). Takes 4·T² bytes of ctx.scratch, and what MatMul takes. Adds the seconds that softmax took
  /// to *softmax_seconds.
  Status Run(ExecContext& ctx, double* softmax_seconds) const;

 private:
  AttentionByProducts(const AttentionLayer& layer, int64_t tokens) : layer_(&layer), tokens_(tokens) {}
  Status RunHead(ExecContext& ctx, int64_t head, double* softmax_seconds) const;
  void Softmax(ExecContext& ctx, MatView<float> scores) const;

  const AttentionLayer* layer_;
  int64_t tokens_;
  std::vector<PackedWeight> keys_;                 // [heads], each [tokens, head_dim]
  std::vector<std::vector<PackedWeight>> values_;  // [heads][blocks of tokens], each [head_dim, tokens]
  std::vector<Buffer> memory_;
};

}  // namespace kvasir::apps
