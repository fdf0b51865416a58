#include "server/completion_reply.h"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <ctime>
#include <utility>

#include "base/utf8.h"
#include "server/gate.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

std::string Event(const json::object& object) { return "data: " + json::serialize(object) + "\n\n"; }

json::object MessageJson(const std::string& text, const std::vector<ToolCall>& calls) {
  json::object message = {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
  if (calls.empty()) return message;
  if (text.empty()) message["content"] = nullptr;
  json::array list;
  for (const ToolCall& call : calls) list.push_back(ToolCallJson(call));
  message["tool_calls"] = std::move(list);
  return message;
}

double PerSecond(int64_t count, double ms) { return ms > 0 ? static_cast<double>(count) * 1000.0 / ms : 0.0; }

}  // namespace

json::value FinishReasonJson(FinishReason finish) {
  if (finish == FinishReason::kNone) return nullptr;
  return json::value(FinishReasonName(finish));
}

json::object UsageJson(const CompletionUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

json::object TimingsJson(const CompletionUsage& usage) {
  const int64_t run = usage.prompt_tokens - usage.cached_tokens;
  const double prompt_ms = usage.first_token_ms - usage.queued_ms;
  const double predicted_ms = usage.total_ms - usage.first_token_ms;
  return {{"queued_ms", usage.queued_ms},
          {"ttft_ms", usage.first_token_ms},
          {"cache_n", usage.cached_tokens},
          {"prompt_n", run},
          {"prompt_ms", prompt_ms},
          {"prompt_per_second", PerSecond(run, prompt_ms)},
          {"predicted_n", usage.completion_tokens},
          {"predicted_ms", predicted_ms},
          {"predicted_per_second", PerSecond(usage.completion_tokens - 1, predicted_ms)}};
}

CompletionReply::CompletionReply(Dialect dialect, const CompletionCall& call, const Tokenizer* tokenizer)
    : AnswerWriter(call, tokenizer),
      dialect_(dialect),
      id_((dialect == Dialect::kChat ? "chatcmpl-" : "cmpl-") + RandomId()),
      created_(static_cast<int64_t>(std::time(nullptr))) {}

json::value CompletionReply::TextLogprobs(std::span<const StreamEvent> tokens, size_t first_offset) const {
  json::array texts;
  json::array logprobs;
  json::array offsets;
  json::array tops;
  size_t offset = first_offset;
  for (const StreamEvent& event : tokens) {
    texts.emplace_back(ReplaceInvalidUtf8(TokenText(*event.token)));
    logprobs.emplace_back(FiniteLogprob(event.logprob));
    offsets.emplace_back(offset);
    offset += Characters(event.text);
    json::object top;
    for (const TokenLogprob& other : event.top_logprobs) {
      // Two tokens may read the same; the more probable one is told.
      const std::string text = ReplaceInvalidUtf8(TokenText(other.id));
      if (!top.contains(text)) top[text] = FiniteLogprob(other.logprob);
    }
    tops.push_back(std::move(top));
  }
  return json::object{{"tokens", std::move(texts)},
                      {"token_logprobs", std::move(logprobs)},
                      {"top_logprobs", std::move(tops)},
                      {"text_offset", std::move(offsets)}};
}

json::value CompletionReply::LogprobsJson(std::span<const StreamEvent> tokens, size_t first_offset) const {
  if (!call_.logprobs) return nullptr;
  if (dialect_ == Dialect::kText) return TextLogprobs(tokens, first_offset);
  return json::object{{"content", LogprobList(tokens)}, {"refusal", nullptr}};
}

json::object CompletionReply::Envelope(bool chunk) const {
  const std::string_view object = dialect_ == Dialect::kText ? "text_completion"
                                  : chunk                    ? "chat.completion.chunk"
                                                             : "chat.completion";
  return {
      {"id", id_}, {"object", object}, {"created", created_}, {"model", call_.model}, {"system_fingerprint", "kvasir"}};
}

std::string CompletionReply::Chunk(json::object choice) const {
  json::object chunk = Envelope(true);
  chunk["choices"] = json::array{std::move(choice)};
  if (call_.include_usage) chunk["usage"] = nullptr;
  return Event(chunk);
}

json::object CompletionReply::ChoiceJson(int64_t index) const {
  return {{"index", index}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
}

json::value CompletionReply::FinishOf(const Choice& choice) const {
  if (!choice.calls.empty() && choice.finish == FinishReason::kEos) return "tool_calls";
  return FinishReasonJson(choice.finish);
}

std::string CompletionReply::Echo(int64_t choice) const {
  if (!call_.echo || tokenizer_ == nullptr) return {};
  const auto& prompt = call_.prompts[static_cast<size_t>(choice / call_.prompts.front().n)].prompt;
  auto text = tokenizer_->Decode(prompt);
  return text.ok() ? *std::move(text) : std::string();
}

std::string CompletionReply::First() {
  std::string chunks;
  for (int64_t i = 0; i < static_cast<int64_t>(choices_.size()); ++i) {
    json::object choice = ChoiceJson(i);
    if (dialect_ == Dialect::kChat) {
      choice["delta"] = {{"role", "assistant"}, {"content", ""}};
    } else {
      if (!call_.echo) continue;
      choice["text"] = Echo(i);
    }
    chunks += Chunk(std::move(choice));
  }
  return chunks;
}

/// What a part adds to a chat's message: text, a call that begins with empty arguments, or more of its arguments.
json::object CompletionReply::Delta(const AnswerPart& part) const {
  if (part.kind == AnswerPart::Kind::kText) return {{"content", part.text}};
  json::object call = {{"index", part.call}, {"function", {{"arguments", part.text}}}};
  if (part.kind == AnswerPart::Kind::kCallBegins) call = ToolCallJson({.id = part.id, .name = part.text}, part.call);
  return {{"tool_calls", json::array{std::move(call)}}};
}

std::string CompletionReply::Pieces(const StreamEvent& event, const AnswerParts& parts) {
  if (!call_.stream) return {};
  const Choice& taken = ChoiceOf(event);
  const bool chat = dialect_ == Dialect::kChat;
  bool logprob = HasLogprob(event);
  std::string chunks;
  const auto add = [&](const AnswerPart& part) {
    json::object choice = ChoiceJson(event.choice);
    if (chat) {
      choice["delta"] = Delta(part);
    } else {
      choice["text"] = part.text;
    }
    if (logprob) choice["logprobs"] = LogprobsJson({&event, 1}, taken.characters - Characters(part.text));
    logprob = false;
    chunks += Chunk(std::move(choice));
  };
  for (const AnswerPart& part : parts) {
    if (part.kind != AnswerPart::Kind::kCallEnds) add(part);
  }
  if (logprob) add({});
  if (event.finish == FinishReason::kNone) return chunks;
  json::object choice = ChoiceJson(event.choice);
  choice["finish_reason"] = FinishOf(taken);
  if (chat) {
    choice["delta"] = json::object();
  } else {
    choice["text"] = "";
  }
  return chunks += Chunk(std::move(choice));
}

std::string CompletionReply::Last(const CompletionUsage& usage) {
  std::string chunks;
  if (call_.include_usage) {
    json::object chunk = Envelope(true);
    chunk["choices"] = json::array();
    chunk["usage"] = UsageJson(usage);
    chunk["timings"] = TimingsJson(usage);
    chunks = Event(chunk);
  }
  return chunks += "data: [DONE]\n\n";
}

std::string CompletionReply::Failure(const ApiError& error) { return "data: " + ErrorBody(error) + "\n\n"; }

std::string CompletionReply::Whole(const CompletionUsage& usage) {
  json::object answer = Envelope(false);
  json::array choices;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& taken = choices_[i];
    const auto index = static_cast<int64_t>(i);
    json::object choice = ChoiceJson(index);
    choice["finish_reason"] = FinishOf(taken);
    if (dialect_ == Dialect::kChat) {
      choice["message"] = MessageJson(taken.text, taken.calls);
    } else {
      choice["text"] = Echo(index) + taken.text;
    }
    choice["logprobs"] = LogprobsJson(taken.tokens, 0);
    choices.push_back(std::move(choice));
  }
  answer["choices"] = std::move(choices);
  answer["usage"] = UsageJson(usage);
  answer["timings"] = TimingsJson(usage);
  return json::serialize(answer);
}

}  // namespace kvasir::server
