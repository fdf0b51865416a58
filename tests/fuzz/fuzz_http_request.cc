// A request's body: whatever it is, it is read without harm or refused with status 400 and words, and messages that
// are taken are what templates expect. Behind a zero byte: a Host, an Origin and keys for the gate.
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "server/access_log.h"
#include "server/completion_call.h"
#include "server/gate.h"
#include "server/request_fields.h"

namespace {

namespace server = kvasir::server;
namespace json = boost::json;

void Check(const std::optional<server::ApiError>& error) {
  if (!error) return;
  if (error->status != 400 || error->message.empty()) std::abort();
  const std::string body = server::ErrorBody(*error);
  if (!kvasir::ParseJson(body, "error").ok() || body.find('\n') != std::string::npos) std::abort();
}

/// Every field of the request as every type.
void ReadFields(const json::object& object) {
  for (const auto& member : object) {
    const std::string_view key(member.key().data(), member.key().size());
    for (int type = 0; type < 6; ++type) {
      server::RequestFields fields(object, "body.");
      switch (type) {
        case 0:
          if (const auto value = fields.Int(key, -5, 1000); value && (*value < -5 || *value > 1000)) std::abort();
          break;
        case 1:
          if (const auto value = fields.Number(key, -1, 1); value && !(*value >= -1 && *value <= 1)) std::abort();
          break;
        case 2: fields.Bool(key); break;
        case 3:
          if (const auto value = fields.Text(key, 10); value && value->size() > 10) std::abort();
          break;
        case 4: fields.Object(key); break;
        default:
          if (const auto* const value = fields.Array(key, 3); value != nullptr && value->size() > 3) std::abort();
      }
      Check(fields.error());
    }
  }
}

void ReadBody(const std::string& text) {
  const server::RequestBody body = server::ParseRequestBody(text);
  Check(body.error);
  if (body.error) return;
  ReadFields(body.object());
  server::RequestFields fields(body.object());
  const auto messages = server::ReadMessages(fields, "messages");
  if (messages.has_value() != fields.ok()) std::abort();
  Check(fields.error());
  if (!messages) return;
  for (const json::value& message : *messages) {
    const json::value& content = message.as_object().at("content");
    if (!content.is_string() || !kvasir::IsValidUtf8(content.get_string())) std::abort();
    if (!message.as_object().at("role").is_string()) std::abort();
  }
}

/// Lines: method, path, then headers by turns of name and value.
server::HttpRequest ReadHead(std::string_view text) {
  server::HttpRequest head;
  std::string name;
  for (int line = 0; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string part(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line == 0) {
      head.method = std::move(part);
    } else if (line == 1) {
      head.path = std::move(part);
    } else if (line % 2 == 0) {
      name = std::move(part);
    } else {
      head.headers.emplace_back(std::move(name), std::move(part));
    }
  }
  return head;
}

void PassGate(std::string_view text) {
  static const server::Gate kGate({.api_keys = {"key"}, .allowed_hosts = {"host"}, .cors_origins = {"https://a.b"}});
  server::HttpRequest head = ReadHead(text);
  const auto refusal = kGate.Check(head);
  const bool is_public = head.path == "/" || head.path == "/health";
  if (!refusal && !is_public && head.key_name.empty()) std::abort();
  if (refusal && refusal->status < 400 && refusal->status != 204) std::abort();
  for (const auto& [key, value] : head.reply_headers) {
    if (value.find_first_of(std::string_view("\r\n\0", 3)) != value.npos) std::abort();
  }
  const std::string line = server::AccessLog::Line(head, {.status = 200}, 1, true);
  if (!kvasir::ParseJson(line, "line").ok() || line.find('\n') != std::string::npos) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t zero = text.find('\0');
  ReadBody(std::string(text.substr(0, zero)));
  if (zero != text.npos) PassGate(text.substr(zero + 1));
  return 0;
}
