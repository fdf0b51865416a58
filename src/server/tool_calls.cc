#include "server/tool_calls.h"

#include <boost/json/object.hpp>

#include <algorithm>
#include <utility>

#include "server/gate.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr std::string_view kListMark = "[TOOL_CALLS]";
constexpr std::string_view kPythonMark = "<|python_tag|>";
constexpr std::string_view kSpaces = " \t\r\n";

/// How many bytes at the end of `text` may be the beginning of `mark`.
size_t PartialMark(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; --length) {
    if (text.ends_with(mark.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

ToolSyntax ToolSyntaxOf(std::string_view chat_template) {
  const auto has = [&](std::string_view text) { return chat_template.find(text) != chat_template.npos; };
  if (!has("tools")) return ToolSyntax::kNone;
  if (has(kListMark)) return ToolSyntax::kListed;
  if (has(kOpen)) return ToolSyntax::kTagged;
  if (has("\"parameters\"") || has(kPythonMark)) return ToolSyntax::kPlainObject;
  return ToolSyntax::kNone;
}

bool ToolMarksAreSpecial(ToolSyntax syntax) { return syntax != ToolSyntax::kNone; }

void ToolCallReader::Add(AnswerPart::Kind kind, std::string_view text, AnswerParts& out) {
  if (text.empty()) return;
  const int64_t call = kind == AnswerPart::Kind::kText ? 0 : count_ - 1;
  if (!out.empty() && out.back().kind == kind && out.back().call == call) {
    out.back().text += text;
  } else {
    out.push_back({.kind = kind, .text = std::string(text), .call = call});
  }
}

void ToolCallReader::EndCall(bool cut, AnswerParts& out) {
  out.push_back({.kind = AnswerPart::Kind::kCallEnds, .call = count_ - 1, .cut = cut});
  open_ = false;
}

/// A mark ends there, and a call's JSON begins, or so it seems.
bool ToolCallReader::EnterCall(size_t mark_end) {
  unclear_ = held_.substr(0, mark_end);
  held_.erase(0, mark_end);
  json_.emplace();
  open_ = tail_ = any_ = false;
  state_ = State::kCall;
  return true;
}

/// What has been read is text.
void ToolCallReader::NoCall(AnswerParts& out) {
  Add(AnswerPart::Kind::kText, std::exchange(unclear_, {}), out);
  state_ = State::kText;
}

bool ToolCallReader::FindMark(bool end, AnswerParts& out) {
  const std::string_view mark = syntax_ == ToolSyntax::kTagged ? kOpen : kListMark;
  const size_t found = held_.find(mark);
  const size_t text = found != held_.npos ? found : held_.size() - (end ? 0 : PartialMark(held_, mark));
  Add(AnswerPart::Kind::kText, std::string_view(held_).substr(0, text), out);
  held_.erase(0, text);
  return found != held_.npos && EnterCall(mark.size());
}

/// A call without a mark is one only where the answer begins with it.
bool ToolCallReader::FindObject(bool end, AnswerParts& out) {
  const size_t first = decided_ ? held_.npos : held_.find_first_not_of(kSpaces);
  if (first != held_.npos) {
    const std::string_view rest = std::string_view(held_).substr(first);
    if (!end && rest.size() < kPythonMark.size() && kPythonMark.starts_with(rest)) return false;
    decided_ = true;
    if (rest.starts_with('{')) return EnterCall(first);
    if (rest.starts_with(kPythonMark)) return EnterCall(first + kPythonMark.size());
  }
  if (decided_ || end) Add(AnswerPart::Kind::kText, std::exchange(held_, {}), out);
  return false;
}

void ToolCallReader::Take(const CallJson::Step& step, AnswerParts& out) {
  if (step.begins) {
    ++count_;
    open_ = any_ = true;
    unclear_.clear();
    out.push_back({.kind = AnswerPart::Kind::kCallBegins,
                   .text = json_->name(),
                   .id = "call_" + RandomId().substr(0, 24),
                   .call = count_ - 1});
  }
  Add(AnswerPart::Kind::kArguments, step.arguments, out);
  if (step.ends) {
    EndCall(false, out);
    tail_ = true;
    unclear_.clear();
  }
  if (step.closed) {
    tail_ = false;
    unclear_.clear();
  }
}

bool ToolCallReader::ReadCall(bool end, AnswerParts& out) {
  for (size_t at = 0; at < held_.size(); ++at) {
    const CallJson::Step step = json_->Feed(held_[at]);
    if (step.broken) {
      held_.erase(0, at);
      if (open_) {
        state_ = State::kBroken;
      } else {
        NoCall(out);
      }
      return true;
    }
    unclear_ += held_[at];
    Take(step, out);
    if (open_) unclear_.clear();
    if (!step.done) continue;
    held_.erase(0, at + 1);
    state_ = State::kBehind;
    if (!any_) NoCall(out);  // an empty list
    return true;
  }
  held_.clear();
  if (!end) return false;
  if (open_) {
    EndCall(true, out);
  } else if (!any_ || (!tail_ && unclear_.find('{') != unclear_.npos)) {
    NoCall(out);
  }
  state_ = State::kText;
  return false;
}

/// The rest of arguments that are no JSON.
bool ToolCallReader::PassOn(bool end, AnswerParts& out) {
  const size_t close = syntax_ == ToolSyntax::kTagged ? held_.find(kClose) : held_.npos;
  const bool closed = close != held_.npos;
  const size_t held_back = end || syntax_ != ToolSyntax::kTagged ? 0 : PartialMark(held_, kClose);
  const size_t size = closed ? close : held_.size() - held_back;
  Add(AnswerPart::Kind::kArguments, std::string_view(held_).substr(0, size), out);
  held_.erase(0, closed ? size + kClose.size() : size);
  if (!closed && !end) return false;
  EndCall(!closed, out);
  state_ = State::kText;
  return closed;
}

bool ToolCallReader::LeaveCall(bool end) {
  // Without marks, models set calls apart by semicolons.
  const bool plain = syntax_ == ToolSyntax::kPlainObject;
  const size_t first = held_.find_first_not_of(plain ? " \t\r\n;" : kSpaces);
  const std::string_view rest = first == held_.npos ? std::string_view() : std::string_view(held_).substr(first);
  const bool tagged = syntax_ == ToolSyntax::kTagged;
  if (rest.empty() || (tagged && rest.size() < kClose.size() && kClose.starts_with(rest))) {
    if (end) held_.clear();
    return false;
  }
  state_ = State::kText;
  if (plain && rest.starts_with('{')) return EnterCall(first);
  if (tagged && rest.starts_with(kClose)) held_.erase(0, first + kClose.size());
  return true;
}

/// True: the state is another one now.
bool ToolCallReader::Step(bool end, AnswerParts& out) {
  const bool has_mark = syntax_ == ToolSyntax::kTagged || syntax_ == ToolSyntax::kListed;
  switch (state_) {
    case State::kText: return has_mark ? FindMark(end, out) : FindObject(end, out);
    case State::kCall: return ReadCall(end, out);
    case State::kBroken: return PassOn(end, out);
    case State::kBehind: return LeaveCall(end);
  }
  return false;
}

AnswerParts ToolCallReader::Push(std::string_view text) {
  AnswerParts out;
  held_ += text;
  while (Step(false, out)) {
  }
  return out;
}

AnswerParts ToolCallReader::Finish() {
  AnswerParts out;
  while (Step(true, out)) {
  }
  return out;
}

json::object ToolCallJson(const ToolCall& call, std::optional<int64_t> index) {
  json::object object;
  if (index) object["index"] = *index;
  object["id"] = call.id;
  object["type"] = "function";
  object["function"] = {{"name", call.name}, {"arguments", call.arguments}};
  return object;
}

}  // namespace kvasir::server
