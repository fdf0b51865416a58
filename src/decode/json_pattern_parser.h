// The syntax of patterns: ECMA 262's regular expressions, as far as they are regular.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir {

/// Code points from low to high, both included.
struct CodeRange {
  char32_t low;
  char32_t high;
};
/// Sorted, apart.
using CodeSet = std::vector<CodeRange>;

inline constexpr char32_t kLastCodePoint = 0x10FFFF;

/// A part of an expression; children are indices.
struct PatternPart {
  enum Kind { kSet, kSequence, kChoice, kRepeat } kind;
  CodeSet set;
  std::vector<int32_t> children;
  int min = 0;
  int max = -1;  // -1: any number
};

struct PatternTree {
  std::vector<PatternPart> parts;
  int32_t root = 0;
};

/// Reads a pattern (see CompileJsonPattern); the tree also has what may stand before and behind where it is not
/// anchored. InvalidArgument, with the place, for what is not supported.
Result<PatternTree> ParseJsonPattern(std::string_view pattern);

}  // namespace kvasir
