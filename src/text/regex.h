// Regular expressions of tokenizer files: Oniguruma's (Ruby) dialect, as Hugging Face's tokenizers read it, on PCRE2.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir {

/// Bytes [begin, end) of a text of less than 4 GiB.
struct Span {
  uint32_t begin = 0;
  uint32_t end = 0;
};

/// A compiled pattern. Immutable; thread-safe.
class Regex {
 public:
  /// Compiles a pattern of the Ruby dialect. Unsupported for constructs that PCRE2 cannot express.
  static Result<Regex> Compile(std::string_view pattern);
  /// Compiles a literal string.
  static Result<Regex> Literal(std::string_view text);

  /// Appends all matches, left to right, that do not overlap; an empty match right after a match is left out.
  /// REQUIRES: text is valid UTF-8 below 4 GiB. ResourceExhausted when the pattern backtracks beyond its limit.
  Status FindAll(std::string_view text, std::vector<Span>* matches) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  std::shared_ptr<const Code> code_;
};

/// The PCRE2 pattern that matches what `pattern` matches in Oniguruma's Ruby syntax with Unicode classes.
/// Compiled with UTF, UCP and MULTILINE. Exposed for tests.
Result<std::string> TranslateRubyRegex(std::string_view pattern);

}  // namespace kvasir
