// Answers in Ollama's form (docs/api.md of ollama/ollama): one JSON object, or one on each line of a stream.
#pragma once

#include <boost/json/object.hpp>

#include <chrono>
#include <string>

#include "server/answer_writer.h"
#include "server/ollama_call.h"

namespace kvasir::server {

/// "2026-01-02T03:04:05.000000006Z" (RFC 3339, with nanoseconds).
std::string Rfc3339(std::chrono::system_clock::time_point time);

/// Answers of /api/chat and /api/generate.
class OllamaReply final : public AnswerWriter {
 public:
  OllamaReply(OllamaRoute route, const OllamaCall& call, const Tokenizer* tokenizer);

  std::string First() override { return {}; }
  std::string Last(const CompletionUsage& usage) override;
  std::string Failure(const ApiError& error) override;
  std::string Whole(const CompletionUsage& usage) override;

  std::string_view stream_type() const override { return "application/x-ndjson"; }
  std::string_view ping() const override { return {}; }  // every line is a part of the answer

 private:
  std::string Pieces(const StreamEvent& event, const AnswerParts& parts) override;
  boost::json::object Piece(const std::string& text, const std::vector<ToolCall>& calls, int64_t first_call) const;
  boost::json::object End(boost::json::object piece, const CompletionUsage& usage) const;

  OllamaRoute route_;
};

/// The answer to a request that only has the model loaded.
std::string OllamaLoaded(OllamaRoute route, const OllamaCall& call);

}  // namespace kvasir::server
