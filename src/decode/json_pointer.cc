#include "decode/json_pointer.h"

#include <charconv>

#include "base/utf8.h"

namespace kvasir {
namespace {

constexpr size_t kLongestShown = 300;

std::string Escaped(std::string_view key) {
  std::string text;
  for (const char c : key) text += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return text;
}

/// "%25" as "%", then "~1" as "/" and "~0" as "~"; false where an escape is none.
bool Unescape(std::string_view part, std::string* key) {
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '%') {
      unsigned byte = 0;
      const char* const end = part.data() + std::min(part.size(), i + 3);
      const auto read = std::from_chars(part.data() + i + 1, end, byte, 16);
      if (i + 3 > part.size() || read.ec != std::errc() || read.ptr != end) return false;
      *key += static_cast<char>(byte);
      i += 2;
    } else {
      *key += part[i];
    }
  }
  std::string plain;
  for (size_t i = 0; i < key->size(); ++i) {
    if ((*key)[i] != '~') {
      plain += (*key)[i];
      continue;
    }
    ++i;
    if (i == key->size() || ((*key)[i] != '0' && (*key)[i] != '1')) return false;
    plain += (*key)[i] == '0' ? '~' : '/';
  }
  *key = std::move(plain);
  return true;
}

}  // namespace

std::string PointerOf(const JsonPlace* place) {
  std::string text;
  for (; place != nullptr; place = place->above) {
    const std::string part = place->index >= 0 ? fmt::format("{}", place->index) : Escaped(place->key);
    if (text.size() + part.size() > kLongestShown) return "…" + text;
    text.insert(0, fmt::format("/{}", part));
  }
  return "#" + text;
}

Result<const json::value*> ResolvePointer(const json::value& document, std::string_view reference) {
  const auto problem = [&](std::string_view what) {
    std::string_view shown = reference.substr(0, kLongestShown);
    shown.remove_suffix(IncompleteUtf8Suffix(shown));
    return InvalidArgument("\"$ref\" \"{}\" {}", shown, what);
  };
  if (!reference.starts_with('#')) return problem("points out of the schema; only \"#/…\" is supported");
  std::string_view rest = reference.substr(1);
  if (!rest.empty() && rest[0] != '/') return problem("is no JSON pointer; only \"#/…\" is supported");
  const json::value* at = &document;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::string_view part = rest.substr(0, rest.find('/'));
    rest.remove_prefix(part.size());
    std::string key;
    if (!Unescape(part, &key)) return problem("has an escape that is none");
    const json::value* next = nullptr;
    if (at->is_object()) {
      next = at->get_object().if_contains(key);
    } else if (at->is_array()) {
      size_t index = 0;
      const auto read = std::from_chars(key.data(), key.data() + key.size(), index);
      const bool whole = read.ec == std::errc() && read.ptr == key.data() + key.size();
      if (whole && index < at->get_array().size()) next = &at->get_array()[index];
    }
    if (next == nullptr) return problem("points to nothing");
    at = next;
  }
  return at;
}

}  // namespace kvasir
