#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"

namespace kvasir {
namespace {

// Of a step beside answers: before anything is known of costs, and so that prompts come to an end on any machine.
constexpr double kFirstPromptTokens = 16;
constexpr int64_t kLeastPromptTokens = 4;
// Kernels take tokens in equal groups of at most so many; whole ones cost least for each.
constexpr int64_t kTokensOfAGroup = 6;

}  // namespace

Scheduler::Scheduler(KvCache& cache, int64_t layers, const SchedulerOptions& options)
    : cache_(cache), options_(options), swap_(cache, layers, options.swap_bytes) {
  KVASIR_CHECK(cache.SlotsArePositions());
  options_.max_running = std::max<int64_t>(options_.max_running, 1);
  options_.step_tokens = std::max(options_.step_tokens, options_.max_running);
  if (cache.kind() == CacheKind::kPaged) pool_blocks_ = cache.BlockUse().blocks;
}

Scheduler::~Scheduler() {
  for (const auto& [rank, lane] : running_) cache_.Release(lane->seq);
}

Result<LaneId> Scheduler::Add(LaneSpec spec) {
  if (waiting_.size() >= options_.max_waiting) {
    return ResourceExhausted("{} sequences wait already, which is the most allowed", waiting_.size());
  }
  return Insert(std::move(spec));
}

LaneId Scheduler::Insert(LaneSpec spec) {
  KVASIR_CHECK(spec.tokens != nullptr && !spec.tokens->empty());
  Lane lane{.spec = std::move(spec), .id = next_id_++};
  lane.since = Clock::now();
  waiting_.Add(PlaceOf(lane), lane.id);
  const LaneId id = lane.id;
  lanes_.emplace(id, std::move(lane));
  return id;
}

LaneId Scheduler::Fork(LaneId from, LaneSpec spec) {
  const LaneId id = Insert(std::move(spec));
  const Lane& parent = Find(from);
  if (!parent.running || running() >= options_.max_running) return id;
  const auto seq = cache_.Fork(parent.seq);
  if (!seq.ok()) return id;
  Begin(Find(id), *seq);
  return id;
}

void Scheduler::Remove(LaneId id) {
  Lane& lane = Find(id);
  if (lane.running) {
    Publish(lane);
    Leave(lane);
  } else {
    waiting_.Remove(PlaceOf(lane), id);
  }
  crowded_.reset();  // the one that goes may be the one that others wait behind
  swap_.Drop(lane.swapped);
  lanes_.erase(id);
}

Scheduler::Lane& Scheduler::Find(LaneId id) {
  const auto lane = lanes_.find(id);
  KVASIR_CHECK(lane != lanes_.end());
  return lane->second;
}

int64_t Scheduler::Left(const Lane& lane) const { return TextTokens(lane) - cache_.NextPosition(lane.seq); }

void Scheduler::Publish(const Lane& lane) {
  const auto run = static_cast<size_t>(cache_.NextPosition(lane.seq));
  cache_.InsertPrefix(lane.seq, lane.spec.scope, std::span(*lane.spec.tokens).first(run));
}

/// The lane, which waits, runs from now on, as this sequence.
void Scheduler::Begin(Lane& lane, SeqId seq) {
  waiting_.Remove(PlaceOf(lane), lane.id);
  waiting_.CountRunning(lane.spec.client, 1);
  lane.seq = seq;
  lane.running = true;
  running_.emplace(RankOf(lane), &lane);
}

/// Gives the lane's blocks back; it neither runs nor waits then.
void Scheduler::Leave(Lane& lane) {
  cache_.Release(lane.seq);
  lane.running = false;
  lane.begun = false;
  lane.published = false;
  running_.erase(RankOf(lane));
  waiting_.CountRunning(lane.spec.client, -1);
}

/// A lane that was begun waits: nobody of its priority is let in before someone has ended.
void Scheduler::WaitAgain(Lane& lane) {
  Leave(lane);
  waiting_.Add(PlaceOf(lane), lane.id);
  crowded_ = std::max(crowded_.value_or(lane.spec.priority), lane.spec.priority);
}

void Scheduler::Preempt(Lane& lane) {
  if (options_.preemption == Preemption::kSwap && cache_.NextPosition(lane.seq) > 0) {
    ++(swap_.Out(lane.seq, lane.swapped) ? swapped_out_ : swap_refused_);
  }
  Publish(lane);
  WaitAgain(lane);
  ++preempted_;
}

/// Whether the pool has room for the text of a lane that has just begun, and a token behind it, beside what those that
/// run still need for theirs. Who has a lower priority can be taken out for it.
bool Scheduler::HasRoom(const Lane& lane) const {
  if (pool_blocks_ == 0 || running() == 1) return true;
  const KvBlockUse use = cache_.BlockUse();
  int64_t room = use.free() + use.cached;
  for (const auto& [rank, other] : running_) {
    if (other == &lane) continue;
    const int64_t has = Blocks(cache_.NextPosition(other->seq));
    room += other->spec.priority < lane.spec.priority ? has : has - Blocks(TextTokens(*other));
  }
  return Blocks(TextTokens(lane) + 1) - Blocks(cache_.NextPosition(lane.seq)) <= room;
}

/// Brings back what was kept of a lane that has just begun. False: there is no room.
bool Scheduler::BringBack(Lane& lane) {
  if (lane.swapped.tokens == 0) return true;
  while (!swap_.In(lane.seq, lane.swapped)) {
    Lane& worst = *running_.rbegin()->second;
    if (worst.spec.priority < lane.spec.priority) {
      Preempt(worst);
      continue;
    }
    if (running() > 1) return false;
    swap_.Drop(lane.swapped);  // alone, and no room even so: whoever runs it will say it
    return true;
  }
  swap_.Drop(lane.swapped);
  ++swapped_in_;
  return true;
}

bool Scheduler::StartNext() {
  if (!let_in_ || running() >= options_.max_running) return false;
  const std::optional<LaneId> next = waiting_.Next();
  if (!next) return false;
  Lane& lane = Find(*next);
  if (crowded_ && lane.spec.priority <= *crowded_) return false;
  const auto seq = cache_.Create();
  if (!seq.ok()) return false;
  Begin(lane, *seq);
  lane.cached_tokens = cache_.MatchPrefix(lane.seq, lane.spec.scope, *lane.spec.tokens);
  // One that never fits is let in to be refused; it would wait for nothing.
  if (Fits(TextTokens(lane)) && (!HasRoom(lane) || !BringBack(lane))) {
    WaitAgain(lane);
    return false;
  }
  cached_tokens_ += lane.cached_tokens;
  return true;
}

/// Just before the first of a text is run: others may have computed what it begins with since it was let in.
void Scheduler::MatchAgain(Lane& lane) {
  if (lane.begun || cache_.NextPosition(lane.seq) > 0) return;
  lane.cached_tokens = cache_.MatchPrefix(lane.seq, lane.spec.scope, *lane.spec.tokens);
  cached_tokens_ += lane.cached_tokens;
}

/// Reserves; where the cache is full, lanes that come after this one are taken out, the last first. False: there is no
/// room, and the lane itself is taken out, or is too long for the cache.
bool Scheduler::MakeRoom(Lane& lane, int64_t tokens, Step& step) {
  if (!Fits(TextTokens(lane))) {
    step.too_long.push_back(lane.id);
    return false;
  }
  while (!cache_.Reserve(lane.seq, tokens)) {
    Lane& worst = *running_.rbegin()->second;
    if (&worst == &lane && running() == 1) {
      step.too_long.push_back(lane.id);
      return false;
    }
    std::erase_if(step.inputs, [&](const ScheduledInput& input) { return input.lane == worst.id; });
    Preempt(worst);
    if (&worst == &lane) return false;
  }
  return true;
}

void Scheduler::Schedule(Lane& lane, int64_t tokens, Step& step) {
  const int64_t left = Left(lane);
  lane.begun = true;
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
  const int64_t waiting = waiting_.size();  // nothing runs
  if (options_.batching != Batching::kDynamic || waiting == 0 || waiting >= options_.max_running) return 0;
  return std::max(options_.batch_wait_ms - MillisecondsSince(lanes_.begin()->second.since), 0.0);
}

/// Tokens of prompts for a step that also runs so many answers.
int64_t Scheduler::PromptBudget(int64_t answers) const {
  const int64_t most = options_.step_tokens - answers;
  if (options_.slowest_answers <= 0 || answers == 0) return most;
  if (costs_.WantsAnswersAlone()) return 0;
  const double slower = Slower(share_time_);
  // A prompt's token costs no more than an answer's, which has a share in reading the weights.
  const double first = std::min((slower - 1) * static_cast<double>(answers), kFirstPromptTokens);
  const int64_t bearable = costs_.PromptTokens(answers, slower).value_or(static_cast<int64_t>(first));
  const int64_t groups = (answers + bearable + kTokensOfAGroup / 2) / kTokensOfAGroup;
  return std::min(most, std::max(groups * kTokensOfAGroup - answers, kLeastPromptTokens));
}

int64_t Scheduler::PassTokens(int64_t most) const {
  const auto answers = std::ranges::count_if(running_, [this](const auto& lane) { return Left(*lane.second) == 1; });
  if (options_.slowest_answers <= 0 || answers == 0) return most;
  const double slower = Slower(answers < running());
  const int64_t bearable = costs_.PromptTokens(answers, slower, true).value_or(kLeastPromptTokens);
  return std::min(most, std::max(bearable, kLeastPromptTokens));
}

Scheduler::Step Scheduler::Next() {
  Step step;
  if (running_.empty()) {
    crowded_.reset();
    step.wait_ms = WaitForMore();
    if (step.wait_ms > 0) return step;
  }
  if (options_.batching == Batching::kContinuous || running_.empty()) {
    while (StartNext()) {
    }
  }
  if (running_.empty() && let_in_ && waiting_.size() > 0) {
    step.too_long.push_back(*waiting_.Next());  // there is not even room for an empty sequence
    return step;
  }
  // In the order in which they are served. While they are scheduled, some stop running.
  std::vector<Lane*> answers;
  std::vector<Lane*> prompts;
  for (const auto& [rank, lane] : running_) {
    const int64_t left = Left(*lane);
    if (left > 0) (left == 1 ? answers : prompts).push_back(lane);
  }
  if (!options_.chunk_prompts && !prompts.empty()) answers.clear();
  for (Lane* lane : answers) {
    if (lane->running) Schedule(*lane, 1, step);
  }
  if (prompts.empty()) return step;
  int64_t budget = PromptBudget(static_cast<int64_t>(step.inputs.size()));
  for (Lane* lane : prompts) {
    if (!lane->running) continue;
    if (options_.chunk_prompts && budget <= 0) break;
    MatchAgain(*lane);
    const int64_t left = Left(*lane);
    const int64_t count = options_.chunk_prompts ? std::min(left, budget) : left;
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
  return {.running = running(),
          .waiting = waiting_.size(),
          .preempted = preempted_,
          .cached_tokens = cached_tokens_,
          .swapped_out = swapped_out_,
          .swapped_in = swapped_in_,
          .swap_refused = swap_refused_,
          .swapped_out_bytes = swap_.out_bytes(),
          .swapped_in_bytes = swap_.in_bytes(),
          .swap_bytes = swap_.bytes()};
}

}  // namespace kvasir
