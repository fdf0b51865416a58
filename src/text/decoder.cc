#include "text/decoder.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/byte_alphabet.h"
#include "text/normalizer.h"

namespace kvasir {
namespace {

using Strings = std::vector<std::string>;

std::string ReplaceAll(std::string text, std::string_view pattern, std::string_view content) {
  if (pattern.empty()) return text;
  for (size_t at = text.find(pattern); at != std::string::npos; at = text.find(pattern, at + content.size())) {
    text.replace(at, pattern.size(), content);
  }
  return text;
}

/// Stages that treat each string by itself.
class MapStage final : public DecodeStage {
 public:
  using Map = std::function<Result<std::string>(std::string_view token, bool first)>;
  explicit MapStage(Map map) : map_(std::move(map)) {}
  Status Push(std::string_view token, Strings* out) override {
    ASSIGN_OR_RETURN(std::string mapped, map_(token, first_));
    first_ = false;
    out->push_back(std::move(mapped));
    return OkStatus();
  }
  Status Finish(Strings*) override { return OkStatus(); }
  Result<std::string> Alone(std::string_view token) const override { return map_(token, false); }

 private:
  Map map_;
  bool first_ = true;
};

/// Stages that can only work on the whole text: waits for it.
class WholeStage final : public DecodeStage {
 public:
  explicit WholeStage(DecodeStagePtr inner) : inner_(std::move(inner)) {}
  Status Push(std::string_view token, Strings*) override {
    text_ += token;
    return OkStatus();
  }
  Status Finish(Strings* out) override {
    RETURN_IF_ERROR(inner_->Push(text_, out));
    return inner_->Finish(out);
  }
  Result<std::string> Alone(std::string_view token) const override { return inner_->Alone(token); }

 private:
  DecodeStagePtr inner_;
  std::string text_;
};

class JoinStage final : public DecodeStage {
 public:
  Status Push(std::string_view token, Strings* out) override {
    if (!first_) out->push_back(" ");
    first_ = false;
    out->emplace_back(token);
    return OkStatus();
  }
  Status Finish(Strings*) override { return OkStatus(); }
  Result<std::string> Alone(std::string_view token) const override { return " " + std::string(token); }

 private:
  bool first_ = true;
};

/// The bytes of a token in the byte alphabet. One that is not written in it stands for itself.
std::string BytesOfAlphabet(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const Utf8Unit unit = DecodeUtf8(token, i);
    const int byte = AlphabetToByte(unit.code_point);
    if (byte < 0) return std::string(token);
    bytes += static_cast<char>(byte);
    i += unit.length;
  }
  return bytes;
}

/// Bytes written in the byte alphabet; whole characters come out.
class ByteLevelStage final : public DecodeStage {
 public:
  Status Push(std::string_view token, Strings* out) override {
    bytes_ += BytesOfAlphabet(token);
    const size_t keep = IncompleteUtf8Suffix(bytes_);
    const std::string_view complete = std::string_view(bytes_).substr(0, bytes_.size() - keep);
    if (!complete.empty()) out->push_back(ReplaceInvalidUtf8(complete));
    bytes_.erase(0, bytes_.size() - keep);
    return OkStatus();
  }
  Status Finish(Strings* out) override {
    if (!bytes_.empty()) out->push_back(ReplaceInvalidUtf8(bytes_));
    bytes_.clear();
    return OkStatus();
  }
  Result<std::string> Alone(std::string_view token) const override { return BytesOfAlphabet(token); }

 private:
  std::string bytes_;
};

/// Runs of "<0x41>" become text when they are UTF-8, else one U+FFFD per byte. A run must be seen whole.
class ByteFallbackStage final : public DecodeStage {
 public:
  Status Push(std::string_view token, Strings* out) override {
    if (const int byte = ByteOf(token); byte >= 0) {
      bytes_ += static_cast<char>(byte);
      return OkStatus();
    }
    RETURN_IF_ERROR(Finish(out));
    out->emplace_back(token);
    return OkStatus();
  }
  Status Finish(Strings* out) override {
    if (bytes_.empty()) return OkStatus();
    if (IsValidUtf8(bytes_)) {
      out->push_back(std::move(bytes_));
    } else {
      for (size_t i = 0; i < bytes_.size(); ++i) out->push_back("\uFFFD");
    }
    bytes_.clear();
    return OkStatus();
  }
  Result<std::string> Alone(std::string_view token) const override {
    const int byte = ByteOf(token);
    return byte < 0 ? std::string(token) : std::string(1, static_cast<char>(byte));
  }

 private:
  /// The byte of "<0x41>", or -1.
  static int ByteOf(std::string_view token) {
    const auto digit = [](char c) {
      return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    };
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    const int high = token[3] == '+' ? 0 : digit(token[3]);  // Rust's integer parser takes a plus sign
    const int low = digit(token[4]);
    return high >= 0 && low >= 0 ? high * 16 + low : -1;
  }
  std::string bytes_;
};

/// Replaces a string wherever it stands in the stream, also across chunks.
class StreamReplaceStage final : public DecodeStage {
 public:
  StreamReplaceStage(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Status Push(std::string_view token, Strings* out) override {
    text_ += token;
    std::string done;
    size_t from = 0;
    for (size_t at = text_.find(pattern_); at != std::string::npos; at = text_.find(pattern_, from)) {
      done.append(text_, from, at - from);
      done += content_;
      from = at + pattern_.size();
    }
    // The longest end that may still become the pattern waits.
    size_t keep = std::min(pattern_.size() - 1, text_.size() - from);
    while (keep > 0 && !std::string_view(pattern_).starts_with(std::string_view(text_).substr(text_.size() - keep))) {
      --keep;
    }
    done.append(text_, from, text_.size() - keep - from);
    text_.erase(0, text_.size() - keep);
    if (!done.empty()) out->push_back(std::move(done));
    return OkStatus();
  }
  Status Finish(Strings* out) override {
    if (!text_.empty()) out->push_back(std::move(text_));
    text_.clear();
    return OkStatus();
  }
  Result<std::string> Alone(std::string_view token) const override {
    return ReplaceAll(std::string(token), pattern_, content_);
  }

 private:
  std::string pattern_;
  std::string content_;
  std::string text_;
};

/// Takes up to `start` characters off the beginning and `stop` off the end of the stream.
class StreamStripStage final : public DecodeStage {
 public:
  StreamStripStage(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  Status Push(std::string_view token, Strings* out) override {
    while (start_ > 0 && !token.empty()) {
      if (!token.starts_with(content_)) {
        start_ = 0;
        break;
      }
      token.remove_prefix(content_.size());
      --start_;
    }
    text_ += token;
    size_t keep = 0;  // what may be the end of the text
    for (size_t count = 0; count < stop_ && Ends(keep); ++count) keep += content_.size();
    if (text_.size() > keep) out->push_back(text_.substr(0, text_.size() - keep));
    text_.erase(0, text_.size() - keep);
    return OkStatus();
  }
  Status Finish(Strings*) override { return OkStatus(); }

 private:
  bool Ends(size_t keep) const { return std::string_view(text_).substr(0, text_.size() - keep).ends_with(content_); }
  std::string content_;
  size_t start_;
  size_t stop_;
  std::string text_;
};

class BpeSuffixStage final : public DecodeStage {
 public:
  explicit BpeSuffixStage(std::string suffix) : suffix_(std::move(suffix)) {}
  Status Push(std::string_view token, Strings* out) override {
    if (waiting_) out->push_back(ReplaceAll(std::move(last_), suffix_, " "));
    last_ = std::string(token);
    waiting_ = true;
    return OkStatus();
  }
  Status Finish(Strings* out) override {
    if (waiting_) out->push_back(ReplaceAll(std::move(last_), suffix_, ""));
    waiting_ = false;
    return OkStatus();
  }
  Result<std::string> Alone(std::string_view token) const override {
    return ReplaceAll(std::string(token), suffix_, " ");
  }

 private:
  std::string suffix_;
  std::string last_;
  bool waiting_ = false;
};

struct Rule {
  std::string_view pattern;
  std::string_view content;
};
// In this order, each over the whole string.
constexpr Rule kWordPieceCleanup[] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
constexpr Rule kCleanUpSpaces[] = {{" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
                                   {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

std::string CleanUpWordPiece(std::string text) {
  for (const Rule& rule : kWordPieceCleanup) text = ReplaceAll(std::move(text), rule.pattern, rule.content);
  return text;
}

class CtcStage final : public DecodeStage {
 public:
  CtcStage(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  Status Push(std::string_view token, Strings* out) override {
    if (last_ && *last_ == token) return OkStatus();
    last_ = std::string(token);
    ASSIGN_OR_RETURN(std::string text, Alone(token));
    if (!text.empty()) out->push_back(std::move(text));
    return OkStatus();
  }
  Status Finish(Strings*) override { return OkStatus(); }
  Result<std::string> Alone(std::string_view token) const override {
    std::string text = ReplaceAll(std::string(token), pad_, "");
    return cleanup_ ? ReplaceAll(CleanUpWordPiece(std::move(text)), delimiter_, " ") : text;
  }

 private:
  std::string pad_;
  std::string delimiter_;
  bool cleanup_;
  std::optional<std::string> last_;
};

std::string StripCharacters(std::string_view token, std::string_view content, size_t start, size_t stop) {
  for (; start > 0 && token.starts_with(content); --start) token.remove_prefix(content.size());
  for (; stop > 0 && token.ends_with(content); --stop) token.remove_suffix(content.size());
  return std::string(token);
}

}  // namespace

void DecoderPlan::Add(Factory factory) {
  if (fused_) {
    stages_.push_back([factory] { return std::make_unique<WholeStage>(factory()); });
  } else {
    stages_.push_back(std::move(factory));
  }
  joined_ = true;
}

void DecoderPlan::ByteLevel() {
  Add([] { return std::make_unique<ByteLevelStage>(); });
  fused_ = true;
}

void DecoderPlan::ByteFallback() {
  Add([] { return std::make_unique<ByteFallbackStage>(); });
}

void DecoderPlan::Fuse() {
  fused_ = true;
  joined_ = true;
}

void DecoderPlan::ReplaceString(const std::string& pattern, const std::string& content) {
  joined_ = true;
  if (fused_) {
    stages_.push_back([=] { return std::make_unique<StreamReplaceStage>(pattern, content); });
    return;
  }
  stages_.push_back([=] {
    return std::make_unique<MapStage>([=](std::string_view token, bool) -> Result<std::string> {
      return ReplaceAll(std::string(token), pattern, content);
    });
  });
}

void DecoderPlan::ReplaceRegex(const Regex& pattern, const std::string& content) {
  Add([pattern, content] {
    return std::make_unique<MapStage>([pattern, content](std::string_view token, bool) -> Result<std::string> {
      std::vector<Span> matches;
      RETURN_IF_ERROR(pattern.FindAll(token, &matches));
      std::string text;
      size_t done = 0;
      for (const Span match : matches) {
        text += token.substr(done, match.begin - done);
        text += content;
        done = match.end;
      }
      text += token.substr(done);
      return text;
    });
  });
}

void DecoderPlan::Strip(char32_t content, size_t start, size_t stop) {
  std::string character;
  AppendUtf8(character, content);
  joined_ = true;
  if (fused_) {
    stages_.push_back([=] { return std::make_unique<StreamStripStage>(character, start, stop); });
    return;
  }
  stages_.push_back([=] {
    return std::make_unique<MapStage>([=](std::string_view token, bool) -> Result<std::string> {
      return StripCharacters(token, character, start, stop);
    });
  });
}

void DecoderPlan::Metaspace(const std::string& replacement, bool drop_first) {
  Add([=] {
    return std::make_unique<MapStage>([=](std::string_view token, bool first) -> Result<std::string> {
      return ReplaceAll(std::string(token), replacement, first && drop_first ? "" : " ");
    });
  });
}

void DecoderPlan::WordPiece(const std::string& prefix, bool cleanup) {
  Add([=] {
    return std::make_unique<MapStage>([=](std::string_view token, bool first) -> Result<std::string> {
      std::string text;
      if (first) {
        text = token;
      } else if (token.starts_with(prefix)) {
        text = token.substr(prefix.size());
      } else {
        text = " " + std::string(token);
      }
      return cleanup ? CleanUpWordPiece(std::move(text)) : text;
    });
  });
}

void DecoderPlan::BpeSuffix(const std::string& suffix) {
  Add([=] { return std::make_unique<BpeSuffixStage>(suffix); });
}

void DecoderPlan::Ctc(const std::string& pad, const std::string& delimiter, bool cleanup) {
  Add([=] { return std::make_unique<CtcStage>(pad, delimiter, cleanup); });
}

void DecoderPlan::CleanUpSpaces() {
  if (!joined_) {
    stages_.push_back([] { return std::make_unique<JoinStage>(); });
    joined_ = true;
  }
  for (const Rule& rule : kCleanUpSpaces) {
    stages_.push_back(
        [rule] { return std::make_unique<StreamReplaceStage>(std::string(rule.pattern), std::string(rule.content)); });
  }
}

std::vector<DecodeStagePtr> DecoderPlan::Start() const {
  std::vector<DecodeStagePtr> stages;
  if (!joined_) stages.push_back(std::make_unique<JoinStage>());
  for (const Factory& factory : stages_) stages.push_back(factory());
  return stages;
}

Result<std::string> DecoderPlan::Bytes(std::string_view token) const {
  std::string bytes(token);
  for (const DecodeStagePtr& stage : Start()) {
    ASSIGN_OR_RETURN(bytes, stage->Alone(bytes));
  }
  return bytes;
}

namespace {

Status ParseReplace(const JsonReader& reader, DecoderPlan* plan) {
  const json::value* pattern = reader.Find({"pattern"});
  ASSIGN_OR_RETURN(std::string content, reader.String({"content"}));
  if (pattern != nullptr && pattern->is_object() && pattern->get_object().contains("String")) {
    ASSIGN_OR_RETURN(std::string text, JsonReader(pattern->get_object(), reader.what()).String({"String"}));
    if (text.empty()) return InvalidData("{}: an empty pattern", reader.what());
    plan->ReplaceString(text, content);
    return OkStatus();
  }
  ASSIGN_OR_RETURN(Regex regex, ParsePattern(pattern, reader.what()));
  plan->ReplaceRegex(regex, content);
  return OkStatus();
}

Status ParseStrip(const JsonReader& reader, DecoderPlan* plan) {
  ASSIGN_OR_RETURN(const std::string content, reader.String({"content"}));
  ASSIGN_OR_RETURN(const int64_t start, reader.Int({"start"}, 0, 1 << 20, 0));
  ASSIGN_OR_RETURN(const int64_t stop, reader.Int({"stop"}, 0, 1 << 20, 0));
  if (content.empty() || DecodeUtf8(content, 0).length != content.size()) {
    return InvalidData("{}: Strip's \"content\" must be one character", reader.what());
  }
  plan->Strip(DecodeUtf8(content, 0).code_point, static_cast<size_t>(start), static_cast<size_t>(stop));
  return OkStatus();
}

Status ParseStage(const json::value& spec, const std::string& what, int depth, DecoderPlan* plan) {
  if (!spec.is_object() || depth > 16) return InvalidData("{}: \"decoder\" must be an object", what);
  const JsonReader reader(spec.get_object(), what + ": decoder");
  ASSIGN_OR_RETURN(const std::string type, reader.String({"type"}));
  if (type == "Sequence") {
    const json::value* list = reader.Find({"decoders"});
    if (list == nullptr || !list->is_array()) return InvalidData("{}: \"decoders\" must be a list", reader.what());
    if (list->get_array().size() > 64) return Unsupported("{}: more than 64 decoders", reader.what());
    for (const json::value& item : list->get_array()) RETURN_IF_ERROR(ParseStage(item, what, depth + 1, plan));
    if (depth == 0) plan->Fuse();  // from here on strings are only put together
    return OkStatus();
  }
  if (type == "ByteLevel") {
    plan->ByteLevel();
  } else if (type == "ByteFallback") {
    plan->ByteFallback();
  } else if (type == "Fuse") {
    plan->Fuse();
  } else if (type == "Replace") {
    return ParseReplace(reader, plan);
  } else if (type == "Strip") {
    return ParseStrip(reader, plan);
  } else if (type == "Metaspace") {
    ASSIGN_OR_RETURN(std::string replacement, reader.String({"replacement"}, "\u2581"));
    ASSIGN_OR_RETURN(const PrependScheme scheme, ParsePrependScheme(reader));
    plan->Metaspace(replacement, scheme != PrependScheme::kNever);
  } else if (type == "WordPiece") {
    ASSIGN_OR_RETURN(std::string prefix, reader.String({"prefix"}, "##"));
    ASSIGN_OR_RETURN(const bool cleanup, reader.Bool({"cleanup"}, true));
    plan->WordPiece(prefix, cleanup);
  } else if (type == "BPEDecoder") {
    ASSIGN_OR_RETURN(const std::string suffix, reader.String({"suffix"}, "</w>"));
    plan->BpeSuffix(suffix);
  } else if (type == "CTC") {
    ASSIGN_OR_RETURN(const std::string pad, reader.String({"pad_token"}, "<pad>"));
    ASSIGN_OR_RETURN(const std::string delimiter, reader.String({"word_delimiter_token"}, "|"));
    ASSIGN_OR_RETURN(const bool cleanup, reader.Bool({"cleanup"}, true));
    plan->Ctc(pad, delimiter, cleanup);
  } else {
    return Unsupported("{}: type \"{}\" is not known", reader.what(), type);
  }
  return OkStatus();
}

}  // namespace

Status ParseDecoder(const json::value& spec, const std::string& what, DecoderPlan* plan) {
  return spec.is_null() ? OkStatus() : ParseStage(spec, what, 0, plan);
}

}  // namespace kvasir
