// The doors by which tokenizers come in: folders, files and bytes.
#include "base/utf8.h"
#include "text/format_names.h"
#include "text/rank_file.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_json.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

bool LooksLikeJson(std::string_view bytes) {
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && bytes[first] == '{';
}

bool Exists(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored);
}

/// The parts from one file's content; the config chooses between recipes.
Result<TokenizerParts> PartsFromBytes(std::string_view bytes, const TokenizerConfig& config, const std::string& what) {
  if (LooksLikeJson(bytes)) return ParseTokenizerJson(bytes, what);
  const auto in_file = [&](Result<TokenizerParts> parts) -> Result<TokenizerParts> {
    return parts.ok() ? std::move(parts) : Result<TokenizerParts>(parts.status().WithContext(what));
  };
  if (LooksLikeRankFile(bytes)) return in_file(ParseRankFile(bytes, config.added.empty()));
  if (!LooksLikeSentencePiece(bytes)) {
    return InvalidData("{}: neither tokenizer.json nor a SentencePiece model nor a list of ranks", what);
  }
  auto model = ParseSentencePieceModel(bytes);
  if (!model.ok()) return model.status().WithContext(what);
  SentencePieceOptions options;
  options.pieces = FindTokenizerClass(config.tokenizer_class).pieces;
  options.add_prefix_space = config.add_prefix_space.value_or(true);
  options.legacy = config.legacy.value_or(true);
  return in_file(BuildSentencePiece(*std::move(model), options));
}

/// vocab.json and merges.txt.
Result<TokenizerParts> PartsFromVocabAndMerges(const fs::path& folder, const TokenizerConfig& config) {
  const fs::path vocab_file = folder / "vocab.json";
  const fs::path merges_file = folder / "merges.txt";
  ASSIGN_OR_RETURN(const json::value vocab, ParseJsonFile(vocab_file));
  ASSIGN_OR_RETURN(PieceTable pieces, ParseVocabObject(vocab, vocab_file.string()));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(merges_file, kMaxTokenizerJson));
  ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges, ParseMergesText(text, pieces, merges_file.string()));
  const TokenizerClass& traits = FindTokenizerClass(config.tokenizer_class);
  if (traits.byte_level == nullptr) {
    return Unsupported("{}: no tokenizer.json, and how {} divides text is not known; save it with save_pretrained()",
                       folder.string(), config.tokenizer_class);
  }
  TokenizerParts parts;
  BpeOptions options;
  options.byte_alphabet = true;
  parts.kind = BpeKind(true, false);
  ASSIGN_OR_RETURN(parts.model, MakeBpe(std::move(pieces), merges, std::move(options)));
  ASSIGN_OR_RETURN(parts.pre_tokenizer,
                   MakeRecipePreTokenizer(*traits.byte_level, config.add_prefix_space.value_or(false)));
  if (traits.byte_level->nfc) parts.normalizer = MakeNormalForm(NormalForm::kNfc);
  parts.decoder.ByteLevel();
  // Without a config the name of the class is not known; its usual end of text is.
  if (!config.present) {
    AddedToken token;
    token.content = "<|endoftext|>";
    token.normalized = false;
    token.special = true;
    if (const TokenId id = parts.model->pieces().Find(token.content); id >= 0) {
      RETURN_IF_ERROR(parts.added.Add(token, parts.model->pieces()));
      parts.vocab.bos = id;
      parts.vocab.eos = {id};
    }
  }
  return parts;
}

Result<std::unique_ptr<Tokenizer>> Finish(Result<TokenizerParts> parts, const TokenizerConfig& config, bool converted,
                                          const std::string& what) {
  RETURN_IF_ERROR(parts.status());
  if (config.present || converted) {
    const Status applied = ApplyTokenizerConfig(config, converted, &*parts);
    if (!applied.ok()) return applied.WithContext(what);
  }
  auto made = MakeTokenizer(*std::move(parts));
  if (!made.ok()) return made.status().WithContext(what);
  return made;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const fs::path& folder) {
  ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerConfig(folder));
  const std::string what = folder.string();
  if (const fs::path file = folder / "tokenizer.json"; Exists(file)) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxTokenizerJson));
    return Finish(ParseTokenizerJson(bytes, file.string()), config, false, what);
  }
  if (Exists(folder / "vocab.json") && Exists(folder / "merges.txt")) {
    config.add_bos = config.add_bos.value_or(false);
    return Finish(PartsFromVocabAndMerges(folder, config), config, true, what);
  }
  for (const char* name : {"tokenizer.model", "qwen.tiktoken", "tokenizer.tiktoken"}) {
    const fs::path file = folder / name;
    if (!Exists(file)) continue;
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxTokenizerJson));
    return Finish(PartsFromBytes(bytes, config, file.string()), config, !LooksLikeRankFile(bytes), what);
  }
  return NotFound("{}: no tokenizer.json, no vocab.json with merges.txt and no tokenizer.model", what);
}

Result<std::unique_ptr<Tokenizer>> LoadTokenizerFile(const fs::path& file) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxTokenizerJson));
  return LoadTokenizerFromBytes(bytes, file.string());
}

Result<std::unique_ptr<Tokenizer>> LoadTokenizerFromBytes(std::string_view bytes, std::string_view what) {
  const std::string name(what);
  const bool converted = !LooksLikeJson(bytes) && !LooksLikeRankFile(bytes);
  return Finish(PartsFromBytes(bytes, {}, name), {}, converted, name);
}

}  // namespace kvasir
