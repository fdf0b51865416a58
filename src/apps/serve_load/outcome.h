// One request of a load, and what became of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvasir::apps {

/// What is asked for, and how the client behaves.
struct LoadRequest {
  int64_t index = 0;  // in the load; with the seed it decides the prompt
  double at_s = 0;    // when it is due, in seconds since the load began
  int64_t prompt_tokens = 0;
  int64_t answer_tokens = 0;
  int64_t hang_up_after = -1;  // the client is gone after so many pieces of answer; -1: it stays
  bool slow = false;           // the client reads slower than the server writes
};

/// What a server streamed.
struct Answer {
  std::vector<double> piece_s;  // when each piece of text came, in seconds since the request was sent
  double end_s = 0;             // when the stream ended
  int64_t prompt_tokens = -1;   // as the server counted them; -1: it did not say
  int64_t answer_tokens = -1;
  int64_t cached_tokens = -1;  // of the prompt
  std::string finish_reason;
};

enum class Fate {
  kServed,
  kHungUp,      // the client went away, as planned
  kConnection,  // it could not be made, or broke off before a reply
  kTimeout,
  kStatus,  // a reply with another status than 200
  kError,   // an error in the stream, in words of the server's
  kBroken,  // a stream that is no stream of events, or that ended too early
  kEmpty,   // a stream without a single token
};

struct RequestOutcome {
  LoadRequest request;
  Fate fate = Fate::kServed;
  int http_status = 0;  // 0: none came
  std::string detail;   // of a failure, as a sentence
  double start_s = 0;   // when the client began, in seconds since the load began
  double end_s = 0;     // when it was over
  Answer answer;        // also of a request that failed, as far as it got

  bool Failed() const { return fate != Fate::kServed && fate != Fate::kHungUp; }
  /// Tokens of the answer: the server's count, or that of pieces where it gave none.
  int64_t AnswerTokens() const {
    return answer.answer_tokens >= 0 ? answer.answer_tokens : static_cast<int64_t>(answer.piece_s.size());
  }
  int64_t PromptTokens() const { return answer.prompt_tokens >= 0 ? answer.prompt_tokens : request.prompt_tokens; }
};

/// "status 429", "timeout", …: what failures are counted by.
std::string FateName(const RequestOutcome& outcome);

}  // namespace kvasir::apps
