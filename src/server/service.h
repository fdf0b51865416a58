// The server's routes: what each path answers.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/chat_format.h"
#include "engine/engine_thread.h"
#include "server/answer_writer.h"
#include "server/api_error.h"
#include "server/completion_call.h"
#include "server/completion_reply.h"
#include "server/embedding_call.h"
#include "server/generation_stream.h"
#include "server/glass_box.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/ollama_call.h"

namespace kvasir::server {

struct ServiceOptions {
  std::vector<std::string> model_names;  // that requests may ask for; the first is in answers to requests without one
  std::string version;
  bool page = true;                  // "/" is the web page
  Pooling pooling = Pooling::kMean;  // of embeddings
  /// Of a stream that has nothing to say for so long a comment is sent, so that nobody takes it for dead.
  std::chrono::milliseconds ping = std::chrono::seconds(10);
};

/// What a model brings to the service.
struct ServedModel {
  Engine* engine = nullptr;
  EngineThread* thread = nullptr;
  std::optional<ChatFormat> chat;
  int64_t max_running = 1;                  // SchedulerOptions'
  std::string no_chat;                      // why there is no chat template
  std::shared_ptr<const TokenTrie> tokens;  // Engine::token_trie, where there is a tokenizer
};

/// Answers requests that have passed the gate. All methods but metrics() and glass_box() are for the thread of the
/// executor.
class Service {
 public:
  Service(const asio::any_io_executor& executor, ServiceOptions options);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  asio::awaitable<void> Handle(const HttpRequest& request, HttpReply& reply);

  /// From now on the model is served; before that everything that needs it is answered with status 503. Engine and
  /// thread outlive all requests.
  void Serve(ServedModel model);
  /// From now on nothing new is begun.
  void Drain() { draining_ = true; }
  /// Waits for what runs beside the server's thread, and forgets what has not begun there. For the end: when nobody
  /// runs the executor any more but it is still there, for what is forgotten belongs to it.
  void EndWork();

  Metrics& metrics() { return metrics_; }
  GlassBox& glass_box() { return glass_box_; }

 private:
  using Handler = asio::awaitable<void> (Service::*)(const HttpRequest&, HttpReply&);
  struct Route {
    std::string_view method;
    std::string_view path;
    Handler handler;
    bool needs_model = true;
  };
  static const std::vector<Route>& Routes();

  // service.cc
  asio::awaitable<void> Health(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> ShowMetrics(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> ShowVersion(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> ShowPage(const HttpRequest& request, HttpReply& reply);
  std::optional<ApiError> Unready() const;
  // service_models.cc
  asio::awaitable<void> ListModels(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> Props(const HttpRequest& request, HttpReply& reply);
  // service_text.cc
  asio::awaitable<void> Tokenize(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> Detokenize(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> ApplyTemplate(const HttpRequest& request, HttpReply& reply);
  // service_completions.cc
  asio::awaitable<void> ChatCompletions(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> Completions(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> Complete(const HttpRequest& request, HttpReply& reply, Dialect dialect);
  /// Has a call read from the request's body. Returns whether it can be answered; else the error has been sent.
  using CallReader = std::function<std::optional<ApiError>(const ModelContext& model, const json::object& body)>;
  asio::awaitable<bool> ReadCall(const HttpRequest& request, HttpReply& reply, const CallReader& read);
  /// Runs the call that `answer` was made for.
  asio::awaitable<void> Answer(const HttpRequest& request, HttpReply& reply, const CompletionCall& call,
                               AnswerWriter& answer);
  asio::awaitable<void> AnswerWhole(const HttpRequest& request, GenerationStream& stream, AnswerWriter& answer,
                                    HttpReply& reply);
  asio::awaitable<void> AnswerStream(const HttpRequest& request, GenerationStream& stream, AnswerWriter& answer,
                                     HttpReply& reply);
  // service_responses.cc
  asio::awaitable<void> Responses(const HttpRequest& request, HttpReply& reply);
  // service_ollama.cc
  asio::awaitable<void> OllamaTags(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaRunning(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaShow(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaChat(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaGenerate(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaEmbed(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaEmbeddings(const HttpRequest& request, HttpReply& reply);
  asio::awaitable<void> OllamaComplete(const HttpRequest& request, HttpReply& reply, OllamaRoute route);
  asio::awaitable<void> OllamaVectors(const HttpRequest& request, HttpReply& reply, std::string_view field);
  // service_embeddings.cc
  asio::awaitable<void> Embeddings(const HttpRequest& request, HttpReply& reply);
  /// Runs the texts of a call that `read` fills in; `write` forms the body of the answer.
  using EmbeddingWriter = std::function<std::string(const EmbeddingCall& call, const EmbeddingVectors& vectors)>;
  asio::awaitable<void> Embed(const HttpRequest& request, HttpReply& reply, EmbeddingCall& call, const CallReader& read,
                              const EmbeddingWriter& write);
  // service_glass_box.cc
  asio::awaitable<void> WatchSteps(const HttpRequest& request, HttpReply& reply);

  ModelContext Context() const;
  /// Runs what may take long beside the server's thread, or at once where `bytes` of input are few.
  asio::awaitable<void> Offload(size_t bytes, const std::function<void()>& work);
  /// Requests as the engine takes them, with the client's share of the cache.
  static std::vector<BatchRequest> BatchRequests(const CompletionCall& call, const HttpRequest& request);
  void CountRequests(const GenerationStream& stream, const CompletionUsage& usage, bool cancelled);

  asio::any_io_executor executor_;
  ServiceOptions options_;
  std::optional<ServedModel> model_;
  bool draining_ = false;
  Metrics metrics_;
  GlassBox glass_box_;
  std::optional<asio::thread_pool> workers_{std::in_place, 1};
};

}  // namespace kvasir::server
