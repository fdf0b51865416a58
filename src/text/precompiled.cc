// SentencePiece's compiled normalisation rules (arXiv:1808.06226): a double-array trie whose leaves point into a block
// of zero-terminated replacement strings. Hugging Face's tokenizers apply it to whole grapheme clusters shorter than
// six bytes first, then to single characters, and in both by the shortest key that is a prefix.
#include <cstring>

#include "base/utf8.h"
#include "text/normalizer.h"

namespace kvasir {
namespace {

constexpr size_t kMaxCharsmap = 64u << 20;
constexpr size_t kLongestKey = 256;  // bounds the work at each place; compiled rules have a few characters

class Precompiled final : public Normalizer {
 public:
  Precompiled(std::vector<uint32_t> trie, std::string strings, CharsmapStyle style)
      : trie_(std::move(trie)), strings_(std::move(strings)), style_(style) {}

  Status Apply(TextBuffer& buffer) const override {
    const std::string_view text = buffer.text();
    TextBuffer::Rewrite next(buffer);
    if (style_ == CharsmapStyle::kLongestMatch) {
      for (size_t begin = 0; begin < text.size();) {
        std::string_view replacement;
        size_t length = Transform(text.substr(begin, kLongestKey), true, &replacement);
        if (length > 0) {
          next.Put(replacement, begin);
        } else {
          length = DecodeUtf8(text, begin).length;
          next.Copy(begin, begin + length);
        }
        begin += length;
        RETURN_IF_ERROR(CheckGrowth(text.size(), next.text().size()));
      }
      buffer.Install(std::move(next));
      return OkStatus();
    }
    for (size_t begin = 0; begin < text.size();) {
      RETURN_IF_ERROR(CheckGrowth(text.size(), next.text().size()));
      const size_t end = ClusterEnd(text, begin);
      std::string_view replacement;
      if (end - begin < 6 && Transform(text.substr(begin, end - begin), false, &replacement) > 0) {
        next.Put(replacement, begin);
        begin = end;
        continue;
      }
      while (begin < end) {
        const size_t length = DecodeUtf8(text, begin).length;
        if (Transform(text.substr(begin, length), false, &replacement) > 0) {
          next.Put(replacement, begin);
        } else {
          next.Copy(begin, begin + length);
        }
        begin += length;
      }
    }
    RETURN_IF_ERROR(CheckGrowth(text.size(), next.text().size()));
    // What vanishes at the beginning leaves no trace in Hugging Face's alignment.
    next.AnchorStart();
    buffer.Install(std::move(next));
    return OkStatus();
  }

 private:
  static size_t ClusterEnd(std::string_view text, size_t begin) {
    Utf8Unit unit = DecodeUtf8(text, begin);
    size_t end = begin + unit.length;
    int32_t state = 0;
    while (end < text.size()) {
      const Utf8Unit after = DecodeUtf8(text, end);
      // Two ASCII characters form a cluster only as CR LF.
      if (unit.code_point < 0x80 && after.code_point < 0x80) {
        if (!(unit.code_point == '\r' && after.code_point == '\n')) break;
      } else if (IsGraphemeBreak(unit.code_point, after.code_point, &state)) {
        break;
      }
      end += after.length;
      unit = after;
    }
    return end;
  }

  /// Real rules make a text a few times longer at most.
  static Status CheckGrowth(size_t before, size_t after) {
    if (after <= (size_t{1} << 20) + 64 * before) return OkStatus();
    return ResourceExhausted("the normalisation table makes a text of {} bytes {} bytes long", before, after);
  }

  static uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

  /// Finds the shortest or the longest rule whose key begins `text`; bytes of the key, 0: none. Every step is checked,
  /// since the table comes from a file.
  size_t Transform(std::string_view text, bool longest, std::string_view* replacement) const {
    size_t node = Offset(trie_[0]);
    size_t found = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<uint8_t>(text[i]);
      if (byte == 0) break;
      node ^= byte;
      if (node >= trie_.size()) break;
      const uint32_t unit = trie_[node];
      if ((unit & ((1u << 31) | 0xFFu)) != byte) break;
      node ^= Offset(unit);
      if (((unit >> 8) & 1u) == 0) continue;
      if (node >= trie_.size()) break;
      const size_t index = trie_[node] & 0x7fffffffu;
      // Both the key and its replacement must be whole characters, or the text would stop being UTF-8.
      const auto continues = [](std::string_view bytes, size_t at) {
        return at < bytes.size() && (static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80;
      };
      if (index >= strings_.size() || continues(strings_, index)) break;
      if (continues(text, i + 1)) continue;
      *replacement = std::string_view(strings_).substr(index, strings_.find('\0', index) - index);
      found = i + 1;
      if (!longest) break;
    }
    return found;
  }

  std::vector<uint32_t> trie_;  // never empty
  std::string strings_;         // ends with a zero byte
  CharsmapStyle style_;
};

}  // namespace

Result<NormalizerPtr> MakePrecompiled(std::string_view charsmap, CharsmapStyle style) {
  if (charsmap.empty()) return NormalizerPtr();
  if (charsmap.size() > kMaxCharsmap) return ResourceExhausted("the normalisation table has {} bytes", charsmap.size());
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<uint8_t>(charsmap[at + i])) << (8 * i);
    return value;
  };
  if (charsmap.size() < 8) return InvalidData("the normalisation table is truncated");
  const uint32_t trie_bytes = word(0);
  if (trie_bytes > charsmap.size() - 4 || trie_bytes % 4 != 0 || trie_bytes == 0) {
    return InvalidData("the normalisation table claims a trie of {} bytes, but has {}", trie_bytes, charsmap.size());
  }
  std::vector<uint32_t> trie(trie_bytes / 4);
  for (size_t i = 0; i < trie.size(); ++i) trie[i] = word(4 + 4 * i);
  std::string strings(charsmap.substr(4 + trie_bytes));
  if (!IsValidUtf8(strings)) return InvalidData("the normalisation table's strings are not UTF-8");
  if (strings.empty() || strings.back() != '\0') strings += '\0';
  return NormalizerPtr(std::make_unique<Precompiled>(std::move(trie), std::move(strings), style));
}

}  // namespace kvasir
