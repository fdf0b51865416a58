#include "server/ollama_reply.h"

#include <fmt/format.h>
#include <boost/json/serialize.hpp>

#include <cmath>
#include <ctime>
#include <utility>

#include "io/json.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

std::string Line(const json::object& object) { return json::serialize(object) + "\n"; }

int64_t Nanoseconds(double ms) { return static_cast<int64_t>(std::llround(std::max(ms, 0.0) * 1e6)); }

/// Arguments as an object; what the model wrote instead of one goes into one, so that nothing is lost.
json::object ArgumentsOf(const ToolCall& call) {
  auto parsed = ParseJson(call.arguments, "arguments", {.max_depth = 128});
  if (!parsed.ok()) return {{"arguments", call.arguments}};
  if (parsed->is_object()) return std::move(parsed->get_object());
  return {{"arguments", *std::move(parsed)}};
}

json::object Message(OllamaRoute route, const std::string& model, const std::string& text) {
  json::object object = {{"model", model}, {"created_at", Rfc3339(std::chrono::system_clock::now())}};
  if (route == OllamaRoute::kChat) {
    object["message"] = {{"role", "assistant"}, {"content", text}};
  } else {
    object["response"] = text;
  }
  object["done"] = false;
  return object;
}

}  // namespace

std::string Rfc3339(std::chrono::system_clock::time_point time) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch());
  const auto whole = std::chrono::floor<std::chrono::seconds>(since);
  const std::time_t seconds = whole.count();
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:09}Z", std::string_view(text, length), (since - whole).count());
}

OllamaReply::OllamaReply(OllamaRoute route, const OllamaCall& call, const Tokenizer* tokenizer)
    : AnswerWriter(call, tokenizer), route_(route) {}

json::object OllamaReply::Piece(const std::string& text, const std::vector<ToolCall>& calls, int64_t first_call) const {
  json::object piece = Message(route_, call_.model, text);
  if (calls.empty()) return piece;
  json::array list;
  for (const ToolCall& call : calls) {
    list.push_back({{"id", call.id},
                    {"function", {{"index", first_call++}, {"name", call.name}, {"arguments", ArgumentsOf(call)}}}});
  }
  piece["message"].as_object()["tool_calls"] = std::move(list);
  return piece;
}

/// Calls are told whole, as Ollama does: its arguments are an object and not text.
std::string OllamaReply::Pieces(const StreamEvent& event, const AnswerParts& parts) {
  if (!call_.stream) return {};
  std::string text;
  std::vector<ToolCall> calls;
  int64_t first_call = 0;
  for (const AnswerPart& part : parts) {
    if (part.kind == AnswerPart::Kind::kText) text += part.text;
    if (part.kind != AnswerPart::Kind::kCallEnds) continue;
    if (calls.empty()) first_call = part.call;
    calls.push_back(ChoiceOf(event).calls[static_cast<size_t>(part.call)]);
  }
  if (text.empty() && calls.empty() && !HasLogprob(event)) return {};
  json::object piece = Piece(text, calls, first_call);
  if (HasLogprob(event)) piece["logprobs"] = LogprobList({&event, 1});
  return Line(piece);
}

json::object OllamaReply::End(json::object piece, const CompletionUsage& usage) const {
  piece["done"] = true;
  piece["done_reason"] = choices_.front().finish == FinishReason::kLength ? "length" : "stop";
  piece["total_duration"] = Nanoseconds(usage.total_ms);
  // With Ollama, too, this is how long a request waits for its turn where the model has been loaded.
  piece["load_duration"] = Nanoseconds(usage.queued_ms);
  piece["prompt_eval_count"] = usage.prompt_tokens;
  piece["prompt_eval_duration"] = Nanoseconds(usage.first_token_ms - usage.queued_ms);
  piece["eval_count"] = usage.completion_tokens;
  piece["eval_duration"] = Nanoseconds(usage.total_ms - usage.first_token_ms);
  return piece;
}

std::string OllamaReply::Last(const CompletionUsage& usage) { return Line(End(Piece({}, {}, 0), usage)); }

std::string OllamaReply::Failure(const ApiError& error) { return OllamaErrorBody(error) + "\n"; }

std::string OllamaReply::Whole(const CompletionUsage& usage) {
  const Choice& choice = choices_.front();
  json::object piece = Piece(choice.text, choice.calls, 0);
  if (call_.logprobs) piece["logprobs"] = LogprobList(choice.tokens);
  return json::serialize(End(std::move(piece), usage));
}

std::string OllamaLoaded(OllamaRoute route, const OllamaCall& call) {
  json::object answer = Message(route, call.model, {});
  answer["done"] = true;
  answer["done_reason"] = "load";
  return json::serialize(answer);
}

}  // namespace kvasir::server
