// Schemas and walks: any schema, any choice of tokens. Masks allow what steps allow, what has to end is JSON, and no
// state is a dead end for a vocabulary of all bytes.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "decode/json_constraint.h"
#include "decode/json_schema.h"

namespace {

using kvasir::Constraint;
using kvasir::TokenId;
using kvasir::TokenTrie;

std::shared_ptr<const TokenTrie> Tokens() {
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  for (const char* more : {"\":", "\",\"", "\"}", "{\"", "}]", "\"]", ", ", "\n    ", "true", "12", "ab", "a\"",
                           "\\u00", "é", "\xf0\x9f", "-0.5", "[[", "null"}) {
    bytes.emplace_back(more);
  }
  auto trie = TokenTrie::Make(std::move(bytes));
  if (!trie.ok()) std::abort();
  return *trie;
}

bool Allows(std::span<const uint64_t> mask, TokenId token) {
  return (mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

/// The allowed token that comes first from `from` on, in a circle.
TokenId Choose(std::span<const uint64_t> mask, TokenId from, TokenId size) {
  for (TokenId i = 0; i < size; ++i) {
    if (Allows(mask, (from + i) % size)) return (from + i) % size;
  }
  std::abort();  // Mask says so itself
}

}  // namespace

// The input: a schema, and after a zero byte what is chosen.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::shared_ptr<const TokenTrie> kTokens = Tokens();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view schema = input.substr(0, input.find('\0'));
  const std::string_view walk = input.substr(std::min(input.size(), schema.size() + 1));
  const auto grammar = kvasir::CompileJsonSchemaText(schema, "fuzz");
  if (!grammar.ok()) {
    if (grammar.status().message().empty() || !kvasir::IsValidUtf8(grammar.status().message())) std::abort();
    return 0;
  }
  const auto constraint = kvasir::MakeJsonConstraint(*grammar, kTokens);
  Constraint::State state = constraint->Start();
  std::string text;
  for (const char choice : walk.substr(0, 512)) {
    if (constraint->MustEnd(state)) break;
    const auto mask = constraint->Mask(state);
    if (!mask.ok()) {
      // Alternatives beyond telling apart are the one thing that may go wrong.
      if (mask.status().code() != kvasir::StatusCode::kResourceExhausted) std::abort();
      return 0;
    }
    const auto from = static_cast<TokenId>(static_cast<uint8_t>(choice)) + (choice % 3 == 0 ? 256 : 0);
    const TokenId other = from % kTokens->vocab_size();
    const bool allowed = Allows(*mask, other);
    bool any = false;
    for (const uint64_t word : *mask) any = any || word != 0;
    if (!any) break;  // it may end here
    const TokenId token = Choose(*mask, other, kTokens->vocab_size());
    const auto by_step = constraint->Next(state, other);
    if (by_step.ok() != allowed && by_step.status().code() != kvasir::StatusCode::kResourceExhausted) std::abort();
    const auto next = constraint->Next(state, token);
    if (!next.ok()) return 0;
    text += constraint->Bytes(token);
    state = *next;
  }
  if (!constraint->MustEnd(state)) return 0;
  const auto value = kvasir::ParseJson(text, "text");
  if (!value.ok() && value.status().message().find("twice") == std::string::npos) std::abort();
  return 0;
}
