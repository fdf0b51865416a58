// How well a model predicts a text that it reads as a stream: token by token, from what its cache still keeps.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "decode/softmax.h"
#include "engine/engine.h"

namespace kvasir::apps {

/// Losses of scored tokens, in nats.
struct Losses {
  double sum = 0;
  double squares = 0;
  int64_t count = 0;

  void Add(double loss) {
    sum += loss;
    squares += loss * loss;
    ++count;
  }
  void Add(const Losses& other) {
    sum += other.sum;
    squares += other.squares;
    count += other.count;
  }
  double Mean() const { return sum / static_cast<double>(std::max<int64_t>(count, 1)); }
  double Perplexity() const { return std::exp(Mean()); }
  /// Of the mean, as if tokens were independent.
  double Error() const {
    const auto n = static_cast<double>(count);
    return count > 1 ? std::sqrt(std::max(0.0, squares / n - Mean() * Mean()) / (n - 1)) : 0.0;
  }
};

/// A stretch of a stream in which tokens were scored.
struct StreamPart {
  int64_t end = 0;  // in tokens of the text
  Losses losses;
  double seconds = 0;  // that running and scoring it took
};

struct StreamLosses {
  Losses all;
  std::vector<StreamPart> parts;
};

/// The loss of `target` by its row of logits. InvalidData where these hold NaN; `position` names the token then.
Result<double> TokenLoss(const RowSummary& summary, std::span<const float> row, TokenId target, int64_t position);

/// Reads `tokens` once, from end to end and token by token, as a model that never stops would, and scores every
/// `every`-th of them; parts are `part_tokens` long. progress(tokens read, losses so far) is called after each scored
/// one. REQUIRES: more than `every` tokens.
Result<StreamLosses> ScoreStream(Engine& engine, std::span<const TokenId> tokens, int64_t every, int64_t part_tokens,
                                 const std::function<void(int64_t, const Losses&)>& progress = {});

}  // namespace kvasir::apps
