#include "decode/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "decode/softmax.h"
#include "decode/warpers.h"

namespace kvasir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Scratch of the thread rather than of the sequence: it is as large as the vocabulary, and sequences are many.
struct Scratch {
  std::vector<float> raw;
  WarpedRow row;
};
Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

Status CheckRaw(const RowSummary& raw) {
  if (raw.has_nan) {
    return InvalidData(
        "the model's logits hold NaN; its weights are damaged or overflow in this precision (try --dtype f32)");
  }
  if (raw.max == -kInfinity) {
    return InvalidData("the model's logits are all -inf; its weights are damaged or overflow in this precision");
  }
  return OkStatus();
}

Status NothingLeft() {
  return InvalidArgument(
      "no token is left to choose: --logit-bias, --no-repeat-ngram, --min-new-tokens and --ignore-eos rule out every "
      "one (of those that a JSON schema allows, if there is one); relax one of them");
}

/// Makes tokens without their bit impossible.
void Forbid(std::span<const uint64_t> allowed, std::span<float> logits) {
  for (size_t word = 0; 64 * word < logits.size(); ++word) {
    const uint64_t bits = word < allowed.size() ? allowed[word] : 0;
    if (bits == ~uint64_t{0}) continue;
    const size_t end = std::min(logits.size(), 64 * (word + 1));
    for (size_t i = 64 * word; i < end; ++i) {
      if ((bits >> (i % 64) & 1) == 0) logits[i] = -kInfinity;
    }
  }
}

// Calls ban(next) for every token that followed an earlier occurrence of the last n-1 tokens.
// Knuth-Morris-Pratt, so that linear time holds for any text and n.
template <typename Ban>
void ForEachRepeat(std::span<const TokenId> history, size_t n, Ban ban) {
  if (history.size() + 1 < n || history.empty()) return;
  const auto pattern = history.last(n - 1);
  if (pattern.empty()) {
    for (const TokenId token : history) ban(token);
    return;
  }
  std::vector<size_t> failure(pattern.size(), 0);
  for (size_t i = 1, matched = 0; i < pattern.size(); ++i) {
    while (matched > 0 && pattern[i] != pattern[matched]) matched = failure[matched - 1];
    if (pattern[i] == pattern[matched]) ++matched;
    failure[i] = matched;
  }
  size_t matched = 0;
  for (size_t i = 0; i + 1 < history.size(); ++i) {
    while (matched > 0 && (matched == pattern.size() || history[i] != pattern[matched])) {
      matched = failure[matched - 1];
    }
    if (history[i] == pattern[matched]) ++matched;
    if (matched == pattern.size()) ban(history[i + 1]);
  }
}

}  // namespace

Status SamplingParams::Validate(int32_t vocab_size) const {
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return InvalidArgument("--logit-bias: token {} is not in the vocabulary (ids 0 to {})", token, vocab_size - 1);
    }
    if (std::isnan(bias) || bias == kInfinity) {
      return InvalidArgument("--logit-bias: {} for token {} is not a finite number or -inf", bias, token);
    }
  }
  // Written so that NaN fails every test.
  if (!(repetition_penalty > 0.0f && repetition_penalty < kInfinity)) {
    return InvalidArgument("--repeat-penalty {} is out of range: above 0 (1 is off)", repetition_penalty);
  }
  if (!(std::abs(presence_penalty) <= 2.0f)) {
    return InvalidArgument("--presence-penalty {} is out of range: -2 to 2 (0 is off)", presence_penalty);
  }
  if (!(std::abs(frequency_penalty) <= 2.0f)) {
    return InvalidArgument("--frequency-penalty {} is out of range: -2 to 2 (0 is off)", frequency_penalty);
  }
  if (no_repeat_ngram < 0) {
    return InvalidArgument("--no-repeat-ngram {} is out of range: 0 or more (0 is off)", no_repeat_ngram);
  }
  if (min_new_tokens < 0) {
    return InvalidArgument("--min-new-tokens {} is out of range: 0 or more", min_new_tokens);
  }
  if (!(temperature >= 0.0f && temperature < kInfinity)) {
    return InvalidArgument("--temp {} is out of range: 0 or more (0 is greedy)", temperature);
  }
  if (top_k < 0) return InvalidArgument("--top-k {} is out of range: 0 or more (0 is off)", top_k);
  if (!(top_p > 0.0f && top_p <= 1.0f)) {
    return InvalidArgument("--top-p {} is out of range: above 0, at most 1 (1 is off)", top_p);
  }
  if (!(min_p >= 0.0f && min_p <= 1.0f)) {
    return InvalidArgument("--min-p {} is out of range: 0 to 1 (0 is off)", min_p);
  }
  if (!(typical_p > 0.0f && typical_p <= 1.0f)) {
    return InvalidArgument("--typical-p {} is out of range: above 0, at most 1 (1 is off)", typical_p);
  }
  if (min_tokens_to_keep < 1) {
    return InvalidArgument("min_tokens_to_keep {} is out of range: 1 or more", min_tokens_to_keep);
  }
  return OkStatus();
}

Sampler::Sampler(const SamplingParams& params, std::span<const TokenId> prompt, std::span<const TokenId> eos,
                 uint64_t stream)
    : params_(params), eos_(eos.begin(), eos.end()), random_(params.seed, stream) {
  if (params.no_repeat_ngram > 0) {
    history_.assign(prompt.begin(), prompt.end());
    prompt_size_ = prompt.size();
  }
  if (params.repetition_penalty != 1.0f) {
    for (const TokenId token : prompt) CountToken(token, false);
  }
}

bool Sampler::counts_tokens() const {
  return params_.repetition_penalty != 1.0f || params_.presence_penalty != 0.0f || params_.frequency_penalty != 0.0f;
}

bool Sampler::has_processors() const {
  return !params_.logit_bias.empty() || counts_tokens() || params_.no_repeat_ngram > 0 || params_.ignore_eos ||
         generated().size() < static_cast<size_t>(std::max(params_.min_new_tokens, 0));
}

void Sampler::CountToken(TokenId token, bool generated) {
  const auto [place, added] = count_index_.try_emplace(token, counts_.size());
  if (added) counts_.push_back({token, 0});
  if (generated) ++counts_[place->second].generated;
}

void Sampler::Accept(TokenId token) {
  history_.push_back(token);
  if (counts_tokens()) CountToken(token, true);
}

std::span<const TokenId> Sampler::generated() const { return std::span(history_).subspan(prompt_size_); }

void Sampler::BanRepeatedNgrams(std::span<float> logits) const {
  ForEachRepeat(history_, static_cast<size_t>(params_.no_repeat_ngram), [&](TokenId token) {
    if (token >= 0 && static_cast<size_t>(token) < logits.size()) logits[static_cast<size_t>(token)] = -kInfinity;
  });
}

void Sampler::Process(std::span<float> logits) const {
  // A prompt's id may lie outside the head's rows (padded embeddings), hence the test.
  const auto logit_of = [&](TokenId token) {
    return token >= 0 && static_cast<size_t>(token) < logits.size() ? &logits[static_cast<size_t>(token)] : nullptr;
  };
  for (const auto& [token, bias] : params_.logit_bias) {
    if (float* logit = logit_of(token)) *logit = bias == -kInfinity ? bias : *logit + bias;
  }
  for (const Count& count : counts_) {
    float* logit = logit_of(count.id);
    if (logit == nullptr) continue;
    // Keskar et al. 2019, arXiv:1909.05858; a negative logit is multiplied so that it becomes less likely too.
    const float penalty = params_.repetition_penalty;
    if (penalty != 1.0f) *logit = *logit < 0.0f ? *logit * penalty : *logit / penalty;
    if (count.generated > 0) {
      *logit -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(count.generated);
    }
  }
  if (params_.no_repeat_ngram > 0) BanRepeatedNgrams(logits);
  if (params_.ignore_eos || generated().size() < static_cast<size_t>(std::max(params_.min_new_tokens, 0))) {
    for (const TokenId token : eos_) {
      if (float* logit = logit_of(token)) *logit = -kInfinity;
    }
  }
}

Result<SampledToken> Sampler::Sample(std::span<float> logits, std::span<const uint64_t> allowed) {
  if (logits.empty()) return InvalidArgument("there are no logits to sample from");
  const RowSummary raw = Summarize(logits);
  RETURN_IF_ERROR(CheckRaw(raw));
  const bool processed_row = has_processors() || !allowed.empty();
  if (params_.greedy() && !processed_row) return SampledToken{raw.argmax, static_cast<float>(raw.LogProb(raw.max))};

  Scratch& scratch = ThreadScratch();
  float max = raw.max;
  TokenId id = raw.argmax;
  if (processed_row) {
    scratch.raw.assign(logits.begin(), logits.end());
    if (!allowed.empty()) Forbid(allowed, logits);
    Process(logits);
    const RowSummary processed = FindMax(logits);
    if (processed.has_nan) return Internal("the logits processors made NaN");
    if (processed.max == -kInfinity) return NothingLeft();
    max = processed.max;
    id = processed.argmax;
  }
  if (!params_.greedy()) {
    Warp(params_, logits, max, scratch.row);
    id = scratch.row.Pick(random_.Uniform());
  }
  const auto index = static_cast<size_t>(id);
  // Unprocessed logits are still raw, but for a row with +inf, of which one was chosen.
  const float raw_logit = processed_row ? scratch.raw[index] : max == kInfinity ? max : logits[index];
  return SampledToken{id, static_cast<float>(raw.LogProb(raw_logit))};
}

Result<std::vector<double>> Sampler::Distribution(std::span<float> logits) const {
  if (logits.empty()) return InvalidArgument("there are no logits to sample from");
  RETURN_IF_ERROR(CheckRaw(FindMax(logits)));
  Process(logits);
  const RowSummary processed = FindMax(logits);
  if (processed.has_nan) return Internal("the logits processors made NaN");
  if (processed.max == -kInfinity) return NothingLeft();
  std::vector<double> probabilities(logits.size(), 0.0);
  if (params_.greedy()) {
    probabilities[static_cast<size_t>(processed.argmax)] = 1.0;
    return probabilities;
  }
  WarpedRow& row = ThreadScratch().row;
  Warp(params_, logits, processed.max, row);
  if (row.dense) {
    std::transform(row.weights.begin(), row.weights.end(), probabilities.begin(),
                   [&row](float weight) { return static_cast<double>(weight) / row.total; });
  } else {
    for (const Candidate& c : row.kept) {
      probabilities[static_cast<size_t>(c.id)] = static_cast<double>(c.weight) / row.total;
    }
  }
  return probabilities;
}

}  // namespace kvasir
