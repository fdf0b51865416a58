// Lists of token ids on the command line.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/vocab.h"

namespace kvasir::apps {

/// Ids separated by commas or white space; brackets around them are allowed. `what` names the flag in errors.
Result<std::vector<TokenId>> ParseTokenList(std::string_view text, std::string_view what);

}  // namespace kvasir::apps
