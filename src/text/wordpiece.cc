#include <algorithm>

#include "base/utf8.h"
#include "text/subword_model.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

class WordPiece final : public SubwordModel {
 public:
  WordPiece(PieceTable pieces, WordPieceOptions options)
      : SubwordModel(std::move(pieces)), options_(std::move(options)), unk_(pieces_.Find(options_.unk_token)) {}

  Status Encode(std::string_view piece, EncodeScratch& scratch, std::vector<TokenId>* out) const override {
    if (scratch.words.Find(piece, out)) return OkStatus();
    const size_t first = out->size();
    if (!Divide(piece, scratch, out)) {
      out->resize(first);
      if (unk_ < 0) {
        return InvalidData("\"{}\" is not in the vocabulary, nor is the unk token \"{}\"", Excerpt(piece),
                           options_.unk_token);
      }
      out->push_back(unk_);
    }
    scratch.words.Add(piece, out->data() + first, out->size() - first);
    return OkStatus();
  }

 private:
  bool Divide(std::string_view piece, EncodeScratch& scratch, std::vector<TokenId>* out) const {
    size_t characters = 0;
    for (const char c : piece) characters += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    if (characters > options_.max_input_chars_per_word) return false;
    for (size_t begin = 0; begin < piece.size();) {
      const std::string_view prefix = begin > 0 ? std::string_view(options_.continuing_subword_prefix) : "";
      // Nothing longer than the longest piece can match, which keeps long words linear.
      const size_t longest = pieces_.longest() > prefix.size() ? pieces_.longest() - prefix.size() : 0;
      size_t end = std::min(piece.size(), begin + longest);
      while (end < piece.size() && end > begin && (static_cast<uint8_t>(piece[end]) & 0xC0) == 0x80) --end;
      TokenId id = -1;
      while (end > begin) {
        scratch.word.assign(prefix);
        scratch.word += piece.substr(begin, end - begin);
        id = pieces_.Find(scratch.word);
        if (id >= 0) break;
        do --end;
        while (end > begin && (static_cast<uint8_t>(piece[end]) & 0xC0) == 0x80);
      }
      if (id < 0) return false;
      out->push_back(id);
      begin = end;
    }
    return true;
  }

  WordPieceOptions options_;
  TokenId unk_;
};

class WordLevel final : public SubwordModel {
 public:
  WordLevel(PieceTable pieces, const std::string& unk_token)
      : SubwordModel(std::move(pieces)), unk_(pieces_.Find(unk_token)) {}

  Status Encode(std::string_view piece, EncodeScratch&, std::vector<TokenId>* out) const override {
    TokenId id = pieces_.Find(piece);
    if (id < 0) id = unk_;
    if (id < 0) return InvalidData("\"{}\" is not in the vocabulary and there is no unk token", Excerpt(piece));
    out->push_back(id);
    return OkStatus();
  }

 private:
  TokenId unk_;
};

}  // namespace

Result<SubwordModelPtr> MakeWordPiece(PieceTable pieces, WordPieceOptions options) {
  return SubwordModelPtr(std::make_unique<WordPiece>(std::move(pieces), std::move(options)));
}

Result<SubwordModelPtr> MakeWordLevel(PieceTable pieces, const std::string& unk_token) {
  return SubwordModelPtr(std::make_unique<WordLevel>(std::move(pieces), unk_token));
}

}  // namespace kvasir
