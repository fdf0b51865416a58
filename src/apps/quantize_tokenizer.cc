#include "apps/quantize_tokenizer.h"

#include <algorithm>
#include <map>
#include <optional>

#include "apps/terminal.h"
#include "io/json.h"
#include "text/format_names.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace kvasir::apps {
namespace {

// GGUF's numbers of token types.
constexpr int32_t kNormal = 1;
constexpr int32_t kUnknown = 2;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;
constexpr int32_t kUnused = 5;
constexpr int32_t kByte = 6;

std::string_view TypeOf(const json::value* value) {
  if (value == nullptr || !value->is_object()) return {};
  const json::value* type = value->get_object().if_contains("type");
  return type != nullptr && type->is_string() ? std::string_view(type->get_string()) : std::string_view();
}

const json::array* ListOf(const json::value& value, std::string_view key) {
  const json::value* list = value.get_object().if_contains(key);
  return list != nullptr && list->is_array() ? &list->get_array() : nullptr;
}

bool IsTrue(const json::value& value, std::string_view key) {
  const json::value* found = value.get_object().if_contains(key);
  return found != nullptr && found->is_bool() && found->get_bool();
}

std::optional<std::string> TextOf(const json::value& value, std::string_view key) {
  const json::value* found = value.is_object() ? value.get_object().if_contains(key) : nullptr;
  if (found == nullptr || !found->is_string()) return std::nullopt;
  return std::string(found->get_string());
}

/// The patterns by which a pre-tokeniser divides text, one after another; false when it does anything else.
bool CollectPatterns(const json::value* spec, std::vector<std::string>* patterns) {
  const std::string_view type = TypeOf(spec);
  if (type == "Sequence") {
    const json::array* parts = ListOf(*spec, "pretokenizers");
    return parts != nullptr &&
           std::ranges::all_of(*parts, [&](const json::value& part) { return CollectPatterns(&part, patterns); });
  }
  if (type == "ByteLevel") {
    if (spec->get_object().if_contains("use_regex") == nullptr || IsTrue(*spec, "use_regex")) {
      patterns->emplace_back(kByteLevelPattern);
    }
    return true;
  }
  if (type == "Digits") {
    patterns->emplace_back(IsTrue(*spec, "individual_digits") ? R"(\p{N})" : R"(\p{N}+)");
    return true;
  }
  if (type != "Split" || TextOf(*spec, "behavior") != "Isolated" || IsTrue(*spec, "invert")) return false;
  const json::value* pattern = spec->get_object().if_contains("pattern");
  std::optional<std::string> regex = pattern != nullptr ? TextOf(*pattern, "Regex") : std::nullopt;
  if (!regex) return false;
  patterns->push_back(std::move(*regex));
  return true;
}

/// A tokenizer.json, looked at.
class Writer {
 public:
  Writer(const json::value& root, std::string what, int64_t vocab_size)
      : root_(root), what_(std::move(what)), vocab_size_(vocab_size) {}

  Result<std::vector<GgufEntry>> Write(const Tokenizer& tokenizer, const std::string& pre) {
    RETURN_IF_ERROR(ReadPieces());
    RETURN_IF_ERROR(ReadMerges());
    RETURN_IF_ERROR(FindKind());
    const GgufVocabulary kind = byte_level_ ? GgufVocabulary::kByteLevel : GgufVocabulary::kSentencePiece;
    entries_.push_back(GgufText("tokenizer.ggml.model", GgufVocabularyName(kind)));
    ASSIGN_OR_RETURN(const std::string name, PreName(pre));
    entries_.push_back(GgufText("tokenizer.ggml.pre", name));
    entries_.push_back(GgufTexts("tokenizer.ggml.tokens", tokens_));
    if (byte_level_) {
      entries_.push_back(GgufInts32("tokenizer.ggml.token_type", types_));
      std::vector<std::string> lines;
      lines.reserve(merges_.size());
      for (const auto& [left, right] : merges_) lines.push_back(fmt::format("{} {}", left, right));
      entries_.push_back(GgufTexts("tokenizer.ggml.merges", lines));
    } else {
      entries_.push_back(GgufFloats32("tokenizer.ggml.scores", Scores()));
      entries_.push_back(GgufInts32("tokenizer.ggml.token_type", types_));
    }
    RETURN_IF_ERROR(WriteSpecial(tokenizer));
    return std::move(entries_);
  }

 private:
  Status ReadPieces() {
    tokens_.resize(static_cast<size_t>(vocab_size_));
    types_.assign(tokens_.size(), kUnused);
    const json::value* model = root_.get_object().if_contains("model");
    const json::value* vocab =
        model != nullptr && model->is_object() ? model->get_object().if_contains("vocab") : nullptr;
    if (vocab == nullptr || !vocab->is_object() || TextOf(*model, "type").value_or("BPE") != "BPE") {
      return Unsupported("{}: only BPE vocabularies can be written to GGUF", what_);
    }
    model_ = model;
    for (const auto& [piece, id] : vocab->get_object()) RETURN_IF_ERROR(Place(piece, id, kNormal));
    const std::optional<std::string> unknown = TextOf(*model, "unk_token");
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (unknown && types_[i] == kNormal && tokens_[i] == *unknown) types_[i] = kUnknown;
      const bool byte = tokens_[i].size() == 6 && tokens_[i].starts_with("<0x") && tokens_[i].ends_with(">");
      if (byte && IsTrue(*model, "byte_fallback")) types_[i] = kByte;
    }
    if (const json::array* added = ListOf(root_, "added_tokens")) {
      for (const json::value& token : *added) {
        const std::optional<std::string> content = TextOf(token, "content");
        const json::value* id = token.is_object() ? token.get_object().if_contains("id") : nullptr;
        if (!content || id == nullptr) return InvalidData("{}: an added token has no content or id", what_);
        const bool is_unknown = unknown && *unknown == *content;
        const int32_t type = is_unknown ? kUnknown : IsTrue(token, "special") ? kControl : kUserDefined;
        RETURN_IF_ERROR(Place(*content, *id, type));
      }
    }
    // Rows of the embedding that no token has.
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] == kUnused) tokens_[i] = fmt::format("[PAD{}]", i);
    }
    return OkStatus();
  }

  Status Place(std::string_view piece, const json::value& id, int32_t type) {
    const int64_t at = id.is_int64() ? id.get_int64() : -1;
    if (at < 0 || at >= vocab_size_) {
      return InvalidData("{}: token \"{}\" has no id from 0 to {}, the model's vocabulary", what_,
                         EscapeControls(piece), vocab_size_ - 1);
    }
    tokens_[static_cast<size_t>(at)] = std::string(piece);
    types_[static_cast<size_t>(at)] = type;
    return OkStatus();
  }

  /// Merges are pairs, or texts with one space between.
  Status ReadMerges() {
    const json::array* merges = ListOf(*model_, "merges");
    if (merges == nullptr) return InvalidData("{}: it has no merges", what_);
    for (const json::value& merge : *merges) {
      if (merge.is_array() && merge.get_array().size() == 2 && merge.get_array()[0].is_string() &&
          merge.get_array()[1].is_string()) {
        merges_.emplace_back(merge.get_array()[0].get_string(), merge.get_array()[1].get_string());
        continue;
      }
      const std::string_view text = merge.is_string() ? std::string_view(merge.get_string()) : std::string_view();
      const size_t space = text.find(' ', 1);
      if (space == std::string_view::npos) return InvalidData("{}: merge {} is no pair", what_, merges_.size());
      merges_.emplace_back(text.substr(0, space), text.substr(space + 1));
    }
    return OkStatus();
  }

  Status FindKind() {
    const json::value* normalizer = root_.get_object().if_contains("normalizer");
    const json::value* pre_tokenizer = root_.get_object().if_contains("pre_tokenizer");
    byte_level_ = !IsTrue(*model_, "byte_fallback");
    if (byte_level_) {
      nfc_ = TypeOf(normalizer) == "NFC";
      known_ = (nfc_ || TypeOf(normalizer).empty()) && CollectPatterns(pre_tokenizer, &patterns_);
      return OkStatus();
    }
    // A prefix comes from either place.
    prefix_ = HasPrepend(normalizer);
    if (TypeOf(pre_tokenizer) == "Metaspace") {
      prefix_ = TextOf(*pre_tokenizer, "prepend_scheme").value_or("always") != "never";
    } else if (!TypeOf(pre_tokenizer).empty() && TypeOf(pre_tokenizer) != "Split") {
      return Unsupported("{}: its pre-tokenizer \"{}\" cannot be written to GGUF", what_, TypeOf(pre_tokenizer));
    }
    return OkStatus();
  }

  static bool HasPrepend(const json::value* normalizer) {
    if (TypeOf(normalizer) == "Prepend") return true;
    if (TypeOf(normalizer) != "Sequence") return false;
    const json::array* parts = ListOf(*normalizer, "normalizers");
    return parts != nullptr && std::ranges::any_of(*parts, [](const json::value& part) { return HasPrepend(&part); });
  }

  Result<std::string> PreName(const std::string& pre) const {
    if (!pre.empty()) {
      if (!byte_level_) return InvalidArgument("--pre is for byte-level vocabularies; {} is none", what_);
      if (FindGgufPreTokenizer(pre) != nullptr) return pre;
      return InvalidArgument("--pre \"{}\" is not known; known are {}", pre, GgufPreTokenizerNames());
    }
    if (!byte_level_) return std::string("default");
    const std::string_view name =
        known_ ? FindGgufPreTokenizerName(patterns_, nfc_, IsTrue(*model_, "ignore_merges")) : std::string_view();
    if (!name.empty()) return std::string(name);
    return Unsupported(
        "{}: GGUF has no name for the way in which it divides text; the nearest of these can be given with --pre, "
        "tokens may then differ: {}",
        what_, GgufPreTokenizerNames());
  }

  /// Readers merge the pair with the highest score first, so a token's score is the rank of its first merge.
  std::vector<float> Scores() const {
    std::map<std::string_view, int32_t> ids;
    for (size_t i = 0; i < tokens_.size(); ++i) ids.emplace(tokens_[i], static_cast<int32_t>(i));
    // Below all merges: what nothing is merged to.
    std::vector<float> scores(tokens_.size(), -static_cast<float>(merges_.size()) - 1.0f);
    for (size_t rank = merges_.size(); rank-- > 0;) {
      const auto found = ids.find(merges_[rank].first + merges_[rank].second);
      if (found != ids.end()) scores[static_cast<size_t>(found->second)] = -static_cast<float>(rank);
    }
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] != kNormal) scores[i] = types_[i] == kUserDefined || types_[i] == kUnused ? -1000.0f : 0.0f;
    }
    return scores;
  }

  Status WriteSpecial(const Tokenizer& tokenizer) {
    const VocabInfo& vocab = tokenizer.vocab();
    const auto id = [&](const char* key, std::optional<TokenId> token) {
      if (token) entries_.push_back(GgufUint32(fmt::format("tokenizer.ggml.{}", key), static_cast<uint32_t>(*token)));
    };
    id("bos_token_id", vocab.bos);
    if (!vocab.eos.empty()) id("eos_token_id", vocab.eos.front());
    id("unknown_token_id", vocab.unk);
    id("padding_token_id", vocab.pad);
    ASSIGN_OR_RETURN(const std::vector<TokenId> with, tokenizer.Encode("a"));
    ASSIGN_OR_RETURN(const std::vector<TokenId> without, tokenizer.Encode("a", {.add_special = false}));
    const bool more = with.size() > without.size();
    const bool bos = more && vocab.bos && with.front() == *vocab.bos;
    const bool eos = more && !vocab.eos.empty() && with.back() == vocab.eos.front() && with.back() != without.back();
    entries_.push_back(GgufBool("tokenizer.ggml.add_bos_token", bos));
    entries_.push_back(GgufBool("tokenizer.ggml.add_eos_token", eos));
    if (!byte_level_) entries_.push_back(GgufBool("tokenizer.ggml.add_space_prefix", prefix_));
    if (!tokenizer.chat_template().empty()) {
      entries_.push_back(GgufText("tokenizer.chat_template", tokenizer.chat_template()));
    }
    return OkStatus();
  }

  const json::value& root_;
  std::string what_;
  int64_t vocab_size_;
  const json::value* model_ = nullptr;
  std::vector<std::string> tokens_;
  std::vector<int32_t> types_;
  std::vector<std::pair<std::string, std::string>> merges_;
  bool byte_level_ = true;
  bool nfc_ = false;
  bool known_ = false;   // the division consists of patterns_
  bool prefix_ = false;  // a space is put before the text
  std::vector<std::string> patterns_;
  std::vector<GgufEntry> entries_;
};

/// Texts with words, numbers, marks and scripts that divisions of text treat differently, and tokens of the
/// vocabulary itself.
std::vector<std::string> Samples(const Tokenizer& tokenizer) {
  std::vector<std::string> samples = {
      "Hello, world! It's 12345 o'clock; don't you THINK we'll see?\n\n  Indented\ttext...   end ",
      "naïve café Über straße 你好世界 2024年 Привет مرحبا \U0001F600\U0001F680",
      "def f(x):\n    return x**2 + 3.14e-10  # CamelCase snake_case http://a.b/c?d=1&e=2\r\n",
      " leading",
      "",
      "a",
      "   ",
      "x\u0301 combining \u1e9b\u0323"};
  std::string words;
  const int64_t size = tokenizer.vocab().size;
  const int64_t step = std::max<int64_t>(size / 4096, 1);
  for (int64_t id = 0; id < size; id += step) {
    const auto token = static_cast<TokenId>(id);
    if (tokenizer.IsSpecial(token)) continue;
    auto text = tokenizer.Decode(std::span(&token, 1));
    if (text.ok()) words += *text + (id % 3 == 0 ? " " : "");
  }
  samples.push_back(std::move(words));
  return samples;
}

}  // namespace

Result<std::vector<GgufEntry>> TokenizerEntries(const std::filesystem::path& folder, int64_t vocab_size,
                                                const std::string& pre) {
  const std::filesystem::path file = folder / "tokenizer.json";
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    return NotFound("{}: no such file; only its vocabulary can be written to GGUF", file.string());
  }
  ASSIGN_OR_RETURN(const json::value root, ParseJsonFile(file, {.max_bytes = kMaxTokenizerJson}));
  if (!root.is_object()) return InvalidData("{}: is not a JSON object", file.string());
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, LoadTokenizer(folder));
  return Writer(root, file.string(), vocab_size).Write(*tokenizer, pre);
}

Status CompareTokenizers(const std::filesystem::path& folder, const GgufFile& written, bool pre_chosen) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> before, LoadTokenizer(folder));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> after, LoadTokenizer(written));
  for (const std::string& sample : Samples(*before)) {
    ASSIGN_OR_RETURN(const std::vector<TokenId> a, before->Encode(sample));
    ASSIGN_OR_RETURN(const std::vector<TokenId> b, after->Encode(sample));
    if (a == b) continue;
    size_t at = 0;
    while (at < a.size() && at < b.size() && a[at] == b[at]) ++at;
    const std::string where = fmt::format(
        "the vocabulary reads differently from GGUF: token {} of {} is \"{}\" in one and \"{}\" in the other", at,
        a.size(), at < a.size() ? EscapeControls(before->IdToPiece(a[at])) : "",
        at < b.size() ? EscapeControls(after->IdToPiece(b[at])) : "");
    if (!pre_chosen) return Unsupported("{}: {}", folder.string(), where);
    Note(where + ", with the --pre that was given");
    return OkStatus();
  }
  return OkStatus();
}

}  // namespace kvasir::apps
