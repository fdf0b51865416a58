// Tokens that are recognised in the text itself, before anything else looks at it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "text/byte_trie.h"
#include "text/normalizer.h"
#include "text/piece_table.h"
#include "text/tokenizer.h"

namespace kvasir {

struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the spaces before it along
  bool rstrip = false;       // and after it
  bool normalized = true;    // looked for in the normalised text
  bool special = false;      // a control token: may be skipped when decoding
};

/// Where a token was found, or plain text between tokens.
struct TextSegment {
  TokenId id = -1;  // -1: plain text
  size_t begin = 0;
  size_t end = 0;
};

/// The added tokens of a tokenizer. Filled, then finished, then immutable and thread-safe.
class AddedTokens {
 public:
  /// Adds a token as Hugging Face does: content that is there already is left alone; the id is the vocabulary's, else
  /// the next free one. Errors: too long, too many.
  Status Add(AddedToken token, const PieceTable& vocabulary);
  /// Builds the search structures. REQUIRES: called once, after the last Add. normalizer may be null.
  Status Finish(const Normalizer* normalizer);

  std::optional<TokenId> Find(std::string_view content) const;
  /// The token, or null.
  const AddedToken* Get(TokenId id) const;
  bool IsSpecial(TokenId id) const {
    const AddedToken* token = Get(id);
    return token != nullptr && token->special;
  }
  bool any_normalized() const { return !normalized_.empty(); }
  bool any_normalized_special() const { return any_normalized_special_; }
  /// One more than the largest id; 0 when there are none.
  TokenId limit() const { return limit_; }
  std::vector<std::string_view> contents() const;

  /// Divides `text` at the tokens of one pass (raw or normalised), the longest of those that begin leftmost first.
  /// `blocked(begin, end)` says where special tokens are plain text; `special` whether they are looked for at all.
  template <typename Blocked>
  void Split(std::string_view text, bool normalized_pass, bool special, Blocked blocked,
             std::vector<TextSegment>* out) const {
    const ByteTrie& trie = normalized_pass ? normalized_ : raw_;
    size_t done = 0;
    for (size_t i = 0; i < text.size() && !trie.empty();) {
      if (!trie.Starts(static_cast<uint8_t>(text[i]))) {
        ++i;
        continue;
      }
      size_t length = 0;
      size_t best = 0;
      trie.ForEachPrefix(text, i, [&](size_t size, int32_t index) {
        if (tokens_[static_cast<size_t>(index)].token.special && blocked(i, i + size)) return;
        length = size;
        best = static_cast<size_t>(index);
      });
      if (length == 0) {
        ++i;
        continue;
      }
      const Entry& entry = tokens_[best];
      const size_t begin = i;
      i += length;  // what is turned down is not searched again
      if (entry.token.special && !special) continue;
      if (entry.token.single_word && TouchesWord(text, begin, i)) continue;
      const size_t from = entry.token.lstrip ? SpacesBefore(text, begin, done) : begin;
      const size_t to = entry.token.rstrip ? SpacesAfter(text, i) : i;
      if (done < from) out->push_back({-1, done, from});
      out->push_back({entry.id, from, to});
      done = to;
    }
    if (done < text.size()) out->push_back({-1, done, text.size()});
  }

 private:
  struct Entry {
    AddedToken token;
    TokenId id;
  };
  static bool TouchesWord(std::string_view text, size_t begin, size_t end);
  /// Where the run of spaces that ends at `begin` begins, but not before `floor` (if that is before `begin`).
  static size_t SpacesBefore(std::string_view text, size_t begin, size_t floor);
  static size_t SpacesAfter(std::string_view text, size_t end);

  std::vector<Entry> tokens_;
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_map<TokenId, size_t> by_id_;
  ByteTrie raw_;
  ByteTrie normalized_;
  TokenId limit_ = 0;
  bool any_normalized_special_ = false;
};

}  // namespace kvasir
