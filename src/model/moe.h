// Mixture of experts: a router sends every token to its best experts.
#pragma once

#include "base/status.h"
#include "kernels/ops.h"
#include "model/weights.h"

namespace kvasir {

/// out[t] = Σ over the top_k experts e of token t, ascending e: weight(t, e) · expert_e(h[t]).
/// Weights are the router's softmax, renormalised over the chosen ones if the spec says so (Mixtral,
/// arXiv:2401.04088). Each token's result does not depend on the others. h, out: [tokens, width], no alias.
Status RunExperts(ExecContext& ctx, const FfnSpec& spec, const LayerWeights& weights, MatView<const float> h,
                  MatView<float> out);

}  // namespace kvasir
