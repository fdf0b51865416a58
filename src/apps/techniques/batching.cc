// V1 to V3: many requests at once, in batches that end together or by requests that come and go at every step, and what
// a long prompt does to answers that are being written.
#include <algorithm>
#include <numeric>

#include "apps/bench_run.h"
#include "apps/techniques/technique.h"
#include "engine/batch_loop.h"

namespace kvasir::apps {
namespace {

constexpr size_t kTraceRequests = 64;

std::vector<TraceRequest> Workload(const TechniqueBench& bench, int64_t most) {
  std::vector<TraceRequest> requests;
  if (bench.trace != nullptr) {
    requests.assign(bench.trace->begin(),
                    bench.trace->begin() + static_cast<ptrdiff_t>(std::min(kTraceRequests, bench.trace->size())));
  } else {
    Random random(3);
    const auto pick = [&random](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(random.Next() % static_cast<uint64_t>(high - low + 1));
    };
    // Few are long, as in traces.
    const auto skewed = [&pick](int64_t high) { return std::max<int64_t>(pick(1, high) * pick(1, high) / high, 1); };
    for (int i = 0; i < (bench.quick ? 12 : 64); ++i) requests.push_back({skewed(most * 3 / 4), skewed(most / 4)});
  }
  for (TraceRequest& request : requests) {
    request.context_tokens = std::clamp<int64_t>(request.context_tokens, 1, most * 3 / 4);
    request.generated_tokens = std::clamp<int64_t>(request.generated_tokens, 1, most / 4);
  }
  return requests;
}

/// Every request as long as the longest of its batch, in prompt and answer: what padding makes of a batch.
std::vector<TraceRequest> Padded(std::vector<TraceRequest> requests, int64_t batch) {
  for (size_t begin = 0; begin < requests.size(); begin += static_cast<size_t>(batch)) {
    const size_t end = std::min(begin + static_cast<size_t>(batch), requests.size());
    TraceRequest longest;
    for (size_t i = begin; i < end; ++i) {
      longest.context_tokens = std::max(longest.context_tokens, requests[i].context_tokens);
      longest.generated_tokens = std::max(longest.generated_tokens, requests[i].generated_tokens);
    }
    std::fill(requests.begin() + static_cast<ptrdiff_t>(begin), requests.begin() + static_cast<ptrdiff_t>(end),
              longest);
  }
  return requests;
}

GenerationRequest SomeRequest(const Engine& engine, int64_t prompt, int64_t answer, uint64_t seed) {
  Random random(seed);
  GenerationRequest request;
  const auto vocab = static_cast<uint64_t>(engine.model().spec().vocab_size);
  for (int64_t i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<TokenId>(random.Next() % vocab));
  request.max_new_tokens = static_cast<int32_t>(answer);
  request.sampling.temperature = 0;
  request.sampling.ignore_eos = true;
  return request;
}

/// A way to serve all requests.
struct Way {
  std::string name;
  SchedulerOptions options;
  bool padded = false;
  std::vector<double> seconds;
  std::vector<double> first_ms;  // of the last repetition's requests
  int64_t steps = 0;
  std::vector<std::vector<TokenId>> answers = {};
};

Status Serve(Engine& engine, const std::vector<TraceRequest>& requests, int32_t repetition, Way& way) {
  ASSIGN_OR_RETURN(const std::unique_ptr<BatchLoop> loop, engine.Batch(way.options));
  way.first_ms.clear();
  way.steps = 0;
  way.answers.assign(requests.size(), {});
  Status failed;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto seed = static_cast<uint64_t>(repetition) * 1000 + i;
    BatchRequest request{.generation =
                             SomeRequest(engine, requests[i].context_tokens, requests[i].generated_tokens, seed)};
    request.on_done = [&way, &failed, i](Result<BatchOutput> output) {
      if (!output.ok()) {
        failed = output.status();
        return;
      }
      way.first_ms.push_back(output->first_token_ms);
      way.answers[i] = std::move(output->samples[0].token_ids);
    };
    RETURN_IF_ERROR(loop->Submit(std::move(request)).status());
  }
  ASSIGN_OR_RETURN(const double seconds, TimeOf([&]() -> Status {
                     while (true) {
                       ASSIGN_OR_RETURN(const bool more, loop->Step());
                       if (!more) return OkStatus();
                       ++way.steps;
                     }
                   }));
  way.seconds.push_back(seconds);
  return failed;
}

}  // namespace

Result<Section> MeasureBatching(TechniqueBench& bench) {
  const int64_t batch = bench.at_once;
  const int64_t most = bench.quick ? 64 : 2048;
  // A cache without a tree of prefixes, or the prompts would be known from the time before.
  ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, LoadTechniqueEngine(bench, CacheMode::kDynamic, most, batch));
  const std::vector<TraceRequest> requests = Workload(bench, engine->context());
  const std::vector<TraceRequest> padded = Padded(requests, batch);
  int64_t prompt_tokens = 0;
  int64_t answer_tokens = 0;
  for (const TraceRequest& request : requests) {
    prompt_tokens += request.context_tokens;
    answer_tokens += request.generated_tokens;
  }
  Way ways[] = {{"static, padded (V1)", {.batching = Batching::kStatic, .max_running = batch}, true, {}, {}},
                {"static, ragged", {.batching = Batching::kStatic, .max_running = batch}, false, {}, {}},
                {"continuous (V2)", {.max_running = batch}, false, {}, {}},
                {"continuous, steps by time (V2, V3)", {.max_running = batch, .slowest_answers = 3}, false, {}, {}}};
  for (int32_t i = 0; i < bench.repetitions; ++i) {
    for (Way& way : ways) RETURN_IF_ERROR(Serve(*engine, way.padded ? padded : requests, i, way));
    if (ways[1].answers != ways[2].answers || ways[1].answers != ways[3].answers) {
      return Internal("answers in continuous batches differ from those in static ones, which they never should");
    }
  }
  Section section;
  section.notes = {
      fmt::format("{} requests that are all there at the beginning, {} at once: {} tokens of prompts and {} "
                  "of answers{}, no two alike. Padding runs every request as long as the longest of its "
                  "batch; a ragged batch runs no padding, and waits for its last answer. Prompts that join "
                  "are run in steps of 512 tokens or, by time, in steps that take at most three times as long as "
                  "those of answers alone. "
                  "Answers of ragged and continuous batches are identical.",
                  requests.size(), batch, prompt_tokens, answer_tokens,
                  bench.trace != nullptr ? " as in the trace, cut to what the context holds" : "")};
  section.columns = {{.key = "batching", .title = "batching"},
                     {.key = "steps", .title = "steps"},
                     {.key = "seconds", .title = "s", .decimals = 3},
                     {.key = "answer_tokens_per_s", .title = "tokens of answers per s", .decimals = 1},
                     {.key = "ratio_to_padded", .title = "times padded", .decimals = 2},
                     {.key = "ratio_to_ragged", .title = "times ragged", .decimals = 2},
                     {.key = "mean_first_token_ms", .title = "first token, mean, ms", .decimals = 1}};
  for (const Way& way : ways) {
    const double seconds = Median(way.seconds);
    const double first = std::accumulate(way.first_ms.begin(), way.first_ms.end(), 0.0);
    section.rows.push_back({way.name, way.steps, seconds, static_cast<double>(answer_tokens) / seconds,
                            Median(ways[0].seconds) / seconds, Median(ways[1].seconds) / seconds,
                            first / static_cast<double>(way.first_ms.size())});
  }
  return section;
}

namespace {

/// What a long prompt does to answers that are being written when it comes.
struct Stall {
  double usual_ms = 0;    // a step before
  double longest_ms = 0;  // a step until the prompt's first token
  double median_ms = 0;
  double first_token_ms = 0;
};

Result<Stall> StallOf(Engine& engine, const SchedulerOptions& options, int64_t streams, int64_t prompt, int64_t steps) {
  ASSIGN_OR_RETURN(const std::unique_ptr<BatchLoop> loop, engine.Batch(options));
  std::vector<RequestId> ids;
  for (int64_t i = 0; i < streams; ++i) {
    // More than will be needed: they are hung up in the end.
    const int64_t answer = engine.context() - 32;
    ASSIGN_OR_RETURN(const RequestId id,
                     loop->Submit({.generation = SomeRequest(engine, 16, answer, static_cast<uint64_t>(i) + 1)}));
    ids.push_back(id);
  }
  std::vector<double> usual;
  for (int64_t i = 0; i < steps; ++i) {
    RETURN_IF_ERROR(loop->Step().status());
    if (i > 0) usual.push_back(loop->last_step().milliseconds);
  }
  Stall stall;
  bool done = false;
  Status failed;
  BatchRequest late{.generation = SomeRequest(engine, prompt, 1, 99)};
  late.on_done = [&](Result<BatchOutput> output) {
    done = true;
    if (output.ok()) {
      stall.first_token_ms = output->first_token_ms;
    } else {
      failed = output.status();
    }
  };
  RETURN_IF_ERROR(loop->Submit(std::move(late)).status());
  // How long streams wait for their next token: a step that has none of them adds to the next one.
  std::vector<double> gaps;
  double gap = 0;
  while (!done) {
    RETURN_IF_ERROR(loop->Step().status());
    gap += loop->last_step().milliseconds;
    if (loop->last_step().answers < streams && streams > 0 && !done) continue;
    gaps.push_back(gap);
    gap = 0;
  }
  for (const RequestId id : ids) loop->Cancel(id);
  RETURN_IF_ERROR(failed);
  stall.usual_ms = usual.empty() ? 0 : Median(usual);
  stall.median_ms = Median(gaps);
  stall.longest_ms = *std::ranges::max_element(gaps);
  return stall;
}

}  // namespace

Result<Section> MeasureChunkedPrefill(TechniqueBench& bench) {
  const int64_t streams = bench.quick ? 2 : 8;
  const int64_t steps = bench.quick ? 3 : 12;
  const int64_t most = bench.quick ? 128 : 4096 + 64;
  ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                   LoadTechniqueEngine(bench, CacheMode::kDynamic, most, streams + 1));
  const int64_t prompt = std::min<int64_t>(engine->context() - 40, 4000);
  struct Case {
    std::string name;
    SchedulerOptions options;
    int64_t streams;
    std::vector<Stall> stalls;
  };
  std::vector<Case> cases = {{"the prompt alone", {.max_running = streams + 1, .chunk_prompts = false}, 0, {}},
                             {"whole prompts", {.max_running = streams + 1, .chunk_prompts = false}, streams, {}}};
  for (const int64_t tokens : bench.quick ? std::vector<int64_t>{16, 64} : std::vector<int64_t>{16, 32, 64, 128, 512}) {
    cases.push_back({fmt::format("steps of {} tokens (V3)", tokens),
                     {.max_running = streams + 1, .step_tokens = tokens},
                     streams,
                     {}});
  }
  cases.push_back(
      {"steps by time: at most 2 times as long (V3)", {.max_running = streams + 1, .slowest_answers = 2}, streams, {}});
  for (int32_t i = 0; i < bench.repetitions; ++i) {
    for (Case& test : cases) {
      ASSIGN_OR_RETURN(const Stall stall, StallOf(*engine, test.options, test.streams, prompt, steps));
      test.stalls.push_back(stall);
    }
  }
  const auto median = [](const Case& test, double Stall::* field) {
    std::vector<double> values(test.stalls.size());
    std::ranges::transform(test.stalls, values.begin(), field);
    return Median(values);
  };
  Section section;
  section.notes = {
      fmt::format("{} answers are being written when a prompt of {} tokens comes. Until its first token: how "
                  "long the answers wait for their next one. Steps by time hold as much of the prompt as keeps them "
                  "within what steps without it take, times 2.",
                  streams, prompt)};
  section.columns = {{.key = "steps", .title = "prompts"},
                     {.key = "usual_ms", .title = "between tokens before, ms", .decimals = 1},
                     {.key = "median_ms", .title = "between tokens meanwhile, ms", .decimals = 1},
                     {.key = "longest_ms", .title = "longest, ms", .decimals = 1},
                     {.key = "longest_ratio", .title = "longest, times before", .decimals = 2},
                     {.key = "first_token_ms", .title = "first token of the prompt, ms", .decimals = 1},
                     {.key = "first_token_ratio", .title = "times alone", .decimals = 2}};
  const double alone = median(cases[0], &Stall::first_token_ms);
  for (const Case& test : cases) {
    const double first = median(test, &Stall::first_token_ms);
    if (test.streams == 0) {
      section.rows.push_back({test.name, {}, {}, {}, {}, first, 1.0});
      continue;
    }
    const double usual = median(test, &Stall::usual_ms);
    section.rows.push_back({test.name, usual, median(test, &Stall::median_ms), median(test, &Stall::longest_ms),
                            median(test, &Stall::longest_ms) / usual, first, first / alone});
  }
  return section;
}

}  // namespace kvasir::apps
