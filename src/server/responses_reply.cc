#include "server/responses_reply.h"

#include <boost/json/serialize.hpp>

#include <ctime>
#include <utility>

#include "base/utf8.h"
#include "server/completion_reply.h"
#include "server/gate.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

// Pieces may be asked for before First, whose events come first all the same.
constexpr int64_t kFirstEvents = 2;

constexpr std::string_view kSpaces = " \t\r\n";

json::object ResponseUsageJson(const CompletionUsage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details",
           {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", usage.prompt_tokens - usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", 0}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

}  // namespace

ResponsesReply::ResponsesReply(const ResponsesCall& call, const Tokenizer* tokenizer)
    : AnswerWriter(call, tokenizer),
      settings_(call.settings),
      id_("resp_" + RandomId()),
      created_(static_cast<int64_t>(std::time(nullptr))),
      next_number_(kFirstEvents) {}

json::object ResponsesReply::Part(const Item& item) const {
  return {{"type", "output_text"}, {"text", item.text}, {"annotations", json::array()}, {"logprobs", item.logprobs}};
}

json::object ResponsesReply::ItemJson(const Item& item) const {
  if (item.call) {
    return {{"id", item.id},           {"type", "function_call"}, {"status", item.status}, {"call_id", item.call->id},
            {"name", item.call->name}, {"arguments", item.text}};
  }
  json::array content;
  if (item.status != "in_progress") content.push_back(Part(item));
  return {{"id", item.id},
          {"type", "message"},
          {"status", item.status},
          {"role", "assistant"},
          {"content", std::move(content)}};
}

json::object ResponsesReply::Envelope(std::string_view status) const {
  json::object response = {{"id", id_},           {"object", "response"}, {"created_at", created_},
                           {"status", status},    {"error", nullptr},     {"incomplete_details", nullptr},
                           {"model", call_.model}};
  for (const auto& [name, value] : settings_) response[name] = value;
  json::array output;
  if (status != "in_progress") {
    for (const Item& item : items_) output.push_back(ItemJson(item));
  }
  response["output"] = std::move(output);
  return response;
}

json::object ResponsesReply::Ended(const CompletionUsage& usage) const {
  json::object response = Envelope(Incomplete() ? "incomplete" : "completed");
  if (Incomplete()) {
    response["incomplete_details"] = {{"reason", "max_output_tokens"}};
  } else {
    response["completed_at"] = static_cast<int64_t>(std::time(nullptr));
  }
  response["usage"] = ResponseUsageJson(usage);
  response["timings"] = TimingsJson(usage);
  return response;
}

std::string ResponsesReply::Event(std::string_view type, json::object fields) {
  if (!call_.stream) return {};
  json::object event = {{"type", type}, {"sequence_number", next_number_++}};
  for (auto& [name, value] : fields) event[name] = std::move(value);
  return fmt::format("event: {}\ndata: {}\n\n", type, json::serialize(event));
}

/// An event about the last item, or about the one part of its content.
std::string ResponsesReply::AboutItem(std::string_view type, json::object fields, bool with_content) {
  fields["item_id"] = items_.back().id;
  fields["output_index"] = items_.size() - 1;
  if (with_content) fields["content_index"] = 0;
  return Event(type, std::move(fields));
}

std::string ResponsesReply::ItemEvent(std::string_view type, const Item& item) {
  return Event(type, {{"output_index", items_.size() - 1}, {"item", ItemJson(item)}});
}

std::string ResponsesReply::OpenMessage() {
  if (message_open_) return {};
  message_open_ = true;
  const Item& item = items_.emplace_back(Item{.id = "msg_" + RandomId(), .call = {}, .text = {}, .logprobs = {}});
  std::string events = ItemEvent("response.output_item.added", item);
  return events += AboutItem("response.content_part.added", {{"part", Part(item)}}, true);
}

std::string ResponsesReply::AddText(const std::string& text) {
  std::string events = OpenMessage();
  Item& item = items_.back();
  item.text += text;
  item.logprobs.insert(item.logprobs.end(), held_logprobs_.begin(), held_logprobs_.end());
  json::array logprobs = std::exchange(held_logprobs_, {});
  return events += AboutItem("response.output_text.delta", {{"delta", text}, {"logprobs", std::move(logprobs)}}, true);
}

std::string ResponsesReply::CloseMessage(std::string_view status) {
  if (!message_open_) return {};
  message_open_ = false;
  Item& item = items_.back();
  item.status = status;
  std::string events = AboutItem("response.output_text.done", {{"text", item.text}, {"logprobs", item.logprobs}}, true);
  events += AboutItem("response.content_part.done", {{"part", Part(item)}}, true);
  return events += ItemEvent("response.output_item.done", item);
}

/// Text that has come; what a model writes around its calls to set them apart is no text of the answer.
std::string ResponsesReply::ShowText(const std::string& added) {
  if (call_.tools == ToolSyntax::kNone || message_open_) return AddText(added);
  held_space_ += added;
  if (held_space_.find_first_not_of(kSpaces) == held_space_.npos) return {};
  return AddText(std::exchange(held_space_, {}));
}

std::string ResponsesReply::OpenCall(const AnswerPart& part) {
  held_space_.clear();
  held_logprobs_.clear();
  std::string events = CloseMessage("completed");
  const ToolCall call{.id = part.id, .name = part.text};
  const Item& item = items_.emplace_back(Item{.id = "fc_" + RandomId(), .call = call, .text = {}, .logprobs = {}});
  return events += ItemEvent("response.output_item.added", item);
}

std::string ResponsesReply::AddArguments(const std::string& arguments) {
  items_.back().text += arguments;
  return AboutItem("response.function_call_arguments.delta", {{"delta", arguments}}, false);
}

std::string ResponsesReply::CloseCall(std::string_view status) {
  held_logprobs_.clear();
  Item& item = items_.back();
  item.status = status;
  std::string events =
      AboutItem("response.function_call_arguments.done", {{"name", item.call->name}, {"arguments", item.text}}, false);
  return events += ItemEvent("response.output_item.done", item);
}

std::string ResponsesReply::Pieces(const StreamEvent& event, const AnswerParts& parts) {
  std::string events;
  if (HasLogprob(event)) {
    json::array list = LogprobList({&event, 1});
    held_logprobs_.push_back(std::move(list.front()));
  }
  for (const AnswerPart& part : parts) {
    switch (part.kind) {
      case AnswerPart::Kind::kText: events += ShowText(part.text); break;
      case AnswerPart::Kind::kCallBegins: events += OpenCall(part); break;
      case AnswerPart::Kind::kArguments: events += AddArguments(part.text); break;
      case AnswerPart::Kind::kCallEnds:
        events += CloseCall(part.cut && Incomplete() ? "incomplete" : "completed");
        break;
    }
  }
  if (message_open_ && !held_logprobs_.empty()) events += AddText({});
  if (event.finish == FinishReason::kNone) return events;
  if (items_.empty()) events += AddText(std::exchange(held_space_, {}));
  return events += CloseMessage(Incomplete() ? "incomplete" : "completed");
}

std::string ResponsesReply::First() {
  const int64_t next = std::exchange(next_number_, 0);
  const json::object response = Envelope("in_progress");
  std::string events = Event("response.created", {{"response", response}});
  events += Event("response.in_progress", {{"response", response}});
  next_number_ = next;
  return events;
}

std::string ResponsesReply::Last(const CompletionUsage& usage) {
  return Event(Incomplete() ? "response.incomplete" : "response.completed", {{"response", Ended(usage)}});
}

std::string ResponsesReply::Failure(const ApiError& error) {
  for (Item& item : items_) {
    if (item.status == "in_progress") item.status = "incomplete";
  }
  json::object response = Envelope("failed");
  response["error"] = {{"code", error.status == 429 ? "rate_limit_exceeded" : "server_error"},
                       {"message", ReplaceInvalidUtf8(error.message)}};
  return Event("response.failed", {{"response", std::move(response)}});
}

std::string ResponsesReply::Whole(const CompletionUsage& usage) { return json::serialize(Ended(usage)); }

}  // namespace kvasir::server
