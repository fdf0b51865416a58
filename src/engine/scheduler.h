// Who runs in the next step, and on which of its tokens. It keeps the blocks of the sequences and touches no tensor.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/clock.h"
#include "engine/step_costs.h"
#include "kv/cache.h"
#include "text/vocab.h"

namespace kvasir {

/// When sequences that wait join those that run.
enum class Batching {
  kStatic,      // V1: once nothing runs any more; a batch goes on until its last sequence has ended
  kDynamic,     // V5: the same, but a batch waits for a while to be full before it begins
  kContinuous,  // V2: at every step (Yu et al. 2022, Orca)
};

struct SchedulerOptions {
  Batching batching = Batching::kContinuous;
  int64_t max_running = 8;  // sequences at once
  /// Tokens of one step. Every answer gets one of them, prompts share the rest, so that a long prompt does not keep
  /// answers waiting (V3, chunked prefill: Agrawal et al. 2023, arXiv:2308.16369). No less than max_running.
  int64_t step_tokens = 512;
  /// False, the baseline: prompts are run whole, at once, and answers wait meanwhile.
  bool chunk_prompts = true;
  /// An answer has the same bits in any company: prompts are computed exactly, never with ExecContext::round_weights.
  bool deterministic = true;
  int64_t max_waiting = 4096;  // sequences; more are refused
  double batch_wait_ms = 50;   // kDynamic: that the first of a batch waits for others
  /// A step that runs prompts beside answers may take so many times what the answers alone would take, as steps so far
  /// have shown: answers wait in time, not in tokens. 0: step_tokens is the only bound.
  double slowest_answers = 0;
};

using LaneId = int64_t;

/// A sequence to run.
struct LaneSpec {
  /// The text: prompt, and what has been chosen behind it. Belongs to the caller, who adds to it between steps; it
  /// outlives the lane.
  const std::vector<TokenId>* tokens = nullptr;
  int64_t planned_length = 0;  // ForwardSequence's
  std::string scope;           // KvCache's, for prefixes
  int32_t priority = 0;        // the larger ones come first
  uint64_t client = 0;         // who asks: of those that wait, the client with the fewest sequences running is next
};

/// Tokens of a sequence that are run in a step; their slots are reserved.
struct ScheduledInput {
  LaneId lane = 0;
  SeqId seq = 0;
  std::span<const TokenId> tokens;
  int64_t planned_length = 0;
  bool last = false;    // the text ends with them: its next token can be chosen
  bool answer = false;  // one token, and all that is left to run: as a rule, of a text that goes on
  /// Tokens of its text that were found in the tree of prefixes when it was last let in.
  int64_t cached_tokens = 0;
};

struct SchedulerCounts {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t preempted = 0;      // so far
  int64_t cached_tokens = 0;  // so far: of texts, found in the tree of prefixes
};

/// Each call of Next gives a step; the caller runs its inputs, commits their tokens, adds a token to each text that is
/// complete, removes lanes that are done, and calls Next again.
///
/// A sequence for which the cache has no room left is taken out by another that comes before it, gives its blocks back
/// and waits until it can be run again from its text (recomputation; its blocks stay known to the tree of prefixes for
/// as long as nobody needs them). It goes on with the same bits, since no result depends on passes or company.
///
/// Not thread-safe.
class Scheduler {
 public:
  /// The cache outlives the scheduler, and nobody else reserves in it meanwhile. REQUIRES: a cache whose slots are
  /// positions (dynamic, static, paged).
  Scheduler(KvCache& cache, const SchedulerOptions& options);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// ResourceExhausted: as many wait as may.
  Result<LaneId> Add(LaneSpec spec);

  /// A lane that goes on from another's committed tokens, which its text begins with. Where there is no room for it to
  /// share their blocks, it waits; what it is a part of has been let in, so that it is never refused.
  LaneId Fork(LaneId from, LaneSpec spec);

  /// Gives the lane's blocks back; whole ones stay known to the tree of prefixes.
  void Remove(LaneId lane);

  /// What to run now. Nothing: no lane is left, or those in `too_long` have to be removed first.
  struct Step {
    std::vector<ScheduledInput> inputs;  // answers first, then prompts
    std::vector<LaneId> too_long;        // alone in the cache, and it has no room for them
    double wait_ms = 0;                  // nothing is run before that, unless someone comes
  };
  Step Next();

  /// After a step has run, in so many milliseconds: offers texts that are complete to others that begin alike.
  void Ran(const Step& step, double milliseconds);

  SchedulerCounts counts() const;

 private:
  struct Lane {
    LaneSpec spec;
    LaneId id = 0;
    bool running = false;
    SeqId seq = 0;  // while it runs
    int64_t cached_tokens = 0;
    Clock::time_point since = {};  // it waits
    bool published = false;        // its text so far, to the tree of prefixes
  };
  /// The order in which lanes are served.
  struct Rank {
    int32_t priority;
    LaneId id;
    friend bool operator<(const Rank& a, const Rank& b) {
      return a.priority != b.priority ? a.priority > b.priority : a.id < b.id;
    }
  };
  using Queue = std::map<Rank, Lane>;

  static Rank RankOf(const Lane& lane) { return {lane.spec.priority, lane.id}; }
  LaneId Insert(LaneSpec spec);
  Lane& Find(LaneId id);
  int64_t Left(const Lane& lane) const;  // tokens that are not in the cache yet
  Lane* NextToStart();
  bool StartNext();  // false: there is no room, or nobody waits
  void Begin(Lane& lane, SeqId seq);
  void Stop(Lane& lane);  // takes it out of the cache
  bool MakeRoom(Lane& lane, int64_t tokens, Step& step);
  void Schedule(Lane& lane, int64_t tokens, Step& step);
  Lane* Worst();  // of those that run
  double WaitForMore() const;
  int64_t PromptBudget(int64_t answers) const;
  void Publish(const Lane& lane);

  KvCache& cache_;
  SchedulerOptions options_;
  StepCosts costs_;
  std::map<uint64_t, int64_t> running_of_;  // client
  Queue lanes_;                             // running and waiting
  std::map<LaneId, Rank> by_id_;            // of lanes_
  LaneId next_id_ = 1;
  int64_t running_ = 0;
  bool crowded_ = false;  // someone was taken out, and nobody has ended since: nobody is let in
  int64_t preempted_ = 0;
  int64_t cached_tokens_ = 0;
};

}  // namespace kvasir
