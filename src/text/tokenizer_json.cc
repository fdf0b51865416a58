#include "text/tokenizer_json.h"

#include <algorithm>

#include "base/log.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

constexpr size_t kMaxTemplate = 1024;

Result<std::vector<BpeMerge>> ParseMerges(const json::value* spec, const PieceTable& pieces, size_t prefix,
                                          const std::string& what) {
  std::vector<BpeMerge> merges;
  if (spec == nullptr) return merges;
  if (!spec->is_array()) return InvalidData("{}: \"merges\" must be a list", what);
  merges.reserve(spec->get_array().size());
  size_t index = 0;
  for (const json::value& item : spec->get_array()) {
    std::string_view left;
    std::string_view right;
    if (item.is_string()) {
      const std::string_view line = item.get_string();
      if (line.starts_with("#version")) {
        ++index;
        continue;
      }
      const size_t space = line.find(' ');
      if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
        return InvalidData("{}: merge {} (\"{}\") must be two strings divided by one space", what, index,
                           Excerpt(line));
      }
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (item.is_array() && item.get_array().size() == 2 && item.get_array()[0].is_string() &&
               item.get_array()[1].is_string()) {
      left = item.get_array()[0].get_string();
      right = item.get_array()[1].get_string();
    } else {
      return InvalidData("{}: merge {} is neither \"a b\" nor [\"a\", \"b\"]", what, index);
    }
    auto merge = ResolveMerge(pieces, left, right, prefix);
    if (!merge.ok()) return merge.status().WithContext(fmt::format("{}: merge {}", what, index));
    merges.push_back(*merge);
    ++index;
  }
  return merges;
}

Result<SubwordModelPtr> ParseBpe(const JsonReader& reader, bool byte_alphabet, TokenizerParts* parts) {
  BpeOptions options;
  ASSIGN_OR_RETURN(const double dropout, reader.Number({"dropout"}, 0.0));
  if (dropout != 0.0) LogWarning("{}: dropout {} is for training and left out", reader.what(), dropout);
  ASSIGN_OR_RETURN(options.unk_token, reader.String({"unk_token"}, ""));
  ASSIGN_OR_RETURN(options.continuing_subword_prefix, reader.String({"continuing_subword_prefix"}, ""));
  ASSIGN_OR_RETURN(options.end_of_word_suffix, reader.String({"end_of_word_suffix"}, ""));
  ASSIGN_OR_RETURN(options.fuse_unk, reader.Bool({"fuse_unk"}, false));
  ASSIGN_OR_RETURN(options.byte_fallback, reader.Bool({"byte_fallback"}, false));
  ASSIGN_OR_RETURN(options.ignore_merges, reader.Bool({"ignore_merges"}, false));
  options.byte_alphabet = byte_alphabet;
  const json::value* vocab = reader.Find({"vocab"});
  if (vocab == nullptr) return InvalidData("{}: \"vocab\" is missing", reader.what());
  ASSIGN_OR_RETURN(PieceTable pieces, ParseVocabObject(*vocab, reader.what()));
  ASSIGN_OR_RETURN(
      const std::vector<BpeMerge> merges,
      ParseMerges(reader.Find({"merges"}), pieces, options.continuing_subword_prefix.size(), reader.what()));
  if (const TokenId unk = pieces.Find(options.unk_token); !options.unk_token.empty() && unk >= 0) {
    parts->vocab.unk = unk;
  }
  parts->kind = BpeKind(byte_alphabet, options.byte_fallback);
  return MakeBpe(std::move(pieces), merges, std::move(options));
}

Result<SubwordModelPtr> ParseUnigram(const JsonReader& reader, TokenizerParts* parts) {
  const json::value* vocab = reader.Find({"vocab"});
  if (vocab == nullptr || !vocab->is_array()) return InvalidData("{}: \"vocab\" must be a list", reader.what());
  PieceTable pieces;
  std::vector<double> scores;
  for (const json::value& item : vocab->get_array()) {
    if (!item.is_array() || item.get_array().size() != 2 || !item.get_array()[0].is_string() ||
        !item.get_array()[1].is_number()) {
      return InvalidData("{}: piece {} is not [\"text\", score]", reader.what(), scores.size());
    }
    const Status added = pieces.Add(item.get_array()[0].get_string(), static_cast<int64_t>(scores.size()));
    if (!added.ok()) return added.WithContext(reader.what());
    scores.push_back(item.get_array()[1].to_number<double>());
  }
  UnigramOptions options;
  ASSIGN_OR_RETURN(const int64_t unk, reader.Int({"unk_id"}, -1, kMaxTokenId, -1));
  if (unk >= 0) options.unk = static_cast<TokenId>(unk);
  parts->vocab.unk = options.unk;
  ASSIGN_OR_RETURN(options.byte_fallback, reader.Bool({"byte_fallback"}, false));
  parts->kind = "Unigram";
  auto model = MakeUnigram(std::move(pieces), std::move(scores), options);
  if (!model.ok()) return model.status().WithContext(reader.what());
  return model;
}

Result<SubwordModelPtr> ParseWordPieceOrLevel(const JsonReader& reader, bool word_piece, TokenizerParts* parts) {
  const json::value* vocab = reader.Find({"vocab"});
  if (vocab == nullptr) return InvalidData("{}: \"vocab\" is missing", reader.what());
  ASSIGN_OR_RETURN(PieceTable pieces, ParseVocabObject(*vocab, reader.what()));
  WordPieceOptions options;
  ASSIGN_OR_RETURN(options.unk_token, reader.String({"unk_token"}, word_piece ? "[UNK]" : "<unk>"));
  if (const TokenId unk = pieces.Find(options.unk_token); unk >= 0) parts->vocab.unk = unk;
  if (!word_piece) {
    parts->kind = "WordLevel";
    return MakeWordLevel(std::move(pieces), options.unk_token);
  }
  ASSIGN_OR_RETURN(options.continuing_subword_prefix, reader.String({"continuing_subword_prefix"}, "##"));
  ASSIGN_OR_RETURN(const int64_t longest, reader.Int({"max_input_chars_per_word"}, 0, 1 << 30, 100));
  options.max_input_chars_per_word = static_cast<size_t>(longest);
  parts->kind = "WordPiece";
  return MakeWordPiece(std::move(pieces), std::move(options));
}

/// Old files do not name the model; its fields tell.
std::string ModelType(const JsonReader& reader) {
  if (reader.Has({"merges"})) return "BPE";
  const json::value* vocab = reader.Find({"vocab"});
  if (vocab != nullptr && vocab->is_array()) return "Unigram";
  return reader.Has({"max_input_chars_per_word"}) ? "WordPiece" : "WordLevel";
}

Result<SubwordModelPtr> ParseModel(const json::value* spec, const std::string& what, bool byte_alphabet,
                                   TokenizerParts* parts) {
  if (spec == nullptr || !spec->is_object()) return InvalidData("{}: \"model\" must be an object", what);
  const JsonReader reader(spec->get_object(), what + ": model");
  ASSIGN_OR_RETURN(const std::string type, reader.String({"type"}, ModelType(reader)));
  if (byte_alphabet && type != "BPE") {
    return Unsupported("{}: a ByteLevel pre-tokenizer with a {} model is not supported", what, type);
  }
  if (type == "BPE") return ParseBpe(reader, byte_alphabet, parts);
  if (type == "Unigram") return ParseUnigram(reader, parts);
  if (type == "WordPiece") return ParseWordPieceOrLevel(reader, true, parts);
  if (type == "WordLevel") return ParseWordPieceOrLevel(reader, false, parts);
  return Unsupported("{}: model type \"{}\" is not known", what, type);
}

Status ParseAddedTokens(const json::value* list, const std::string& what, TokenizerParts* parts) {
  if (list == nullptr) return OkStatus();
  if (!list->is_array()) return InvalidData("{}: \"added_tokens\" must be a list", what);
  for (const json::value& item : list->get_array()) {
    if (!item.is_object()) return InvalidData("{}: an added token is not an object", what);
    const JsonReader reader(item.get_object(), what + ": added_tokens");
    AddedToken token;
    ASSIGN_OR_RETURN(token.content, reader.String({"content"}));
    ASSIGN_OR_RETURN(const int64_t id, reader.Int({"id"}, 0, kMaxTokenId));
    ASSIGN_OR_RETURN(token.single_word, reader.Bool({"single_word"}, false));
    ASSIGN_OR_RETURN(token.lstrip, reader.Bool({"lstrip"}, false));
    ASSIGN_OR_RETURN(token.rstrip, reader.Bool({"rstrip"}, false));
    ASSIGN_OR_RETURN(token.special, reader.Bool({"special"}, false));
    ASSIGN_OR_RETURN(token.normalized, reader.Bool({"normalized"}, !token.special));
    const std::string content = token.content;
    const Status added = parts->added.Add(std::move(token), parts->model->pieces());
    if (!added.ok()) return added.WithContext(reader.what());
    // Hugging Face numbers added tokens itself and only warns when the file says otherwise.
    if (const auto given = parts->added.Find(content); given && *given != id) {
      LogWarning("{}: \"{}\" has id {} in the file but gets {}", reader.what(), content, id, *given);
    }
  }
  return OkStatus();
}

Result<std::vector<TokenId>> ParseTemplate(const JsonReader& reader) {
  const json::value* single = reader.Find({"single"});
  if (single == nullptr || !single->is_array()) return InvalidData("{}: \"single\" must be a list", reader.what());
  ASSIGN_OR_RETURN(const json::object* specials, reader.Object({"special_tokens"}));
  std::vector<TokenId> items;
  for (const json::value& item : single->get_array()) {
    const json::object* object = item.is_object() ? &item.get_object() : nullptr;
    const json::value* sequence = object == nullptr ? nullptr : object->if_contains("Sequence");
    const json::value* special = object == nullptr ? nullptr : object->if_contains("SpecialToken");
    if (sequence != nullptr) {
      items.push_back(kTemplateText);
    } else if (special != nullptr && special->is_object()) {
      ASSIGN_OR_RETURN(const std::string name, JsonReader(special->get_object(), reader.what()).String({"id"}));
      const json::value* entry = specials == nullptr ? nullptr : specials->if_contains(name);
      if (entry == nullptr || !entry->is_object()) {
        return InvalidData("{}: the template's token \"{}\" is not in \"special_tokens\"", reader.what(), name);
      }
      ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                       JsonReader(entry->get_object(), reader.what()).IntList({"ids"}, 0, kMaxTokenId));
      for (const int64_t id : ids) items.push_back(static_cast<TokenId>(id));
    } else {
      return InvalidData("{}: a template item is neither Sequence nor SpecialToken", reader.what());
    }
    if (items.size() > kMaxTemplate) return InvalidData("{}: the template is too long", reader.what());
  }
  return items;
}

/// ["</s>", 2]
Result<TokenId> ParsePair(const JsonReader& reader, std::string_view name) {
  const json::value* pair = reader.Find({name});
  if (pair == nullptr || !pair->is_array() || pair->get_array().size() != 2 || !pair->get_array()[1].is_int64() ||
      pair->get_array()[1].get_int64() < 0 || pair->get_array()[1].get_int64() > kMaxTokenId) {
    return InvalidData("{}: \"{}\" must be [\"token\", id]", reader.what(), name);
  }
  return static_cast<TokenId>(pair->get_array()[1].get_int64());
}

/// Puts the outer template around the inner one.
std::vector<TokenId> Wrap(const std::vector<TokenId>& inner, const std::vector<TokenId>& outer) {
  std::vector<TokenId> items;
  for (const TokenId id : outer) {
    if (id == kTemplateText) {
      items.insert(items.end(), inner.begin(), inner.end());
    } else {
      items.push_back(id);
    }
    if (items.size() > kMaxTemplate) break;
  }
  return items;
}

Result<std::vector<TokenId>> ParsePostProcessor(const json::value& spec, const std::string& what, int depth) {
  std::vector<TokenId> items = {kTemplateText};
  if (spec.is_null()) return items;
  if (!spec.is_object() || depth > 16) return InvalidData("{}: \"post_processor\" must be an object", what);
  const JsonReader reader(spec.get_object(), what + ": post_processor");
  ASSIGN_OR_RETURN(const std::string type, reader.String({"type"}));
  if (type == "ByteLevel") return items;  // moves offsets only
  if (type == "TemplateProcessing") return ParseTemplate(reader);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    ASSIGN_OR_RETURN(const TokenId cls, ParsePair(reader, "cls"));
    ASSIGN_OR_RETURN(const TokenId sep, ParsePair(reader, "sep"));
    return std::vector<TokenId>{cls, kTemplateText, sep};
  }
  if (type != "Sequence") return Unsupported("{}: type \"{}\" is not known", reader.what(), type);
  const json::value* list = reader.Find({"processors"});
  if (list == nullptr || !list->is_array()) return InvalidData("{}: \"processors\" must be a list", reader.what());
  for (const json::value& item : list->get_array()) {
    ASSIGN_OR_RETURN(const std::vector<TokenId> outer, ParsePostProcessor(item, what, depth + 1));
    items = Wrap(items, outer);
    if (items.size() > kMaxTemplate) return InvalidData("{}: the templates are too long", reader.what());
  }
  return items;
}

}  // namespace

std::string BpeKind(bool byte_level, bool byte_fallback) {
  return byte_level ? "byte-level BPE" : byte_fallback ? "SentencePiece BPE" : "BPE";
}

Result<PieceTable> ParseVocabObject(const json::value& vocab, const std::string& what) {
  if (!vocab.is_object()) return InvalidData("{}: \"vocab\" must be an object", what);
  std::vector<std::pair<int64_t, std::string_view>> entries;  // in the order of ids, so that holes show
  entries.reserve(vocab.get_object().size());
  for (const auto& [piece, id] : vocab.get_object()) {
    if (!id.is_int64()) return InvalidData("{}: the id of \"{}\" is not an integer", what, Excerpt(piece));
    entries.emplace_back(id.get_int64(), piece);
  }
  std::sort(entries.begin(), entries.end());
  PieceTable pieces;
  for (const auto& [id, piece] : entries) {
    const Status added = pieces.Add(piece, id);
    if (!added.ok()) return added.WithContext(what);
  }
  return pieces;
}

Result<std::vector<BpeMerge>> ParseMergesText(std::string_view text, const PieceTable& pieces,
                                              const std::string& what) {
  std::vector<BpeMerge> merges;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return InvalidData("{}:{}: \"{}\" must be two strings divided by one space", what, number, Excerpt(line));
    }
    auto merge = ResolveMerge(pieces, line.substr(0, space), line.substr(space + 1), 0);
    if (!merge.ok()) return merge.status().WithContext(fmt::format("{}:{}", what, number));
    merges.push_back(*merge);
  }
  return merges;
}

Result<TokenizerParts> ParseTokenizerJson(std::string_view text, const std::string& what) {
  ASSIGN_OR_RETURN(const json::value root, ParseJson(text, what, {.max_bytes = kMaxTokenizerJson, .max_depth = 64}));
  if (!root.is_object()) return InvalidData("{}: not an object", what);
  const JsonReader reader(root.get_object(), what);
  static const json::value null;
  const auto part = [&](std::string_view name) -> const json::value& {
    const json::value* found = reader.Find({name});
    return found == nullptr ? null : *found;
  };
  TokenizerParts parts;
  ASSIGN_OR_RETURN(parts.normalizer, ParseNormalizer(part("normalizer"), what));
  ASSIGN_OR_RETURN(parts.pre_tokenizer, ParsePreTokenizer(part("pre_tokenizer"), what));
  const bool byte_alphabet = parts.pre_tokenizer != nullptr && parts.pre_tokenizer->defers_byte_alphabet();
  ASSIGN_OR_RETURN(parts.model, ParseModel(reader.Find({"model"}), what, byte_alphabet, &parts));
  RETURN_IF_ERROR(ParseAddedTokens(reader.Find({"added_tokens"}), what, &parts));
  ASSIGN_OR_RETURN(parts.post_template, ParsePostProcessor(part("post_processor"), what, 0));
  RETURN_IF_ERROR(ParseDecoder(part("decoder"), what, &parts.decoder));
  return parts;
}

}  // namespace kvasir
