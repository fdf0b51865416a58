#include "server/answer_writer.h"

#include <boost/json/object.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "base/utf8.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

json::array Bytes(std::string_view text) {
  json::array bytes;
  for (const char byte : text) bytes.emplace_back(static_cast<int64_t>(static_cast<unsigned char>(byte)));
  return bytes;
}

}  // namespace

double FiniteLogprob(float logprob) { return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0; }

size_t Characters(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char byte) { return (byte & 0xC0) != 0x80; }));
}

AnswerWriter::AnswerWriter(const CompletionCall& call, const Tokenizer* tokenizer)
    : call_(call), tokenizer_(tokenizer), choices_(call.prompts.size() * static_cast<size_t>(call.prompts.front().n)) {
  if (call.tools == ToolSyntax::kNone) return;
  for (Choice& choice : choices_) choice.reader.emplace(call.tools);
}

/// A token that ends the text is no part of it.
bool AnswerWriter::HasLogprob(const StreamEvent& event) const {
  return call_.logprobs && event.token && (event.finish != FinishReason::kEos || !event.text.empty());
}

/// An event's text and calls of tools, without the mark of the end where marks are shown.
AnswerParts AnswerWriter::ReadText(const StreamEvent& event, Choice& choice) const {
  if (!choice.reader) return event.text.empty() ? AnswerParts() : AnswerParts{{.text = event.text}};
  std::string_view text = event.text;
  if (event.finish == FinishReason::kEos && tokenizer_ != nullptr && tokenizer_->IsSpecial(*event.token)) {
    const std::string_view piece = tokenizer_->IdToPiece(*event.token);
    if (text.ends_with(piece)) text.remove_suffix(piece.size());
  }
  AnswerParts parts = choice.reader->Push(text);
  if (event.finish != FinishReason::kNone) std::ranges::move(choice.reader->Finish(), std::back_inserter(parts));
  return parts;
}

std::string AnswerWriter::Take(const StreamEvent& event) {
  if (event.token) ++generated_;
  Choice& choice = choices_[static_cast<size_t>(event.choice)];
  const AnswerParts parts = ReadText(event, choice);
  for (const AnswerPart& part : parts) {
    switch (part.kind) {
      case AnswerPart::Kind::kText:
        choice.text += part.text;
        choice.characters += Characters(part.text);
        break;
      case AnswerPart::Kind::kCallBegins: choice.calls.push_back({.id = part.id, .name = part.text}); break;
      case AnswerPart::Kind::kArguments: choice.calls.back().arguments += part.text; break;
      case AnswerPart::Kind::kCallEnds: break;
    }
  }
  if (HasLogprob(event)) choice.tokens.push_back(event);
  if (event.finish != FinishReason::kNone) choice.finish = event.finish;
  return event.finish != FinishReason::kCancelled ? Pieces(event, parts) : std::string();
}

CompletionUsage AnswerWriter::Usage(std::span<const Result<BatchOutput>> outputs) const {
  CompletionUsage usage{.completion_tokens = generated_};
  for (size_t i = 0; i < outputs.size(); ++i) {
    usage.prompt_tokens += static_cast<int64_t>(call_.prompts[i].prompt.size());
    if (!outputs[i].ok()) continue;
    usage.cached_tokens += outputs[i]->cached_tokens;
    if (i > 0) continue;
    usage.queued_ms = outputs[i]->first_step_ms;
    usage.first_token_ms = outputs[i]->first_token_ms;
    usage.total_ms = outputs[i]->total_ms;
  }
  return usage;
}

std::string AnswerWriter::TokenText(TokenId id) const {
  if (tokenizer_ == nullptr) return {};
  auto bytes = tokenizer_->TokenBytes(id);
  if (bytes.ok() && !bytes->empty()) return *std::move(bytes);
  return std::string(tokenizer_->IdToPiece(id));  // a special token stands for no text
}

json::array AnswerWriter::LogprobList(std::span<const StreamEvent> tokens) const {
  const auto entry = [&](TokenId id, float logprob) {
    const std::string text = TokenText(id);
    return json::object{
        {"token", ReplaceInvalidUtf8(text)}, {"logprob", FiniteLogprob(logprob)}, {"bytes", Bytes(text)}};
  };
  json::array list;
  for (const StreamEvent& event : tokens) {
    json::object token = entry(*event.token, event.logprob);
    json::array top;
    for (const TokenLogprob& other : event.top_logprobs) top.push_back(entry(other.id, other.logprob));
    token["top_logprobs"] = std::move(top);
    list.push_back(std::move(token));
  }
  return list;
}

}  // namespace kvasir::server
