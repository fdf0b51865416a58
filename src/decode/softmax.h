// Passes over one row of logits: maximum, log-sum-exp, weights. Plain code that every compiler turns into SIMD.
#pragma once

#include <span>

#include "text/vocab.h"

namespace kvasir {

/// What one pass over a row of logits tells.
struct RowSummary {
  float max = 0.0f;
  TokenId argmax = 0;        // the lowest id among equals
  double log_sum_exp = 0.0;  // of (logit - max); with max = +inf: log of the number of +inf
  bool has_nan = false;      // nothing else is meaningful then

  /// Natural log of the softmax probability of a token with this logit.
  double LogProb(float logit) const;
};

/// One pass over memory. Relative error of the sum: below 3e-7. REQUIRES: logits is not empty.
RowSummary Summarize(std::span<const float> logits);

/// Like Summarize without the sum: maximum, its lowest id, NaN.
RowSummary FindMax(std::span<const float> logits);

/// weights[i] = exp((logits[i] - max) * scale), 1 for the largest; returns their sum, added in a fixed order.
/// Relative error of a weight: 2e-7 * (1 + its exponent). weights: [logits.size()].
/// REQUIRES: max is finite and the largest logit; scale > 0. logits may hold -inf, not NaN.
double ExpWeights(std::span<const float> logits, float max, double scale, std::span<float> weights);

}  // namespace kvasir
