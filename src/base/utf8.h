// Bounded UTF-8 reading and writing. Invalid input never fails: it reads as U+FFFD, one unit at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

struct Utf8Unit {
  char32_t code_point;  // U+FFFD where invalid
  uint8_t length;       // bytes consumed, at least 1
  bool valid;
};

/// The unit at byte `offset`: a code point, or one maximal invalid subpart (Unicode 15, table 3-8), as Python's
/// bytes.decode("utf-8", "replace") divides it. REQUIRES: offset < text.size().
Utf8Unit DecodeUtf8(std::string_view text, size_t offset);

/// Appends the code point; surrogates and values over U+10FFFF append U+FFFD.
void AppendUtf8(std::string& out, char32_t code_point);

bool IsValidUtf8(std::string_view text);

/// `text` with every invalid unit replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

/// Bytes at the end of `text` that begin a character which is not complete yet (0 to 3).
size_t IncompleteUtf8Suffix(std::string_view text);

}  // namespace kvasir
