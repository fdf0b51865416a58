#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/utf8.h"
#include "text/byte_trie.h"
#include "text/subword_model.h"

namespace kvasir {
namespace {

class Unigram final : public SubwordModel {
 public:
  Unigram(PieceTable pieces, ByteTrie trie, std::vector<double> scores, const UnigramOptions& options)
      : SubwordModel(std::move(pieces)), trie_(std::move(trie)), scores_(std::move(scores)), options_(options) {
    const double lowest = scores_.empty() ? 0.0 : *std::min_element(scores_.begin(), scores_.end());
    unk_score_ = lowest - 10.0;  // SentencePiece's penalty
    for (int b = 0; b < 256; ++b) bytes_[static_cast<size_t>(b)] = pieces_.Find(BytePiece(static_cast<uint8_t>(b)));
  }

  Status Encode(std::string_view piece, EncodeScratch& scratch, std::vector<TokenId>* out) const override {
    if (scratch.words.Find(piece, out)) return OkStatus();
    if (piece.size() > (1u << 30)) return ResourceExhausted("a piece of {} bytes is too long", piece.size());
    const size_t first = out->size();
    RETURN_IF_ERROR(BestPath(piece, scratch));
    RETURN_IF_ERROR(Emit(piece, scratch, out));
    scratch.words.Add(piece, out->data() + first, out->size() - first);
    return OkStatus();
  }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  /// Viterbi from left to right: path[i] is the best way to end a token at byte i.
  Status BestPath(std::string_view text, EncodeScratch& scratch) const {
    auto& path = scratch.path;
    path.assign(text.size() + 1, {0.0, kNone, -1});
    for (size_t begin = 0; begin < text.size();) {
      const double so_far = path[begin].score;
      const size_t length = DecodeUtf8(text, begin).length;
      const auto offer = [&](size_t end, double score, TokenId id) {
        auto& node = path[end];
        if (node.start == kNone || score > node.score) node = {score, static_cast<uint32_t>(begin), id};
      };
      bool single = false;
      trie_.ForEachPrefix(text, begin, [&](size_t size, int32_t id) {
        offer(begin + size, scores_[static_cast<size_t>(id)] + so_far, id);
        single = single || size == length;
      });
      if (!single) {
        if (!options_.unk) {
          return InvalidData("\"{}\" is not in the vocabulary and there is no unk token", text.substr(begin, length));
        }
        offer(begin + length, unk_score_ + so_far, *options_.unk);
      }
      begin += length;
    }
    return OkStatus();
  }

  /// Walks the path back, fuses neighbouring unknowns and writes tokens.
  Status Emit(std::string_view text, EncodeScratch& scratch, std::vector<TokenId>* out) const {
    auto& tokens = scratch.symbols;  // id, begin and end of each token, last first
    tokens.clear();
    for (size_t end = text.size(); end > 0;) {
      const auto& node = scratch.path[end];
      const bool unknown = options_.unk && node.id == *options_.unk;
      if (unknown && !tokens.empty() && tokens.back().id == -1) {
        tokens.back().previous = static_cast<int32_t>(node.start);
      } else {
        tokens.push_back({unknown ? -1 : node.id, static_cast<int32_t>(node.start), static_cast<int32_t>(end)});
      }
      end = node.start;
    }
    for (auto token = tokens.rbegin(); token != tokens.rend(); ++token) {
      if (token->id >= 0) {
        out->push_back(token->id);
        continue;
      }
      const std::string_view unknown =
          text.substr(static_cast<size_t>(token->previous), static_cast<size_t>(token->next - token->previous));
      if (const TokenId id = pieces_.Find(unknown); id >= 0) {
        out->push_back(id);
      } else if (options_.byte_fallback && std::all_of(unknown.begin(), unknown.end(),
                                                       [&](char c) { return bytes_[static_cast<uint8_t>(c)] >= 0; })) {
        for (const char c : unknown) out->push_back(bytes_[static_cast<uint8_t>(c)]);
      } else {
        out->push_back(*options_.unk);
      }
    }
    return OkStatus();
  }

  ByteTrie trie_;
  std::vector<double> scores_;
  UnigramOptions options_;
  double unk_score_ = 0;
  std::array<TokenId, 256> bytes_;
};

}  // namespace

Result<SubwordModelPtr> MakeUnigram(PieceTable pieces, std::vector<double> scores, const UnigramOptions& options) {
  if (static_cast<size_t>(pieces.limit()) != scores.size() || pieces.count() != scores.size()) {
    return InvalidData("the vocabulary has {} pieces but {} scores", pieces.count(), scores.size());
  }
  if (options.unk && !pieces.Has(*options.unk)) {
    return InvalidData("the unk id {} is outside the vocabulary of {} pieces", *options.unk, pieces.count());
  }
  ByteTrie trie;
  for (TokenId id = 0; id < pieces.limit(); ++id) {
    if (!std::isfinite(scores[static_cast<size_t>(id)])) {
      return InvalidData("the score of piece {} is not a finite number", id);
    }
    // Of equal strings the id that Find answers counts.
    RETURN_IF_ERROR(trie.Add(pieces.Piece(id), pieces.Find(pieces.Piece(id))));
  }
  return SubwordModelPtr(std::make_unique<Unigram>(std::move(pieces), std::move(trie), std::move(scores), options));
}

}  // namespace kvasir
