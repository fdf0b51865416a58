#include "engine/step_costs.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace kvasir {
namespace {

// Shares of a new measurement: small enough not to follow every hiccup, large enough to follow texts that grow. What
// answers take alone is seen at every step while there are no prompts, and seldom while there are.
constexpr double kShareOfPromptToken = 0.1;
constexpr double kShareOfStep = 1.0 / 32;
constexpr double kShareOfRareStep = 0.2;
constexpr int64_t kAloneEvery = 64;  // steps with prompts

}  // namespace

void StepCosts::Add(int64_t answers, int64_t prompt_tokens, double milliseconds) {
  if (!(milliseconds > 0) || !std::isfinite(milliseconds) || answers + prompt_tokens <= 0) return;
  if (prompt_tokens == 0) {
    const double rarity = static_cast<double>(since_alone_) / kAloneEvery;
    answers_ms_[answers].Add(milliseconds, std::max(kShareOfStep, kShareOfRareStep * rarity));
    since_alone_ = 0;
    return;
  }
  if (answers > 0) ++since_alone_;
  // Even a short prompt by itself reads all weights, as an answer does: that is no cost of its tokens.
  const std::optional<double> alone = AnswersAlone(std::max<int64_t>(answers, 1));
  if (!alone) return;
  // Noise may make a step cheaper than its answers alone.
  const double least = milliseconds / static_cast<double>(answers + prompt_tokens) / 4;
  prompt_token_ms_.Add(std::max((milliseconds - *alone) / static_cast<double>(prompt_tokens), least),
                       kShareOfPromptToken);
}

void StepCosts::Average::Add(double measured, double share) {
  // The mean of the first ones.
  value += (measured - value) * std::max(share, 1.0 / static_cast<double>(++count));
}

bool StepCosts::WantsAnswersAlone() const { return answers_ms_.empty() || since_alone_ >= kAloneEvery; }

/// As measured, or as of the nearest number that was.
std::optional<double> StepCosts::AnswersAlone(int64_t answers) const {
  if (answers_ms_.empty()) return std::nullopt;
  const auto above = answers_ms_.lower_bound(answers);
  if (above == answers_ms_.begin()) return above->second.value;
  const auto below = std::prev(above);
  if (above == answers_ms_.end()) return below->second.value;
  return above->first - answers < answers - below->first ? above->second.value : below->second.value;
}

std::optional<int64_t> StepCosts::PromptTokens(int64_t answers, double slower, bool own_pass) const {
  const std::optional<double> alone = AnswersAlone(answers);
  if (!alone || prompt_token_ms_.count == 0) return std::nullopt;
  const double pass_ms = own_pass ? *AnswersAlone(1) : 0;
  const double tokens = ((slower - 1) * *alone - pass_ms) / prompt_token_ms_.value;
  return static_cast<int64_t>(std::clamp(tokens, 0.0, 1e9));
}

}  // namespace kvasir
