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

/// See Model::Logits.
Status RunHead(ExecContext& ctx, const DecoderSpec& spec, const ModelWeights& weights, MatView<const float> hidden,
               MatView<float> logits);

}  // namespace kvasir
