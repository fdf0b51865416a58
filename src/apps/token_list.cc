#include "apps/token_list.h"

#include <limits>

#include "apps/flags.h"

namespace kvasir::apps {

Result<std::vector<TokenId>> ParseTokenList(std::string_view text, std::string_view what) {
  if (text.starts_with('[') && text.ends_with(']') && text.size() >= 2) text = text.substr(1, text.size() - 2);
  constexpr std::string_view kSeparators = ", \t\r\n";
  std::vector<TokenId> ids;
  while (true) {
    const size_t begin = text.find_first_not_of(kSeparators);
    if (begin == std::string_view::npos) break;
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(kSeparators));
    auto id = internal::ParseInt(word, 0, std::numeric_limits<TokenId>::max());
    if (!id.ok()) return id.status().WithContext(what);
    ids.push_back(static_cast<TokenId>(*id));
    text.remove_prefix(word.size());
  }
  if (ids.empty()) return InvalidArgument("{}: no token ids given", what);
  return ids;
}

}  // namespace kvasir::apps
