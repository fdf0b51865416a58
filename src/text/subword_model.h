// Subword models: how a piece becomes tokens.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/piece_table.h"
#include "text/vocab.h"

namespace kvasir {

/// A direct-mapped memory of short words and their tokens. Not thread-safe.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 22;
  static constexpr size_t kMaxTokens = 10;

  /// Appends the word's tokens; false when it is not remembered.
  bool Find(std::string_view word, std::vector<TokenId>* out);
  /// Remembers the tokens if they fit an entry.
  void Add(std::string_view word, const TokenId* tokens, size_t count);

 private:
  struct Entry {
    uint8_t length = 0xFF;
    uint8_t count = 0;
    char word[kMaxBytes];
    TokenId tokens[kMaxTokens];
  };
  static constexpr size_t kEntries = 1 << 14;
  std::vector<Entry> entries_;  // allocated on first use: 1 MiB
};

/// Working memory of one Encode call, reused between calls. It belongs to one tokenizer. Not thread-safe.
struct EncodeScratch {
  WordCache words;
  struct Symbol {
    TokenId id;
    int32_t previous;
    int32_t next;
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;  // rank << 32 | position
  struct PathNode {
    double score;
    uint32_t start;  // where the token ending here begins; ~0: none yet
    TokenId id;
  };
  std::vector<PathNode> path;
  std::string word;
};

/// Turns one piece into tokens. Immutable; thread-safe.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  /// Appends the tokens of a piece of valid UTF-8. Fails only when the vocabulary cannot express it.
  virtual Status Encode(std::string_view piece, EncodeScratch& scratch, std::vector<TokenId>* out) const = 0;
  const PieceTable& pieces() const { return pieces_; }

 protected:
  explicit SubwordModel(PieceTable pieces) : pieces_(std::move(pieces)) {}
  PieceTable pieces_;
};
using SubwordModelPtr = std::unique_ptr<SubwordModel>;

struct BpeOptions {
  std::string unk_token;  // empty: what is unknown is dropped, as Hugging Face does
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a piece that is a token stays one
  bool byte_alphabet = false;  // pieces are raw bytes; the vocabulary is written in the byte alphabet
};

/// A merge of two tokens into a third; earlier ones come first.
struct BpeMerge {
  TokenId left;
  TokenId right;
  TokenId result;
};

/// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909): of all neighbours the pair of lowest rank merges
/// first, the leftmost first among equals. O(n log n) in the piece.
Result<SubwordModelPtr> MakeBpe(PieceTable pieces, const std::vector<BpeMerge>& merges, BpeOptions options);

/// Resolves a merge written as two strings. Errors name the token that is missing.
Result<BpeMerge> ResolveMerge(const PieceTable& pieces, std::string_view left, std::string_view right,
                              size_t prefix_length);

struct UnigramOptions {
  std::optional<TokenId> unk;
  bool byte_fallback = false;
};

/// The most probable segmentation (Kudo 2018, arXiv:1804.10959). scores: log probability by id; ids have no holes.
Result<SubwordModelPtr> MakeUnigram(PieceTable pieces, std::vector<double> scores, const UnigramOptions& options);

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  size_t max_input_chars_per_word = 100;
};

/// Greedy longest match from the left (Wu et al. 2016, arXiv:1609.08144).
Result<SubwordModelPtr> MakeWordPiece(PieceTable pieces, WordPieceOptions options);

/// Whole pieces only; anything else is `unk_token`.
Result<SubwordModelPtr> MakeWordLevel(PieceTable pieces, const std::string& unk_token);

/// "<0x0A>" for 10.
std::string BytePiece(uint8_t byte);

}  // namespace kvasir
