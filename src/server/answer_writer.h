// Answers to requests for text: what all dialects have in common.
#pragma once

#include <boost/json/array.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/batch_loop.h"
#include "server/api_error.h"
#include "server/completion_call.h"
#include "server/generation_stream.h"
#include "server/tool_calls.h"

namespace kvasir::server {

/// What a request has cost.
struct CompletionUsage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of those
  int64_t completion_tokens = 0;
  // Of the first request that the answer is made of.
  double queued_ms = 0;       // before its first tokens were run
  double first_token_ms = 0;  // since it came
  double total_ms = 0;
};

/// Forms the answer to one request, whole or in pieces; each dialect is a class of its own. The call and the tokenizer
/// outlive it. Not thread-safe.
class AnswerWriter {
 public:
  /// tokenizer: null where the model has none.
  AnswerWriter(const CompletionCall& call, const Tokenizer* tokenizer);
  virtual ~AnswerWriter() = default;
  AnswerWriter(const AnswerWriter&) = delete;
  AnswerWriter& operator=(const AnswerWriter&) = delete;

  /// Takes an event into the whole answer. Returns its pieces in a stream; there may be none.
  std::string Take(const StreamEvent& event);

  /// From the requests' outputs and the events taken.
  CompletionUsage Usage(std::span<const Result<BatchOutput>> outputs) const;

  bool streams() const { return call_.stream; }

  // Each is asked for once, First before all other pieces are sent (but perhaps after the first events were taken).
  virtual std::string First() = 0;
  virtual std::string Last(const CompletionUsage& usage) = 0;
  /// What a stream ends with instead where something went wrong.
  virtual std::string Failure(const ApiError& error) = 0;
  /// The whole answer, of all events taken.
  virtual std::string Whole(const CompletionUsage& usage) = 0;

  virtual std::string_view stream_type() const { return "text/event-stream; charset=utf-8"; }
  /// Says nothing but that the stream lives; empty where a dialect has no way to.
  virtual std::string_view ping() const { return ": ping\n\n"; }

 protected:
  struct Choice {
    std::string text;
    size_t characters = 0;            // of it
    std::vector<StreamEvent> tokens;  // with logprobs, where they are asked for
    std::optional<ToolCallReader> reader;
    std::vector<ToolCall> calls;
    FinishReason finish = FinishReason::kNone;
  };

  /// The pieces for an event that has just been taken into its choice; `parts` are what was added there. Called for
  /// whole answers as well, in which nobody sees what it returns.
  virtual std::string Pieces(const StreamEvent& event, const AnswerParts& parts) = 0;

  const Choice& ChoiceOf(const StreamEvent& event) const { return choices_[static_cast<size_t>(event.choice)]; }
  bool HasLogprob(const StreamEvent& event) const;
  /// [{"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}]
  boost::json::array LogprobList(std::span<const StreamEvent> tokens) const;
  std::string TokenText(TokenId id) const;  // its bytes

  const CompletionCall& call_;
  const Tokenizer* tokenizer_;
  std::vector<Choice> choices_;

 private:
  AnswerParts ReadText(const StreamEvent& event, Choice& choice) const;

  int64_t generated_ = 0;
};

/// JSON has no infinities; -9999 is what OpenAI's API gives for what cannot be.
double FiniteLogprob(float logprob);
/// Code points of valid UTF-8.
size_t Characters(std::string_view text);

}  // namespace kvasir::server
