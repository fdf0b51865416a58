// kvasir serve: an HTTP server with OpenAI's interface and Ollama's, and a web page.
#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "apps/model_flags.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "base/utf8.h"
#include "io/json.h"
#include "server/server.h"

namespace kvasir::apps {
namespace {

constexpr size_t kMostKeyFileBytes = 1 << 20;

/// The lines of a file of API keys; empty ones and comments are left out.
Result<std::vector<std::string>> ReadKeys(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMostKeyFileBytes));
  std::vector<std::string> keys;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with('#')) keys.push_back(std::move(line));
    begin = end + 1;
  }
  if (keys.empty()) return InvalidArgument("--api-key-file {}: there is no key in it", path);
  return keys;
}

class ServeVerb final : public Verb {
 public:
  ServeVerb() {
    model_.cache.mode = CacheMode::kPaged;
    options_.scheduler.max_running = 16;
    options_.scheduler.slowest_answers = 2;
  }

  std::string_view name() const override { return "serve"; }
  std::string_view summary() const override {
    return "Serve a model over HTTP: OpenAI's and Ollama's interfaces and a web page.";
  }
  std::string_view description() const override {
    return "usage: kvasir serve -m MODEL [--host HOST] [--port PORT] [flags]\n\n"
           "Answers /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models, /tokenize,\n"
           "/detokenize, /apply-template, /health, /metrics (Prometheus), /props, Ollama's /api/chat, /api/generate "
           "and\n"
           "what belongs to them, and at / a page to talk to the model. SIGTERM or Ctrl-C ends it when what runs has "
           "been\n"
           "answered; a second one at once.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Server");
    flags.Text("--host", "HOST", &options_.http.host, "Address to listen on; 0.0.0.0 is every one.");
    flags.Int("--port", "N", &options_.http.port, 0, 65535, "Port to listen on; 0 is any that is free.");
    flags.Texts("-a,--served-model-name,--alias", "NAME", &options_.service.model_names,
                "Name that requests may ask for; may be given several times, the first is the one in answers.",
                "the file's or folder's name");
    flags.Texts("--api-key", "KEY", &options_.gate.api_keys,
                "Let in only who has this key; may be given several times.");
    flags.Text("--api-key-file", "FILE", &key_file_, "API keys, one on each line.");
    flags.Texts("--allowed-host", "NAME", &options_.gate.allowed_hosts,
                "Name that the Host header may bear beside localhost and addresses; * is any.");
    flags.Texts("--cors-origin", "ORIGIN", &options_.gate.cors_origins,
                "Origin whose pages may ask (https://chat.example); * is any.");
    flags.Text("--tls-certificate,--ssl-cert-file", "FILE", &options_.http.tls_certificate, "Serve HTTPS: PEM file.");
    flags.Text("--tls-key,--ssl-key-file", "FILE", &options_.http.tls_key, "The certificate's key: PEM file.");
    flags.Text("--template,--chat-template", "FILE|chatml", &options_.chat_template,
               "Chat template: a Jinja file, or ChatML.", "the model's");
    flags.Choice("--pooling", &options_.service.pooling, {{"mean", Pooling::kMean}, {"last", Pooling::kLast}},
                 "What becomes the vector of a text: the mean of its tokens' hidden states, or the last token's.");
    flags.Switch("--page,--webui", &options_.service.page, "Serve the web page at /.", "--no-page");
    AddBatching(flags);
    AddLimits(flags);
    flags.Group("Log");
    flags.Switch("--access-log", &options_.log.enabled, "A line of JSON for every request.", "--no-access-log");
    flags.Text("--log-file", "FILE", &options_.log.file, "Write them to this file.", "standard error");
    flags.Switch("--log-prompts", &options_.log.prompts, "Requests' bodies stand in them too.");
    model_.AddAll(flags);
    model_.AddVerbose(flags);
  }

  Status Run() override {
    ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
    if (!key_file_.empty()) {
      ASSIGN_OR_RETURN(std::vector<std::string> keys, ReadKeys(key_file_));
      std::ranges::move(keys, std::back_inserter(options_.gate.api_keys));
    }
    // The system takes it for every address.
    if (options_.http.host.empty()) return InvalidArgument("--host: no address; 0.0.0.0 is every one");
    for (const std::string& key : options_.gate.api_keys) {
      if (key.empty()) return InvalidArgument("--api-key: an empty key would let everybody in");
    }
    for (const std::string& name : options_.service.model_names) {
      const bool control = std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
      if (name.empty() || control || !IsValidUtf8(name)) {
        return InvalidArgument("--served-model-name: a name is UTF-8 text without control characters");
      }
    }
    if (options_.service.model_names.empty()) options_.service.model_names.push_back(NameOf(path));
    options_.service.ping = std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(ping_seconds_));
    options_.service.version = KVASIR_VERSION;
    options_.gate.allowed_hosts.push_back(options_.http.host);
    EngineOptions engine_options = model_.Options();
    // One more for texts that become vectors, which must not wait for answers to end.
    engine_options.max_sequences = options_.scheduler.max_running + 1;
    options_.scheduler.step_tokens = model_.batch;
    if (prefix_tokens_) {
      const int64_t block = model_.cache.block_tokens > 0 ? model_.cache.block_tokens : kPagedBlockTokens;
      engine_options.most_prefix_blocks = *prefix_tokens_ / block;
    }
    if (!prefix_cache_) engine_options.most_prefix_blocks = 0;
    // It listens before it loads, so that who waits for the model can ask how far it is.
    ASSIGN_OR_RETURN(const auto server, server::Server::Start(options_));
    ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, LoadEngine(model_, std::move(engine_options), false));
    const bool v6 = options_.http.host.find(':') != std::string::npos;
    return server->Serve(*engine, [&] {
      WriteStderr(fmt::format("kvasir: serving {} on {}://{}{}{}:{}",
                              boost::json::serialize(boost::json::string(options_.service.model_names.front())),
                              options_.http.tls_certificate.empty() ? "http" : "https", v6 ? "[" : "",
                              options_.http.host, v6 ? "]" : "", server->port()));
    });
  }

 private:
  void AddBatching(FlagTable& flags) {
    flags.Group("Batching");
    flags.Int("--parallel,--max-num-seqs,--np", "N", &options_.scheduler.max_running, 1, 4096,
              "Sequences that are run at once.");
    flags.Int("--max-waiting", "N", &options_.scheduler.max_waiting, 1, 1 << 20,
              "Sequences that may wait; more are refused with status 429.");
    flags.Parsed(
        "--batching", "static|dynamic:MS|continuous",
        "When requests join those that run: once these have all ended (V1), the same but a batch waits MS milliseconds "
        "to be full (V5), or at every step (V2).",
        [this](std::string_view text) { return SetBatching(text); }, [this] { return BatchingText(); });
    flags.Switch("--chunked-prefill", &options_.scheduler.chunk_prompts,
                 "Long prompts are run in pieces beside the answers of others (V3).", "--no-chunked-prefill");
    flags.Switch("--deterministic", &options_.scheduler.deterministic,
                 "An answer has the same bits alone and in any company. Otherwise prompts of K-quants that are run by "
                 "themselves are computed with rounded weights, about an eighth faster.",
                 "--no-deterministic");
    flags.Switch("--prefix-cache", &prefix_cache_,
                 "Requests of one client that begin alike share what the cache knows of it (K5).", "--no-prefix-cache");
    flags.Int("--prefix-cache-tokens", "N", &prefix_tokens_, 1, int64_t{1} << 40,
              "Tokens of prefixes that are kept, the ones used last.", "as many as the pool has room for");
    flags.Number("--slowest-answers", "X", &options_.scheduler.slowest_answers, {.min = 0, .max = 1000},
                 "With chunked prefill: a step that also runs prompts may take X times what the answers alone would "
                 "take, as measured; 0: -b is the only bound.");
  }

  Status SetBatching(std::string_view text) {
    SchedulerOptions& scheduler = options_.scheduler;
    constexpr std::string_view kDynamic = "dynamic:";
    if (text == "static") {
      scheduler.batching = Batching::kStatic;
    } else if (text == "continuous") {
      scheduler.batching = Batching::kContinuous;
    } else if (text.starts_with(kDynamic)) {
      auto wait = internal::ParseNumber(text.substr(kDynamic.size()), {.min = 0, .max = 60'000});
      if (!wait.ok()) return wait.status().WithContext("dynamic:MS");
      scheduler.batching = Batching::kDynamic;
      scheduler.batch_wait_ms = *wait;
    } else {
      return InvalidArgument("\"{}\" is none of static, dynamic:MS (such as dynamic:50) and continuous", text);
    }
    return OkStatus();
  }

  std::string BatchingText() const {
    switch (options_.scheduler.batching) {
      case Batching::kStatic: return "static";
      case Batching::kDynamic: return fmt::format("dynamic:{}", options_.scheduler.batch_wait_ms);
      case Batching::kContinuous: break;
    }
    return "continuous";
  }

  void AddLimits(FlagTable& flags) {
    server::HttpLimits& limits = options_.http.limits;
    const Range seconds{.min = 0, .max = 86400, .open_min = true};
    flags.Group("Limits");
    flags.Int("--max-connections", "N", &limits.connections, 1, 1 << 20, "Connections at once.");
    flags.Bytes("--max-body", &limits.body_bytes, "Bytes that a request's body may have.", "16 MiB");
    flags.Int("--max-header", "N", &limits.header_bytes, 1024, 1 << 20, "Bytes that a request's headers may have.");
    flags.Number("--header-timeout", "S", &limits.header_seconds, seconds,
                 "Seconds from a request's first byte to the end of its headers.");
    flags.Number("--body-timeout", "S", &limits.body_seconds, seconds, "Seconds for a request's body.");
    flags.Number("--idle-timeout", "S", &limits.idle_seconds, seconds, "Seconds that a connection may be idle.");
    flags.Number("--write-timeout", "S", &limits.write_seconds, seconds,
                 "Seconds after which a client that reads nothing is given up.");
    flags.Number("--ping-interval", "S", &ping_seconds_, seconds,
                 "Seconds after which a stream that has nothing to say sends a comment.");
    flags.Number("--drain-timeout", "S", &options_.drain_seconds, {.min = 0, .max = 86400},
                 "Seconds that answers under way get at the end.");
  }

  /// "llama" of "models/llama/" and "models/llama.gguf".
  static std::string NameOf(const std::filesystem::path& path) {
    std::error_code error;
    const std::filesystem::path whole = std::filesystem::weakly_canonical(path, error);
    const std::filesystem::path& best = error ? path : whole;
    const std::filesystem::path name = std::filesystem::is_directory(best, error) ? best.filename() : best.stem();
    return name.empty() ? "kvasir" : name.string();
  }

  ModelFlags model_;
  server::ServerOptions options_;
  std::string key_file_;
  bool prefix_cache_ = true;
  std::optional<int64_t> prefix_tokens_;
  double ping_seconds_ = 10;
};

}  // namespace

std::unique_ptr<Verb> MakeServeVerb() { return std::make_unique<ServeVerb>(); }

}  // namespace kvasir::apps
