#include "engine/generation.h"

#include <algorithm>
#include <optional>

#include "engine/clock.h"
#include "engine/running_sample.h"
#include "model/rope.h"

namespace kvasir {
namespace {

/// Releases its sequences when the request ends, however it ends.
class SequenceSet {
 public:
  explicit SequenceSet(KvCache& cache) : cache_(cache) {}
  ~SequenceSet() {
    for (SeqId seq : sequences_) cache_.Release(seq);
  }
  SequenceSet(const SequenceSet&) = delete;
  SequenceSet& operator=(const SequenceSet&) = delete;

  Result<SeqId> Create() {
    ASSIGN_OR_RETURN(const SeqId seq, cache_.Create());
    sequences_.push_back(seq);
    return seq;
  }
  Result<SeqId> Fork(SeqId from) {
    ASSIGN_OR_RETURN(const SeqId seq, cache_.Fork(from));
    sequences_.push_back(seq);
    return seq;
  }
  void Adopt(SeqId seq) { sequences_.push_back(seq); }
  void Disown(SeqId seq) { std::erase(sequences_, seq); }
  void Release(SeqId seq) {
    Disown(seq);
    cache_.Release(seq);
  }

 private:
  KvCache& cache_;
  std::vector<SeqId> sequences_;
};

/// One sample and its sequence.
struct Running {
  SeqId seq;
  RunningSample sample;
};

bool IsEos(std::span<const TokenId> eos, TokenId id) { return std::find(eos.begin(), eos.end(), id) != eos.end(); }

int64_t PlannedLength(const GenerationContext& context, const GenerationRequest& request) {
  const int64_t length = static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens;
  return context.policy.bound.Reach(std::min(context.context, length));
}

/// What is run of a text of which the cache holds the first `cached` tokens.
std::span<const TokenId> TokensToRun(const CachePolicy& policy, std::span<const TokenId> tokens, size_t cached) {
  if (!policy.Recomputes()) return tokens.subspan(cached);
  return tokens.last(static_cast<size_t>(policy.bound.Reach(static_cast<int64_t>(tokens.size()))));
}

std::string ScopeOf(const GenerationContext& context, const GenerationRequest& request) {
  return PrefixScope(context.runner.model().spec(), PlannedLength(context, request), request.cache_salt);
}

/// Offers what has been run of `tokens` to requests that begin alike.
void Publish(const GenerationContext& context, const GenerationRequest& request, SeqId seq,
             std::span<const TokenId> tokens) {
  if (context.policy.Recomputes()) return;
  const auto run = static_cast<size_t>(context.cache.NextPosition(seq));
  context.cache.InsertPrefix(seq, ScopeOf(context, request), tokens.first(std::min(run, tokens.size())));
}

/// The prompt's sequence: the kept one cut back to the common prefix, or a new one that begins with what the cache
/// knows of the prompt, whichever spares more.
struct Admitted {
  SeqId seq;
  int64_t cached;  // prompt tokens already in the cache
};

Result<Admitted> Admit(const GenerationContext& context, const GenerationRequest& request, SequenceSet& sequences) {
  KeptSequence& kept = context.kept;
  const std::string scope = ScopeOf(context, request);
  const bool fits =
      request.keep && kept.seq && scope == PrefixScope(context.runner.model().spec(), kept.planned_length, kept.salt);
  size_t common = 0;
  // The last prompt token is run again in any case: its logits are needed.
  while (fits && common + 1 < request.prompt.size() && common < kept.tokens.size() &&
         kept.tokens[common] == request.prompt[common]) {
    ++common;
  }
  if (fits && static_cast<int64_t>(common) >= context.cache.KnownPrefix(scope, request.prompt)) {
    const SeqId seq = *std::exchange(kept.seq, std::nullopt);
    kept.tokens.clear();
    sequences.Adopt(seq);
    // A bounded cache may have dropped tokens that a text of the common prefix alone would still have.
    if (!context.cache.Truncate(seq, static_cast<int64_t>(common))) {
      common = 0;
      KVASIR_CHECK(context.cache.Truncate(seq, 0));
    }
    return Admitted{seq, static_cast<int64_t>(common)};
  }
  if (kept.seq) context.cache.Release(*std::exchange(kept.seq, std::nullopt));
  kept.tokens.clear();
  ASSIGN_OR_RETURN(const SeqId seq, sequences.Create());
  return Admitted{seq, context.cache.MatchPrefix(seq, scope, request.prompt)};
}

/// Runs the newest token of each sequence (all that there are to run where every step begins anew).
Result<MatView<float>> RunNewest(const GenerationContext& context, const GenerationRequest& request,
                                 std::span<const SeqId> seqs, std::span<const std::vector<TokenId>* const> tokens) {
  std::vector<StepInput> inputs;
  for (size_t i = 0; i < seqs.size(); ++i) {
    if (context.policy.Recomputes()) KVASIR_CHECK(context.cache.Truncate(seqs[i], 0));
    inputs.push_back({.seq = seqs[i],
                      .tokens = TokensToRun(context.policy, *tokens[i], tokens[i]->size() - 1),
                      .planned_length = PlannedLength(context, request)});
  }
  return context.runner.Run(inputs, request.interrupted);
}

/// Keeps a request's sequence, which holds a prefix of `tokens`, for the next one.
void Keep(const GenerationContext& context, const GenerationRequest& request, SeqId seq,
          const std::vector<TokenId>& tokens, SequenceSet& sequences) {
  if (context.policy.Recomputes()) {
    // Nothing in the cache is of use to another request, only what it would be made from again.
    const std::span<const TokenId> last = TokensToRun(context.policy, tokens, 0);
    context.kept.tokens.assign(last.begin(), last.end());
    return;
  }
  Publish(context, request, seq, tokens);
  sequences.Disown(seq);
  context.kept.seq = seq;
  context.kept.tokens = tokens;
  context.kept.planned_length = PlannedLength(context, request);
  context.kept.salt = request.cache_salt;
  // The newest token was chosen but not run, and an interrupted prompt was run in part.
  context.kept.tokens.resize(static_cast<size_t>(context.cache.NextPosition(seq)));
}

bool WasInterrupted(const Status& status) { return status.code() == StatusCode::kCancelled; }

/// The prompt's logits, and what running it took. Nothing when the request was interrupted: `output` is then complete.
Result<std::optional<MatView<float>>> RunPrompt(const GenerationContext& context, const GenerationRequest& request,
                                                const Admitted& admitted, GenerationOutput& output) {
  const Clock::time_point start = Clock::now();
  const StepInput prompt{.seq = admitted.seq,
                         .tokens = TokensToRun(context.policy, request.prompt, static_cast<size_t>(admitted.cached)),
                         .planned_length = PlannedLength(context, request)};
  auto logits = context.runner.Run({&prompt, 1}, request.interrupted);
  Publish(context, request, admitted.seq, request.prompt);
  output.timings.prefill_ms = MillisecondsSince(start);
  output.timings.prefill_tokens = context.cache.NextPosition(admitted.seq) - admitted.cached;
  output.timings.cached_tokens = admitted.cached;
  if (logits.ok()) return std::optional(*logits);
  if (!WasInterrupted(logits.status())) return logits.status();
  const int32_t wanted = request.beams.num_beams > 1 ? request.beams.num_return : request.n;
  output.samples.assign(static_cast<size_t>(wanted), {.finish = FinishReason::kCancelled});
  return std::optional<MatView<float>>();
}

}  // namespace

std::string PrefixScope(const DecoderSpec& spec, int64_t planned_length, std::string_view salt) {
  std::string scope;
  // As many bytes for every sequence of a model, so that the salt behind them cannot be taken for a part of them.
  if (const auto* rope = std::get_if<RopePosition>(&spec.position)) {
    const std::vector<float> inverse = ComputeRopeFrequencies(*rope, spec.context, planned_length).inverse;
    scope.assign(reinterpret_cast<const char*>(inverse.data()), inverse.size() * sizeof(float));
  }
  return scope.append(salt);
}

Result<GenerationOutput> GenerateSamples(const GenerationContext& context, const GenerationRequest& request,
                                         const TextCallback& on_text) {
  GenerationOutput output;
  SequenceSet sequences(context.cache);
  ASSIGN_OR_RETURN(const Admitted admitted, Admit(context, request, sequences));
  ASSIGN_OR_RETURN(const std::optional<MatView<float>> prompt_logits, RunPrompt(context, request, admitted, output));
  if (!prompt_logits) {
    if (request.keep) Keep(context, request, admitted.seq, request.prompt, sequences);
    return output;
  }
  MatView<float> logits = *prompt_logits;

  const SampleContext shared{.context = context.context, .tokenizer = context.tokenizer, .eos = context.eos};
  std::vector<Running> samples;
  for (int32_t i = 0; i < request.n; ++i) {
    SeqId seq = admitted.seq;
    if (i > 0) {
      ASSIGN_OR_RETURN(seq, sequences.Fork(admitted.seq));
    }
    samples.push_back({seq, RunningSample(shared, request, i)});
  }

  const Clock::time_point decode_start = Clock::now();
  std::vector<size_t> active(samples.size());
  for (size_t i = 0; i < active.size(); ++i) active[i] = i;
  bool first = true;
  while (true) {
    // Postprocess: every active sample chooses from its row (all share the prompt's row at first).
    for (size_t a = 0; a < active.size(); ++a) {
      const float* const row = logits.row(first ? 0 : static_cast<int64_t>(a));
      RETURN_IF_ERROR(samples[active[a]].sample.Choose({row, static_cast<size_t>(logits.cols)}, on_text));
    }
    if (std::ranges::any_of(active, [&](size_t i) { return samples[i].sample.cancelled(); })) {
      for (Running& running : samples) running.sample.Cancel({});  // who cancelled wants to hear no more
    }
    std::erase_if(active, [&](size_t i) {
      if (!samples[i].sample.finished()) return false;
      if (!request.keep) {
        Publish(context, request, samples[i].seq, samples[i].sample.tokens());
        sequences.Release(samples[i].seq);
      }
      return true;
    });
    if (active.empty()) break;

    // Schedule and run.
    std::vector<SeqId> seqs;
    std::vector<const std::vector<TokenId>*> tokens;
    for (size_t i : active) {
      seqs.push_back(samples[i].seq);
      tokens.push_back(&samples[i].sample.tokens());
    }
    auto next = RunNewest(context, request, seqs, tokens);
    if (!next.ok() && WasInterrupted(next.status())) {
      for (size_t i : active) {
        samples[i].sample.Cancel(on_text);
        Publish(context, request, samples[i].seq, samples[i].sample.tokens());
      }
      break;
    }
    if (!next.ok()) return next.status();
    logits = *next;
    output.timings.decode_tokens += static_cast<int64_t>(active.size());
    first = false;
  }
  output.timings.decode_ms = MillisecondsSince(decode_start);
  if (request.keep) Keep(context, request, samples[0].seq, samples[0].sample.tokens(), sequences);
  for (Running& running : samples) output.samples.push_back(running.sample.TakeResult());
  return output;
}

namespace {

/// The beams' sequences after a step: the first child of a parent takes the parent's sequence over, others fork it.
Result<std::vector<SeqId>> MoveBeams(std::span<const BeamMove> moves, const std::vector<SeqId>& old,
                                     SequenceSet& sequences) {
  std::vector<int32_t> children(old.size(), 0);
  for (const BeamMove& move : moves) ++children[static_cast<size_t>(move.parent)];
  for (size_t i = 0; i < old.size(); ++i) {
    if (children[i] == 0) sequences.Release(old[i]);
  }
  std::vector<SeqId> moved;
  std::vector<bool> taken(old.size(), false);
  for (const BeamMove& move : moves) {
    const size_t parent = static_cast<size_t>(move.parent);
    SeqId seq = old[parent];
    if (taken[parent]) {
      ASSIGN_OR_RETURN(seq, sequences.Fork(seq));
    }
    taken[parent] = true;
    moved.push_back(seq);
  }
  return moved;
}

}  // namespace

Result<GenerationOutput> GenerateBeams(const GenerationContext& context, const GenerationRequest& request,
                                       const TextCallback& on_text) {
  GenerationOutput output;
  SequenceSet sequences(context.cache);
  BeamParams params = request.beams;
  const int64_t room = context.context - static_cast<int64_t>(request.prompt.size());
  params.max_new_tokens = static_cast<int32_t>(std::min<int64_t>(request.max_new_tokens, room));
  BeamSearch search(params, request.sampling, request.prompt, context.eos);
  ASSIGN_OR_RETURN(const Admitted admitted, Admit(context, request, sequences));
  ASSIGN_OR_RETURN(const std::optional<MatView<float>> prompt_logits, RunPrompt(context, request, admitted, output));
  if (!prompt_logits) return output;
  MatView<float> logits = *prompt_logits;
  bool interrupted = false;

  const Clock::time_point decode_start = Clock::now();
  std::vector<SeqId> seqs = {admitted.seq};
  std::vector<std::vector<TokenId>> tokens = {request.prompt};
  for (int64_t step = 0; step < params.max_new_tokens; ++step) {
    ASSIGN_OR_RETURN(const std::vector<BeamMove> moves,
                     search.Step({logits.data, static_cast<size_t>(logits.rows * logits.cols)},
                                 static_cast<int32_t>(logits.rows), static_cast<int32_t>(logits.cols)));
    if (search.done() || moves.empty() || step + 1 == params.max_new_tokens) break;
    ASSIGN_OR_RETURN(seqs, MoveBeams(moves, seqs, sequences));
    std::vector<std::vector<TokenId>> moved;
    for (const BeamMove& move : moves) {
      moved.push_back(tokens[static_cast<size_t>(move.parent)]);
      moved.back().push_back(move.token);
    }
    tokens = std::move(moved);
    std::vector<const std::vector<TokenId>*> views;
    views.reserve(tokens.size());
    for (const auto& list : tokens) views.push_back(&list);
    auto next = RunNewest(context, request, seqs, views);
    interrupted = !next.ok() && WasInterrupted(next.status());
    if (interrupted) break;
    if (!next.ok()) return next.status();
    logits = *next;
    output.timings.decode_tokens += static_cast<int64_t>(seqs.size());
  }
  output.timings.decode_ms = MillisecondsSince(decode_start);
  for (size_t i = 0; i < seqs.size(); ++i) Publish(context, request, seqs[i], tokens[i]);

  for (BeamHypothesis& hypothesis : search.Finish()) {
    GeneratedSample sample{.token_ids = std::move(hypothesis.tokens), .score = hypothesis.score};
    const bool ended = !sample.token_ids.empty() && IsEos(context.eos, sample.token_ids.back());
    const FinishReason cut = interrupted ? FinishReason::kCancelled : FinishReason::kLength;
    sample.finish = ended ? FinishReason::kEos : cut;
    if (context.tokenizer) {
      ASSIGN_OR_RETURN(const std::string text,
                       context.tokenizer->Decode(sample.token_ids, {.skip_special = request.skip_special}));
      StopStrings stop(request.stop);
      StopStrings::Output shown = stop.Push(text);
      sample.text = std::move(shown.text);
      if (shown.stopped) {
        sample.finish = FinishReason::kStopString;
      } else {
        sample.text += stop.Flush();
      }
    }
    if (on_text) {
      TextEvent event{.index = static_cast<int32_t>(output.samples.size()), .text = sample.text};
      if (!sample.token_ids.empty()) event.token = sample.token_ids.back();
      event.finish = sample.finish;
      on_text(event);
    }
    output.samples.push_back(std::move(sample));
  }
  return output;
}

}  // namespace kvasir
