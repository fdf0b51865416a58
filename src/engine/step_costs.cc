#include "engine/step_costs.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace kvasir {
namespace {

constexpr size_t kRemembered = 128;  // steps, of each kind
// What is typical follows texts that grow, and the place in a prompt, on which a token's cost depends.
constexpr size_t kTypicalAlone = 64;
constexpr size_t kTypical = 32;
// A machine that slows down is believed sooner than one that has become faster.
constexpr size_t kLatest = 8;
constexpr double kLatestShare = 0.85;
// The first steps with prompts may be cheap by chance: of a few, one of the dearer ones is believed.
constexpr double kCarefulMedian = 0.8;
// A rare step: a few of those remembered are slower still. The prompt loses little for it, since nothing is as
// noisy as the slowest of a few steps.
constexpr double kRare = 0.97;
constexpr size_t kRareFrom = 32;  // steps, to know what is rare
constexpr double kLeastForRare = 0.92;
// What is known of short pieces says little of long ones.
constexpr double kGrowth = 1.5;
constexpr double kFirstTokens = 16;
// No single step counts for more tokens, however long it was.
constexpr int64_t kMostWeight = 32;
constexpr int64_t kAloneEvery = 64;  // steps with prompts

}  // namespace

void RecentValues::Add(double value, int64_t weight) {
  if (values_.size() < most_) {
    values_.push_back({value, weight});
  } else {
    values_[next_] = {value, weight};
  }
  next_ = (next_ + 1) % most_;
}

double RecentValues::Quantile(double q, size_t newest) const {
  std::vector<Value> sorted;
  int64_t total = 0;
  for (size_t ago = 0; ago < std::min(newest, values_.size()); ++ago) {
    sorted.push_back(Back(ago));
    total += sorted.back().weight;
  }
  std::ranges::sort(sorted, {}, &Value::value);
  double left = q * static_cast<double>(total);
  for (const Value& value : sorted) {
    left -= static_cast<double>(value.weight);
    if (left <= 0) return value.value;
  }
  return sorted.back().value;
}

StepCosts::StepCosts() : token_ms_(kRemembered), pieces_(kLatest), lone_token_ms_(kRemembered) {}

void StepCosts::Add(int64_t answers, int64_t prompt_tokens, double milliseconds) {
  if (!(milliseconds > 0) || !std::isfinite(milliseconds) || answers + prompt_tokens <= 0) return;
  if (prompt_tokens == 0) {
    answers_ms_.try_emplace(answers, kRemembered).first->second.Add(milliseconds);
    since_alone_ = 0;
    return;
  }
  if (answers > 0) ++since_alone_;
  // Even a short prompt by itself reads all weights, as an answer does: that is no cost of its tokens.
  const RecentValues* const alone = AnswersAlone(std::max<int64_t>(answers, 1));
  if (alone == nullptr) return;
  // Noise may make a step cheaper than its answers alone.
  const double least = milliseconds / static_cast<double>(answers + prompt_tokens) / 4;
  const double more = milliseconds - alone->Quantile(0.5, kTypicalAlone);
  (answers > 0 ? token_ms_ : lone_token_ms_)
      .Add(std::max(more / static_cast<double>(prompt_tokens), least), std::min(prompt_tokens, kMostWeight));
  if (answers > 0) pieces_.Add(static_cast<double>(prompt_tokens));
}

bool StepCosts::WantsAnswersAlone() const { return answers_ms_.empty() || since_alone_ >= kAloneEvery; }

/// As measured, or as of the nearest number that was.
const RecentValues* StepCosts::AnswersAlone(int64_t answers) const {
  if (answers_ms_.empty()) return nullptr;
  const auto above = answers_ms_.lower_bound(answers);
  if (above == answers_ms_.begin()) return &above->second;
  const auto below = std::prev(above);
  if (above == answers_ms_.end()) return &below->second;
  return above->first - answers < answers - below->first ? &above->second : &below->second;
}

std::optional<int64_t> StepCosts::PromptTokens(int64_t answers, double slower, bool own_pass) const {
  const RecentValues* const alone = AnswersAlone(answers);
  const bool beside = token_ms_.size() > 0;
  const RecentValues& costs = beside ? token_ms_ : lone_token_ms_;
  if (alone == nullptr || costs.size() == 0) return std::nullopt;
  const double typical_ms = alone->Quantile(0.5, kTypicalAlone);
  const double middle = costs.size() < kLatest ? kCarefulMedian : 0.5;
  const double token_ms = std::max(costs.Quantile(middle, kTypical), kLatestShare * costs.Quantile(middle, kLatest));
  const double pass_ms = own_pass ? AnswersAlone(1)->Quantile(0.5, kTypicalAlone) : 0;
  double tokens = ((slower - 1) * typical_ms - pass_ms) / token_ms;
  if (beside && token_ms_.size() >= kRareFrom && alone->size() >= kRareFrom) {
    const double bearable = slower * alone->Quantile(kRare, kRemembered) - typical_ms - pass_ms;
    // Costs learnt from short pieces pay for widening the weights with few tokens, and would stay short; where even
    // rare steps could bear more, the budget goes half the way.
    const double rare = bearable / token_ms_.Quantile(kRare, kRemembered);
    tokens = std::max((tokens + rare) / 2, kLeastForRare * tokens);
  }
  const double most = beside ? std::max(kGrowth * pieces_.Quantile(1, kLatest), kFirstTokens) : kFirstTokens;
  return static_cast<int64_t>(std::clamp(tokens, 0.0, most));
}

}  // namespace kvasir
