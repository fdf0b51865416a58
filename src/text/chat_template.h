// Chat templates: a bounded subset of Jinja2 that renders what Hugging Face's apply_chat_template renders.
#pragma once

#include <boost/json/value.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace kvasir {

/// Bounds on one rendering; exceeding any of them is an error, never a hang.
struct TemplateLimits {
  size_t max_source_bytes = 1u << 20;
  size_t max_output_bytes = 64u << 20;
  uint64_t fuel = 20'000'000;  // evaluation steps and bytes handled, beside 64 for every byte of messages and variables
  int max_depth = 64;          // nesting of expressions and blocks in the source (1 to 256); four times that in macros
};

struct RenderOptions {
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  /// More variables for the template (tools, documents, enable_thinking, date_string, …).
  boost::json::object variables;
  /// Seconds since the epoch for strftime_now; negative: the current time (local, as Hugging Face does).
  int64_t now = -1;
  TemplateLimits limits;
};

struct RenderedChat {
  std::string text;
  /// Sorted, disjoint byte ranges of `text` that came from message contents (or other variables from outside), for
  /// EncodeOptions::literal.
  std::vector<ByteRange> literal;
};

/// A compiled template. Immutable; thread-safe.
class ChatTemplate {
 public:
  /// Compiles Jinja source with trim_blocks and lstrip_blocks, as Hugging Face does. Errors name the line.
  static Result<ChatTemplate> Compile(std::string_view source, const TemplateLimits& limits = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// messages: a list of {"role": …, "content": …, …}. raise_exception in the template becomes InvalidArgument with
  /// its message.
  Result<RenderedChat> Render(const boost::json::array& messages, const RenderOptions& options) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace kvasir
