// K5: how long the answers of a conversation take to begin, with and without what was computed for earlier turns.
#include "apps/bench_run.h"
#include "apps/techniques/technique.h"

namespace kvasir::apps {
namespace {

/// One way to go on with a conversation.
struct Chatter {
  std::string name;
  bool keep = false;  // the sequence, for the next turn
  CacheMode cache = CacheMode::kDynamic;
  std::unique_ptr<Engine> engine;
  std::vector<TokenId> history;
  std::vector<std::vector<double>> first_ms;  // [turn][repetition]
  std::vector<int64_t> computed;              // tokens of each turn's prompt that had to be run
};

struct TurnShape {
  int64_t turns = 10;
  int64_t question = 128;  // tokens
  int64_t answer = 64;

  int64_t Prompt(int64_t turn) const { return (turn + 1) * question + turn * answer; }
  int64_t Total() const { return turns * (question + answer); }
};

Status Talk(const TurnShape& shape, int32_t repetition, Chatter& chatter) {
  chatter.history.clear();
  chatter.engine->DropKept();
  const auto vocab = static_cast<uint64_t>(chatter.engine->model().spec().vocab_size);
  // Other questions every time, or a tree of prefixes would know them from the time before.
  Random random(static_cast<uint64_t>(repetition) + 1);
  for (int64_t turn = 0; turn < shape.turns; ++turn) {
    for (int64_t i = 0; i < shape.question; ++i) {
      chatter.history.push_back(static_cast<TokenId>(random.Next() % vocab));
    }
    GenerationRequest request;
    request.prompt = chatter.history;
    request.max_new_tokens = static_cast<int32_t>(shape.answer);
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.keep = chatter.keep;
    ASSIGN_OR_RETURN(const GenerationOutput output, chatter.engine->Generate(request));
    const std::vector<TokenId>& answer = output.samples[0].token_ids;
    chatter.history.insert(chatter.history.end(), answer.begin(), answer.end());
    const auto at = static_cast<size_t>(turn);
    chatter.first_ms[at].push_back(output.timings.prefill_ms);
    chatter.computed[at] = output.timings.prefill_tokens;
  }
  return OkStatus();
}

}  // namespace

Result<Section> MeasureManyTurns(TechniqueBench& bench) {
  const TurnShape shape = bench.quick ? TurnShape{.turns = 3, .question = 40, .answer = 4} : TurnShape{};
  Chatter chatters[] = {{.name = "nothing reused"},
                        {.name = "sequence kept", .keep = true},
                        {.name = "tree of prefixes (paged)", .cache = CacheMode::kPaged}};
  for (Chatter& chatter : chatters) {
    ASSIGN_OR_RETURN(chatter.engine, LoadTechniqueEngine(bench, chatter.cache, shape.Total()));
    chatter.first_ms.resize(static_cast<size_t>(shape.turns));
    chatter.computed.resize(static_cast<size_t>(shape.turns));
  }
  for (int32_t i = 0; i < bench.repetitions; ++i) {
    for (Chatter& chatter : chatters) {
      RETURN_IF_ERROR(Talk(shape, i, chatter));
      if (chatter.history != chatters[0].history) {
        return Internal("the conversation with {} differs from the one with {}, which it never should", chatter.name,
                        chatters[0].name);
      }
    }
  }
  Section section;
  section.notes = {fmt::format(
      "A conversation of {} turns, {} tokens of question and {} of answer each, {} times; the answers are identical. "
      "The time is that of running what of the prompt is not known yet, until the answer's first token can be chosen.",
      shape.turns, shape.question, shape.answer, bench.repetitions)};
  section.columns = {{.key = "turn", .title = "turn"},
                     {.key = "prompt_tokens", .title = "tokens of the prompt"},
                     {.key = "computed_kept", .title = "run, sequence kept"},
                     {.key = "computed_tree", .title = "run, tree of prefixes"},
                     {.key = "first_token_ms", .title = "first token, nothing reused, ms", .decimals = 2},
                     {.key = "first_token_kept_ms", .title = "kept, ms", .decimals = 2},
                     {.key = "first_token_tree_ms", .title = "tree, ms", .decimals = 2},
                     {.key = "kept_ratio", .title = "times as fast, kept", .decimals = 1},
                     {.key = "tree_ratio", .title = "times as fast, tree", .decimals = 1}};
  Plot plot{.title = "Until the first token of an answer",
            .x = {.label = "tokens of the prompt", .unit = AxisUnit::kTokens},
            .y = {.label = "ms"},
            .series = {},
            .bars = {}};
  for (const Chatter& chatter : chatters) plot.series.push_back({.name = chatter.name, .points = {}});
  for (int64_t turn = 0; turn < shape.turns; ++turn) {
    const auto at = static_cast<size_t>(turn);
    double ms[3];
    for (size_t c = 0; c < 3; ++c) {
      ms[c] = Median(chatters[c].first_ms[at]);
      plot.series[c].points.emplace_back(static_cast<double>(shape.Prompt(turn)), ms[c]);
    }
    section.rows.push_back({turn + 1, shape.Prompt(turn), chatters[1].computed[at], chatters[2].computed[at], ms[0],
                            ms[1], ms[2], ms[0] / ms[1], ms[0] / ms[2]});
  }
  section.plots.push_back(std::move(plot));
  return section;
}

}  // namespace kvasir::apps
