// The template renderer: any source, any messages. Whatever it renders must be valid UTF-8 with sorted literal ranges.
#include <cstdint>
#include <cstdlib>

#include "base/utf8.h"
#include "io/json.h"
#include "text/chat_template.h"

namespace {

// Tight bounds, so that a bomb ends in milliseconds.
kvasir::RenderOptions Options() {
  kvasir::RenderOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = 1721997296;
  options.limits.max_source_bytes = 1u << 16;
  options.limits.max_output_bytes = 1u << 16;
  options.limits.fuel = 100'000;
  options.variables = {{"tools", {{{"type", "function"}, {"function", {{"name", "f"}, {"n", 1.5}}}}}},
                       {"documents", nullptr},
                       {"s", "Grüße, <World>"},
                       {"n", 7},
                       {"d", {{"b", 1}, {"a", "x"}}}};
  return options;
}

}  // namespace

// The input: a template, and after a zero byte optionally the messages as JSON.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const kvasir::RenderOptions kOptions = Options();
  std::string_view source(reinterpret_cast<const char*>(data), size);
  boost::json::array messages = {{{"role", "system"}, {"content", "Be <|brief|>."}},
                                 {{"role", "user"}, {"content", " Hallo Wörld\n"}},
                                 {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {1, "two"}}}};
  if (const size_t zero = source.find('\0'); zero != std::string_view::npos) {
    const auto parsed = kvasir::ParseJson(source.substr(zero + 1), "fuzz");
    if (parsed.ok() && parsed->is_array()) messages = parsed->get_array();
    source = source.substr(0, zero);
  }
  const auto compiled = kvasir::ChatTemplate::Compile(source, kOptions.limits);
  if (!compiled.ok()) {
    if (compiled.status().message().empty()) std::abort();
    return 0;
  }
  const auto chat = compiled->Render(messages, kOptions);
  if (!chat.ok()) return 0;
  if (chat->text.size() > kOptions.limits.max_output_bytes || !kvasir::IsValidUtf8(chat->text)) std::abort();
  size_t end = 0;
  for (const kvasir::ByteRange& range : chat->literal) {
    if (range.begin >= range.end || range.end > chat->text.size()) std::abort();
    if (end > 0 && range.begin <= end) std::abort();  // ranges that touch are one
    end = range.end;
  }
  return 0;
}
