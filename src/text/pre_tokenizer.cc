#include "text/pre_tokenizer.h"

#include "base/utf8.h"
#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

/// A part of a piece: a delimiter (match) or what stands between delimiters.
struct Part {
  uint32_t begin;
  uint32_t end;
  bool match;
};

/// Appends what becomes of one piece's parts. Empty parts vanish.
void AppendParts(const Piece& piece, const std::vector<Part>& parts, SplitBehavior behavior, std::vector<Piece>* out) {
  const size_t first = out->size();
  const auto push = [&](const Part& part) { out->push_back({part.begin, part.end, false}); };
  bool previous = false;
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.match) push(part);
      }
      break;
    case SplitBehavior::kIsolated:
      for (const Part& part : parts) push(part);
      break;
    case SplitBehavior::kContiguous:
      for (const Part& part : parts) {
        if (part.match == previous && out->size() > first) {
          out->back().end = part.end;
        } else {
          push(part);
        }
        previous = part.match;
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Part& part : parts) {
        if (part.match && !previous && out->size() > first) {
          out->back().end = part.end;
        } else {
          push(part);
        }
        previous = part.match;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      // A delimiter joins what follows it, unless that is a delimiter too.
      for (size_t i = 0; i < parts.size(); ++i) {
        if (i > 0 && parts[i - 1].match && !parts[i].match && out->size() > first) {
          out->back().end = parts[i].end;
        } else {
          push(parts[i]);
        }
      }
      break;
  }
  size_t kept = first;
  for (size_t i = first; i < out->size(); ++i) {
    Piece made = (*out)[i];
    if (made.begin == made.end) continue;
    made.at_start = piece.at_start && made.begin == piece.begin;
    (*out)[kept++] = made;
  }
  out->resize(kept);
}

class Split final : public PreTokenizer {
 public:
  Split(Regex pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  Status Apply(PieceList& list) const override {
    std::vector<Piece> out;
    out.reserve(list.pieces().size() + list.text().size() / 4);
    std::vector<Span> matches;
    std::vector<Part> parts;
    for (const Piece& piece : list.pieces()) {
      matches.clear();
      RETURN_IF_ERROR(pattern_.FindAll(list.view(piece), &matches));
      if (behavior_ == SplitBehavior::kIsolated) {  // the usual one, without the detour over parts
        AppendIsolated(piece, matches, &out);
        continue;
      }
      parts.clear();
      uint32_t done = piece.begin;
      for (const Span match : matches) {
        const uint32_t begin = piece.begin + match.begin;
        if (done != begin) parts.push_back({done, begin, invert_});
        done = piece.begin + match.end;
        parts.push_back({begin, done, !invert_});
      }
      if (done != piece.end) parts.push_back({done, piece.end, invert_});
      AppendParts(piece, parts, behavior_, &out);
    }
    list.pieces() = std::move(out);
    return OkStatus();
  }

 private:
  static void AppendIsolated(const Piece& piece, const std::vector<Span>& matches, std::vector<Piece>* out) {
    uint32_t done = piece.begin;
    const auto push = [&](uint32_t begin, uint32_t end) {
      if (begin != end) out->push_back({begin, end, piece.at_start && begin == piece.begin});
    };
    for (const Span match : matches) {
      push(done, piece.begin + match.begin);
      done = piece.begin + match.end;
      push(piece.begin + match.begin, done);
    }
    push(done, piece.end);
  }

  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

/// Every character for which the predicate holds is a delimiter of its own.
template <typename Predicate>
class CharacterSplit final : public PreTokenizer {
 public:
  CharacterSplit(Predicate predicate, SplitBehavior behavior) : predicate_(predicate), behavior_(behavior) {}

  Status Apply(PieceList& list) const override {
    std::vector<Piece> out;
    std::vector<Part> parts;
    for (const Piece& piece : list.pieces()) {
      parts.clear();
      uint32_t done = piece.begin;
      for (uint32_t i = piece.begin; i < piece.end;) {
        const Utf8Unit unit = DecodeUtf8(list.text(), i);
        const uint32_t next = i + unit.length;
        if (predicate_(unit.code_point)) {
          if (done < i) parts.push_back({done, i, false});
          parts.push_back({i, next, true});
          done = next;
        }
        i = next;
      }
      if (done < piece.end) parts.push_back({done, piece.end, false});
      AppendParts(piece, parts, behavior_, &out);
    }
    list.pieces() = std::move(out);
    return OkStatus();
  }

 private:
  Predicate predicate_;
  SplitBehavior behavior_;
};

template <typename Predicate>
PreTokenizerPtr MakeCharacterSplit(Predicate predicate, SplitBehavior behavior) {
  return std::make_unique<CharacterSplit<Predicate>>(predicate, behavior);
}

/// Runs of word characters, and runs of what is neither word nor space; the spaces go.
class WhitespaceWords final : public PreTokenizer {
 public:
  Status Apply(PieceList& list) const override {
    std::vector<Piece> out;
    for (const Piece& piece : list.pieces()) {
      int open = 0;  // class of the piece that is being extended; 0: none
      for (uint32_t i = piece.begin; i < piece.end;) {
        const Utf8Unit unit = DecodeUtf8(list.text(), i);
        const uint32_t next = i + unit.length;
        const int kind = IsWord(unit.code_point) ? 1 : IsWhitespace(unit.code_point) ? 0 : 2;
        if (kind != 0 && kind == open) {
          out.back().end = next;
        } else if (kind != 0) {
          out.push_back({i, next, piece.at_start && i == piece.begin});
        }
        open = kind;
        i = next;
      }
    }
    list.pieces() = std::move(out);
    return OkStatus();
  }
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, PreTokenizerPtr split, bool defer)
      : add_prefix_space_(add_prefix_space), split_(std::move(split)), defer_(defer) {}

  Status Apply(PieceList& list) const override {
    if (add_prefix_space_) AddPrefixSpace(list);
    if (split_ != nullptr) RETURN_IF_ERROR(split_->Apply(list));
    if (defer_) return OkStatus();
    std::string text;
    text.reserve(list.text().size() * 2);
    for (Piece& piece : list.pieces()) {
      const std::string_view bytes = list.view(piece);
      piece.begin = static_cast<uint32_t>(text.size());
      for (const char c : bytes) text += ByteToAlphabet(static_cast<uint8_t>(c));
      piece.end = static_cast<uint32_t>(text.size());
    }
    list.Own(std::move(text));
    return OkStatus();
  }
  bool defers_byte_alphabet() const override { return defer_; }

 private:
  static void AddPrefixSpace(PieceList& list) {
    bool needed = false;
    for (const Piece& piece : list.pieces()) needed = needed || list.text()[piece.begin] != ' ';
    if (!needed) return;
    std::string text;
    text.reserve(list.text().size() + list.pieces().size());
    for (Piece& piece : list.pieces()) {
      const std::string_view bytes = list.view(piece);
      piece.begin = static_cast<uint32_t>(text.size());
      if (bytes[0] != ' ') text += ' ';
      text += bytes;
      piece.end = static_cast<uint32_t>(text.size());
    }
    list.Own(std::move(text));
  }

  bool add_prefix_space_;
  PreTokenizerPtr split_;
  bool defer_;
};

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, PreTokenizerPtr split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(std::move(split)) {}

  Status Apply(PieceList& list) const override {
    std::string text;
    text.reserve(list.text().size() + list.text().size() / 2 + replacement_.size());
    for (Piece& piece : list.pieces()) {
      const std::string_view bytes = list.view(piece);
      const auto begin = static_cast<uint32_t>(text.size());
      const bool marked = bytes.starts_with(' ') || bytes.starts_with(replacement_);
      const bool prepend = scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && piece.at_start);
      if (prepend && !marked) text += replacement_;
      for (const char c : bytes) {
        if (c == ' ') {
          text += replacement_;
        } else {
          text += c;
        }
      }
      piece.begin = begin;
      piece.end = static_cast<uint32_t>(text.size());
    }
    list.Own(std::move(text));
    return split_ == nullptr ? OkStatus() : split_->Apply(list);
  }
  bool needs_start() const override { return scheme_ == PrependScheme::kFirst; }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  PreTokenizerPtr split_;
};

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<PreTokenizerPtr> parts) : parts_(std::move(parts)) {}
  Status Apply(PieceList& list) const override {
    for (const PreTokenizerPtr& part : parts_) RETURN_IF_ERROR(part->Apply(list));
    return OkStatus();
  }
  bool needs_start() const override {
    for (const PreTokenizerPtr& part : parts_) {
      if (part->needs_start()) return true;
    }
    return false;
  }
  bool defers_byte_alphabet() const override { return !parts_.empty() && parts_.back()->defers_byte_alphabet(); }

 private:
  std::vector<PreTokenizerPtr> parts_;
};

}  // namespace

PreTokenizerPtr MakeSplit(Regex pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<Split>(std::move(pattern), behavior, invert);
}

PreTokenizerPtr MakeByteLevel(bool add_prefix_space, bool use_regex, bool defer) {
  PreTokenizerPtr split;
  if (use_regex) {
    auto pattern = Regex::Compile(kByteLevelPattern);
    KVASIR_CHECK(pattern.ok());
    split = MakeSplit(*std::move(pattern), SplitBehavior::kIsolated);
  }
  return std::make_unique<ByteLevel>(add_prefix_space, std::move(split), defer);
}

PreTokenizerPtr MakeMetaspace(std::string replacement, PrependScheme scheme, bool split) {
  PreTokenizerPtr splitter;
  if (split) {
    auto pattern = Regex::Literal(replacement);
    KVASIR_CHECK(pattern.ok());
    splitter = MakeSplit(*std::move(pattern), SplitBehavior::kMergedWithNext);
  }
  return std::make_unique<Metaspace>(std::move(replacement), scheme, std::move(splitter));
}

PreTokenizerPtr MakeWhitespaceSplit() { return MakeCharacterSplit(IsWhitespace, SplitBehavior::kRemoved); }

PreTokenizerPtr MakeBertPreTokenizer() {
  std::vector<PreTokenizerPtr> parts;
  parts.push_back(MakeWhitespaceSplit());
  parts.push_back(MakeCharacterSplit(IsPunctuation, SplitBehavior::kIsolated));
  return MakePreTokenizerSequence(std::move(parts));
}

PreTokenizerPtr MakePreTokenizerSequence(std::vector<PreTokenizerPtr> parts) {
  return std::make_unique<Sequence>(std::move(parts));
}

namespace {

Result<SplitBehavior> ParseBehavior(const JsonReader& reader, std::string fallback) {
  ASSIGN_OR_RETURN(const std::string name, reader.String({"behavior"}, std::move(fallback)));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return InvalidData("{}: behavior \"{}\" is not known", reader.what(), name);
}

Result<PreTokenizerPtr> ParseSequence(const JsonReader& reader, bool last) {
  const json::value* list = reader.Find({"pretokenizers"});
  if (list == nullptr || !list->is_array()) return InvalidData("{}: \"pretokenizers\" must be a list", reader.what());
  const json::array& items = list->get_array();
  if (items.size() > 64) return Unsupported("{}: more than 64 pre-tokenizers", reader.what());
  std::vector<PreTokenizerPtr> parts;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(PreTokenizerPtr part, ParsePreTokenizer(items[i], reader.what(), last && i + 1 == items.size()));
    if (part != nullptr) parts.push_back(std::move(part));
  }
  return MakePreTokenizerSequence(std::move(parts));
}

}  // namespace

Result<PrependScheme> ParsePrependScheme(const JsonReader& reader) {
  // Old files know only add_prefix_space.
  ASSIGN_OR_RETURN(const bool prefix, reader.Bool({"add_prefix_space"}, true));
  ASSIGN_OR_RETURN(const std::string name, reader.String({"prepend_scheme"}, prefix ? "always" : "never"));
  if (name == "always") return PrependScheme::kAlways;
  if (name == "first") return PrependScheme::kFirst;
  if (name == "never") return PrependScheme::kNever;
  return InvalidData("{}: prepend_scheme \"{}\" is not known", reader.what(), name);
}

namespace {

Result<PreTokenizerPtr> ParseMetaspace(const JsonReader& reader) {
  ASSIGN_OR_RETURN(std::string replacement, reader.String({"replacement"}, "\u2581"));
  ASSIGN_OR_RETURN(const PrependScheme scheme, ParsePrependScheme(reader));
  ASSIGN_OR_RETURN(const bool split, reader.Bool({"split"}, true));
  if (replacement.empty() || DecodeUtf8(replacement, 0).length != replacement.size()) {
    return InvalidData("{}: \"replacement\" must be one character", reader.what());
  }
  return MakeMetaspace(std::move(replacement), scheme, split);
}

Result<PreTokenizerPtr> ParseByteLevel(const JsonReader& reader, bool last) {
  ASSIGN_OR_RETURN(const bool prefix, reader.Bool({"add_prefix_space"}, true));
  ASSIGN_OR_RETURN(const bool regex, reader.Bool({"use_regex"}, true));
  return MakeByteLevel(prefix, regex, last);
}

}  // namespace

Result<PreTokenizerPtr> ParsePreTokenizer(const json::value& spec, const std::string& what, bool last) {
  if (spec.is_null()) return PreTokenizerPtr();
  if (!spec.is_object()) return InvalidData("{}: \"pre_tokenizer\" must be an object", what);
  JsonReader reader(spec.get_object(), what + ": pre_tokenizer");
  ASSIGN_OR_RETURN(const std::string type, reader.String({"type"}));
  if (type == "Sequence") return ParseSequence(reader, last);
  if (type == "ByteLevel") return ParseByteLevel(reader, last);
  if (type == "Metaspace") return ParseMetaspace(reader);
  if (type == "Whitespace") return PreTokenizerPtr(std::make_unique<WhitespaceWords>());
  if (type == "WhitespaceSplit") return MakeWhitespaceSplit();
  if (type == "BertPreTokenizer") return MakeBertPreTokenizer();
  if (type == "Split") {
    ASSIGN_OR_RETURN(Regex pattern, ParsePattern(reader.Find({"pattern"}), reader.what() + " Split"));
    ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseBehavior(reader, "Isolated"));
    ASSIGN_OR_RETURN(const bool invert, reader.Bool({"invert"}, false));
    return MakeSplit(std::move(pattern), behavior, invert);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseBehavior(reader, "Isolated"));
    return MakeCharacterSplit(IsPunctuation, behavior);
  }
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual, reader.Bool({"individual_digits"}, false));
    return MakeCharacterSplit(IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (type == "CharDelimiterSplit") {
    ASSIGN_OR_RETURN(const std::string delimiter, reader.String({"delimiter"}));
    if (delimiter.empty() || DecodeUtf8(delimiter, 0).length != delimiter.size()) {
      return InvalidData("{}: \"delimiter\" must be one character", reader.what());
    }
    const char32_t wanted = DecodeUtf8(delimiter, 0).code_point;
    return MakeCharacterSplit([wanted](char32_t c) { return c == wanted; }, SplitBehavior::kRemoved);
  }
  return Unsupported("{}: type \"{}\" is not known", reader.what(), type);
}

}  // namespace kvasir
