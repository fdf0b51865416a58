// tiktoken's rank files: one "base64 rank" per line.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/format_names.h"
#include "text/pipeline.h"

namespace kvasir {

/// Whether the first line reads "base64 number".
bool LooksLikeRankFile(std::string_view bytes);

/// A tokenizer of the ranks; `use_known_specials` adds the special tokens that a file of this size is known to have.
Result<TokenizerParts> ParseRankFile(std::string_view bytes, bool use_known_specials);

}  // namespace kvasir
