// A vocabulary's strings by id and ids by string.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/vocab.h"

namespace kvasir {

/// Ids above this are taken for corruption: no vocabulary in the field comes near.
inline constexpr int64_t kMaxTokenId = (1 << 22) - 1;

/// A seeded hash of bytes, so that no file can choose collisions.
uint64_t HashBytes(std::string_view bytes);

/// Maps ids to strings and back. Filled once, then immutable and thread-safe.
class PieceTable {
 public:
  /// Adds a piece. An id may be given once; a string may come again, and then `replace` says whether the new id
  /// answers Find (both keep their string). Errors: id out of [0, kMaxTokenId] or taken, vocabulary over 1 GiB.
  Status Add(std::string_view piece, int64_t id, bool replace = true);

  /// The id of the string, or -1.
  TokenId Find(std::string_view piece) const;
  bool Has(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < entries_.size() && entries_[id].used; }
  /// The string of the id; empty when there is none.
  std::string_view Piece(TokenId id) const {
    return Has(id) ? std::string_view(bytes_).substr(entries_[id].offset, entries_[id].length) : std::string_view();
  }
  /// One more than the largest id.
  TokenId limit() const { return static_cast<TokenId>(entries_.size()); }
  /// Number of ids.
  size_t count() const { return count_; }
  /// Bytes of the longest piece.
  size_t longest() const { return longest_; }

 private:
  struct Entry {
    uint32_t offset = 0;
    uint32_t length : 31 = 0;
    uint32_t used : 1 = 0;
  };
  void Grow();
  std::string bytes_;
  std::vector<Entry> entries_;  // by id
  std::vector<TokenId> slots_;  // open addressing, -1 free; size a power of two
  size_t strings_ = 0;          // used slots
  size_t count_ = 0;
  size_t longest_ = 0;
};

}  // namespace kvasir
