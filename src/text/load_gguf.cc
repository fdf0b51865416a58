// Vocabularies inside GGUF files (tokenizer.ggml.*).
#include <algorithm>

#include "base/log.h"
#include "io/gguf.h"
#include "text/format_names.h"
#include "text/merge_rules.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

constexpr std::string_view kMarker = "\u2581";

struct GgufVocab {
  const std::vector<std::string>* tokens = nullptr;
  std::vector<PieceType> types;
  std::vector<float> scores;  // empty when the file has none
};

Result<GgufVocab> ReadVocab(const GgufFile& file) {
  GgufVocab vocab;
  ASSIGN_OR_RETURN(vocab.tokens, file.StringList("tokenizer.ggml.tokens"));
  if (vocab.tokens == nullptr || vocab.tokens->empty()) {
    return InvalidData("{}: no tokenizer.ggml.tokens", file.description());
  }
  const size_t count = vocab.tokens->size();
  ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.IntList("tokenizer.ggml.token_type", 0, 6));
  if (!types.empty() && types.size() != count) {
    return InvalidData("{}: {} tokens but {} token types", file.description(), count, types.size());
  }
  vocab.types.assign(count, PieceType::kNormal);
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] != 0) vocab.types[i] = static_cast<PieceType>(types[i]);
  }
  ASSIGN_OR_RETURN(const std::vector<double>* scores, file.NumberList("tokenizer.ggml.scores"));
  if (scores == nullptr) return vocab;
  if (scores->size() != count) {
    return InvalidData("{}: {} tokens but {} scores", file.description(), count, scores->size());
  }
  for (const double score : *scores) {
    if (!(score > -3e38 && score < 3e38)) return InvalidData("{}: a token's score is not finite", file.description());
    vocab.scores.push_back(static_cast<float>(score));
  }
  return vocab;
}

Result<PieceTable> MakePieces(const GgufFile& file, const GgufVocab& vocab) {
  PieceTable pieces;
  for (size_t i = 0; i < vocab.tokens->size(); ++i) {
    const Status added = pieces.Add((*vocab.tokens)[i], static_cast<int64_t>(i), false);
    if (!added.ok()) return added.WithContext(file.description() + ": tokenizer.ggml.tokens");
  }
  return pieces;
}

Result<std::optional<TokenId>> ReadId(const GgufFile& file, const std::string& name, size_t count) {
  const std::string key = "tokenizer.ggml." + name;
  if (file.FindValue(key) == nullptr) return std::optional<TokenId>();
  ASSIGN_OR_RETURN(const int64_t id, file.Int(key, -1, UINT32_MAX));
  // Some writers say "none" by an id beyond the vocabulary.
  if (id < 0 || id == UINT32_MAX) return std::optional<TokenId>();
  if (id >= static_cast<int64_t>(count)) {
    return InvalidData("{}: {} is {}, but the vocabulary has {} tokens", file.description(), key, id, count);
  }
  return std::optional<TokenId>(static_cast<TokenId>(id));
}

Status AddSpecialTokens(const GgufFile& file, const GgufVocab& vocab, TokenizerParts* parts) {
  ASSIGN_OR_RETURN(const std::string name, file.String("general.name", ""));
  const bool strips = SpecialTokensTakeSpaces(name);
  for (size_t i = 0; i < vocab.tokens->size(); ++i) {
    const PieceType type = vocab.types[i];
    const bool control = type == PieceType::kControl || type == PieceType::kUnknown;
    if (!control && type != PieceType::kUserDefined) continue;
    AddedToken token;
    token.content = (*vocab.tokens)[i];
    token.normalized = false;
    token.special = control || EndsGeneration(token.content);
    token.rstrip = strips && token.content.starts_with("<|") && token.content != "<|endoftext|>";
    if (strips && token.content == "</s>") token.rstrip = true;
    RETURN_IF_ERROR(parts->added.Add(std::move(token), parts->model->pieces()));
  }
  return OkStatus();
}

Status BuildSentencePieceBpe(const GgufFile& file, const GgufVocab& vocab, TokenizerParts* parts) {
  if (vocab.scores.empty()) return InvalidData("{}: no tokenizer.ggml.scores", file.description());
  ASSIGN_OR_RETURN(PieceTable pieces, MakePieces(file, vocab));
  ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges, MergesFromScores(pieces, vocab.scores));
  ASSIGN_OR_RETURN(const bool prefix, file.Bool("tokenizer.ggml.add_space_prefix", true));
  BpeOptions options;
  if (parts->vocab.unk) options.unk_token = std::string(pieces.Piece(*parts->vocab.unk));
  options.fuse_unk = true;
  options.byte_fallback = true;
  ASSIGN_OR_RETURN(parts->model, MakeBpe(std::move(pieces), merges, std::move(options)));
  std::vector<NormalizerPtr> rules;
  if (prefix) rules.push_back(MakePrepend(std::string(kMarker)));
  ASSIGN_OR_RETURN(Regex space, Regex::Literal(" "));
  rules.push_back(MakeReplace(std::move(space), std::string(kMarker)));
  parts->normalizer = MakeNormalizerSequence(std::move(rules));
  parts->decoder.ReplaceString(std::string(kMarker), " ");
  parts->decoder.ByteFallback();
  parts->decoder.Fuse();
  if (prefix) parts->decoder.Strip(U' ', 1, 0);
  parts->kind = "SentencePiece BPE";
  return OkStatus();
}

/// How text is divided: as `pre` says, else the file.
Result<const ByteLevelRecipe*> FindDivision(const GgufFile& file, std::string_view pre) {
  if (!pre.empty()) {
    const ByteLevelRecipe* recipe = FindGgufPreTokenizer(pre);
    if (recipe == nullptr) {
      return InvalidArgument("--pre \"{}\" is not known; known are {}", pre, GgufPreTokenizerNames());
    }
    return recipe;
  }
  ASSIGN_OR_RETURN(const std::string name, file.String("tokenizer.ggml.pre", ""));
  if (name.empty()) {
    LogWarning("{}: no tokenizer.ggml.pre, as in old files; text is divided by \"default\" (--pre gives another)",
               file.description());
    return FindGgufPreTokenizer("default");
  }
  const ByteLevelRecipe* recipe = FindGgufPreTokenizer(name);
  if (recipe == nullptr) {
    return Unsupported(
        "{}: tokenizer.ggml.pre is \"{}\", a division of text that is not known; if it is the same as one of these, "
        "give that with --pre: {}",
        file.description(), name, GgufPreTokenizerNames());
  }
  return recipe;
}

Status BuildByteLevel(const GgufFile& file, const GgufVocab& vocab, std::string_view pre, TokenizerParts* parts,
                      bool* add_bos) {
  ASSIGN_OR_RETURN(PieceTable pieces, MakePieces(file, vocab));
  ASSIGN_OR_RETURN(const std::vector<std::string>* list, file.StringList("tokenizer.ggml.merges"));
  if (list == nullptr) return InvalidData("{}: no tokenizer.ggml.merges", file.description());
  std::vector<BpeMerge> merges;
  merges.reserve(list->size());
  for (const std::string& line : *list) {
    const size_t space = line.find(' ', 1);
    if (space == std::string::npos) {
      return InvalidData("{}: merge {} (\"{}\") has no space", file.description(), merges.size(), Excerpt(line));
    }
    auto merge =
        ResolveMerge(pieces, std::string_view(line).substr(0, space), std::string_view(line).substr(space + 1), 0);
    if (!merge.ok()) return merge.status().WithContext(file.description());
    merges.push_back(*merge);
  }
  ASSIGN_OR_RETURN(const ByteLevelRecipe* recipe, FindDivision(file, pre));
  *add_bos = recipe->add_bos;
  BpeOptions options;
  options.byte_alphabet = true;
  options.ignore_merges = recipe->ignore_merges;
  ASSIGN_OR_RETURN(parts->model, MakeBpe(std::move(pieces), merges, std::move(options)));
  ASSIGN_OR_RETURN(const bool prefix, file.Bool("tokenizer.ggml.add_space_prefix", false));
  ASSIGN_OR_RETURN(parts->pre_tokenizer, MakeRecipePreTokenizer(*recipe, prefix));
  if (recipe->nfc) parts->normalizer = MakeNormalForm(NormalForm::kNfc);
  parts->decoder.ByteLevel();
  parts->kind = BpeKind(true, false);
  return OkStatus();
}

/// Words begin with the marker in these files, where the original has "##" before what continues a word.
Status BuildWordPiece(const GgufFile& file, const GgufVocab& vocab, TokenizerParts* parts) {
  PieceTable pieces;
  for (size_t i = 0; i < vocab.tokens->size(); ++i) {
    const std::string& token = (*vocab.tokens)[i];
    std::string piece = token;
    if (token.starts_with(kMarker)) {
      piece = token.substr(kMarker.size());
    } else if (vocab.types[i] == PieceType::kNormal) {
      piece = "##" + token;
    }
    const Status added = pieces.Add(piece, static_cast<int64_t>(i), false);
    if (!added.ok()) return added.WithContext(file.description() + ": tokenizer.ggml.tokens");
  }
  WordPieceOptions options;
  if (parts->vocab.unk) options.unk_token = std::string(pieces.Piece(*parts->vocab.unk));
  ASSIGN_OR_RETURN(parts->model, MakeWordPiece(std::move(pieces), std::move(options)));
  parts->normalizer = MakeBertNormalizer(true, true, true, true);
  parts->pre_tokenizer = MakeBertPreTokenizer();
  parts->decoder.WordPiece("##", true);
  parts->kind = "WordPiece";
  return OkStatus();
}

Status BuildUnigram(const GgufFile& file, const GgufVocab& vocab, TokenizerParts* parts) {
  if (vocab.scores.empty()) return InvalidData("{}: no tokenizer.ggml.scores", file.description());
  ASSIGN_OR_RETURN(PieceTable pieces, MakePieces(file, vocab));
  UnigramOptions options;
  options.unk = parts->vocab.unk;
  ASSIGN_OR_RETURN(parts->model, MakeUnigram(std::move(pieces), {vocab.scores.begin(), vocab.scores.end()}, options));
  ASSIGN_OR_RETURN(const std::vector<int64_t> table, file.IntList("tokenizer.ggml.precompiled_charsmap", -128, 255));
  std::string charsmap;
  for (const int64_t byte : table) charsmap += static_cast<char>(static_cast<uint8_t>(byte));
  std::vector<NormalizerPtr> rules;
  ASSIGN_OR_RETURN(NormalizerPtr precompiled, MakePrecompiled(charsmap));
  if (precompiled != nullptr) rules.push_back(std::move(precompiled));
  ASSIGN_OR_RETURN(const bool squeeze, file.Bool("tokenizer.ggml.remove_extra_whitespaces", true));
  if (squeeze) {
    ASSIGN_OR_RETURN(Regex ends, Regex::Compile(R"(\A +|(?<! ) +\z)"));
    rules.push_back(MakeReplace(std::move(ends), ""));
    ASSIGN_OR_RETURN(Regex runs, Regex::Compile(" {2,}"));
    rules.push_back(MakeReplace(std::move(runs), " "));
  }
  parts->normalizer = MakeNormalizerSequence(std::move(rules));
  ASSIGN_OR_RETURN(const bool prefix, file.Bool("tokenizer.ggml.add_space_prefix", true));
  parts->pre_tokenizer =
      MakeMetaspace(std::string(kMarker), prefix ? PrependScheme::kAlways : PrependScheme::kNever, true);
  parts->decoder.Metaspace(std::string(kMarker), prefix);
  parts->kind = "Unigram";
  return OkStatus();
}

/// bos, eos and their like, and every token that ends a turn.
Status ReadSpecialIds(const GgufFile& file, const GgufVocab& vocab, TokenizerParts* parts) {
  const size_t count = vocab.tokens->size();
  ASSIGN_OR_RETURN(parts->vocab.bos, ReadId(file, "bos_token_id", count));
  ASSIGN_OR_RETURN(parts->vocab.pad, ReadId(file, "padding_token_id", count));
  ASSIGN_OR_RETURN(parts->vocab.unk, ReadId(file, "unknown_token_id", count));
  std::vector<TokenId>& eos = parts->vocab.eos;
  const auto add = [&](std::optional<TokenId> id) {
    if (id && std::find(eos.begin(), eos.end(), *id) == eos.end()) eos.push_back(*id);
  };
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<TokenId> id, ReadId(file, name, count));
    add(id);
  }
  for (size_t i = 0; i < count; ++i) {
    const bool marked = vocab.types[i] == PieceType::kControl || vocab.types[i] == PieceType::kUserDefined;
    if (marked && EndsGeneration((*vocab.tokens)[i])) add(static_cast<TokenId>(i));
  }
  return OkStatus();
}

Status SetTemplate(const GgufFile& file, size_t count, bool word_piece, bool bos_default, TokenizerParts* parts) {
  ASSIGN_OR_RETURN(const bool bos, file.Bool("tokenizer.ggml.add_bos_token", bos_default));
  ASSIGN_OR_RETURN(const bool eos, file.Bool("tokenizer.ggml.add_eos_token", word_piece));
  std::optional<TokenId> first = parts->vocab.bos;
  std::optional<TokenId> last;
  if (!parts->vocab.eos.empty()) last = parts->vocab.eos.front();
  if (word_piece) {
    ASSIGN_OR_RETURN(const std::optional<TokenId> cls, ReadId(file, "cls_token_id", count));
    ASSIGN_OR_RETURN(const std::optional<TokenId> sep, ReadId(file, "seperator_token_id", count));  // sic
    if (cls) first = cls;
    if (sep) last = sep;
  }
  parts->post_template.clear();
  if (bos && first) parts->post_template.push_back(*first);
  parts->post_template.push_back(kTemplateText);
  if (eos && last) parts->post_template.push_back(*last);
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const GgufFile& file, std::string_view pre) {
  ASSIGN_OR_RETURN(const std::string name, file.String("tokenizer.ggml.model"));
  const GgufVocabulary kind = FindGgufVocabulary(name);
  if (kind == GgufVocabulary::kUnknown) {
    return Unsupported("{}: tokenizer.ggml.model is \"{}\", which is not known", file.description(), name);
  }
  if (!pre.empty() && kind != GgufVocabulary::kByteLevel) {
    return InvalidArgument("--pre is for byte-level vocabularies; {} has one of kind \"{}\"", file.description(), name);
  }
  ASSIGN_OR_RETURN(const GgufVocab vocab, ReadVocab(file));
  TokenizerParts parts;
  RETURN_IF_ERROR(ReadSpecialIds(file, vocab, &parts));
  bool add_bos = kind == GgufVocabulary::kSentencePiece || kind == GgufVocabulary::kWordPiece;
  switch (kind) {
    case GgufVocabulary::kSentencePiece: RETURN_IF_ERROR(BuildSentencePieceBpe(file, vocab, &parts)); break;
    case GgufVocabulary::kByteLevel: RETURN_IF_ERROR(BuildByteLevel(file, vocab, pre, &parts, &add_bos)); break;
    case GgufVocabulary::kWordPiece: RETURN_IF_ERROR(BuildWordPiece(file, vocab, &parts)); break;
    case GgufVocabulary::kUnigram: RETURN_IF_ERROR(BuildUnigram(file, vocab, &parts)); break;
    case GgufVocabulary::kUnknown: break;
  }
  RETURN_IF_ERROR(AddSpecialTokens(file, vocab, &parts));
  RETURN_IF_ERROR(SetTemplate(file, vocab.tokens->size(), kind == GgufVocabulary::kWordPiece, add_bos, &parts));
  ASSIGN_OR_RETURN(parts.chat_template, file.String("tokenizer.chat_template", ""));
  auto made = MakeTokenizer(std::move(parts));
  if (!made.ok()) return made.status().WithContext(file.description());
  return made;
}

}  // namespace kvasir
