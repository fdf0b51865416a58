// The streamed answer of an OpenAI-compatible server.
#pragma once

#include <string>
#include <string_view>

#include "apps/serve_load/outcome.h"
#include "apps/serve_load/sse.h"
#include "base/status.h"

namespace kvasir::apps {

enum class ApiEndpoint { kCompletions, kChat };

/// Reads the stream of one answer and notes when which piece of it came. A piece is a chunk with text (or, with
/// kChat, thoughts or a call of a tool); one that only opens or ends the answer is none. Thread-compatible.
class AnswerReader {
 public:
  /// The most chunks of one answer.
  static constexpr size_t kMaxPieces = size_t{1} << 21;

  explicit AnswerReader(ApiEndpoint endpoint);
  AnswerReader(const AnswerReader&) = delete;
  AnswerReader& operator=(const AnswerReader&) = delete;

  /// Bytes of the body that came at `at_s`. InvalidData: no stream of events with one JSON object each and [DONE] at
  /// the end, over kMaxPieces. Internal: an error that the server put into its stream. Cancelled without a message once
  /// `pieces` (see StopAfter) came.
  Status Feed(std::string_view bytes, double at_s);
  /// The body is over. InvalidData where the stream was not.
  Status End() const;

  /// From so many pieces on Feed wants no more. -1: never.
  void StopAfter(int64_t pieces) { stop_after_ = pieces; }
  bool done() const { return done_; }
  Answer& answer() { return answer_; }

 private:
  Status TakeEvent(std::string_view type, std::string_view data);

  ApiEndpoint endpoint_;
  SseParser parser_;
  Answer answer_;
  double at_s_ = 0;
  int64_t stop_after_ = -1;
  bool done_ = false;
};

/// What a server says in an error's body: the message of {"error": {"message"}} or like forms, else the text, in at
/// most 200 bytes and without control characters.
std::string ServerMessage(std::string_view body);

}  // namespace kvasir::apps
