#include "engine/running_sample.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/utf8.h"
#include "decode/softmax.h"

namespace kvasir {

RunningSample::RunningSample(const SampleContext& context, const GenerationRequest& request, int32_t index)
    : context_(context.context),
      eos_(context.eos),
      max_new_tokens_(request.max_new_tokens),
      ignore_eos_(request.sampling.ignore_eos),
      index_(index),
      top_logprobs_(request.top_logprobs),
      sampler_(request.sampling, request.prompt, context.eos, static_cast<uint64_t>(index)),
      tokens_(request.prompt),
      constraint_(request.constraint),
      stop_(request.stop) {
  if (constraint_) state_ = constraint_->Start();
  if (context.tokenizer) decoder_.emplace(*context.tokenizer, DecodeOptions{.skip_special = request.skip_special});
}

namespace {

/// The `count` most probable tokens of a row of raw logits; of equals those with lower ids.
std::vector<TokenLogprob> MostProbable(std::span<const float> logits, int32_t count) {
  const RowSummary summary = Summarize(logits);
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto kept = std::min(ids.size(), static_cast<size_t>(count));
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(kept), ids.end(), [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  std::vector<TokenLogprob> top;
  for (size_t i = 0; i < kept; ++i) {
    const double logprob = summary.LogProb(logits[static_cast<size_t>(ids[i])]);
    top.push_back({.id = ids[i], .logprob = static_cast<float>(logprob)});
  }
  return top;
}

}  // namespace

/// Adds decoded text to the sample, watching for stop strings, and to what is to be shown.
void RunningSample::ShowText(std::string_view text, std::string& shown) {
  const StopStrings::Output output = stop_.Push(text);
  if (output.stopped) result_.finish = FinishReason::kStopString;
  result_.text += output.text;
  shown += output.text;
}

bool RunningSample::IsEos(TokenId token) const { return std::ranges::find(eos_, token) != eos_.end(); }

/// Chooses from row_, of what the constraint allows.
Result<SampledToken> RunningSample::Sample() {
  if (!constraint_) return sampler_.Sample(row_);
  ASSIGN_OR_RETURN(const std::span<const uint64_t> mask, constraint_->Mask(state_));
  allowed_.assign(mask.begin(), mask.end());
  allowed_.resize((row_.size() + 63) / 64);
  if (constraint_->MayEnd(state_)) {
    for (const TokenId id : eos_) {
      const auto bit = static_cast<size_t>(id);
      if (id >= 0 && bit < row_.size()) allowed_[bit / 64] |= uint64_t{1} << (bit % 64);
    }
  }
  return sampler_.Sample(row_, allowed_);
}

/// The text that becomes certain with a token. Of a constrained text it is what the constraint has read, whatever a
/// tokenizer's decoder makes of spaces.
Result<std::string> RunningSample::TextOf(TokenId token) {
  if (!constraint_) return decoder_->Push(token);
  part_of_character_ += constraint_->Bytes(token);
  const size_t rest = IncompleteUtf8Suffix(part_of_character_);
  std::string text = part_of_character_.substr(0, part_of_character_.size() - rest);
  part_of_character_.erase(0, text.size());
  return text;
}

/// Takes the chosen token into the sample and decides whether it goes on.
Status RunningSample::TakeToken(const SampledToken& token, std::string& shown) {
  sampler_.Accept(token.id);
  tokens_.push_back(token.id);
  result_.token_ids.push_back(token.id);
  result_.logprobs.push_back(token.logprob);
  const bool ended = IsEos(token.id);
  if (constraint_ && !ended) {
    ASSIGN_OR_RETURN(state_, constraint_->Next(state_, token.id));
  }
  if (decoder_) {
    ASSIGN_OR_RETURN(const std::string text, TextOf(token.id));
    ShowText(text, shown);
  }
  if (finished()) return OkStatus();
  if ((ended && !ignore_eos_) || (constraint_ && constraint_->MustEnd(state_))) {
    result_.finish = FinishReason::kEos;
  } else if (static_cast<int64_t>(result_.token_ids.size()) >= max_new_tokens_ ||
             static_cast<int64_t>(tokens_.size()) >= context_) {
    result_.finish = FinishReason::kLength;
  }
  return OkStatus();
}

/// Text held back for a stop string or an incomplete character is shown when the sample ends otherwise.
void RunningSample::FlushText(std::string& shown) {
  if (!decoder_ || result_.finish == FinishReason::kStopString) return;
  StopStrings::Output output = stop_.Push(constraint_ ? ReplaceInvalidUtf8(part_of_character_) : decoder_->Flush());
  if (output.stopped) result_.finish = FinishReason::kStopString;
  std::string rest = std::move(output.text);
  if (!output.stopped) rest += stop_.Flush();
  result_.text += rest;
  shown += rest;
}

Status RunningSample::Choose(std::span<const float> logits, const TextCallback& on_text) {
  row_.assign(logits.begin(), logits.end());
  ASSIGN_OR_RETURN(const SampledToken token, Sample());
  TextEvent event{.index = index_, .token = token.id, .logprob = token.logprob};
  if (top_logprobs_ > 0) {
    result_.top_logprobs.push_back(MostProbable(logits, top_logprobs_));
    event.top_logprobs = result_.top_logprobs.back();
  }
  std::string shown;
  RETURN_IF_ERROR(TakeToken(token, shown));
  if (finished()) FlushText(shown);
  event.text = shown;
  event.finish = result_.finish;
  if (!on_text || on_text(event)) return OkStatus();
  if (!finished()) FlushText(shown);
  result_.finish = FinishReason::kCancelled;
  return OkStatus();
}

void RunningSample::Cancel(const TextCallback& on_text) {
  if (finished()) return;
  std::string shown;
  FlushText(shown);
  if (!finished()) result_.finish = FinishReason::kCancelled;
  if (on_text) on_text({.index = index_, .text = shown, .finish = result_.finish});
}

}  // namespace kvasir
