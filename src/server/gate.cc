#include "server/gate.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "server/api_error.h"

namespace kvasir::server {
namespace {

std::string Sha256(std::string_view text) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

std::string Hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) fmt::format_to(std::back_inserter(text), "{:02x}", static_cast<unsigned char>(byte));
  return text;
}

bool IsAddress(const std::string& host) {
  unsigned char address[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), address) == 1 || inet_pton(AF_INET6, host.c_str(), address) == 1;
}

bool IsWordCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool ValidRequestId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::ranges::all_of(id, IsWordCharacter);
}

/// What tells nothing about the model, its users or their texts.
bool IsPublic(const HttpRequest& head) {
  return (head.method == "GET" || head.method == "HEAD") && (head.path == "/" || head.path == "/health");
}

int CountHeaders(const HttpRequest& head, std::string_view name) {
  return static_cast<int>(
      std::ranges::count_if(head.headers, [&](const auto& h) { return EqualsIgnoringCase(h.first, name); }));
}

HttpResponse Preflight(const HttpRequest& head) {
  HttpResponse response{.status = 204};
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  const std::string* const wanted = head.Header("Access-Control-Request-Headers");
  const auto harmless = [](char c) { return IsWordCharacter(c) || c == ',' || c == ' '; };
  if (wanted != nullptr && std::ranges::all_of(*wanted, harmless)) {
    response.headers.emplace_back("Access-Control-Allow-Headers", *wanted);
  }
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

}  // namespace

std::string RandomId() {
  unsigned char bytes[16];
  KVASIR_CHECK(RAND_bytes(bytes, sizeof(bytes)) == 1);
  return Hex({reinterpret_cast<const char*>(bytes), sizeof(bytes)});
}

std::optional<std::string> HostName(std::string_view host) {
  const bool bracketed = host.starts_with('[');
  const size_t end = bracketed ? host.find(']') : host.find(':');
  if (bracketed && end == host.npos) return {};
  const std::string_view name = bracketed ? host.substr(1, end - 1) : host.substr(0, end);
  const std::string_view port = end == host.npos ? std::string_view() : host.substr(bracketed ? end + 1 : end);
  if (!port.empty() && (port[0] != ':' || port.find_first_not_of("0123456789", 1) != port.npos)) return {};
  return AsciiLower(name);
}

bool ValidTraceparent(std::string_view text) {
  // 00-<32 hex: trace>-<16 hex: parent>-<2 hex: flags>, neither trace nor parent all zeros.
  if (text.size() != 55 || !text.starts_with("00-") || text[35] != '-' || text[52] != '-') return false;
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  const auto good = [&](std::string_view part) {
    return std::ranges::all_of(part, is_hex) && part.find_first_not_of('0') != part.npos;
  };
  return good(text.substr(3, 32)) && good(text.substr(36, 16)) && std::ranges::all_of(text.substr(53), is_hex);
}

Gate::Gate(GateOptions options) : options_(std::move(options)) {
  for (const std::string& key : options_.api_keys) key_digests_.push_back(Sha256(key));
  for (std::string& host : options_.allowed_hosts) host = AsciiLower(host);
}

bool Gate::AllowsHost(std::string_view host) const {
  const std::optional<std::string> name = HostName(host);
  if (!name) return false;
  if (IsAddress(*name) || *name == "localhost" || name->ends_with(".localhost")) return true;
  return std::ranges::any_of(options_.allowed_hosts,
                             [&](const auto& allowed) { return allowed == "*" || allowed == *name; });
}

bool Gate::AllowsOrigin(std::string_view origin, std::string_view host) const {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (host.empty() || !origin.starts_with(scheme)) continue;
    if (EqualsIgnoringCase(origin.substr(scheme.size()), host)) return true;
  }
  return std::ranges::any_of(options_.cors_origins,
                             [&](const auto& allowed) { return allowed == "*" || allowed == origin; });
}

bool Gate::AllowsKey(HttpRequest& head) const {
  if (key_digests_.empty()) return true;
  // Which of two is meant would be a matter of opinion.
  if (CountHeaders(head, "Authorization") > 1 || CountHeaders(head, "X-Api-Key") > 1) return false;
  std::string given;
  if (const std::string* const header = head.Header("Authorization")) {
    const size_t space = header->find(' ');
    if (EqualsIgnoringCase(header->substr(0, space), "bearer") && space != header->npos) {
      given = header->substr(space + 1);
    }
  } else if (const std::string* const key = head.Header("X-Api-Key")) {
    given = *key;
  }
  const std::string digest = Sha256(given);
  // Every key is compared, in full: how long it takes tells nothing.
  bool known = false;
  for (const std::string& key : key_digests_) known |= CRYPTO_memcmp(key.data(), digest.data(), digest.size()) == 0;
  if (known) head.key_name = Hex(digest).substr(0, 16);
  return known;
}

std::optional<HttpResponse> Gate::Check(HttpRequest& head) const {
  const std::string* const id = head.Header("X-Request-Id");
  head.id = id != nullptr && ValidRequestId(*id) ? *id : RandomId();
  head.reply_headers.emplace_back("X-Request-Id", head.id);
  const std::string* const trace = head.Header("traceparent");
  if (trace != nullptr && ValidTraceparent(*trace)) {
    head.traceparent = *trace;
    head.reply_headers.emplace_back("traceparent", *trace);
  }
  if (!head.path.starts_with('/') && head.path != "*") {
    return ErrorResponse({.status = 400, .message = "the request's target is no path"});
  }
  const std::string* const host = head.Header("Host");
  if (CountHeaders(head, "Host") > 1) return ErrorResponse({.status = 400, .message = "more than one Host header"});
  // Only HTTP/1.0 may come without one, and no browser speaks that.
  if (host != nullptr && !AllowsHost(*host)) {
    return ErrorResponse({.status = 403,
                          .message = "this Host is not allowed; start the server with --allowed-host NAME to allow it",
                          .code = "host_not_allowed"},
                         head.path);
  }
  if (const std::string* const origin = head.Header("Origin")) {
    if (CountHeaders(head, "Origin") > 1 || !AllowsOrigin(*origin, host ? std::string_view(*host) : "")) {
      return ErrorResponse(
          {.status = 403,
           .message = "this Origin may not ask; start the server with --cors-origin ORIGIN to allow it",
           .code = "origin_not_allowed"},
          head.path);
    }
    head.reply_headers.emplace_back("Access-Control-Allow-Origin", *origin);
    head.reply_headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id");
    head.reply_headers.emplace_back("Vary", "Origin");
    // A browser asks without a key whether it may ask with one.
    if (head.method == "OPTIONS" && head.Header("Access-Control-Request-Method")) return Preflight(head);
  }
  if (!AllowsKey(head) && !IsPublic(head)) {
    return ErrorResponse(
        {.status = 401, .message = "an API key is needed: Authorization: Bearer KEY", .code = "invalid_api_key"},
        head.path);
  }
  return {};
}

}  // namespace kvasir::server
