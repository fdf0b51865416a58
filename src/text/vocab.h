// Plain vocabulary facts that decoding needs without knowing any tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace kvasir {

using TokenId = int32_t;

struct VocabInfo {
  int32_t size = 0;  // ids run from 0 to size-1
  std::optional<TokenId> bos;
  std::vector<TokenId> eos;  // any of them ends a text
  std::optional<TokenId> pad;
  std::optional<TokenId> unk;
};

}  // namespace kvasir
