#include "apps/serve_load/url.h"

#include <algorithm>

#include "apps/flags.h"
#include "apps/terminal.h"

namespace kvasir::apps {
namespace {

constexpr size_t kMaxUrl = 2048;

bool IsAlphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

bool AllOf(std::string_view text, std::string_view others) {
  return std::ranges::all_of(text, [&](char c) { return IsAlphanumeric(c) || others.find(c) != others.npos; });
}

}  // namespace

std::string ServerUrl::Authority() const {
  const std::string name = host.find(':') == host.npos ? host : "[" + host + "]";
  return port == "80" ? name : name + ":" + port;
}

std::string ServerUrl::Text() const { return "http://" + Authority() + base; }

Result<ServerUrl> ParseServerUrl(std::string_view text) {
  const auto wrong = [&](std::string_view what) {
    constexpr size_t kMost = 100;
    return InvalidArgument("\"{}\" {}; an address is of the form http://127.0.0.1:8080",
                           EscapeControls(text.substr(0, kMost)), what);
  };
  if (text.size() > kMaxUrl) return wrong("is too long");
  ServerUrl url;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    return Unsupported(
        "https is not spoken here; forward a local port to the server (socat, stunnel, ssh -L) and give "
        "that as http://127.0.0.1:PORT");
  }
  if (!rest.starts_with("http://")) return wrong("does not begin with http://");
  rest.remove_prefix(7);
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  std::string_view base = rest.substr(slash);
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == authority.npos) return wrong("has a bracket without its other one");
    url.host = authority.substr(1, end - 1);
    if (!AllOf(url.host, ":.") || url.host.find(':') == url.host.npos) return wrong("has no IPv6 address in brackets");
    authority.remove_prefix(end + 1);
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    if (url.host.empty() || !AllOf(url.host, "-._")) return wrong("names no host");
    authority.remove_prefix(colon);
  }
  url.port = "80";
  if (!authority.empty()) {
    const auto port = authority.front() == ':' ? internal::ParseInt(authority.substr(1), 1, 65535)
                                               : Result<int64_t>(InvalidArgument("no colon"));
    if (!port.ok()) return wrong("has no port from 1 to 65535 behind its host");
    url.port = std::to_string(*port);
  }
  while (base.ends_with('/')) base.remove_suffix(1);
  if (base.ends_with("/v1")) base.remove_suffix(3);
  if (!AllOf(base, "/-._~!$&'()*+,;=:@%")) return wrong("has a path with characters that paths do not have");
  url.base = base;
  return url;
}

}  // namespace kvasir::apps
