// The inside of a JSON string, byte by byte (RFC 8259, section 7): UTF-8 without surrogates or overlong forms, no raw
// control characters, escapes whose surrogates come in pairs.
#pragma once

#include <cstdint>

namespace kvasir {

/// Where a scan of a string stands.
enum JsonStringState : int8_t {
  kInString,  // between two characters
  kOneMore,   // continuation bytes to come
  kTwoMore,
  kThreeMore,
  kAfterE0,  // lead bytes whose second byte has a narrower range
  kAfterED,
  kAfterF0,
  kAfterF4,
  kAfterBackslash,
  kHexFirst,  // of four digits after \u
  kHexSecond,
  kHexThird,
  kHexFourth,
  kHexAfterD,  // the second digit after a D decides about a surrogate
  kHighThird,  // the rest of a high surrogate
  kHighFourth,
  kLowBackslash,  // and the low one that must follow
  kLowU,
  kLowFirst,
  kLowSecond,
  kJsonStringStates,
  kStringClosed = -1,
  kNotAString = -2,
};

namespace internal {
constexpr bool IsHex(uint8_t byte) {
  return (byte >= '0' && byte <= '9') || ((byte | 32) >= 'a' && (byte | 32) <= 'f');
}
constexpr JsonStringState If(bool condition, JsonStringState next) { return condition ? next : kNotAString; }

constexpr JsonStringState NextCharacter(uint8_t byte) {
  if (byte == '"') return kStringClosed;
  if (byte == '\\') return kAfterBackslash;
  if (byte < 0x80) return If(byte >= 0x20, kInString);
  if (byte < 0xE0) return If(byte >= 0xC2, kOneMore);
  if (byte == 0xE0) return kAfterE0;
  if (byte == 0xED) return kAfterED;
  if (byte < 0xF0) return kTwoMore;
  if (byte == 0xF0) return kAfterF0;
  if (byte < 0xF4) return kThreeMore;
  return If(byte == 0xF4, kAfterF4);
}

constexpr JsonStringState NextEscape(JsonStringState state, uint8_t byte) {
  const bool hex = IsHex(byte);
  const bool d = (byte | 32) == 'd';
  switch (state) {
    case kAfterBackslash:
      if (byte == 'u') return kHexFirst;
      return If(byte == '"' || byte == '\\' || byte == '/' || byte == 'b' || byte == 'f' || byte == 'n' ||
                    byte == 'r' || byte == 't',
                kInString);
    case kHexFirst: return d ? kHexAfterD : If(hex, kHexSecond);
    case kHexSecond: return If(hex, kHexThird);
    case kHexThird: return If(hex, kHexFourth);
    case kHexFourth: return If(hex, kInString);
    case kHexAfterD:
      if (byte >= '0' && byte <= '7') return kHexThird;
      return If(byte == '8' || byte == '9' || (byte | 32) == 'a' || (byte | 32) == 'b', kHighThird);
    case kHighThird: return If(hex, kHighFourth);
    case kHighFourth: return If(hex, kLowBackslash);
    case kLowBackslash: return If(byte == '\\', kLowU);
    case kLowU: return If(byte == 'u', kLowFirst);
    case kLowFirst: return If(d, kLowSecond);
    case kLowSecond: return If((byte | 32) >= 'c' && (byte | 32) <= 'f', kHexThird);
    default: return kNotAString;
  }
}
}  // namespace internal

/// The state after a byte. A character begins (and counts, a pair of surrogates once) with each byte that leaves
/// kInString for anything but kStringClosed.
constexpr JsonStringState NextInString(JsonStringState state, uint8_t byte) {
  const bool continues = byte >= 0x80 && byte < 0xC0;
  switch (state) {
    case kInString: return internal::NextCharacter(byte);
    case kOneMore: return internal::If(continues, kInString);
    case kTwoMore: return internal::If(continues, kOneMore);
    case kThreeMore: return internal::If(continues, kTwoMore);
    case kAfterE0: return internal::If(continues && byte >= 0xA0, kOneMore);
    case kAfterED: return internal::If(continues && byte < 0xA0, kOneMore);
    case kAfterF0: return internal::If(continues && byte >= 0x90, kTwoMore);
    case kAfterF4: return internal::If(continues && byte < 0x90, kTwoMore);
    default: return internal::NextEscape(state, byte);
  }
}

}  // namespace kvasir
