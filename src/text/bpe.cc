#include <algorithm>
#include <limits>

#include "base/utf8.h"
#include "text/byte_alphabet.h"
#include "text/subword_model.h"
#include "text/unicode.h"

namespace kvasir {

bool WordCache::Find(std::string_view word, std::vector<TokenId>* out) {
  if (word.size() > kMaxBytes || entries_.empty()) return false;
  const Entry& entry = entries_[HashBytes(word) % kEntries];
  if (entry.length != word.size() || std::string_view(entry.word, entry.length) != word) return false;
  out->insert(out->end(), entry.tokens, entry.tokens + entry.count);
  return true;
}

void WordCache::Add(std::string_view word, const TokenId* tokens, size_t count) {
  if (word.size() > kMaxBytes || count > kMaxTokens) return;
  if (entries_.empty()) entries_.resize(kEntries);
  Entry& entry = entries_[HashBytes(word) % kEntries];
  entry.length = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(count);
  std::copy(word.begin(), word.end(), entry.word);
  std::copy(tokens, tokens + count, entry.tokens);
}

std::string BytePiece(uint8_t byte) { return fmt::format("<0x{:02X}>", byte); }

namespace {

constexpr std::string_view kSpaceMarker = "\u2581";

/// Ranks of pairs by open addressing.
class MergeTable {
 public:
  struct Entry {
    uint64_t pair = ~uint64_t{0};
    uint32_t rank = 0;
    TokenId result = -1;
  };

  explicit MergeTable(const std::vector<BpeMerge>& merges) {
    size_t size = 64;
    while (size < merges.size() * 2) size *= 2;
    entries_.resize(size);
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const uint64_t pair = Pair(merges[rank].left, merges[rank].right);
      size_t slot = Slot(pair);
      while (entries_[slot].result >= 0 && entries_[slot].pair != pair) slot = (slot + 1) & (entries_.size() - 1);
      entries_[slot] = {pair, static_cast<uint32_t>(rank), merges[rank].result};  // of equal pairs the last counts
    }
  }

  const Entry* Find(TokenId left, TokenId right) const {
    const uint64_t pair = Pair(left, right);
    for (size_t slot = Slot(pair); entries_[slot].result >= 0; slot = (slot + 1) & (entries_.size() - 1)) {
      if (entries_[slot].pair == pair) return &entries_[slot];
    }
    return nullptr;
  }

 private:
  static uint64_t Pair(TokenId left, TokenId right) {
    return (static_cast<uint64_t>(left) << 32) | static_cast<uint32_t>(right);
  }
  size_t Slot(uint64_t pair) const {
    const uint64_t mixed = (pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15u;
    return static_cast<size_t>(mixed >> 24) & (entries_.size() - 1);
  }
  std::vector<Entry> entries_;
};

class Bpe final : public SubwordModel {
 public:
  Bpe(PieceTable pieces, const std::vector<BpeMerge>& merges, BpeOptions options)
      : SubwordModel(std::move(pieces)), options_(std::move(options)), merges_(merges) {
    for (int b = 0; b < 256; ++b) {
      const auto byte = static_cast<uint8_t>(b);
      byte_fallback_[byte] = pieces_.Find(BytePiece(byte));
      if (options_.byte_alphabet) {
        single_[byte] = pieces_.Find(ByteToAlphabet(byte));
      } else {
        single_[byte] = byte < 0x80 ? pieces_.Find(std::string(1, static_cast<char>(byte))) : -1;
      }
    }
    if (!options_.unk_token.empty()) unk_ = pieces_.Find(options_.unk_token);
    plain_ = options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
    splits_at_marker_ = plain_ && !options_.ignore_merges && !options_.byte_alphabet &&
                        pieces_.Find(kSpaceMarker) >= 0 && MergesStayInWords(merges);
  }

  Status Encode(std::string_view piece, EncodeScratch& scratch, std::vector<TokenId>* out) const override {
    if (!splits_at_marker_) return EncodeWord(piece, scratch, out);
    // No merge reaches over the beginning of a word, so words can be taken one by one (and remembered).
    for (size_t begin = 0; begin < piece.size();) {
      size_t end = begin;
      while (piece.substr(end).starts_with(kSpaceMarker)) end += kSpaceMarker.size();
      end = std::min(piece.find(kSpaceMarker, end), piece.size());
      RETURN_IF_ERROR(EncodeWord(piece.substr(begin, end - begin), scratch, out));
      begin = end;
    }
    return OkStatus();
  }

 private:
  bool MergesStayInWords(const std::vector<BpeMerge>& merges) const {
    return std::none_of(merges.begin(), merges.end(), [&](const BpeMerge& merge) {
      return pieces_.Piece(merge.right).starts_with(kSpaceMarker) && !pieces_.Piece(merge.left).ends_with(kSpaceMarker);
    });
  }

  Status EncodeWord(std::string_view piece, EncodeScratch& scratch, std::vector<TokenId>* out) const {
    if (scratch.words.Find(piece, out)) return OkStatus();
    const size_t first = out->size();
    if (piece.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
      return ResourceExhausted("a piece of {} bytes is too long", piece.size());
    }
    if (const TokenId whole = WholeToken(piece); whole >= 0) {
      out->push_back(whole);
    } else {
      RETURN_IF_ERROR(Symbols(piece, scratch));
      if (scratch.symbols.size() <= kScanLimit) {
        MergeByScan(scratch.symbols, out);
      } else {
        MergeByHeap(scratch, out);
      }
    }
    scratch.words.Add(piece, out->data() + first, out->size() - first);
    return OkStatus();
  }

  TokenId WholeToken(std::string_view piece) const {
    if (!options_.ignore_merges || piece.size() > pieces_.longest()) return -1;
    return options_.byte_alphabet ? pieces_.Find(ToByteAlphabet(piece)) : pieces_.Find(piece);
  }

  /// Fills scratch.symbols with the characters' tokens.
  Status Symbols(std::string_view piece, EncodeScratch& scratch) const {
    auto& symbols = scratch.symbols;
    symbols.clear();
    const auto push = [&](TokenId id) { symbols.push_back({id, 0, 0}); };
    bool unknown = false;  // an unk that waits for more to fuse with
    for (size_t i = 0; i < piece.size();) {
      const size_t length = options_.byte_alphabet ? 1 : DecodeUtf8(piece, i).length;
      const auto byte = static_cast<uint8_t>(piece[i]);
      std::string_view character = options_.byte_alphabet ? ByteToAlphabet(byte) : piece.substr(i, length);
      TokenId id;
      if (plain_) {
        id = length == 1 ? single_[byte] : pieces_.Find(character);
      } else {
        scratch.word.clear();
        if (i > 0) scratch.word += options_.continuing_subword_prefix;
        scratch.word += character;
        if (i + length == piece.size()) scratch.word += options_.end_of_word_suffix;
        character = scratch.word;
        id = pieces_.Find(character);
      }
      i += length;
      if (id >= 0) {
        if (unknown) push(unk_);
        unknown = false;
        push(id);
      } else if (options_.byte_fallback && HasAllBytes(character)) {
        for (const char c : character) push(byte_fallback_[static_cast<uint8_t>(c)]);
      } else if (!options_.unk_token.empty()) {
        if (unk_ < 0) {
          return InvalidData("\"{}\" is not in the vocabulary, nor is the unk token \"{}\"", character,
                             options_.unk_token);
        }
        if (unknown && !options_.fuse_unk) push(unk_);
        unknown = true;
      }
    }
    if (unknown) push(unk_);
    return OkStatus();
  }

  bool HasAllBytes(std::string_view character) const {
    return std::all_of(character.begin(), character.end(),
                       [&](char c) { return byte_fallback_[static_cast<uint8_t>(c)] >= 0; });
  }

  /// For short words: look at every neighbouring pair again after each merge.
  void MergeByScan(const std::vector<EncodeScratch::Symbol>& symbols, std::vector<TokenId>* out) const {
    TokenId ids[kScanLimit];
    const MergeTable::Entry* pairs[kScanLimit];
    size_t count = symbols.size();
    for (size_t i = 0; i < count; ++i) ids[i] = symbols[i].id;
    for (size_t i = 0; i + 1 < count; ++i) pairs[i] = merges_.Find(ids[i], ids[i + 1]);
    while (count > 1) {
      size_t best = count;
      uint32_t rank = std::numeric_limits<uint32_t>::max();
      for (size_t i = 0; i + 1 < count; ++i) {
        if (pairs[i] != nullptr && pairs[i]->rank < rank) {
          rank = pairs[i]->rank;
          best = i;
        }
      }
      if (best == count) break;
      ids[best] = pairs[best]->result;
      std::copy(ids + best + 2, ids + count, ids + best + 1);
      std::copy(pairs + best + 2, pairs + count, pairs + best + 1);
      --count;
      if (best + 1 < count) pairs[best] = merges_.Find(ids[best], ids[best + 1]);
      if (best > 0) pairs[best - 1] = merges_.Find(ids[best - 1], ids[best]);
    }
    out->insert(out->end(), ids, ids + count);
  }

  /// For long pieces: a heap of pairs; an entry whose pair has changed since is skipped.
  void MergeByHeap(EncodeScratch& scratch, std::vector<TokenId>* out) const {
    auto& symbols = scratch.symbols;
    auto& heap = scratch.heap;
    heap.clear();
    const auto count = static_cast<int32_t>(symbols.size());
    const auto entry = [&](int32_t position) -> uint64_t {
      const auto& left = symbols[static_cast<size_t>(position)];
      if (left.next < 0) return ~uint64_t{0};
      const auto* merge = merges_.Find(left.id, symbols[static_cast<size_t>(left.next)].id);
      return merge == nullptr ? ~uint64_t{0}
                              : (static_cast<uint64_t>(merge->rank) << 32) | static_cast<uint32_t>(position);
    };
    for (int32_t i = 0; i < count; ++i) {
      symbols[static_cast<size_t>(i)].previous = i - 1;
      symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
    }
    for (int32_t i = 0; i < count; ++i) {
      if (const uint64_t key = entry(i); key != ~uint64_t{0}) heap.push_back(key);
    }
    const auto later = [](uint64_t a, uint64_t b) { return a > b; };
    std::make_heap(heap.begin(), heap.end(), later);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), later);
      const uint64_t key = heap.back();
      heap.pop_back();
      const auto position = static_cast<int32_t>(key & 0xffffffffu);
      auto& left = symbols[static_cast<size_t>(position)];
      if (left.id < 0 || entry(position) != key) continue;  // merged away, or no longer this pair
      auto& right = symbols[static_cast<size_t>(left.next)];
      left.id = merges_.Find(left.id, right.id)->result;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = position;
      for (const int32_t changed : {left.previous, position}) {
        if (changed < 0) continue;
        const uint64_t next = entry(changed);
        if (next == ~uint64_t{0}) continue;
        heap.push_back(next);
        std::push_heap(heap.begin(), heap.end(), later);
      }
    }
    for (const auto& symbol : symbols) {
      if (symbol.id >= 0) out->push_back(symbol.id);
    }
  }

  static constexpr size_t kScanLimit = 32;
  BpeOptions options_;
  MergeTable merges_;
  std::array<TokenId, 256> single_;         // by byte of the alphabet, or by ASCII character
  std::array<TokenId, 256> byte_fallback_;  // "<0x00>" …
  TokenId unk_ = -1;
  bool plain_ = true;
  bool splits_at_marker_ = false;
};

}  // namespace

Result<SubwordModelPtr> MakeBpe(PieceTable pieces, const std::vector<BpeMerge>& merges, BpeOptions options) {
  if (merges.size() > (1u << 24)) return ResourceExhausted("{} merges are too many", merges.size());
  return SubwordModelPtr(std::make_unique<Bpe>(std::move(pieces), merges, std::move(options)));
}

Result<BpeMerge> ResolveMerge(const PieceTable& pieces, std::string_view left, std::string_view right,
                              size_t prefix_length) {
  BpeMerge merge{pieces.Find(left), pieces.Find(right), -1};
  if (merge.left < 0 || merge.right < 0) {
    return InvalidData("merge \"{} {}\": \"{}\" is not in the vocabulary", Excerpt(left), Excerpt(right),
                       Excerpt(merge.left < 0 ? left : right));
  }
  std::string result(left);
  result += right.substr(std::min(prefix_length, right.size()));
  merge.result = pieces.Find(result);
  if (merge.result < 0) {
    return InvalidData("merge \"{} {}\": its result is not in the vocabulary", Excerpt(left), Excerpt(right));
  }
  return merge;
}

}  // namespace kvasir
