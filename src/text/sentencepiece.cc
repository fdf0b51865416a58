#include "text/sentencepiece.h"

#include <bit>
#include <cstring>

#include "base/utf8.h"
#include "text/merge_rules.h"

namespace kvasir {
namespace {

constexpr std::string_view kMarker = "\u2581";

/// A protocol-buffer message in memory: yields its fields, checks every length.
class Message {
 public:
  explicit Message(std::string_view bytes) : bytes_(bytes) {}

  struct Field {
    uint32_t number = 0;
    uint32_t wire = 0;
    uint64_t value = 0;      // varint, or the bits of fixed32 and fixed64
    std::string_view bytes;  // length-delimited
  };

  bool AtEnd() const { return bytes_.empty(); }

  Result<Field> Next() {
    ASSIGN_OR_RETURN(const uint64_t tag, Varint());
    if (tag > UINT32_MAX || (tag >> 3) == 0) return InvalidData("field tag {} is not valid", tag);
    Field field;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = static_cast<uint32_t>(tag & 7);
    switch (field.wire) {
      case 0: {
        ASSIGN_OR_RETURN(field.value, Varint());
        return field;
      }
      case 1:
      case 5: {
        const size_t size = field.wire == 1 ? 8 : 4;
        if (bytes_.size() < size) return Truncated();
        for (size_t i = 0; i < size; ++i) {
          field.value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[i])) << (8 * i);
        }
        bytes_.remove_prefix(size);
        return field;
      }
      case 2: {
        ASSIGN_OR_RETURN(const uint64_t size, Varint());
        if (size > bytes_.size()) {
          return InvalidData("field {} claims {} bytes, but {} are left", field.number, size, bytes_.size());
        }
        field.bytes = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return field;
      }
      default: return InvalidData("field {} has wire type {}", field.number, field.wire);
    }
  }

 private:
  static Status Truncated() { return InvalidData("the file is truncated"); }
  Result<uint64_t> Varint() {
    uint64_t value = 0;
    for (size_t i = 0; i < 10; ++i) {
      if (i >= bytes_.size()) return Truncated();
      const auto byte = static_cast<uint8_t>(bytes_[i]);
      if (i == 9 && byte > 1) break;
      value |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
      if (byte < 0x80) {
        bytes_.remove_prefix(i + 1);
        return value;
      }
    }
    return InvalidData("a number has more than 64 bits");
  }
  std::string_view bytes_;
};

Status Expect(const Message::Field& field, uint32_t wire) {
  if (field.wire == wire) return OkStatus();
  return InvalidData("field {} has wire type {} where {} belongs", field.number, field.wire, wire);
}

Result<SentencePieceModel::Entry> ParsePiece(std::string_view bytes) {
  SentencePieceModel::Entry entry;
  for (Message message(bytes); !message.AtEnd();) {
    ASSIGN_OR_RETURN(const Message::Field field, message.Next());
    if (field.number == 1) {
      RETURN_IF_ERROR(Expect(field, 2));
      entry.piece = std::string(field.bytes);
    } else if (field.number == 2) {
      RETURN_IF_ERROR(Expect(field, 5));
      entry.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
      if (!(entry.score > -3e38f && entry.score < 3e38f)) return InvalidData("a score is not a finite number");
    } else if (field.number == 3) {
      RETURN_IF_ERROR(Expect(field, 0));
      if (field.value < 1 || field.value > 6) return InvalidData("piece type {} is not known", field.value);
      entry.type = static_cast<PieceType>(field.value);
    }
  }
  if (!IsValidUtf8(entry.piece)) return InvalidData("a piece is not UTF-8");
  return entry;
}

Status ParseTrainerSpec(std::string_view bytes, SentencePieceModel* model) {
  for (Message message(bytes); !message.AtEnd();) {
    ASSIGN_OR_RETURN(const Message::Field field, message.Next());
    const bool wanted = field.number == 3 || field.number == 35 || (field.number >= 40 && field.number <= 43);
    if (!wanted) continue;
    RETURN_IF_ERROR(Expect(field, 0));
    const auto number = static_cast<int64_t>(field.value);
    if (field.number == 3) {
      if (number != 1 && number != 2) {
        return Unsupported("model type {} (only Unigram, 1, and BPE, 2, are read)", number);
      }
      model->kind = static_cast<SentencePieceModel::Kind>(number);
    } else if (field.number == 35) {
      model->byte_fallback = number != 0;
    } else {
      if (number < -1 || number > kMaxTokenId) return InvalidData("special token id {} is out of range", number);
      const auto id = static_cast<TokenId>(number);
      (field.number == 40   ? model->unk_id
       : field.number == 41 ? model->bos_id
       : field.number == 42 ? model->eos_id
                            : model->pad_id) = id;
    }
  }
  return OkStatus();
}

Status ParseNormalizerSpec(std::string_view bytes, SentencePieceModel* model) {
  for (Message message(bytes); !message.AtEnd();) {
    ASSIGN_OR_RETURN(const Message::Field field, message.Next());
    if (field.number == 2) {
      RETURN_IF_ERROR(Expect(field, 2));
      model->charsmap = std::string(field.bytes);
    } else if (field.number == 3) {
      RETURN_IF_ERROR(Expect(field, 0));
      model->add_dummy_prefix = field.value != 0;
    } else if (field.number == 4) {
      RETURN_IF_ERROR(Expect(field, 0));
      model->remove_extra_whitespaces = field.value != 0;
    }
  }
  return OkStatus();
}

Result<NormalizerPtr> MakeReplaceAll(bool regex, std::string_view pattern, std::string_view content) {
  ASSIGN_OR_RETURN(Regex compiled, regex ? Regex::Compile(pattern) : Regex::Literal(pattern));
  return MakeReplace(std::move(compiled), std::string(content));
}

/// The general rules of conversion: compiled table, no spaces at the end, runs of spaces as one marker.
Status AddGeneralRules(const SentencePieceModel& model, const SentencePieceOptions& options, TokenizerParts* parts) {
  std::vector<NormalizerPtr> rules;
  ASSIGN_OR_RETURN(NormalizerPtr table, MakePrecompiled(model.charsmap));
  if (table != nullptr) rules.push_back(std::move(table));
  rules.push_back(MakeStrip(false, true));
  ASSIGN_OR_RETURN(NormalizerPtr runs, MakeReplaceAll(true, " {2,}", kMarker));
  rules.push_back(std::move(runs));
  parts->normalizer = MakeNormalizerSequence(std::move(rules));
  const PrependScheme scheme = options.add_prefix_space ? PrependScheme::kAlways : PrependScheme::kNever;
  parts->pre_tokenizer = MakeMetaspace(std::string(kMarker), scheme, true);
  parts->decoder.Metaspace(std::string(kMarker), options.add_prefix_space);
  return OkStatus();
}

/// Spaces as markers, with or without one before the text; bytes for what the vocabulary lacks.
Status AddMarkerRules(const SentencePieceModel& model, const SentencePieceOptions& options, TokenizerParts* parts) {
  using Pieces = TokenizerClass::Pieces;
  const bool raw = options.pieces == Pieces::kRaw;
  const bool prefix = raw                                   ? model.add_dummy_prefix
                      : options.pieces == Pieces::kPlainBpe ? false
                                                            : options.add_prefix_space;
  std::vector<NormalizerPtr> rules;
  if (raw) {
    ASSIGN_OR_RETURN(NormalizerPtr table, MakePrecompiled(model.charsmap, CharsmapStyle::kLongestMatch));
    if (table != nullptr) rules.push_back(std::move(table));
    if (model.remove_extra_whitespaces) {
      ASSIGN_OR_RETURN(NormalizerPtr head, MakeReplaceAll(true, R"(\A +)", ""));
      rules.push_back(std::move(head));
      ASSIGN_OR_RETURN(NormalizerPtr runs, MakeReplaceAll(true, " {2,}", " "));
      rules.push_back(std::move(runs));
    }
  }
  if (!raw && prefix && !options.legacy) {
    parts->pre_tokenizer = MakeMetaspace(std::string(kMarker), PrependScheme::kFirst, false);
  } else if (!raw && options.pieces == Pieces::kPrefixed && !options.legacy) {
    parts->pre_tokenizer = MakeMetaspace(std::string(kMarker), PrependScheme::kNever, false);
  } else {
    if (prefix) rules.push_back(MakePrepend(std::string(kMarker)));
    ASSIGN_OR_RETURN(NormalizerPtr spaces, MakeReplaceAll(false, " ", kMarker));
    rules.push_back(std::move(spaces));
  }
  if (raw && model.remove_extra_whitespaces) {  // markers at the end go, also those that stood in the text
    ASSIGN_OR_RETURN(NormalizerPtr tail, MakeReplaceAll(true, "(?<!\u2581)\u2581+\\z", ""));
    rules.push_back(std::move(tail));
  }
  if (!rules.empty()) parts->normalizer = MakeNormalizerSequence(std::move(rules));
  parts->decoder.ReplaceString(std::string(kMarker), " ");
  parts->decoder.ByteFallback();
  parts->decoder.Fuse();
  if (prefix) parts->decoder.Strip(U' ', 1, 0);
  return OkStatus();
}

Status BuildModel(SentencePieceModel& model, const SentencePieceOptions& options, TokenizerParts* parts) {
  PieceTable pieces;
  std::vector<float> scores;
  const bool plain = options.pieces == TokenizerClass::Pieces::kPlainBpe;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    SentencePieceModel::Entry& entry = model.pieces[i];
    // The byte piece of the tab stands for the tab itself there.
    if (plain && entry.piece == "<0x09>") entry.piece = "\t";
    RETURN_IF_ERROR(pieces.Add(entry.piece, static_cast<int64_t>(i)));
    // The conversion gives the first three, which are special, the score 0.
    scores.push_back(i < 3 && options.pieces != TokenizerClass::Pieces::kRaw ? 0.0f : entry.score);
  }
  if (model.unk_id >= 0 && pieces.Has(model.unk_id)) parts->vocab.unk = model.unk_id;
  if (model.kind == SentencePieceModel::Kind::kUnigram) {
    UnigramOptions unigram;
    unigram.unk = parts->vocab.unk;
    unigram.byte_fallback = model.byte_fallback && options.pieces != TokenizerClass::Pieces::kPrefixed;
    parts->kind = "Unigram";
    ASSIGN_OR_RETURN(parts->model,
                     MakeUnigram(std::move(pieces), std::vector<double>(scores.begin(), scores.end()), unigram));
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges, MergesFromScores(pieces, scores));
  BpeOptions bpe;
  if (parts->vocab.unk) bpe.unk_token = std::string(pieces.Piece(*parts->vocab.unk));
  bpe.fuse_unk = true;
  bpe.byte_fallback = model.byte_fallback;
  parts->kind = "SentencePiece BPE";
  ASSIGN_OR_RETURN(parts->model, MakeBpe(std::move(pieces), merges, std::move(bpe)));
  return OkStatus();
}

}  // namespace

bool LooksLikeSentencePiece(std::string_view bytes) {
  // Field 1 (pieces), length-delimited, holding field 1 (the string), length-delimited.
  return bytes.size() > 4 && bytes[0] == 0x0A && (bytes[2] == 0x0A || bytes[3] == 0x0A);
}

Result<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes) {
  SentencePieceModel model;
  for (Message message(bytes); !message.AtEnd();) {
    ASSIGN_OR_RETURN(const Message::Field field, message.Next());
    if (field.number < 1 || field.number > 3) continue;
    RETURN_IF_ERROR(Expect(field, 2));
    if (field.number == 2) RETURN_IF_ERROR(ParseTrainerSpec(field.bytes, &model));
    if (field.number == 3) RETURN_IF_ERROR(ParseNormalizerSpec(field.bytes, &model));
    if (field.number != 1) continue;
    auto entry = ParsePiece(field.bytes);
    if (!entry.ok()) return entry.status().WithContext(fmt::format("piece {}", model.pieces.size()));
    model.pieces.push_back(*std::move(entry));
    if (model.pieces.size() > static_cast<size_t>(kMaxTokenId)) return ResourceExhausted("too many pieces");
  }
  if (model.pieces.empty()) return InvalidData("the model has no pieces");
  return model;
}

Result<TokenizerParts> BuildSentencePiece(SentencePieceModel model, const SentencePieceOptions& options) {
  TokenizerParts parts;
  RETURN_IF_ERROR(BuildModel(model, options, &parts));
  for (const SentencePieceModel::Entry& entry : model.pieces) {
    if (entry.type != PieceType::kControl && entry.type != PieceType::kUserDefined) continue;
    AddedToken token;
    token.content = entry.piece;
    token.normalized = false;
    token.special = entry.type == PieceType::kControl || EndsGeneration(entry.piece);
    RETURN_IF_ERROR(parts.added.Add(std::move(token), parts.model->pieces()));
  }
  const auto named = [&](TokenId id) -> std::optional<TokenId> {
    return parts.model->pieces().Has(id) ? std::optional<TokenId>(id) : std::nullopt;
  };
  parts.vocab.bos = named(model.bos_id);
  if (const auto eos = named(model.eos_id)) parts.vocab.eos = {*eos};
  parts.vocab.pad = named(model.pad_id);
  if (model.kind == SentencePieceModel::Kind::kUnigram && options.pieces == TokenizerClass::Pieces::kPrefixed) {
    RETURN_IF_ERROR(AddGeneralRules(model, options, &parts));
  } else {
    RETURN_IF_ERROR(AddMarkerRules(model, options, &parts));
  }
  return parts;
}

}  // namespace kvasir
