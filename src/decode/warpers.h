// Temperature and the warpers (top-k, top-p, min-p, typical-p): from processed logits to a distribution.
#pragma once

#include <span>
#include <vector>

#include "decode/sampling.h"
#include "text/vocab.h"

namespace kvasir {

/// A token that is still possible.
struct Candidate {
  TokenId id;
  float logit;
  float weight;  // exp((logit - max) / temperature), not normalised
};

/// The distribution that a token is drawn from, in one of two forms. Reused from token to token as scratch.
struct WarpedRow {
  bool dense = false;           // true: `weights` holds every token; false: `kept` holds the possible ones
  std::vector<float> weights;   // [vocab], scratch when not dense
  std::vector<Candidate> kept;  // by ascending id
  double total = 0.0;           // the sum of the weights

  /// The token at `u` in [0, 1) of the cumulative distribution in the order of ids. REQUIRES: total > 0.
  TokenId Pick(double u) const;
};

/// Applies temperature, top-k, top-p, min-p and typical-p in this order, as Hugging Face's warpers do:
/// top-k keeps ties with the k-th; of equal logits at top-p's edge the higher ids stay; typical-p keeps ties.
/// Where the cumulative mass meets a threshold within 1e-7 it counts as equal, because thresholds are decimal
/// fractions rounded to fp32. logits: [vocab] fp32 after the processors, no NaN; +inf are replaced (equally likely,
/// everything else impossible). `max` is the largest of them. REQUIRES: params.temperature > 0, max > -inf.
void Warp(const SamplingParams& params, std::span<float> logits, float max, WarpedRow& row);

}  // namespace kvasir
