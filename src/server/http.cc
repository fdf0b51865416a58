#include "server/http.h"

#include <algorithm>
#include <charconv>

namespace kvasir::server {

std::string AsciiLower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && AsciiLower(a) == AsciiLower(b);
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned char byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + digits.size()) return {};
    decoded += static_cast<char>(byte);
    i += 2;
  }
  return decoded;
}

const std::string* HttpRequest::Header(std::string_view name) const {
  const auto found = std::ranges::find_if(headers, [&](const auto& h) { return EqualsIgnoringCase(h.first, name); });
  return found == headers.end() ? nullptr : &found->second;
}

}  // namespace kvasir::server
