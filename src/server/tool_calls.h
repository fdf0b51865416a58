// Calls of tools in what a model writes: the ways in which chat models write them, read as the text comes.
#pragma once

#include <boost/json/array.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  std::string arguments;  // a JSON object, as text
};

/// Reads calls out of a text that comes piece by piece. What is no call is content; what begins like one and is none
/// (no JSON, no name) is content, too, so that nothing the model wrote is lost. Not thread-safe.
class ToolCallReader {
 public:
  struct Output {
    std::string content;  // that can be shown
    std::vector<ToolCall> calls;
  };

  explicit ToolCallReader(ToolSyntax syntax) : syntax_(syntax) {}

  Output Push(std::string_view text);
  /// The rest.
  Output Finish();

  /// Calls so far.
  int64_t count() const { return count_; }

 private:
  void ReadTagged(bool end, Output& out);
  void ReadListed(bool end, Output& out);
  void ReadPlain(bool end, Output& out);
  bool TakeCalls(std::string_view json, Output& out);

  ToolSyntax syntax_;
  std::string held_;     // text that may be, or belong to, a call
  bool inside_ = false;  // behind an opening mark
  bool begun_ = false;   // something that is no white space has come
  int64_t count_ = 0;
};

/// {"id", "type", "function": {"name", "arguments"}}, as whole answers have it; in streams with an index.
boost::json::object ToolCallJson(const ToolCall& call, std::optional<int64_t> index = {});

}  // namespace kvasir::server
