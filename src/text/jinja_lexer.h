// Jinja source to tokens, with trim_blocks and lstrip_blocks on, as Hugging Face sets them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir::jinja {

enum class TokenType : uint8_t {
  kEnd,
  kData,           // text outside of tags
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // with its quotes, escapes not decoded yet
  kInteger,
  kFloat,
  kOperator,
};

struct Token {
  TokenType type = TokenType::kEnd;
  uint32_t line = 0;
  std::string_view text;  // of the normalised source
};

/// Line ends become "\n"; one line end at the very end is dropped (keep_trailing_newline is off).
std::string NormalizeSource(std::string_view source);

/// Splits normalised source into tokens, ended by a kEnd token. The tokens point into `source`. Linear in time.
Result<std::vector<Token>> Tokenize(std::string_view source);

/// The text of a string literal: quotes removed, escapes decoded as Python does.
Result<std::string> DecodeStringLiteral(const Token& token);

}  // namespace kvasir::jinja
