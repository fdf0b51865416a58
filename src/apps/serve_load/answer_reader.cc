#include "apps/serve_load/answer_reader.h"

#include <boost/json/object.hpp>

#include "apps/terminal.h"
#include "base/utf8.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

constexpr JsonLimits kChunkLimits = {.max_bytes = SseParser::kMaxEvent, .max_depth = 32, .max_values = 1 << 16};
constexpr int64_t kMaxCount = int64_t{1} << 40;

/// A member that is an object, or null.
const json::object* ObjectIn(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr ? value->if_object() : nullptr;
}

/// A member that is a text, or "".
std::string_view TextIn(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  const json::string* text = value != nullptr ? value->if_string() : nullptr;
  return text != nullptr ? std::string_view(*text) : std::string_view();
}

/// Whether a chunk's delta brings a part of the answer. A chunk with a role and no text opens it; one with an empty
/// text and no role is a token whose text waits for the next.
bool IsPiece(const json::object& delta, bool finished) {
  for (const char* key : {"content", "reasoning_content", "reasoning"}) {
    if (!TextIn(delta, key).empty()) return true;
  }
  const json::value* calls = delta.if_contains("tool_calls");
  if (calls != nullptr && calls->is_array() && !calls->get_array().empty()) return true;
  const json::value* content = delta.if_contains("content");
  return content != nullptr && content->is_string() && !delta.contains("role") && !finished;
}

Status TakeUsage(const json::object& usage, Answer& answer) {
  const JsonReader reader(usage, "usage");
  ASSIGN_OR_RETURN(answer.prompt_tokens, reader.Int({"prompt_tokens"}, 0, kMaxCount, -1));
  ASSIGN_OR_RETURN(answer.answer_tokens, reader.Int({"completion_tokens"}, 0, kMaxCount, -1));
  ASSIGN_OR_RETURN(const json::object* details, reader.Object({"prompt_tokens_details"}));
  if (details == nullptr) return OkStatus();
  ASSIGN_OR_RETURN(answer.cached_tokens,
                   JsonReader(*details, "prompt_tokens_details").Int({"cached_tokens"}, 0, kMaxCount, -1));
  return OkStatus();
}

}  // namespace

AnswerReader::AnswerReader(ApiEndpoint endpoint)
    : endpoint_(endpoint),
      parser_([this](std::string_view type, std::string_view data) { return TakeEvent(type, data); }) {}

Status AnswerReader::Feed(std::string_view bytes, double at_s) {
  at_s_ = at_s;
  return parser_.Feed(bytes);
}

Status AnswerReader::End() const {
  RETURN_IF_ERROR(parser_.End());
  return done_ ? OkStatus() : InvalidData("the stream ended without data: [DONE]");
}

Status AnswerReader::TakeEvent(std::string_view type, std::string_view data) {
  if (done_) return InvalidData("an event behind data: [DONE]");
  if (data == "[DONE]") {
    done_ = true;
    answer_.end_s = at_s_;
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const json::value value, ParseJson(data, "a chunk of the stream", kChunkLimits));
  const json::object* chunk = value.if_object();
  if (chunk == nullptr) return InvalidData("a chunk of the stream is no JSON object");
  if (type == "error" || chunk->contains("error")) return Internal("{}", ServerMessage(data));
  if (const json::object* usage = ObjectIn(*chunk, "usage")) RETURN_IF_ERROR(TakeUsage(*usage, answer_));
  const json::value* choices = chunk->if_contains("choices");
  if (choices == nullptr || !choices->is_array()) return InvalidData("a chunk of the stream has no list of choices");
  if (choices->get_array().empty()) return OkStatus();  // usage alone
  const json::object* choice = choices->get_array().front().if_object();
  if (choice == nullptr) return InvalidData("a chunk's choice is no JSON object");
  const std::string_view reason = TextIn(*choice, "finish_reason");
  if (!reason.empty()) answer_.finish_reason = reason.substr(0, 64);
  bool piece = false;
  if (endpoint_ == ApiEndpoint::kChat) {
    const json::object* delta = ObjectIn(*choice, "delta");
    if (delta == nullptr) return InvalidData("a chunk's choice has no delta; is this /v1/chat/completions?");
    piece = IsPiece(*delta, !reason.empty());
  } else {
    const json::value* text = choice->if_contains("text");
    if (text == nullptr || !text->is_string()) {
      return InvalidData("a chunk's choice has no text; is this /v1/completions?");
    }
    piece = !text->get_string().empty() || reason.empty();
  }
  if (!piece) return OkStatus();
  if (answer_.piece_s.size() >= kMaxPieces) return InvalidData("an answer in over {} chunks", kMaxPieces);
  answer_.piece_s.push_back(at_s_);
  const auto pieces = static_cast<int64_t>(answer_.piece_s.size());
  return stop_after_ >= 0 && pieces >= stop_after_ ? Status(StatusCode::kCancelled, "") : OkStatus();
}

std::string ServerMessage(std::string_view body) {
  constexpr size_t kMost = 200;
  std::string text(body.substr(0, kMost));
  const auto value = ParseJson(body, "the reply", kChunkLimits);
  if (value.ok() && value->is_object()) {
    const json::object& object = value->get_object();
    const json::object* error = ObjectIn(object, "error");
    for (const std::string_view said : {error != nullptr ? TextIn(*error, "message") : std::string_view(),
                                        TextIn(object, "error"), TextIn(object, "message"), TextIn(object, "detail")}) {
      if (said.empty()) continue;
      text = said.substr(0, kMost);
      break;
    }
  }
  std::string shown = EscapeControls(ReplaceInvalidUtf8(text));
  for (char& c : shown) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  return shown;
}

}  // namespace kvasir::apps
