#include "apps/serve_load/prepare.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <algorithm>
#include <optional>

#include "apps/report.h"
#include "apps/serve_load/http_client.h"
#include "apps/terminal.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

constexpr JsonLimits kReplyLimits = {.max_bytes = size_t{16} << 20, .max_depth = 32, .max_values = 1 << 20};
constexpr int64_t kRepeats = 16;  // of a word whose tokens are counted

/// One server asked about itself.
class Asker {
 public:
  Asker(const LoadTarget& target, double timeout_s)
      : target_(target), timeout_(static_cast<int64_t>(1e3 * timeout_s)) {}

  Result<json::value> Get(const std::string& path) const { return Call({.method = "GET", .path = path}, nullptr); }
  Result<json::value> Post(const std::string& path, const json::value& body, int* status = nullptr) const {
    return Call({.method = "POST", .path = path, .body = PlainJson(body)}, status);
  }

  /// How many tokens a text has by the server's /tokenize, in the form of llama.cpp or of vLLM; nothing: it has none.
  std::optional<int64_t> Count(const std::string& text) const {
    // Each of the two looks at one name only.
    const auto reply =
        Post("/tokenize", json::object{{"model", target_.ask.model}, {"content", text}, {"prompt", text}});
    if (!reply.ok() || !reply->is_object()) return std::nullopt;
    const json::object& object = reply->get_object();
    for (const char* key : {"tokens", "ids"}) {
      const json::value* tokens = object.if_contains(key);
      if (tokens != nullptr && tokens->is_array()) return static_cast<int64_t>(tokens->get_array().size());
    }
    return std::nullopt;
  }

 private:
  Result<json::value> Call(HttpExchange exchange, int* status) const {
    const std::string path = exchange.path;
    ASSIGN_OR_RETURN(const std::string body,
                     HttpCall(target_.url, target_.api_key, std::move(exchange), timeout_, status));
    return ParseJson(body, target_.url.Text() + path, kReplyLimits);
  }

  const LoadTarget& target_;
  std::chrono::milliseconds timeout_;
};

Result<std::string> FirstModel(const Asker& asker, const ServerUrl& url) {
  ASSIGN_OR_RETURN(const json::value models, asker.Get("/v1/models"));
  const json::object* object = models.if_object();
  const json::value* data = object != nullptr ? object->if_contains("data") : nullptr;
  const json::array* list = data != nullptr ? data->if_array() : nullptr;
  const json::object* first = list != nullptr && !list->empty() ? list->front().if_object() : nullptr;
  const json::value* id = first != nullptr ? first->if_contains("id") : nullptr;
  if (id == nullptr || !id->is_string()) {
    return IoError("{}/v1/models names no model; name one with --model", url.Text());
  }
  return std::string(id->get_string());
}

/// Whether prompts may be lists of token ids. A reply with a status of 5xx, or none, is an error.
Result<bool> TakesIds(const Asker& asker, const LoadTarget& target) {
  PromptStuff stuff = target.stuff;
  stuff.shared_prefix = 0;  // what requests share is not in the server's cache before they come
  json::array prompt;
  for (const int32_t id : PromptIds(stuff, {.index = -1, .prompt_tokens = 4})) {
    prompt.emplace_back(id);
  }
  int status = 0;
  const auto reply =
      asker.Post("/v1/completions",
                 json::object{{"model", target.ask.model}, {"prompt", std::move(prompt)}, {"max_tokens", 1}}, &status);
  if (reply.ok()) return true;
  if (status < 400 || status >= 500 || status == 401 || status == 403) return reply.status();
  return false;
}

/// The words that are one token each, and what the server adds to every text.
void FindWords(const Asker& asker, PromptStuff& stuff) {
  const auto repeated = [](std::string_view word, int64_t times) {
    std::string text;
    for (int64_t i = 0; i < times; ++i) text += (text.empty() ? "" : " ") + std::string(word);
    return text;
  };
  const auto one = asker.Count(std::string(CommonWords().front()));
  if (one) {
    stuff.overhead = -1;
    for (const std::string_view word : CommonWords()) {
      const auto once = asker.Count(repeated(word, 1));
      const auto often = asker.Count(repeated(word, 1 + kRepeats));
      if (!once || !often) break;
      if (*often - *once != kRepeats) continue;
      stuff.words.emplace_back(word);
      if (stuff.overhead < 0) stuff.overhead = std::max<int64_t>(0, *once - 1);
    }
    stuff.overhead = std::max<int64_t>(0, stuff.overhead);
  }
  if (!stuff.words.empty()) return;
  Note(one ? "no common word is one token of this model: prompts are longer than asked for"
           : "the server has no /tokenize: prompts have as many words as tokens were asked for");
  stuff.words.assign(CommonWords().begin(), CommonWords().end());
}

}  // namespace

Status PrepareTarget(PromptForm form, double timeout_s, LoadTarget& target) {
  const Asker asker(target, timeout_s);
  if (target.ask.model.empty()) {
    ASSIGN_OR_RETURN(target.ask.model, FirstModel(asker, target.url));
  }
  target.stuff.ids = form == PromptForm::kIds;
  if (form == PromptForm::kAuto && target.ask.endpoint == ApiEndpoint::kCompletions) {
    ASSIGN_OR_RETURN(target.stuff.ids, TakesIds(asker, target));
    if (!target.stuff.ids) Note("the server takes no token ids as a prompt: prompts are made of words");
  }
  if (!target.stuff.ids) FindWords(asker, target.stuff);
  return OkStatus();
}

}  // namespace kvasir::apps
