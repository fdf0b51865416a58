// Who runs in the next step, and on which of its tokens. It keeps the blocks of the sequences and touches no tensor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/checked.h"
#include "base/status.h"
#include "engine/clock.h"
#include "engine/step_costs.h"
#include "engine/swapped_blocks.h"
#include "engine/waiting_lanes.h"
#include "kv/cache.h"
#include "text/vocab.h"

namespace kvasir {

/// When sequences that wait join those that run.
enum class Batching {
  kStatic,      // V1: once nothing runs any more; a batch goes on until its last sequence has ended
  kDynamic,     // V5: the same, but a batch waits for a while to be full before it begins
  kContinuous,  // V2: at every step (Yu et al. 2022, Orca)
};

/// How a sequence that was taken out of a full cache comes back, with the same bits either way.
enum class Preemption {
  kRecompute,  // from its text
  kSwap,       // its blocks are kept in ordinary memory as long as swap_bytes allow it; what is too much is recomputed
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
  Preemption preemption = Preemption::kRecompute;
  int64_t swap_bytes = 0;  // that blocks taken out of the cache may take
};

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
  // Preemption::kSwap, so far but for swap_bytes:
  int64_t swapped_out = 0;   // sequences of which blocks were kept
  int64_t swapped_in = 0;    // and brought back
  int64_t swap_refused = 0;  // sequences for which there was no room
  int64_t swapped_out_bytes = 0;
  int64_t swapped_in_bytes = 0;
  int64_t swap_bytes = 0;  // kept now
};

/// Each call of Next gives a step; the caller runs its inputs, commits their tokens, adds a token to each text that is
/// complete, removes lanes that are done, and calls Next again.
///
/// A sequence is let in where a pool has room for its text beside what those that run still need of theirs; lower
/// priorities make room for higher ones. A sequence for which the cache has no room left, since answers grow, is taken
/// out by another that comes before it, gives its blocks back and waits until it can go on: from its text, of which the
/// tree of prefixes knows the blocks for as long as nobody needs them, or with blocks that were kept (Preemption). It
/// goes on with the same bits, since no result depends on passes or company. Until someone has ended or hung up, nobody
/// of its priority or a lower one is let in.
///
/// The time of a step does not depend on how many sequences wait.
///
/// Not thread-safe.
class Scheduler {
 public:
  /// The cache outlives the scheduler. REQUIRES: a cache whose slots are positions (dynamic, static, paged), of so many
  /// layers.
  Scheduler(KvCache& cache, int64_t layers, const SchedulerOptions& options);
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
    std::vector<LaneId> too_long;        // the cache has no room for them, even alone
    double wait_ms = 0;                  // nothing is run before that, unless someone comes
  };
  Step Next();

  /// After a step has run, in so many milliseconds: offers texts that are complete to others that begin alike.
  void Ran(const Step& step, double milliseconds);

  /// Whether lanes that wait may be let in; those that run go on in any case.
  void LetIn(bool may) { let_in_ = may; }

  /// Whether others run passes of their own between the steps: prompts leave them half of the time that answers spare.
  void ShareTime(bool share) { share_time_ = share; }
  /// How many tokens, `most` at most, such a pass may have before the next step.
  int64_t PassTokens(int64_t most) const;

  SchedulerCounts counts() const;

 private:
  struct Lane {
    LaneSpec spec;
    LaneId id = 0;
    bool running = false;
    SeqId seq = 0;  // while it runs
    int64_t cached_tokens = 0;
    Clock::time_point since = {};  // it waits
    bool begun = false;            // something was reserved for it since it was let in
    bool published = false;        // its text so far, to the tree of prefixes
    SwappedBlocks swapped;         // while it waits
  };
  /// The order in which lanes are served.
  struct Rank {
    int32_t priority;
    LaneId id;
    friend bool operator<(const Rank& a, const Rank& b) {
      return a.priority != b.priority ? a.priority > b.priority : a.id < b.id;
    }
  };

  static Rank RankOf(const Lane& lane) { return {lane.spec.priority, lane.id}; }
  static WaitingLanes::Place PlaceOf(const Lane& lane) { return {lane.spec.priority, lane.spec.client}; }
  LaneId Insert(LaneSpec spec);
  Lane& Find(LaneId id);
  int64_t TextTokens(const Lane& lane) const { return static_cast<int64_t>(lane.spec.tokens->size()); }
  int64_t Left(const Lane& lane) const;  // tokens that are not in the cache yet
  int64_t Blocks(int64_t tokens) const { return CeilDiv(tokens, cache_.BlockSlots()); }
  /// Whether the cache can hold so many tokens when it holds nothing else.
  bool Fits(int64_t tokens) const { return pool_blocks_ == 0 || Blocks(tokens) <= pool_blocks_; }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  bool StartNext();  // false: there is no room, or nobody waits
  bool HasRoom(const Lane& lane) const;
  bool BringBack(Lane& lane);
  void Begin(Lane& lane, SeqId seq);
  void Leave(Lane& lane);
  void WaitAgain(Lane& lane);
  void Preempt(Lane& lane);
  bool MakeRoom(Lane& lane, int64_t tokens, Step& step);
  void MatchAgain(Lane& lane);
  void Schedule(Lane& lane, int64_t tokens, Step& step);
  double WaitForMore() const;
  double Slower(bool share) const { return share ? (1 + options_.slowest_answers) / 2 : options_.slowest_answers; }
  int64_t PromptBudget(int64_t answers) const;
  void Publish(const Lane& lane);

  KvCache& cache_;
  SchedulerOptions options_;
  StepCosts costs_;
  BlockSwap swap_;
  std::map<LaneId, Lane> lanes_;   // running and waiting
  std::map<Rank, Lane*> running_;  // in the order in which they are served
  WaitingLanes waiting_;
  int64_t pool_blocks_ = 0;  // 0: the cache has no pool
  LaneId next_id_ = 1;
  bool let_in_ = true;
  bool share_time_ = false;
  /// Someone of this priority was taken out or found no room, and nobody has ended since: nobody of it or a lower one
  /// is let in.
  std::optional<int32_t> crowded_;
  int64_t preempted_ = 0;
  int64_t cached_tokens_ = 0;
  int64_t swapped_out_ = 0;
  int64_t swapped_in_ = 0;
  int64_t swap_refused_ = 0;
};

}  // namespace kvasir
