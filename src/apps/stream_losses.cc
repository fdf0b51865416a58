#include "apps/stream_losses.h"

#include <chrono>

namespace kvasir::apps {

Result<double> TokenLoss(const RowSummary& summary, std::span<const float> row, TokenId target, int64_t position) {
  if (summary.has_nan) return InvalidData("token {}: the logits hold NaN", position);
  return -summary.LogProb(row[static_cast<size_t>(target)]);
}

Result<StreamLosses> ScoreStream(Engine& engine, std::span<const TokenId> tokens, int64_t every, int64_t part_tokens,
                                 const std::function<void(int64_t, const Losses&)>& progress) {
  using Clock = std::chrono::steady_clock;
  const auto length = static_cast<int64_t>(tokens.size());
  KVASIR_CHECK(every >= 1 && part_tokens >= 1 && length > every);
  StreamLosses scored;
  Clock::time_point before = Clock::now();
  const auto score = [&](int64_t first, MatView<const float> logits) -> Status {
    for (int64_t r = 0; r < logits.rows; ++r) {
      // A row predicts the token after it.
      const int64_t target = first + r + 1;
      const std::span<const float> row(logits.row(r), static_cast<size_t>(logits.cols));
      ASSIGN_OR_RETURN(const double loss, TokenLoss(Summarize(row), row, tokens[static_cast<size_t>(target)], target));
      scored.all.Add(loss);
      const int64_t end = std::min((target / part_tokens + 1) * part_tokens, length);
      if (scored.parts.empty() || scored.parts.back().end != end) scored.parts.push_back({.end = end, .losses = {}});
      StreamPart& part = scored.parts.back();
      part.losses.Add(loss);
      const Clock::time_point now = Clock::now();
      part.seconds += std::chrono::duration<double>(now - before).count();
      before = now;
    }
    if (progress) progress(first + logits.rows, scored.all);
    return OkStatus();
  };
  // The last token predicts nothing that is known.
  RETURN_IF_ERROR(engine.ForEachLogits(tokens.first(tokens.size() - 1),
                                       LogitRows{.first = every - 1, .every = every, .one_by_one = true}, score));
  return scored;
}

}  // namespace kvasir::apps
