// Calls of tools in what a model writes: the ways in which chat models write them, read as the text comes.
#pragma once

#include <boost/json/array.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/call_json.h"

namespace kvasir::server {

/// How a model's template has taught it to call a tool.
enum class ToolSyntax {
  kNone,         // its template knows no tools
  kTagged,       // <tool_call>{"name": …, "arguments": …}</tool_call>
  kListed,       // [TOOL_CALLS][{"name": …, "arguments": …}, …]
  kPlainObject,  // the whole answer is {"name": …, "parameters": …}, perhaps behind <|python_tag|>
};

/// From the template's source.
ToolSyntax ToolSyntaxOf(std::string_view chat_template);

/// Whether the marks of calls are special tokens, which text leaves out unless they are asked for.
bool ToolMarksAreSpecial(ToolSyntax syntax);

struct ToolCall {
  std::string id;  // "call_…"
  std::string name;
  std::string arguments = {};  // as the model wrote them: a JSON object, unless it erred or was cut off
};

/// A piece of what a model says, in the order in which it says it. A call begins, its arguments come, it ends.
struct AnswerPart {
  enum class Kind { kText, kCallBegins, kArguments, kCallEnds };

  Kind kind = Kind::kText;
  std::string text = {};  // kText, kArguments: what is added; kCallBegins: the function's name
  std::string id = {};    // kCallBegins
  int64_t call = 0;       // which one of the answer's, but for kText
  bool cut = false;       // kCallEnds: the text has ended in the midst of the call
};
using AnswerParts = std::vector<AnswerPart>;

/// Reads calls out of a text that comes piece by piece, and gives them out as they come. What is no call is text; what
/// begins like one and is none (no JSON, no name) is text, too, so that nothing the model wrote is lost. Something is a
/// call once its name is known and its arguments have begun: from then on it is one, however it goes on, because a
/// client may have been told of it. Arguments that turn out to be no JSON, or are cut off, are therefore passed on as
/// they are, which OpenAI's clients have to expect. Not thread-safe.
class ToolCallReader {
 public:
  explicit ToolCallReader(ToolSyntax syntax) : syntax_(syntax), decided_(syntax == ToolSyntax::kNone) {}

  AnswerParts Push(std::string_view text);
  /// The rest.
  AnswerParts Finish();

  /// Calls so far.
  int64_t count() const { return count_; }

 private:
  enum class State {
    kText,    // before a call's mark
    kCall,    // in the JSON of one or more calls
    kBroken,  // in arguments that are no JSON
    kBehind,  // behind that JSON, before a closing mark or another call
  };

  bool Step(bool end, AnswerParts& out);
  bool FindMark(bool end, AnswerParts& out);
  bool FindObject(bool end, AnswerParts& out);
  bool ReadCall(bool end, AnswerParts& out);
  bool PassOn(bool end, AnswerParts& out);
  bool LeaveCall(bool end);
  void Take(const CallJson::Step& step, AnswerParts& out);
  bool EnterCall(size_t mark_end);
  void NoCall(AnswerParts& out);
  void Add(AnswerPart::Kind kind, std::string_view text, AnswerParts& out);
  void EndCall(bool cut, AnswerParts& out);

  ToolSyntax syntax_;
  State state_ = State::kText;
  std::string held_;              // text that has not been read yet
  std::optional<CallJson> json_;  // kCall
  std::string unclear_;           // what has been read since a mark, or a call's end, and may yet be text
  bool open_ = false;             // a call has begun and not ended
  bool tail_ = false;             // behind a call's arguments, in its object
  bool any_ = false;              // the JSON has had a call
  bool decided_;                  // kPlainObject: whether the answer is a call
  int64_t count_ = 0;
};

/// {"id", "type", "function": {"name", "arguments"}}, as whole answers have it; in streams with an index.
boost::json::object ToolCallJson(const ToolCall& call, std::optional<int64_t> index = {});

}  // namespace kvasir::server
