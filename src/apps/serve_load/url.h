// Addresses of servers.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::apps {

/// Of a server that speaks HTTP.
struct ServerUrl {
  std::string host;  // a name, an IPv4 address, or an IPv6 one without its brackets
  std::string port;  // a number
  std::string base;  // what all paths begin with: "" or "/some/folder"

  /// As the header Host names it.
  std::string Authority() const;
  /// As a person would write it.
  std::string Text() const;
};

/// Parses "http://host[:port][/base]"; a base of /v1 or a slash at its end is left out, since all paths begin with
/// /v1. InvalidArgument: another scheme, a user's name, a query or fragment, characters that no host or path has
/// (RFC 3986). Unsupported: https.
Result<ServerUrl> ParseServerUrl(std::string_view text);

}  // namespace kvasir::apps
