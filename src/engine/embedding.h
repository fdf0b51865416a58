// Texts as vectors.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <vector>

#include "base/status.h"
#include "engine/step_runner.h"
#include "kv/cache.h"

namespace kvasir {

/// What of a text's hidden states, behind the last norm, becomes its vector.
enum class Pooling { kMean, kLast };

struct EmbeddingRequest {
  std::vector<TokenId> tokens;
  Pooling pooling = Pooling::kMean;
  /// Called once, with the vector, of length 1.
  std::function<void(Result<std::vector<float>>)> on_done;
};

/// Texts that wait to become vectors, run piece by piece so that nobody else waits long. Each takes a sequence of the
/// cache while it is run and shares nothing with others. Not thread-safe.
class EmbeddingQueue {
 public:
  /// Both outlive the queue.
  EmbeddingQueue(StepRunner& runner, KvCache& cache) : runner_(runner), cache_(cache) {}
  ~EmbeddingQueue();
  EmbeddingQueue(const EmbeddingQueue&) = delete;
  EmbeddingQueue& operator=(const EmbeddingQueue&) = delete;

  void Add(int64_t id, EmbeddingRequest request);
  /// Nothing is called for it any more.
  void Cancel(int64_t id);
  bool empty() const { return jobs_.empty(); }
  /// Texts that have not begun.
  int64_t waiting() const { return static_cast<int64_t>(jobs_.size()) - holds_room(); }

  /// Runs at most so many tokens of the first text. One for which the cache has no room waits while `others_run`, whose
  /// end will make some; else that is its error.
  void Step(int64_t most_tokens, bool others_run);

  /// The first text has found no room, and has not ended since: if others are let in again and again, who would take
  /// it, it never will.
  bool wants_room() const { return !jobs_.empty() && jobs_.front().wants_room; }
  /// The first text has a sequence in the cache.
  bool holds_room() const { return !jobs_.empty() && jobs_.front().seq.has_value(); }
  /// Gives its sequence back, and begins again once nobody else runs. REQUIRES: holds_room().
  void GiveWay();

 private:
  struct Job {
    int64_t id;
    EmbeddingRequest request;
    std::optional<SeqId> seq;
    size_t at = 0;            // tokens that have been run
    std::vector<double> sum;  // of hidden states; of the last one alone with kLast
    bool wants_room = false;
    bool gave_way = false;
  };

  Status RunSome(Job& job, int64_t most_tokens);
  void End(Result<std::vector<float>> result);

  StepRunner& runner_;
  KvCache& cache_;
  std::list<Job> jobs_;
};

}  // namespace kvasir
