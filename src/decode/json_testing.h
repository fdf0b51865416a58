// What the tests of JSON constraints share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "decode/json_constraint.h"
#include "decode/json_schema.h"

namespace kvasir::testing {

/// A vocabulary of all single bytes, and some longer tokens behind them.
inline std::shared_ptr<const TokenTrie> Vocabulary(const std::vector<std::string>& longer = {}) {
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  bytes.insert(bytes.end(), longer.begin(), longer.end());
  auto trie = TokenTrie::Make(std::move(bytes));
  EXPECT_TRUE(trie.ok()) << trie.status().message();
  return *trie;
}

inline bool Allows(std::span<const uint64_t> mask, TokenId token) {
  return (mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

enum class Verdict { kRefused, kUnfinished, kMayEnd, kMustEnd };

/// What becomes of a text, byte by byte.
inline Verdict Read(Constraint& constraint, std::string_view text) {
  Constraint::State state = constraint.Start();
  for (const char c : text) {
    const auto mask = constraint.Mask(state);
    const TokenId token = static_cast<uint8_t>(c);
    if (!mask.ok() || !Allows(*mask, token)) return Verdict::kRefused;
    const auto next = constraint.Next(state, token);
    EXPECT_TRUE(next.ok()) << next.status().message();
    if (!next.ok()) return Verdict::kRefused;
    state = *next;
  }
  if (constraint.MustEnd(state)) return Verdict::kMustEnd;
  return constraint.MayEnd(state) ? Verdict::kMayEnd : Verdict::kUnfinished;
}

inline std::unique_ptr<Constraint> ForSchema(std::string_view schema,
                                             std::shared_ptr<const TokenTrie> tokens = Vocabulary()) {
  auto grammar = CompileJsonSchemaText(schema, "schema");
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return grammar.ok() ? MakeJsonConstraint(*grammar, std::move(tokens)) : nullptr;
}

/// Whether a text is one of the schema's.
inline bool Accepts(std::string_view schema, std::string_view text) {
  const auto constraint = ForSchema(schema);
  return constraint && Read(*constraint, text) >= Verdict::kMayEnd;
}

}  // namespace kvasir::testing
