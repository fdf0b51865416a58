#include "engine/batch_loop.h"

#include <algorithm>
#include <utility>

#include "engine/clock.h"
#include "engine/generation.h"

namespace kvasir {
namespace {

// Tokens of a text that is to become a vector, at most, run between two steps of others.
constexpr int64_t kEmbeddingPiece = 32;

}  // namespace

/// A request on its way.
struct BatchLoop::Active {
  RequestId id = 0;
  BatchRequest request;
  Clock::time_point submitted;
  BatchOutput output;                                   // as far as it is known
  std::vector<std::unique_ptr<RunningSample>> samples;  // the others come when the first one's prompt has been run
  std::vector<LaneId> lanes;                            // of samples that go on
};

BatchLoop::BatchLoop(BatchContext context, const SchedulerOptions& options)
    : context_(std::move(context)),
      scheduler_(context_.cache, static_cast<int64_t>(context_.runner.model().kv_shapes().size()), options),
      round_weights_before_(context_.runner.ctx().round_weights),
      embeddings_(context_.runner, context_.cache),
      step_tokens_(options.step_tokens),
      max_waiting_(options.max_waiting) {
  if (options.deterministic) context_.runner.ctx().round_weights = false;
}

BatchLoop::~BatchLoop() { context_.runner.ctx().round_weights = round_weights_before_; }

LaneSpec BatchLoop::SpecOf(const Active& request, const RunningSample& sample) const {
  const GenerationRequest& generation = request.request.generation;
  const int64_t length = static_cast<int64_t>(generation.prompt.size()) + generation.max_new_tokens;
  const int64_t planned = std::min(context_.samples.context, length);
  return {.tokens = &sample.tokens(),
          .planned_length = planned,
          .scope = PrefixScope(context_.runner.model().spec(), planned, generation.cache_salt),
          .priority = request.request.priority,
          .client = request.request.client};
}

void BatchLoop::AddLane(LaneId lane, Active& request, size_t sample) {
  request.lanes.push_back(lane);
  lanes_[lane] = {&request, sample};
}

void BatchLoop::RemoveLane(LaneId lane) {
  scheduler_.Remove(lane);
  const auto at = lanes_.find(lane);
  std::erase(at->second.request->lanes, lane);
  lanes_.erase(at);
}

SchedulerCounts BatchLoop::counts() const {
  SchedulerCounts counts = scheduler_.counts();
  counts.waiting += embeddings_.waiting();
  return counts;
}

Result<RequestId> BatchLoop::Submit(BatchRequest request) {
  const GenerationRequest& generation = request.generation;
  RETURN_IF_ERROR(context_.check(generation));
  if (generation.keep || generation.beams.num_beams > 1) {
    return Unsupported("beam search and kept sequences are for one request at a time");
  }
  auto active = std::make_unique<Active>();
  active->submitted = Clock::now();
  active->request = std::move(request);
  active->samples.push_back(std::make_unique<RunningSample>(context_.samples, active->request.generation, 0));
  ASSIGN_OR_RETURN(const LaneId lane, scheduler_.Add(SpecOf(*active, *active->samples[0])));
  active->id = next_id_++;
  AddLane(lane, *active, 0);
  const RequestId id = active->id;
  requests_.emplace(id, std::move(active));
  return id;
}

Result<RequestId> BatchLoop::Submit(EmbeddingRequest request) {
  GenerationRequest same;
  same.prompt = request.tokens;
  RETURN_IF_ERROR(context_.check(same));
  if (const int64_t waiting = counts().waiting; waiting >= max_waiting_) {
    return ResourceExhausted("{} sequences wait already, which is the most allowed", waiting);
  }
  const RequestId id = next_id_++;
  embeddings_.Add(id, std::move(request));
  return id;
}

void BatchLoop::EndIfDone(Active& request) {
  if (!request.lanes.empty()) return;
  BatchOutput output = std::move(request.output);
  output.total_ms = MillisecondsSince(request.submitted);
  for (const auto& sample : request.samples) output.samples.push_back(sample->TakeResult());
  const std::unique_ptr<Active> ended = std::move(requests_.extract(request.id).mapped());
  if (ended->request.on_done) ended->request.on_done(std::move(output));
}

void BatchLoop::Fail(Active& request, Status status) {
  while (!request.lanes.empty()) RemoveLane(request.lanes.back());
  const std::unique_ptr<Active> ended = std::move(requests_.extract(request.id).mapped());
  if (ended->request.on_done) ended->request.on_done(std::move(status));
}

void BatchLoop::Cancel(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return embeddings_.Cancel(id);
  Active& request = *found->second;
  while (!request.lanes.empty()) {
    RunningSample& sample = *request.samples[lanes_.at(request.lanes.back()).sample];
    RemoveLane(request.lanes.back());
    sample.Cancel({});
  }
  CancelUnborn(request);
  EndIfDone(request);
}

/// Who cancels gets as many samples as were asked for, whether they have begun or not.
void BatchLoop::CancelUnborn(Active& request) {
  const GenerationRequest& generation = request.request.generation;
  for (auto i = static_cast<int32_t>(request.samples.size()); i < generation.n; ++i) {
    request.samples.push_back(std::make_unique<RunningSample>(context_.samples, generation, i));
    request.samples.back()->Cancel({});
  }
}

/// The prompt of a request of several samples has been run: the others choose from the same row, and share its blocks.
Status BatchLoop::BeginOthers(LaneId first, Active& request, std::span<const float> logits) {
  const GenerationRequest& generation = request.request.generation;
  for (auto i = static_cast<int32_t>(request.samples.size()); i < generation.n; ++i) {
    if (request.samples.back()->cancelled()) {
      CancelUnborn(request);
      return OkStatus();
    }
    request.samples.push_back(std::make_unique<RunningSample>(context_.samples, generation, i));
    RunningSample& sample = *request.samples.back();
    RETURN_IF_ERROR(sample.Choose(logits, request.request.on_text));
    if (sample.finished()) continue;
    AddLane(scheduler_.Fork(first, SpecOf(request, sample)), request, request.samples.size() - 1);
  }
  return OkStatus();
}

/// Takes the next token of a text that is complete.
Status BatchLoop::Choose(const ScheduledInput& input, std::span<const float> logits) {
  const LaneOf lane = lanes_.at(input.lane);
  Active& request = *lane.request;
  RunningSample& sample = *request.samples[lane.sample];
  BatchOutput& output = request.output;
  if (output.first_token_ms == 0) output.first_token_ms = MillisecondsSince(request.submitted);
  Status chosen = sample.Choose(logits, request.request.on_text);
  if (chosen.ok() && request.samples.size() == 1) chosen = BeginOthers(input.lane, request, logits);
  if (!chosen.ok()) return chosen;
  if (std::ranges::any_of(request.samples, [](const auto& s) { return s->cancelled(); })) {
    for (const auto& other : request.samples) other->Cancel({});
  }
  for (const LaneId other : std::vector(request.lanes)) {
    if (request.samples[lanes_.at(other).sample]->finished()) RemoveLane(other);
  }
  return OkStatus();
}

/// Writes down a request's part in the step that begins.
void BatchLoop::NotePart(const ScheduledInput& input) {
  Active& request = *lanes_.at(input.lane).request;
  const auto tokens = static_cast<int64_t>(input.tokens.size());
  const bool answer = request.output.first_token_ms != 0 && input.last && tokens == 1;
  (answer ? last_step_.answers : last_step_.prompt_tokens) += tokens;
  last_step_.parts.push_back({.request = request.id, .answer = answer, .tokens = tokens});
  if (request.output.first_step_ms != 0) return;
  request.output.first_step_ms = MillisecondsSince(request.submitted);
  request.output.cached_tokens = input.cached_tokens;
}

/// Ends requests that the cache cannot hold.
void BatchLoop::EndTooLong(std::span<const LaneId> lanes) {
  for (const LaneId lane : lanes) {
    const auto found = lanes_.find(lane);
    if (found == lanes_.end()) continue;  // another of its request's has ended it just now
    if (embeddings_.holds_room()) {
      // It would have room without the text that is to become a vector, which begins again later.
      if (scheduler_.counts().running > 0) embeddings_.GiveWay();
      continue;
    }
    Active& request = *found->second.request;
    Fail(request, ResourceExhausted("the KV cache has no room for a sequence of {} tokens, even by itself; use a "
                                    "larger --pool-tokens",
                                    request.samples[found->second.sample]->tokens().size()));
  }
}

Result<bool> BatchLoop::Step() {
  last_step_ = {};
  if (!embeddings_.empty()) {
    const bool others_run = scheduler_.counts().running > 0;
    embeddings_.Step(others_run ? scheduler_.PassTokens(kEmbeddingPiece) : step_tokens_, others_run);
  }
  scheduler_.ShareTime(!embeddings_.empty());
  scheduler_.LetIn(!embeddings_.wants_room());
  if (requests_.empty()) return !embeddings_.empty();
  const Clock::time_point start = Clock::now();
  Scheduler::Step step = scheduler_.Next();
  EndTooLong(step.too_long);
  std::erase_if(step.inputs, [this](const ScheduledInput& input) { return !lanes_.contains(input.lane); });
  if (embeddings_.empty()) last_step_.wait_ms = step.wait_ms;
  if (step.inputs.empty()) return !empty();
  std::vector<StepInput> inputs;
  for (const ScheduledInput& input : step.inputs) {
    NotePart(input);
    inputs.push_back(
        {.seq = input.seq, .tokens = input.tokens, .planned_length = input.planned_length, .logits = input.last});
  }
  const auto logits = context_.runner.Run(inputs);
  if (!logits.ok()) {
    while (!requests_.empty()) Fail(*requests_.begin()->second, logits.status());
    return logits.status();
  }
  scheduler_.Ran(step, MillisecondsSince(start));
  int64_t row = 0;
  for (const ScheduledInput& input : step.inputs) {
    if (!input.last) continue;
    const std::span<const float> own(logits->row(row++), static_cast<size_t>(logits->cols));
    const auto lane = lanes_.find(input.lane);
    if (lane == lanes_.end()) continue;  // another sample of its request ended it just now
    Active& request = *lane->second.request;
    Status chosen = Choose(input, own);
    if (chosen.ok()) {
      EndIfDone(request);
    } else {
      Fail(request, std::move(chosen));
    }
  }
  last_step_.milliseconds = MillisecondsSince(start);
  return true;
}

}  // namespace kvasir
