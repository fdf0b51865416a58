// The forward pass: one function per part of a layer, configured by DecoderSpec alone.
#pragma once

#include "base/status.h"
#include "kernels/ops.h"
#include "kv/cache.h"
#include "model/model.h"
#include "model/weights.h"

namespace kvasir {

/// See Model::Forward, which checks the batch before it calls this.
Result<MatView<float>> RunForward(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights,
                                  const ForwardBatch& batch, KvCache& cache);

/// x = the batch's tokens as the first layer sees them. x: [tokens, width]. The batch is checked as in Model::Forward.
Status RunEmbedding(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights, const ForwardBatch& batch,
                    KvCache& cache, MatView<float> x);

/// The matrix products of a layer in the order in which they run.
enum class LayerPart { kQkv, kOut, kUp, kDown };

/// Layer `layer` alone, in place on the batch's residual stream x: [tokens, width]; of batch.tokens only the number
/// counts. `cache` holds this layer only, as its layer 0. A run that ends after the product `last`, not kDown, leaves
/// nothing of use in x: it is for observers. (A mixture's experts run as one part.)
Status RunSingleLayer(ExecContext& ctx, const DecoderSpec& spec, const LayerWeights& weights, int layer,
                      const ForwardBatch& batch, KvCache& cache, LayerPart last, MatView<float> x);

/// See Model::Logits.
Status RunHead(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights, MatView<const float> hidden,
               MatView<float> logits);

}  // namespace kvasir
