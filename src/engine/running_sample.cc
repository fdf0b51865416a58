#include "engine/running_sample.h"

#include <algorithm>

namespace kvasir {

RunningSample::RunningSample(const SampleContext& context, const GenerationRequest& request, int32_t index)
    : context_(context.context),
      eos_(context.eos),
      max_new_tokens_(request.max_new_tokens),
      ignore_eos_(request.sampling.ignore_eos),
      index_(index),
      sampler_(request.sampling, request.prompt, context.eos, static_cast<uint64_t>(index)),
      tokens_(request.prompt),
      stop_(request.stop) {
  if (context.tokenizer) decoder_.emplace(*context.tokenizer, DecodeOptions{.skip_special = request.skip_special});
}

/// Adds decoded text to the sample, watching for stop strings, and shows it. False: the caller cancelled.
bool RunningSample::ShowText(std::string_view text, TokenId token, const TextCallback& on_text) {
  StopStrings::Output output = stop_.Push(text);
  if (output.stopped) result_.finish = FinishReason::kStopString;
  result_.text += output.text;
  if (!on_text) return true;
  return on_text(index_, output.text, token);
}

/// Takes the chosen token into the sample and decides whether it goes on.
Status RunningSample::TakeToken(const SampledToken& token, const TextCallback& on_text) {
  sampler_.Accept(token.id);
  tokens_.push_back(token.id);
  result_.token_ids.push_back(token.id);
  result_.logprobs.push_back(token.logprob);
  bool go_on = true;
  if (decoder_) {
    ASSIGN_OR_RETURN(const std::string text, decoder_->Push(token.id));
    go_on = ShowText(text, token.id, on_text);
  } else if (on_text) {
    go_on = on_text(index_, {}, token.id);
  }
  if (finished()) return OkStatus();
  if (!ignore_eos_ && std::ranges::find(eos_, token.id) != eos_.end()) {
    result_.finish = FinishReason::kEos;
  } else if (static_cast<int64_t>(result_.token_ids.size()) >= max_new_tokens_ ||
             static_cast<int64_t>(tokens_.size()) >= context_) {
    result_.finish = FinishReason::kLength;
  }
  if (!go_on) result_.finish = FinishReason::kCancelled;
  return OkStatus();
}

/// Text held back for a stop string or an incomplete character is shown when the sample ends otherwise.
void RunningSample::FlushText(const TextCallback& on_text) {
  if (!decoder_ || result_.finish == FinishReason::kStopString) return;
  StopStrings::Output output = stop_.Push(decoder_->Flush());
  if (output.stopped) result_.finish = FinishReason::kStopString;
  std::string rest = std::move(output.text);
  if (!output.stopped) rest += stop_.Flush();
  result_.text += rest;
  if (on_text && !rest.empty()) on_text(index_, rest, tokens_.back());
}

Status RunningSample::Choose(std::span<const float> logits, const TextCallback& on_text) {
  row_.assign(logits.begin(), logits.end());
  ASSIGN_OR_RETURN(const SampledToken token, sampler_.Sample(row_));
  RETURN_IF_ERROR(TakeToken(token, on_text));
  if (finished()) FlushText(on_text);
  return OkStatus();
}

void RunningSample::Cancel(const TextCallback& on_text) {
  if (finished()) return;
  FlushText(on_text);
  if (!finished()) result_.finish = FinishReason::kCancelled;
}

}  // namespace kvasir
