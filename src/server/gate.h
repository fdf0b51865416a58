// The one gate that every request passes before anything of it is believed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"

namespace kvasir::server {

struct GateOptions {
  std::vector<std::string> api_keys;       // none: everybody may come in
  std::vector<std::string> allowed_hosts;  // names beside localhost and addresses; "*": all
  std::vector<std::string> cors_origins;   // pages of other origins that may ask; "*": all
};

/// In this order: a Host header that names this machine, so that a page whose name was turned to this address (DNS
/// rebinding) gets nothing; an Origin that may ask; an API key, in all places but those that tell nothing (the page,
/// /health). Whoever is not let in learns nothing of what there is. Immutable; thread-safe.
class Gate {
 public:
  explicit Gate(GateOptions options);

  /// The refusal, or nothing; fills in the head's id, traceparent, key_name and reply_headers. An allowed preflight is
  /// answered here, too.
  std::optional<HttpResponse> Check(HttpRequest& head) const;

 private:
  bool AllowsHost(std::string_view host) const;
  bool AllowsOrigin(std::string_view origin, std::string_view host) const;
  bool AllowsKey(HttpRequest& head) const;

  GateOptions options_;
  std::vector<std::string> key_digests_;  // SHA-256
};

/// "127.0.0.1" of "127.0.0.1:8080", "::1" of "[::1]:8080"; nothing where it is no host.
std::optional<std::string> HostName(std::string_view host);
/// Whether it is a traceparent of version 00 as W3C's Trace Context has it.
bool ValidTraceparent(std::string_view text);
/// 128 random bits in hexadecimal digits.
std::string RandomId();

}  // namespace kvasir::server
