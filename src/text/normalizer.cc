#include "text/normalizer.h"

#include "base/utf8.h"
#include "text/byte_alphabet.h"

namespace kvasir {
namespace {

bool IsAscii(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

class NormalFormNormalizer final : public Normalizer {
 public:
  explicit NormalFormNormalizer(NormalForm form) : form_(form) {}
  Status Apply(TextBuffer& buffer) const override {
    const std::string_view text = buffer.text();
    if (IsAscii(text)) return OkStatus();
    TextBuffer::Rewrite next(buffer);
    // An ASCII character composes only with what follows it, so the text falls into independent stretches.
    for (size_t begin = 0; begin < text.size();) {
      size_t end = begin + 1;
      while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80) ++end;
      if (end == begin + 1) {
        next.Copy(begin, end);
      } else {
        AppendNormalForm(next.text(), text.substr(begin, end - begin), form_);
        next.Extend(begin);
      }
      begin = end;
    }
    buffer.Install(std::move(next));
    return OkStatus();
  }

 private:
  NormalForm form_;
};

/// Calls put(rewrite, code point, its offset) for every character.
template <typename Put>
Status MapCharacters(TextBuffer& buffer, Put put) {
  const std::string_view text = buffer.text();
  TextBuffer::Rewrite next(buffer);
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    put(next.text(), unit.code_point);
    next.Extend(i);
    i += unit.length;
  }
  buffer.Install(std::move(next));
  return OkStatus();
}

class Lowercase final : public Normalizer {
 public:
  Status Apply(TextBuffer& buffer) const override {
    return MapCharacters(buffer, [](std::string& out, char32_t c) { AppendLowercase(out, c); });
  }
};

class StripAccents final : public Normalizer {
 public:
  Status Apply(TextBuffer& buffer) const override {
    return MapCharacters(buffer, [](std::string& out, char32_t c) {
      if (!IsMark(c)) AppendUtf8(out, c);
    });
  }
};

/// The rules of Google's neural translation systems: controls go, odd spaces become spaces.
class Nmt final : public Normalizer {
 public:
  Status Apply(TextBuffer& buffer) const override {
    return MapCharacters(buffer, [](std::string& out, char32_t c) {
      if ((c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return;
      const bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                         c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      AppendUtf8(out, space ? U' ' : c);
    });
  }
};

class ByteLevelNormalizer final : public Normalizer {
 public:
  Status Apply(TextBuffer& buffer) const override {
    TextBuffer::Rewrite next(buffer);
    const std::string_view text = buffer.text();
    for (size_t i = 0; i < text.size(); ++i) next.Put(ByteToAlphabet(static_cast<uint8_t>(text[i])), i);
    buffer.Install(std::move(next));
    return OkStatus();
  }
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  Status Apply(TextBuffer& buffer) const override {
    if (buffer.text().empty()) return OkStatus();
    TextBuffer::Rewrite next(buffer);
    next.Put(prefix_, 0);
    next.Copy(0, buffer.text().size());
    buffer.Install(std::move(next));
    return OkStatus();
  }

 private:
  std::string prefix_;
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Status Apply(TextBuffer& buffer) const override {
    const std::string_view text = buffer.text();
    size_t begin = 0;
    size_t end = text.size();
    while (left_ && begin < end) {
      const Utf8Unit unit = DecodeUtf8(text, begin);
      if (!IsWhitespace(unit.code_point)) break;
      begin += unit.length;
    }
    while (right_ && end > begin) {
      size_t last = end - 1;
      while (last > begin && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
      if (!IsWhitespace(DecodeUtf8(text, last).code_point)) break;
      end = last;
    }
    if (begin == 0 && end == text.size()) return OkStatus();
    TextBuffer::Rewrite next(buffer);
    next.Copy(begin, end);
    buffer.Install(std::move(next));
    return OkStatus();
  }

 private:
  bool left_;
  bool right_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Status Apply(TextBuffer& buffer) const override {
    std::vector<Span> matches;
    RETURN_IF_ERROR(pattern_.FindAll(buffer.text(), &matches));
    if (matches.empty()) return OkStatus();
    if (matches.size() * content_.size() > (size_t{1} << 28) + 64 * buffer.text().size()) {
      return ResourceExhausted("normalising makes a text of {} bytes longer than 256 MiB", buffer.text().size());
    }
    TextBuffer::Rewrite next(buffer);
    size_t done = 0;
    for (const Span match : matches) {
      next.Copy(done, match.begin);
      next.Put(content_, match.begin);
      done = match.end;
    }
    next.Copy(done, buffer.text().size());
    buffer.Install(std::move(next));
    return OkStatus();
  }

 private:
  Regex pattern_;
  std::string content_;
};

class BertNormalizer final : public Normalizer {
 public:
  BertNormalizer(bool clean, bool chinese, bool accents, bool lowercase)
      : clean_(clean), chinese_(chinese), accents_(accents), lowercase_(lowercase), nfd_(NormalForm::kNfd) {}

  Status Apply(TextBuffer& buffer) const override {
    if (clean_ || chinese_) {
      RETURN_IF_ERROR(MapCharacters(buffer, [&](std::string& out, char32_t c) {
        if (clean_) {
          const bool plain_space = c == '\t' || c == '\n' || c == '\r';
          if (c == 0 || c == 0xFFFD || (!plain_space && IsOther(c))) return;
          if (IsWhitespace(c)) c = ' ';
        }
        const bool apart = chinese_ && IsCjkIdeograph(c);
        if (apart) out += ' ';
        AppendUtf8(out, c);
        if (apart) out += ' ';
      }));
    }
    if (accents_) {
      RETURN_IF_ERROR(nfd_.Apply(buffer));
      RETURN_IF_ERROR(MapCharacters(buffer, [](std::string& out, char32_t c) {
        if (!IsNonspacingMark(c)) AppendUtf8(out, c);
      }));
    }
    return lowercase_ ? Lowercase().Apply(buffer) : OkStatus();
  }

 private:
  bool clean_;
  bool chinese_;
  bool accents_;
  bool lowercase_;
  NormalFormNormalizer nfd_;
};

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<NormalizerPtr> parts) : parts_(std::move(parts)) {}
  Status Apply(TextBuffer& buffer) const override {
    for (const NormalizerPtr& part : parts_) RETURN_IF_ERROR(part->Apply(buffer));
    return OkStatus();
  }

 private:
  std::vector<NormalizerPtr> parts_;
};

}  // namespace

NormalizerPtr MakeNormalForm(NormalForm form) { return std::make_unique<NormalFormNormalizer>(form); }
NormalizerPtr MakePrepend(std::string prefix) { return std::make_unique<Prepend>(std::move(prefix)); }
NormalizerPtr MakeReplace(Regex pattern, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}
NormalizerPtr MakeStrip(bool left, bool right) { return std::make_unique<Strip>(left, right); }
NormalizerPtr MakeBertNormalizer(bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase) {
  return std::make_unique<BertNormalizer>(clean_text, chinese_chars, strip_accents, lowercase);
}
NormalizerPtr MakeNormalizerSequence(std::vector<NormalizerPtr> parts) {
  return std::make_unique<Sequence>(std::move(parts));
}

Result<Regex> ParsePattern(const json::value* spec, const std::string& what) {
  if (spec != nullptr && spec->is_string()) return Regex::Literal(spec->get_string());
  if (spec != nullptr && spec->is_object()) {
    const JsonReader reader(spec->get_object(), what);
    if (reader.Has({"String"})) {
      ASSIGN_OR_RETURN(const std::string text, reader.String({"String"}));
      auto regex = Regex::Literal(text);
      if (!regex.ok()) return regex.status().WithContext(what);
      return regex;
    }
    if (reader.Has({"Regex"})) {
      ASSIGN_OR_RETURN(const std::string text, reader.String({"Regex"}));
      auto regex = Regex::Compile(text);
      if (!regex.ok()) return regex.status().WithContext(what);
      return regex;
    }
  }
  return InvalidData("{}: a pattern must be {{\"String\": …}} or {{\"Regex\": …}}", what);
}

namespace {

Result<NormalizerPtr> ParseSequence(const JsonReader& reader, const std::string& what) {
  const json::value* list = reader.Find({"normalizers"});
  if (list == nullptr || !list->is_array()) return InvalidData("{}: \"normalizers\" must be a list", what);
  if (list->get_array().size() > 64) return Unsupported("{}: more than 64 normalizers", what);
  std::vector<NormalizerPtr> parts;
  for (const json::value& item : list->get_array()) {
    ASSIGN_OR_RETURN(NormalizerPtr part, ParseNormalizer(item, what));
    if (part != nullptr) parts.push_back(std::move(part));
  }
  return MakeNormalizerSequence(std::move(parts));
}

Result<NormalizerPtr> ParseBert(const JsonReader& reader) {
  ASSIGN_OR_RETURN(const bool clean, reader.Bool({"clean_text"}, true));
  ASSIGN_OR_RETURN(const bool chinese, reader.Bool({"handle_chinese_chars"}, true));
  ASSIGN_OR_RETURN(const bool lowercase, reader.Bool({"lowercase"}, true));
  ASSIGN_OR_RETURN(const bool accents, reader.Bool({"strip_accents"}, lowercase));  // null: follows lowercase
  return MakeBertNormalizer(clean, chinese, accents, lowercase);
}

Result<std::string> DecodeBase64Field(const JsonReader& reader, const std::string& what) {
  ASSIGN_OR_RETURN(const std::string text, reader.String({"precompiled_charsmap"}, ""));
  std::string bytes;
  if (!DecodeBase64(text, &bytes)) return InvalidData("{}: \"precompiled_charsmap\" is not base64", what);
  return bytes;
}

}  // namespace

Result<NormalizerPtr> ParseNormalizer(const json::value& spec, const std::string& what) {
  if (spec.is_null()) return NormalizerPtr();
  if (!spec.is_object()) return InvalidData("{}: \"normalizer\" must be an object", what);
  const JsonReader reader(spec.get_object(), what + ": normalizer");
  ASSIGN_OR_RETURN(const std::string type, reader.String({"type"}));
  if (type == "Sequence") return ParseSequence(reader, reader.what());
  if (type == "NFC") return MakeNormalForm(NormalForm::kNfc);
  if (type == "NFD") return MakeNormalForm(NormalForm::kNfd);
  if (type == "NFKC") return MakeNormalForm(NormalForm::kNfkc);
  if (type == "NFKD") return MakeNormalForm(NormalForm::kNfkd);
  if (type == "Lowercase") return NormalizerPtr(std::make_unique<Lowercase>());
  if (type == "StripAccents") return NormalizerPtr(std::make_unique<StripAccents>());
  if (type == "Nmt") return NormalizerPtr(std::make_unique<Nmt>());
  if (type == "ByteLevel") return NormalizerPtr(std::make_unique<ByteLevelNormalizer>());
  if (type == "BertNormalizer") return ParseBert(reader);
  if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, reader.Bool({"strip_left"}, true));
    ASSIGN_OR_RETURN(const bool right, reader.Bool({"strip_right"}, true));
    return MakeStrip(left, right);
  }
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(std::string prefix, reader.String({"prepend"}));
    return MakePrepend(std::move(prefix));
  }
  if (type == "Replace") {
    ASSIGN_OR_RETURN(Regex pattern, ParsePattern(reader.Find({"pattern"}), reader.what() + " Replace"));
    ASSIGN_OR_RETURN(std::string content, reader.String({"content"}));
    return MakeReplace(std::move(pattern), std::move(content));
  }
  if (type == "Precompiled") {
    ASSIGN_OR_RETURN(const std::string charsmap, DecodeBase64Field(reader, reader.what()));
    auto made = MakePrecompiled(charsmap);
    if (!made.ok()) return made.status().WithContext(reader.what());
    return made;
  }
  return Unsupported("{}: type \"{}\" is not known", reader.what(), type);
}

}  // namespace kvasir
