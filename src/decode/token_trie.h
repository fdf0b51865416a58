// The bytes of a vocabulary's tokens as a trie, for walking an automaton over all of them at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/vocab.h"

namespace kvasir {

/// Immutable once made; thread-safe. One for each vocabulary is enough.
class TokenTrie {
 public:
  /// A node in preorder: the first of its children, if it has any, is the next one.
  struct Node {
    int32_t after;        // the first node behind its subtree
    int32_t first_token;  // in tokens(); those that end here come up to the next node's
    uint16_t depth;       // bytes from the root, at least 1
    uint8_t byte;
  };

  /// A token that stays inside a JSON string in which it begins between two characters.
  struct StringToken {
    TokenId id;
    int32_t characters;  // that it begins
  };
  /// A node whose last byte closes such a string.
  struct StringEnd {
    int32_t node;
    int32_t characters;
  };

  /// bytes[id]: what token id adds to a text; empty: it never comes (special tokens, ends of text). Errors: tokens of
  /// more than 64 KiB, more than 256 MiB in all.
  static Result<std::shared_ptr<const TokenTrie>> Make(std::vector<std::string> bytes);

  int32_t vocab_size() const { return static_cast<int32_t>(bytes_.size()); }
  size_t mask_words() const { return (bytes_.size() + 63) / 64; }
  /// Empty for ids outside the vocabulary.
  std::string_view Bytes(TokenId id) const {
    return id >= 0 && static_cast<size_t>(id) < bytes_.size() ? std::string_view(bytes_[static_cast<size_t>(id)])
                                                              : std::string_view();
  }

  std::span<const Node> nodes() const { return nodes_; }
  /// The tokens that end at a node.
  std::span<const TokenId> TokensAt(int32_t node) const {
    const auto i = static_cast<size_t>(node);
    const int32_t end = i + 1 < nodes_.size() ? nodes_[i + 1].first_token : static_cast<int32_t>(tokens_.size());
    return std::span(tokens_).subspan(static_cast<size_t>(nodes_[i].first_token),
                                      static_cast<size_t>(end - nodes_[i].first_token));
  }
  size_t longest() const { return longest_; }

  /// What a plain JSON string allows, whatever is around it: the mask of the tokens that stay inside, these by falling
  /// number of characters, and the nodes at which it ends.
  std::span<const uint64_t> string_mask() const { return string_mask_; }
  std::span<const StringToken> string_tokens() const { return string_tokens_; }
  std::span<const StringEnd> string_ends() const { return string_ends_; }

 private:
  TokenTrie() = default;
  void AddNodes(std::span<const TokenId> sorted);
  void WalkString();

  std::vector<std::string> bytes_;  // by id
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;  // sorted by bytes
  size_t longest_ = 0;
  std::vector<uint64_t> string_mask_;
  std::vector<StringToken> string_tokens_;
  std::vector<StringEnd> string_ends_;
};

}  // namespace kvasir
