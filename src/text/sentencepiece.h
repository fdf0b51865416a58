// SentencePiece's tokenizer.model: a protocol buffer, read by a bounded reader of its own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/format_names.h"
#include "text/pipeline.h"

namespace kvasir {

enum class PieceType : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// What of a model file matters for encoding.
struct SentencePieceModel {
  struct Entry {
    std::string piece;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  enum class Kind { kUnigram = 1, kBpe = 2 };
  std::vector<Entry> pieces;
  Kind kind = Kind::kUnigram;
  bool byte_fallback = false;
  std::string charsmap;  // compiled normalisation, may be empty
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  TokenId unk_id = 0;
  TokenId bos_id = 1;
  TokenId eos_id = 2;
  TokenId pad_id = -1;
};

/// Whether the bytes begin like a SentencePiece model.
bool LooksLikeSentencePiece(std::string_view bytes);

/// Parses the file's bytes. Errors: truncated or overlong fields, wrong wire types, no pieces, strings not UTF-8.
Result<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes);

/// How to build a tokenizer of it; the defaults are those of Hugging Face's conversion.
struct SentencePieceOptions {
  TokenizerClass::Pieces pieces = TokenizerClass::Pieces::kPrefixed;
  bool add_prefix_space = true;
  bool legacy = true;  // the prefix goes before every stretch between added tokens, not only the first
};

/// Builds everything but the post-processor. kPrefixed: BPE as for the first models with byte fallback, Unigram by the
/// general rules; kPlainBpe: no prefix; kRaw: what the model file itself asks for.
Result<TokenizerParts> BuildSentencePiece(SentencePieceModel model, const SentencePieceOptions& options);

}  // namespace kvasir
