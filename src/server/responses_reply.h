// Answers in the form of OpenAI's Responses: a response object, or events about one that grows.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/answer_writer.h"
#include "server/responses_call.h"

namespace kvasir::server {

/// An answer's text becomes items of type "message", its calls of tools items of type "function_call", in the order in
/// which they come.
class ResponsesReply final : public AnswerWriter {
 public:
  ResponsesReply(const ResponsesCall& call, const Tokenizer* tokenizer);

  std::string First() override;                             // response.created, response.in_progress
  std::string Last(const CompletionUsage& usage) override;  // response.completed or response.incomplete
  std::string Failure(const ApiError& error) override;      // response.failed
  std::string Whole(const CompletionUsage& usage) override;

 private:
  struct Item {
    std::string id;
    std::optional<ToolCall> call;  // none: a message
    std::string text;              // of a message, or a call's arguments
    boost::json::array logprobs;
    std::string_view status = "in_progress";
  };

  std::string Pieces(const StreamEvent& event, const AnswerParts& parts) override;
  std::string OpenMessage();
  std::string AddText(const std::string& text);
  std::string CloseMessage(std::string_view status);
  std::string ShowText(const std::string& added);
  std::string OpenCall(const AnswerPart& part);
  std::string AddArguments(const std::string& arguments);
  std::string CloseCall(std::string_view status);

  std::string Event(std::string_view type, boost::json::object fields);
  std::string AboutItem(std::string_view type, boost::json::object fields, bool with_content);
  std::string ItemEvent(std::string_view type, const Item& item);
  boost::json::object ItemJson(const Item& item) const;
  boost::json::object Part(const Item& item) const;
  boost::json::object Envelope(std::string_view status) const;
  boost::json::object Ended(const CompletionUsage& usage) const;
  bool Incomplete() const { return choices_.front().finish == FinishReason::kLength; }

  const boost::json::object& settings_;
  std::string id_;
  int64_t created_;
  int64_t next_number_;  // of an event
  std::vector<Item> items_;
  bool message_open_ = false;  // the last item is a message that goes on
  std::string held_space_;     // white space that is only shown where text follows, not a call
  boost::json::array held_logprobs_;
};

}  // namespace kvasir::server
