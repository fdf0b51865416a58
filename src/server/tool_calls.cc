#include "server/tool_calls.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <utility>

#include "io/json.h"
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

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

/// A call of {"name", "arguments" or "parameters"}.
std::optional<ToolCall> ToCall(const json::value& value) {
  const json::object* const object = value.if_object();
  const json::value* const name = object != nullptr ? object->if_contains("name") : nullptr;
  if (name == nullptr || !name->is_string() || name->get_string().empty()) return {};
  const json::value* arguments = object->if_contains("arguments");
  if (arguments == nullptr) arguments = object->if_contains("parameters");
  ToolCall call{.id = "call_" + RandomId().substr(0, 24), .name = std::string(name->get_string()), .arguments = "{}"};
  if (arguments != nullptr && arguments->is_string()) {
    call.arguments = std::string(arguments->get_string());
  } else if (arguments != nullptr && !arguments->is_null()) {
    call.arguments = json::serialize(*arguments);
  }
  return call;
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

/// One call, or a list of them. False: it is something else.
bool ToolCallReader::TakeCalls(std::string_view text, Output& out) {
  const auto parsed = ParseJson(Trim(text), "tool call", {.max_depth = 128});
  if (!parsed.ok()) return false;
  std::vector<ToolCall> calls;
  if (parsed->is_array()) {
    for (const json::value& item : parsed->get_array()) {
      auto call = ToCall(item);
      if (!call) return false;
      calls.push_back(*std::move(call));
    }
  } else if (auto call = ToCall(*parsed)) {
    calls.push_back(*std::move(call));
  }
  if (calls.empty()) return false;
  count_ += static_cast<int64_t>(calls.size());
  std::ranges::move(calls, std::back_inserter(out.calls));
  return true;
}

void ToolCallReader::ReadTagged(bool end, Output& out) {
  while (true) {
    if (!inside_) {
      const size_t open = held_.find(kOpen);
      if (open == held_.npos) break;
      out.content += held_.substr(0, open);
      held_.erase(0, open + kOpen.size());
      inside_ = true;
    }
    const size_t close = held_.find(kClose);
    if (close == held_.npos) break;
    const std::string body = held_.substr(0, close);
    held_.erase(0, close + kClose.size());
    inside_ = false;
    if (!TakeCalls(body, out)) out.content.append(kOpen).append(body).append(kClose);
  }
  if (inside_) {
    if (!end) return;
    // Cut off, or a model that leaves the last mark out.
    if (!TakeCalls(held_, out)) out.content.append(kOpen).append(held_);
    held_.clear();
    return;
  }
  const size_t partial = end ? 0 : PartialMark(held_, kOpen);
  out.content += held_.substr(0, held_.size() - partial);
  held_.erase(0, held_.size() - partial);
}

void ToolCallReader::ReadListed(bool end, Output& out) {
  if (!inside_) {
    const size_t mark = held_.find(kListMark);
    if (mark == held_.npos) {
      const size_t partial = end ? 0 : PartialMark(held_, kListMark);
      out.content += held_.substr(0, held_.size() - partial);
      held_.erase(0, held_.size() - partial);
      return;
    }
    out.content += held_.substr(0, mark);
    held_.erase(0, mark + kListMark.size());
    inside_ = true;
  }
  if (!end) return;
  if (!TakeCalls(held_, out)) out.content.append(kListMark).append(held_);
  held_.clear();
}

void ToolCallReader::ReadPlain(bool end, Output& out) {
  if (!begun_) {
    const size_t first = held_.find_first_not_of(kSpaces);
    if (first != held_.npos) {
      const std::string_view rest = std::string_view(held_).substr(first);
      const bool maybe_mark = rest.size() < kPythonMark.size() && kPythonMark.starts_with(rest);
      if (!maybe_mark || end) {
        begun_ = true;
        inside_ = rest.starts_with('{') || rest.starts_with(kPythonMark);
      }
    }
  }
  if (begun_ && !inside_) {
    out.content += held_;
    held_.clear();
  }
  if (!end) return;
  std::string_view body = Trim(held_);
  if (body.starts_with(kPythonMark)) body.remove_prefix(kPythonMark.size());
  if (!inside_ || !TakeCalls(body, out)) out.content += held_;
  held_.clear();
}

ToolCallReader::Output ToolCallReader::Push(std::string_view text) {
  Output out;
  held_ += text;
  switch (syntax_) {
    case ToolSyntax::kTagged: ReadTagged(false, out); break;
    case ToolSyntax::kListed: ReadListed(false, out); break;
    case ToolSyntax::kPlainObject: ReadPlain(false, out); break;
    case ToolSyntax::kNone: out.content = std::exchange(held_, {}); break;
  }
  return out;
}

ToolCallReader::Output ToolCallReader::Finish() {
  Output out;
  switch (syntax_) {
    case ToolSyntax::kTagged: ReadTagged(true, out); break;
    case ToolSyntax::kListed: ReadListed(true, out); break;
    case ToolSyntax::kPlainObject: ReadPlain(true, out); break;
    case ToolSyntax::kNone: break;
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
