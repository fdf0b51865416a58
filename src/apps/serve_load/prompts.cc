#include "apps/serve_load/prompts.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <algorithm>

#include "apps/report.h"
#include "decode/random.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

// Streams of the seed; those of requests lie behind.
constexpr uint64_t kPrefixStream = 0x9ef1;
constexpr uint64_t kFirstStream = uint64_t{2} << 32;

constexpr std::string_view kWords[] = {
    "the",   "and",    "that",   "have",  "for",   "not",   "with",  "you",   "this",  "but",   "his",     "from",
    "they",  "say",    "her",    "she",   "will",  "one",   "all",   "would", "there", "their", "what",    "out",
    "about", "who",    "get",    "which", "when",  "make",  "can",   "like",  "time",  "just",  "him",     "know",
    "take",  "people", "into",   "year",  "your",  "good",  "some",  "could", "them",  "see",   "other",   "than",
    "then",  "now",    "look",   "only",  "come",  "its",   "over",  "think", "also",  "back",  "after",   "use",
    "two",   "how",    "our",    "work",  "first", "well",  "way",   "even",  "new",   "want",  "because", "any",
    "these", "give",   "day",    "most",  "house", "water", "small", "great", "found", "still", "should",  "place",
    "made",  "where",  "before", "right", "too",   "mean",  "old",   "same",  "tell",  "boy",   "follow",  "came"};

/// Calls add(random) for every token of the prompt: those of the prefix, which all requests share, and its own.
template <class Add>
void Draw(const PromptStuff& stuff, const LoadRequest& request, int64_t tokens, const Add& add) {
  const int64_t shared = std::min(stuff.shared_prefix, tokens);
  Random prefix(stuff.seed, kPrefixStream);
  for (int64_t i = 0; i < shared; ++i) add(prefix);
  Random own(stuff.seed, kFirstStream + static_cast<uint64_t>(request.index));
  for (int64_t i = shared; i < tokens; ++i) add(own);
}

}  // namespace

std::span<const std::string_view> CommonWords() { return kWords; }

std::vector<int32_t> PromptIds(const PromptStuff& stuff, const LoadRequest& request) {
  const int32_t first = stuff.vocabulary / 4;
  const auto range = static_cast<uint64_t>(stuff.vocabulary - first);
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(request.prompt_tokens));
  Draw(stuff, request, request.prompt_tokens,
       [&](Random& random) { ids.push_back(first + static_cast<int32_t>(random.Next() % range)); });
  return ids;
}

std::string PromptText(const PromptStuff& stuff, const LoadRequest& request) {
  std::string text;
  Draw(stuff, request, std::max<int64_t>(1, request.prompt_tokens - stuff.overhead), [&](Random& random) {
    if (!text.empty()) text += ' ';
    text += stuff.words[random.Next() % stuff.words.size()];
  });
  return text;
}

Result<std::string> RequestBody(const AskSettings& ask, const PromptStuff& stuff, const LoadRequest& request) {
  json::object body;
  body["model"] = ask.model;
  if (ask.endpoint == ApiEndpoint::kChat) {
    body["messages"] = json::array{json::object{{"role", "user"}, {"content", PromptText(stuff, request)}}};
  } else if (stuff.ids) {
    json::array ids;
    for (const int32_t id : PromptIds(stuff, request)) ids.emplace_back(id);
    body["prompt"] = std::move(ids);
  } else {
    body["prompt"] = PromptText(stuff, request);
  }
  body["max_tokens"] = request.answer_tokens;
  body["temperature"] = ask.temperature;
  body["stream"] = true;
  body["stream_options"] = json::object{{"include_usage", true}};
  if (ask.ignore_eos) body["ignore_eos"] = true;
  if (!ask.extra.empty()) {
    ASSIGN_OR_RETURN(json::value extra, ParseJson(ask.extra, "--extra-body", {.max_bytes = 1 << 20}));
    if (!extra.is_object()) return InvalidArgument("--extra-body: this is no JSON object");
    for (auto& [key, value] : extra.get_object()) body[key] = std::move(value);
  }
  return PlainJson(body);
}

}  // namespace kvasir::apps
