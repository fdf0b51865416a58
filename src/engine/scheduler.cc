#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"

namespace kvasir {
namespace {

// Of a step beside answers: before anything is known of costs, and so that prompts come to an end on any machine.
constexpr int64_t kFirstPromptTokens = 16;
constexpr int64_t kLeastPromptTokens = 4;
// Kernels take tokens in groups: one more than a multiple of this costs as much as a whole group more.
constexpr int64_t kTokensOfAGroup = 6;

}  // namespace

Scheduler::Scheduler(KvCache& cache, const SchedulerOptions& options) : cache_(cache), options_(options) {
  KVASIR_CHECK(cache.SlotsArePositions());
  options_.max_running = std::max<int64_t>(options_.max_running, 1);
  options_.step_tokens = std::max(options_.step_tokens, options_.max_running);
}

Scheduler::~Scheduler() {
  for (auto& [rank, lane] : lanes_) {
    if (lane.running) cache_.Release(lane.seq);
  }
}

Result<LaneId> Scheduler::Add(LaneSpec spec) {
  const auto waiting = static_cast<int64_t>(lanes_.size()) - running_;
  if (waiting >= options_.max_waiting) {
    return ResourceExhausted("{} sequences wait already, which is the most allowed", waiting);
  }
  return Insert(std::move(spec));
}

LaneId Scheduler::Insert(LaneSpec spec) {
  KVASIR_CHECK(spec.tokens != nullptr && !spec.tokens->empty());
  Lane lane{.spec = std::move(spec), .id = next_id_++};
  lane.since = Clock::now();
  const Rank rank = RankOf(lane);
  by_id_.emplace(lane.id, rank);
  lanes_.emplace(rank, std::move(lane));
  return rank.id;
}

LaneId Scheduler::Fork(LaneId from, LaneSpec spec) {
  const LaneId id = Insert(std::move(spec));
  const Lane& parent = Find(from);
  if (!parent.running || running_ >= options_.max_running) return id;
  const auto seq = cache_.Fork(parent.seq);
  if (!seq.ok()) return id;
  Begin(Find(id), *seq);
  return id;
}

void Scheduler::Remove(LaneId id) {
  Lane& lane = Find(id);
  if (lane.running) {
    Stop(lane);
    crowded_ = false;
  }
  lanes_.erase(RankOf(lane));
  by_id_.erase(id);
}

Scheduler::Lane& Scheduler::Find(LaneId id) {
  const auto rank = by_id_.find(id);
  KVASIR_CHECK(rank != by_id_.end());
  return lanes_.at(rank->second);
}

int64_t Scheduler::Left(const Lane& lane) const {
  return static_cast<int64_t>(lane.spec.tokens->size()) - cache_.NextPosition(lane.seq);
}

void Scheduler::Publish(const Lane& lane) {
  const auto run = static_cast<size_t>(cache_.NextPosition(lane.seq));
  cache_.InsertPrefix(lane.seq, lane.spec.scope, std::span(*lane.spec.tokens).first(run));
}

void Scheduler::Stop(Lane& lane) {
  Publish(lane);
  cache_.Release(lane.seq);
  lane.running = false;
  lane.published = false;
  --running_;
  const auto of_client = running_of_.find(lane.spec.client);
  if (--of_client->second == 0) running_of_.erase(of_client);
}

Scheduler::Lane* Scheduler::Worst() {
  for (auto at = lanes_.rbegin(); at != lanes_.rend(); ++at) {
    if (at->second.running) return &at->second;
  }
  return nullptr;
}

/// Of those that wait, with the highest priority: one of the client that has the fewest sequences running, so that
/// nobody's hundred requests keep another's only one waiting; then who came first.
Scheduler::Lane* Scheduler::NextToStart() {
  Lane* best = nullptr;
  int64_t fewest = 0;
  for (auto& [rank, lane] : lanes_) {
    if (lane.running) continue;
    if (best != nullptr && rank.priority < best->spec.priority) break;
    const auto known = running_of_.find(lane.spec.client);
    const int64_t running = known == running_of_.end() ? 0 : known->second;
    if (best != nullptr && running >= fewest) continue;
    best = &lane;
    fewest = running;
    if (fewest == 0) break;
  }
  return best;
}

/// The lane runs from now on, as this sequence.
void Scheduler::Begin(Lane& lane, SeqId seq) {
  lane.seq = seq;
  lane.running = true;
  ++running_;
  ++running_of_[lane.spec.client];
}

bool Scheduler::StartNext() {
  if (crowded_ || running_ >= options_.max_running) return false;
  Lane* const next = NextToStart();
  if (next == nullptr) return false;
  const auto seq = cache_.Create();
  if (!seq.ok()) return false;
  Lane& lane = *next;
  Begin(lane, *seq);
  lane.cached_tokens = cache_.MatchPrefix(lane.seq, lane.spec.scope, *lane.spec.tokens);
  cached_tokens_ += lane.cached_tokens;
  return true;
}

/// Reserves; where the cache is full, lanes that come after this one are taken out, the last first. False: there is no
/// room, and the lane itself is taken out, or is too long for the cache.
bool Scheduler::MakeRoom(Lane& lane, int64_t tokens, Step& step) {
  while (!cache_.Reserve(lane.seq, tokens)) {
    Lane* const worst = Worst();
    if (worst == &lane && running_ == 1) {
      step.too_long.push_back(lane.id);
      return false;
    }
    std::erase_if(step.inputs, [&](const ScheduledInput& input) { return input.lane == worst->id; });
    Stop(*worst);
    ++preempted_;
    crowded_ = true;
    if (worst == &lane) return false;
  }
  return true;
}

void Scheduler::Schedule(Lane& lane, int64_t tokens, Step& step) {
  const int64_t left = Left(lane);
  if (!MakeRoom(lane, tokens, step)) return;
  const auto at = static_cast<size_t>(cache_.NextPosition(lane.seq));
  step.inputs.push_back({.lane = lane.id,
                         .seq = lane.seq,
                         .tokens = std::span(*lane.spec.tokens).subspan(at, static_cast<size_t>(tokens)),
                         .planned_length = lane.spec.planned_length,
                         .last = tokens == left,
                         .answer = left == 1,
                         .cached_tokens = lane.cached_tokens});
}

/// How long a batch that is not full still waits for others; 0: it begins.
double Scheduler::WaitForMore() const {
  const auto waiting = static_cast<int64_t>(lanes_.size());  // nothing runs
  if (options_.batching != Batching::kDynamic || waiting == 0 || waiting >= options_.max_running) return 0;
  double longest = 0;
  for (const auto& [rank, lane] : lanes_) longest = std::max(longest, MillisecondsSince(lane.since));
  return std::max(options_.batch_wait_ms - longest, 0.0);
}

/// Tokens of prompts for a step that also runs so many answers.
int64_t Scheduler::PromptBudget(int64_t answers) const {
  const int64_t most = options_.step_tokens - answers;
  if (options_.slowest_answers <= 0 || answers == 0) return most;
  const int64_t bearable = costs_.PromptTokens(answers, options_.slowest_answers).value_or(kFirstPromptTokens);
  const int64_t groups = (answers + bearable + kTokensOfAGroup / 2) / kTokensOfAGroup;
  return std::min(most, std::max(groups * kTokensOfAGroup - answers, kLeastPromptTokens));
}

Scheduler::Step Scheduler::Next() {
  Step step;
  if (running_ == 0) {
    crowded_ = false;
    step.wait_ms = WaitForMore();
    if (step.wait_ms > 0) return step;
  }
  if (options_.batching == Batching::kContinuous || running_ == 0) {
    while (StartNext()) {
    }
  }
  // Those that run, in the order in which they are served. None of them leaves lanes_ here, but some stop running.
  std::vector<Lane*> answers;
  std::vector<Lane*> prompts;
  for (auto& [rank, lane] : lanes_) {
    const int64_t left = lane.running ? Left(lane) : 0;
    if (left > 0) (left == 1 ? answers : prompts).push_back(&lane);
  }
  if (!options_.chunk_prompts && !prompts.empty()) answers.clear();
  for (Lane* lane : answers) {
    if (lane->running) Schedule(*lane, 1, step);
  }
  int64_t budget = PromptBudget(static_cast<int64_t>(step.inputs.size()));
  for (Lane* lane : prompts) {
    if (!lane->running) continue;
    const int64_t left = Left(*lane);
    const int64_t count = options_.chunk_prompts ? std::min(left, budget) : left;
    if (count <= 0) break;
    Schedule(*lane, count, step);
    budget -= count;
  }
  return step;
}

void Scheduler::Ran(const Step& step, double milliseconds) {
  int64_t answers = 0;
  int64_t prompt_tokens = 0;
  for (const ScheduledInput& input : step.inputs) {
    (input.answer ? answers : prompt_tokens) += static_cast<int64_t>(input.tokens.size());
    Lane& lane = Find(input.lane);
    if (!input.last || lane.published) continue;
    Publish(lane);
    lane.published = true;
  }
  costs_.Add(answers, prompt_tokens, milliseconds);
}

SchedulerCounts Scheduler::counts() const {
  return {.running = running_,
          .waiting = static_cast<int64_t>(lanes_.size()) - running_,
          .preempted = preempted_,
          .cached_tokens = cached_tokens_};
}

}  // namespace kvasir
