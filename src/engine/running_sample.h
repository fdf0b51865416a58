// One answer on its way: what has been chosen, and its text as far as it may be shown.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "decode/constraint.h"
#include "decode/sampling.h"
#include "decode/stop.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

namespace kvasir {

/// What all samples of an engine share.
struct SampleContext {
  int64_t context = 0;                   // tokens that a sequence may have
  const Tokenizer* tokenizer = nullptr;  // null: no text is made
  std::span<const TokenId> eos;
};

/// Not thread-safe. The context's tokenizer and eos outlive it.
class RunningSample {
 public:
  /// Sample `index` of the request's n.
  RunningSample(const SampleContext& context, const GenerationRequest& request, int32_t index);

  /// Chooses a token from a row of logits [vocab], takes it into the text and shows what may be shown of it; the row is
  /// only read. Afterwards finished() says whether it was the last; all text has been shown then. NaN is an error.
  Status Choose(std::span<const float> logits, const TextCallback& on_text);

  /// Ends the sample as it is, with the text held back so far.
  void Cancel(const TextCallback& on_text);

  bool finished() const { return result_.finish != FinishReason::kNone; }
  bool cancelled() const { return result_.finish == FinishReason::kCancelled; }
  /// Prompt and chosen tokens.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  GeneratedSample TakeResult() { return std::move(result_); }

 private:
  Result<SampledToken> Sample();
  Status TakeToken(const SampledToken& token, std::string& shown);
  Result<std::string> TextOf(TokenId token);
  bool IsEos(TokenId token) const;
  void ShowText(std::string_view text, std::string& shown);
  void FlushText(std::string& shown);

  int64_t context_;
  std::span<const TokenId> eos_;
  int64_t max_new_tokens_;
  bool ignore_eos_;
  int32_t index_;
  int32_t top_logprobs_;
  Sampler sampler_;
  std::vector<TokenId> tokens_;
  std::vector<float> row_;
  std::optional<StreamDecoder> decoder_;
  std::shared_ptr<Constraint> constraint_;
  Constraint::State state_ = 0;
  std::vector<uint64_t> allowed_;
  std::string part_of_character_;  // of a constrained text
  StopStrings stop_;
  GeneratedSample result_;
};

}  // namespace kvasir
