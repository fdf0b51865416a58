#include "text/byte_alphabet.h"

#include <array>

#include "base/utf8.h"

namespace kvasir {
namespace {

struct Alphabet {
  std::array<std::string, 256> to;
  std::array<int16_t, 0x144> from;

  Alphabet() {
    from.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      AppendUtf8(to[static_cast<size_t>(b)], c);
      from[c] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& GetAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

}  // namespace

std::string_view ByteToAlphabet(uint8_t byte) { return GetAlphabet().to[byte]; }

int AlphabetToByte(char32_t c) { return c < 0x144 ? GetAlphabet().from[c] : -1; }

std::string ToByteAlphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += ByteToAlphabet(static_cast<uint8_t>(c));
  return out;
}

bool DecodeBase64(std::string_view text, std::string* bytes) {
  if (text.size() % 4 != 0) return false;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const int padding = !last || text[i + 3] != '=' ? 0 : text[i + 2] == '=' ? 2 : 1;
    uint32_t word = 0;
    for (size_t k = 0; k < 4; ++k) {
      const int value = k >= 4 - static_cast<size_t>(padding) ? 0 : Base64Value(text[i + k]);
      if (value < 0) return false;
      word = (word << 6) | static_cast<uint32_t>(value);
    }
    for (int k = 0; k < 3 - padding; ++k) out += static_cast<char>(word >> (16 - 8 * k));
  }
  *bytes += out;
  return true;
}

}  // namespace kvasir
