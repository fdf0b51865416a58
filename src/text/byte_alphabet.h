// The 256 printable characters that stand for bytes in byte-level vocabularies, and base64.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

/// The character for the byte, as UTF-8 (one or two bytes). Printable Latin-1 stands for itself, the other 68 bytes
/// for U+0100 … U+0143 in order.
std::string_view ByteToAlphabet(uint8_t byte);

/// The byte that the character stands for, or -1.
int AlphabetToByte(char32_t c);

/// `bytes` with every byte as its character.
std::string ToByteAlphabet(std::string_view bytes);

/// Strict standard base64 with padding; false when malformed. Appends nothing then.
bool DecodeBase64(std::string_view text, std::string* bytes);

}  // namespace kvasir
