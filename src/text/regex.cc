#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "base/utf8.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct CompileContextDeleter {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

/// What matching needs per thread: a result for the whole match only, and a stack for the compiled code.
struct MatchState {
  MatchState() : data(pcre2_match_data_create(1, nullptr)), context(pcre2_match_context_create(nullptr)) {
    stack = pcre2_jit_stack_create(32 * 1024, 1024 * 1024, nullptr);
    if (context != nullptr && stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[160];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return "error " + std::to_string(code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  std::string literal;  // not empty: search for this instead
  std::string pattern;  // for messages
};

Result<Regex> Regex::Literal(std::string_view text) {
  if (text.empty()) return InvalidData("an empty string cannot be searched for");
  auto code = std::make_shared<Code>();
  code->literal = std::string(text);
  return Regex(std::move(code));
}

Result<Regex> Regex::Compile(std::string_view pattern) {
  ASSIGN_OR_RETURN(const std::string translated, TranslateRubyRegex(pattern));
  const std::unique_ptr<pcre2_compile_context, CompileContextDeleter> context(pcre2_compile_context_create(nullptr));
  if (context == nullptr) return ResourceExhausted("no memory to compile a regular expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 64);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->pattern = Excerpt(pattern);
  code->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                 context.get()));
  if (code->code == nullptr) {
    return Unsupported("regular expression \"{}\": {} (at {} of \"{}\")", code->pattern, PcreMessage(error), offset,
                       Excerpt(translated));
  }
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);  // without it the interpreter does the work
  return Regex(std::move(code));
}

Status Regex::FindAll(std::string_view text, std::vector<Span>* matches) const {
  if (text.size() > UINT32_MAX) return ResourceExhausted("a text of {} bytes is too long to search", text.size());
  if (!code_->literal.empty()) {
    const std::string& needle = code_->literal;
    for (size_t at = text.find(needle); at != std::string_view::npos; at = text.find(needle, at + needle.size())) {
      matches->push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + needle.size())});
    }
    return OkStatus();
  }
  thread_local MatchState state;
  if (state.data == nullptr || state.context == nullptr) return ResourceExhausted("no memory to match");
  // Linear patterns may step back over the whole text once; anything far beyond that is a runaway.
  const size_t limit = std::min<size_t>(10'000'000 + 64 * text.size(), UINT32_MAX);
  pcre2_set_match_limit(state.context, static_cast<uint32_t>(limit));
  pcre2_set_heap_limit(state.context, 256 * 1024);  // KiB, for the interpreter
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t position = 0;
  size_t last_end = SIZE_MAX;
  while (position <= text.size()) {
    int rc =
        pcre2_match(code_->code.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK, state.data, state.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code_->code.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, state.data,
                       state.context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return OkStatus();
    if (rc < 0) {
      return ResourceExhausted("regular expression \"{}\" on a text of {} bytes: {}", code_->pattern, text.size(),
                               PcreMessage(rc));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data);
    const size_t begin = ends[0];
    const size_t end = ends[1];
    if (end < begin || end < position) return Unsupported("regular expression \"{}\" moves backwards", code_->pattern);
    if (begin == end && end == last_end) {
      position = end + (end < text.size() ? DecodeUtf8(text, end).length : 1);
      continue;
    }
    matches->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    position = last_end = end;
  }
  return OkStatus();
}

}  // namespace kvasir
