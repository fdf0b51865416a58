#include "engine/step_costs.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace kvasir {
namespace {

// Old enough not to follow every hiccup, young enough to follow texts that grow.
constexpr double kNewShare = 0.2;
constexpr int64_t kAloneEvery = 64;  // steps with prompts

double Follow(std::optional<double> average, double value) {
  return average ? *average + kNewShare * (value - *average) : value;
}

}  // namespace

void StepCosts::Add(int64_t answers, int64_t prompt_tokens, double milliseconds) {
  if (!(milliseconds > 0) || !std::isfinite(milliseconds) || answers + prompt_tokens <= 0) return;
  if (prompt_tokens == 0) {
    const auto known = answers_ms_.find(answers);
    answers_ms_[answers] = known == answers_ms_.end() ? milliseconds : Follow(known->second, milliseconds);
    since_alone_ = 0;
    return;
  }
  if (answers > 0) ++since_alone_;
  // Even a short prompt by itself reads all weights, as an answer does: that is no cost of its tokens.
  const std::optional<double> alone = AnswersAlone(std::max<int64_t>(answers, 1));
  if (!alone) return;
  // Noise may make a step cheaper than its answers alone.
  const double least = milliseconds / static_cast<double>(answers + prompt_tokens) / 4;
  prompt_token_ms_ =
      Follow(prompt_token_ms_, std::max((milliseconds - *alone) / static_cast<double>(prompt_tokens), least));
}

bool StepCosts::WantsAnswersAlone() const { return answers_ms_.empty() || since_alone_ >= kAloneEvery; }

/// As measured, or as of the nearest number that was.
std::optional<double> StepCosts::AnswersAlone(int64_t answers) const {
  if (answers_ms_.empty()) return std::nullopt;
  const auto above = answers_ms_.lower_bound(answers);
  if (above == answers_ms_.begin()) return above->second;
  const auto below = std::prev(above);
  if (above == answers_ms_.end()) return below->second;
  return above->first - answers < answers - below->first ? above->second : below->second;
}

std::optional<int64_t> StepCosts::PromptTokens(int64_t answers, double slower, bool own_pass) const {
  const std::optional<double> alone = AnswersAlone(answers);
  if (!alone || !prompt_token_ms_) return std::nullopt;
  const double pass_ms = own_pass ? *AnswersAlone(1) : 0;
  const double tokens = ((slower - 1) * *alone - pass_ms) / *prompt_token_ms_;
  return static_cast<int64_t>(std::clamp(tokens, 0.0, 1e9));
}

}  // namespace kvasir
