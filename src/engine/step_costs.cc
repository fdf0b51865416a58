#include "engine/step_costs.h"

#include <algorithm>

namespace kvasir {
namespace {

// Old enough not to follow every hiccup, young enough to follow texts that grow.
constexpr double kNewShare = 0.2;

void Follow(std::optional<double>& average, double value) {
  average = average ? *average + kNewShare * (value - *average) : value;
}

}  // namespace

void StepCosts::Add(int64_t answers, int64_t prompt_tokens, double milliseconds) {
  if (prompt_tokens == 0) {
    if (answers == 0) return;
    std::optional<double> average;
    if (const auto known = answers_ms_.find(answers); known != answers_ms_.end()) average = known->second;
    Follow(average, milliseconds);
    answers_ms_[answers] = *average;
    return;
  }
  // Even a short prompt by itself reads all weights, as an answer does: that is no cost of its tokens.
  const std::optional<double> alone = AnswersAlone(std::max<int64_t>(answers, 1));
  if (!alone) return;
  // Noise may make a step cheaper than its answers alone.
  const double least = milliseconds / static_cast<double>(answers + prompt_tokens) / 4;
  Follow(prompt_token_ms_, std::max((milliseconds - *alone) / static_cast<double>(prompt_tokens), least));
}

/// As measured, or as of the nearest number that was.
std::optional<double> StepCosts::AnswersAlone(int64_t answers) const {
  const auto above = answers_ms_.lower_bound(answers);
  if (above == answers_ms_.begin()) return above == answers_ms_.end() ? std::optional<double>() : above->second;
  const auto below = std::prev(above);
  if (above == answers_ms_.end()) return below->second;
  return above->first - answers < answers - below->first ? above->second : below->second;
}

std::optional<int64_t> StepCosts::PromptTokens(int64_t answers, double slower) const {
  const std::optional<double> alone = AnswersAlone(answers);
  if (!alone || !prompt_token_ms_) return {};
  const double tokens = (slower - 1) * *alone / *prompt_token_ms_;
  return static_cast<int64_t>(std::clamp(tokens, 0.0, 1e9));
}

}  // namespace kvasir
