// Answers to completion requests in OpenAI's two dialects, whole and in pieces.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <cstdint>
#include <span>
#include <string>

#include "server/answer_writer.h"

namespace kvasir::server {

enum class Dialect { kChat, kText };

/// "stop", "length", "cancelled"; null while the choice goes on.
boost::json::value FinishReasonJson(FinishReason finish);

/// {"prompt_tokens", "completion_tokens", "total_tokens", …}.
boost::json::object UsageJson(const CompletionUsage& usage);
/// Milliseconds and rates, named as llama-server's.
boost::json::object TimingsJson(const CompletionUsage& usage);

/// OpenAI's chat and text completions.
class CompletionReply final : public AnswerWriter {
 public:
  CompletionReply(Dialect dialect, const CompletionCall& call, const Tokenizer* tokenizer);

  std::string First() override;                             // the roles, the echoed prompts
  std::string Last(const CompletionUsage& usage) override;  // what was asked for of the usage, and [DONE]
  std::string Failure(const ApiError& error) override;
  std::string Whole(const CompletionUsage& usage) override;

 private:
  std::string Pieces(const StreamEvent& event, const AnswerParts& parts) override;
  boost::json::object Envelope(bool chunk) const;
  std::string Chunk(boost::json::object choice) const;
  boost::json::object Delta(const AnswerPart& part) const;
  boost::json::value FinishOf(const Choice& choice) const;
  boost::json::object ChoiceJson(int64_t index) const;
  boost::json::value LogprobsJson(std::span<const StreamEvent> tokens, size_t first_offset) const;
  boost::json::value TextLogprobs(std::span<const StreamEvent> tokens, size_t first_offset) const;
  std::string Echo(int64_t choice) const;

  Dialect dialect_;
  std::string id_;
  int64_t created_;
};

}  // namespace kvasir::server
