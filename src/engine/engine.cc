#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/checked.h"
#include "base/limits.h"
#include "base/log.h"
#include "engine/batch_loop.h"
#include "engine/generation.h"
#include "engine/generation_config.h"
#include "engine/session_file.h"
#include "engine/step_runner.h"
#include "model/activation_bytes.h"

namespace kvasir {

struct Engine::Impl {
  EngineOptions options;
  std::unique_ptr<ThreadPool> pool;
  Arena arena;
  ExecContext ctx;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<const TokenTrie> token_trie;
  std::optional<ChatTemplate> chat_template;
  GenerationDefaults defaults;
  RunShape run;
  MemoryPlan plan;
  std::unique_ptr<KvCache> cache;
  std::optional<StepRunner> runner;
  KeptSequence kept;
  double load_ms = 0;

  using LogitConsumer = std::function<Status(int64_t row, MatView<const float> logits)>;

  Status PlanRun(const DecoderSpec& spec, const WeightNeed& weights);
  Status CheckRequest(const GenerationRequest& request) const;
  Result<SessionLimits> Sessions() const;
  Status RunText(std::span<const TokenId> tokens, int64_t first_row, bool one_by_one, const LogitConsumer& consume);
  Status RunWindows(std::span<const TokenId> tokens, int64_t first_row, int64_t every, const LogitConsumer& consume);
};

namespace {

CacheKind KindOf(CacheMode mode) {
  switch (mode) {
    case CacheMode::kStatic: return CacheKind::kStatic;
    case CacheMode::kWindow: return CacheKind::kWindow;
    case CacheMode::kSink: return CacheKind::kSink;
    case CacheMode::kPaged: return CacheKind::kPaged;
    case CacheMode::kNone:
    case CacheMode::kDynamic:
    case CacheMode::kRecompute: break;
  }
  return CacheKind::kDynamic;
}

}  // namespace

std::string CachePolicy::Text() const {
  switch (mode) {
    case CacheMode::kNone: return "none";
    case CacheMode::kDynamic: return "dynamic";
    case CacheMode::kStatic: return "static";
    case CacheMode::kWindow: return fmt::format("window:{}", bound.tokens);
    case CacheMode::kRecompute: return fmt::format("recompute:{}", bound.tokens);
    case CacheMode::kSink: return fmt::format("sink:{},{}", bound.sinks, bound.tokens);
    case CacheMode::kPaged: return block_tokens == 0 ? "paged" : fmt::format("paged:{}", block_tokens);
  }
  return "?";
}

Status CachePolicy::Validate() const {
  const bool bounded = mode == CacheMode::kWindow || mode == CacheMode::kRecompute || mode == CacheMode::kSink;
  if (!bounded && (bound.tokens != 0 || bound.sinks != 0))
    return InvalidArgument("a cache of every token has no bound");
  if (mode != CacheMode::kPaged && block_tokens != 0) return InvalidArgument("{}: only paged has a block size", Text());
  if (block_tokens < 0 || block_tokens > kMostPagedBlockTokens || block_tokens % kTileTokens != 0) {
    return InvalidArgument("{}: N, the tokens of a block, is a multiple of {} up to {}", Text(), kTileTokens,
                           kMostPagedBlockTokens);
  }
  if (bounded && (bound.tokens < 1 || bound.tokens > kMostKvTokens)) {
    return InvalidArgument("{}: L, the tokens that are kept, is 1 to {}", Text(), kMostKvTokens);
  }
  if (mode != CacheMode::kSink) return bound.sinks == 0 ? OkStatus() : InvalidArgument("{}: no sinks here", Text());
  if (bound.sinks < 1) {
    return InvalidArgument("{}: S, the first tokens that stay, is at least 1; without them it is window:{}", Text(),
                           bound.tokens);
  }
  if (bound.tokens <= bound.sinks) {
    return InvalidArgument(
        "{}: L counts the {} sinks as well and has to leave room for a token behind them: {} or more", Text(),
        bound.sinks, bound.sinks + 1);
  }
  return OkStatus();
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

RunShape PlannedRun(const EngineOptions& options, const WeightNeed& weights, int threads, const KernelSet& kernels) {
  return {.kv_type = options.kv_type.value_or(DefaultKvType(weights.dtype())),
          .cache = KindOf(options.cache.mode),
          .bound = options.cache.bound,
          .context = options.context,
          .block_tokens = options.cache.block_tokens,
          .pool_tokens = options.cache.mode == CacheMode::kPaged ? options.pool_tokens : 0,
          .chunk = options.prefill_chunk,
          .sequences = options.max_sequences,
          .attention = options.attention,
          .round_weights = !options.exact_prefill,
          .threads = threads,
          .kernels = &kernels};
}

Status Engine::Impl::PlanRun(const DecoderSpec& spec, const WeightNeed& weights) {
  run = PlannedRun(options, weights, pool->size(), *ctx.kernels);
  const int64_t available = AvailableMemory();
  ASSIGN_OR_RETURN(plan, FitMemory(spec, weights, run, available));
  run.context = plan.context;
  run.pool_tokens = plan.pool_tokens;
  if (options.planned) options.planned(plan, available);
  return OkStatus();
}

Result<std::unique_ptr<Engine>> Engine::Load(const EngineOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.threads < 0 || options.threads > 1024) {
    return InvalidArgument("{} threads; give 1 to 1024, or 0 for all processors", options.threads);
  }
  if (options.context < 0 || options.prefill_chunk < 1 || options.prefill_chunk > 65'536 || options.max_sequences < 1 ||
      options.max_sequences > 4096) {
    return InvalidArgument("context {}, batch {} or sequences {} are out of range", options.context,
                           options.prefill_chunk, options.max_sequences);
  }
  RETURN_IF_ERROR(options.cache.Validate().WithContext("--cache"));
  if (options.pool_tokens != 0 && options.cache.mode != CacheMode::kPaged) {
    return InvalidArgument("--pool-tokens is the size of a pool, which --cache {} does not have; --cache paged does",
                           options.cache.Text());
  }
  if (options.pool_tokens < 0 || options.most_prefix_blocks < 0) {
    return InvalidArgument("a pool of {} tokens, of which the prefix tree may hold {} blocks", options.pool_tokens,
                           options.most_prefix_blocks);
  }
  const AttentionMode& attention = options.attention;
  if (attention.pattern != AttentionPattern::kAll && (attention.k < 1 || attention.k > kMaxPatternK)) {
    return InvalidArgument("an attention pattern of distance {}; 1 to {} are possible", attention.k, kMaxPatternK);
  }
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->pool = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : AvailableProcessors());
  impl->ctx.pool = impl->pool.get();
  impl->ctx.scratch = &impl->arena;
  impl->ctx.round_weights = !options.exact_prefill;
  ASSIGN_OR_RETURN(impl->ctx.kernels, SelectKernelSet());

  // The tokenizer first: it is small, and wrong files should be found before gigabytes are packed.
  ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(options.model));
  if (!options.pre_tokenizer.empty() && !files.gguf) {
    return InvalidArgument("--pre is for GGUF files; the tokenizer beside {} says itself how text is divided",
                           options.model.string());
  }
  if (options.load_tokenizer) {
    auto tokenizer = files.gguf ? LoadTokenizer(*files.gguf, options.pre_tokenizer) : LoadTokenizer(files.folder);
    if (tokenizer.ok()) {
      impl->tokenizer = *std::move(tokenizer);
    } else if (tokenizer.status().code() == StatusCode::kNotFound) {
      LogInfo("{}", tokenizer.status().message());
    } else {
      return tokenizer.status();
    }
  }
  if (impl->tokenizer && impl->tokenizer->vocab().size > files.spec.vocab_size) {
    LogWarning("{}: the tokenizer has {} tokens, the model only {}; texts with one of the others are refused",
               options.model.string(), impl->tokenizer->vocab().size, files.spec.vocab_size);
  }
  ASSIGN_OR_RETURN(impl->defaults, LoadGenerationDefaults(files.folder, files.spec, impl->tokenizer.get()));
  // A model that asks for beam search by itself needs room for its beams.
  impl->options.max_sequences = std::max<int64_t>(options.max_sequences, impl->defaults.beams.num_beams);
  LoadOptions load{.dtype = options.dtype,
                   .weights = options.weights,
                   .rope = options.rope,
                   .progress = options.progress,
                   .planned = {}};
  load.planned = [&](const DecoderSpec& spec, const WeightNeed& weights) { return impl->PlanRun(spec, weights); };
  ASSIGN_OR_RETURN(impl->model, Model::Load(options.model, load, *impl->pool));
  KvCacheConfig config = CacheConfig(impl->model->spec(), impl->model->kv_shapes(), impl->run);
  config.paged.most_prefix_blocks = options.most_prefix_blocks;
  ASSIGN_OR_RETURN(impl->cache, MakeKvCache(impl->run.cache, config));
  impl->runner.emplace(*impl->model, *impl->cache, impl->ctx, options.prefill_chunk, options.attention);
  impl->load_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

const Model& Engine::model() const { return *impl_->model; }
const Tokenizer* Engine::tokenizer() const { return impl_->tokenizer.get(); }
const GenerationDefaults& Engine::defaults() const { return impl_->defaults; }
int64_t Engine::context() const { return impl_->plan.context; }
const MemoryPlan& Engine::memory_plan() const { return impl_->plan; }
double Engine::load_ms() const { return impl_->load_ms; }
const EngineOptions& Engine::options() const { return impl_->options; }
int Engine::threads() const { return impl_->pool->size(); }
ExecContext& Engine::exec() { return impl_->ctx; }

Result<std::shared_ptr<const TokenTrie>> Engine::token_trie() {
  if (impl_->token_trie) return impl_->token_trie;
  if (!impl_->tokenizer) {
    return NotFound("{}: this model has no tokenizer, so that nothing is known of its tokens' text",
                    impl_->options.model.string());
  }
  const std::vector<TokenId>& eos = impl_->defaults.eos;
  std::vector<std::string> bytes(static_cast<size_t>(impl_->tokenizer->vocab().size));
  for (TokenId id = 0; id < impl_->tokenizer->vocab().size; ++id) {
    if (std::ranges::find(eos, id) != eos.end()) continue;
    ASSIGN_OR_RETURN(bytes[static_cast<size_t>(id)], impl_->tokenizer->TokenBytes(id));
  }
  // Ids that the model's head does not have can never come.
  bytes.resize(std::min(bytes.size(), static_cast<size_t>(impl_->model->spec().vocab_size)));
  ASSIGN_OR_RETURN(impl_->token_trie, TokenTrie::Make(std::move(bytes)));
  return impl_->token_trie;
}

Result<const ChatTemplate*> Engine::chat_template() {
  if (!impl_->chat_template) {
    if (!impl_->tokenizer || impl_->tokenizer->chat_template().empty()) {
      return NotFound("{}: the model comes without a chat template", impl_->options.model.string());
    }
    ASSIGN_OR_RETURN(impl_->chat_template, ChatTemplate::Compile(impl_->tokenizer->chat_template()));
  }
  return &*impl_->chat_template;
}

MemoryReport Engine::Memory() const { return ReportMemory(*impl_->model); }

KvBlockUse Engine::CacheBlocks() const { return impl_->cache->BlockUse(); }

const KvCache& Engine::cache() const { return *impl_->cache; }

Status Engine::CheckRequest(const GenerationRequest& request) const { return impl_->CheckRequest(request); }

MemoryReport ReportMemory(const Model& model) {
  return {.weights = model.weight_bytes(),
          .kv_cache = GetMemoryUse(MemoryOwner::kKvCache).peak,
          .activation_peak = GetMemoryUse(MemoryOwner::kActivations).peak,
          .process_peak = PeakResidentMemory()};
}

Status Engine::Impl::CheckRequest(const GenerationRequest& request) const {
  const int32_t vocab = model->spec().vocab_size;
  if (request.prompt.empty()) {
    return InvalidArgument("the prompt has no tokens; give some text (the model has no BOS token to begin with)");
  }
  for (TokenId id : request.prompt) {
    if (id >= 0 && id < vocab) continue;
    const bool misfit = tokenizer && id >= vocab && id < tokenizer->vocab().size;
    return InvalidArgument("the prompt's token id {} is outside the model's vocabulary of {}{}", id, vocab,
                           misfit ? "; its tokenizer is for a larger one" : "");
  }
  const int64_t length = static_cast<int64_t>(request.prompt.size());
  if (length >= plan.context) {
    return InvalidArgument(
        "the prompt has {} tokens, the context holds {} and needs room for an answer; shorten the "
        "prompt or raise -c",
        length, plan.context);
  }
  if (request.max_new_tokens < 1)
    return InvalidArgument("-n {}: at least 1 new token is needed", request.max_new_tokens);
  RETURN_IF_ERROR(request.sampling.Validate(vocab));
  const int64_t wanted = std::max<int64_t>(request.n, request.beams.num_beams);
  if (request.top_logprobs < 0 || request.top_logprobs > kMostTopLogprobs) {
    return InvalidArgument("{} of the most probable tokens of each place were asked for; 0 to {} can be told",
                           request.top_logprobs, kMostTopLogprobs);
  }
  if (request.n < 1 || request.beams.num_beams < 1 || wanted > options.max_sequences) {
    return InvalidArgument("{} sequences at once; at least 1 and at most {} are possible", wanted,
                           options.max_sequences);
  }
  if (request.beams.num_return < 1 || request.beams.num_return > std::max(request.beams.num_beams, 1)) {
    return InvalidArgument("{} sequences cannot be returned from {} beams", request.beams.num_return,
                           request.beams.num_beams);
  }
  if (!std::isfinite(request.beams.length_penalty)) return InvalidArgument("the length penalty is not a number");
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return InvalidArgument("a stop string is empty");
  }
  if (request.constraint && request.beams.num_beams > 1) {
    return Unsupported("beam search cannot keep to a JSON schema; use samples");
  }
  if (request.keep && wanted > 1) return InvalidArgument("only a single sequence can be kept for reuse");
  return OkStatus();
}

Result<GenerationOutput> Engine::Generate(const GenerationRequest& request, const TextCallback& on_text) {
  RETURN_IF_ERROR(impl_->CheckRequest(request));
  const GenerationContext context{.runner = *impl_->runner,
                                  .cache = *impl_->cache,
                                  .policy = impl_->options.cache,
                                  .context = impl_->plan.context,
                                  .tokenizer = impl_->tokenizer.get(),
                                  .eos = impl_->defaults.eos,
                                  .kept = impl_->kept};
  auto output = request.beams.num_beams > 1 ? GenerateBeams(context, request, on_text)
                                            : GenerateSamples(context, request, on_text);
  if (!output.ok()) return output.status();
  output->timings.load_ms = impl_->load_ms;
  output->memory = Memory();
  return output;
}

Result<std::unique_ptr<BatchLoop>> Engine::Batch(const SchedulerOptions& options) {
  if (impl_->options.cache.Recomputes() || !impl_->cache->SlotsArePositions()) {
    return Unsupported("many requests at once need a cache that keeps every token: --cache dynamic, static or paged");
  }
  if (options.max_running < 1 || options.max_running > impl_->options.max_sequences) {
    return InvalidArgument("{} sequences at once; the cache is made for 1 to {}", options.max_running,
                           impl_->options.max_sequences);
  }
  if (options.step_tokens < 1 || options.max_waiting < 1) {
    return InvalidArgument("steps of {} tokens and {} sequences that may wait; each is at least 1", options.step_tokens,
                           options.max_waiting);
  }
  DropKept();
  SchedulerOptions bounded = options;
  // One pass for each step.
  bounded.step_tokens = std::min(options.step_tokens, impl_->options.prefill_chunk);
  return std::make_unique<BatchLoop>(
      BatchContext{
          .runner = *impl_->runner,
          .cache = *impl_->cache,
          .samples = {.context = impl_->plan.context, .tokenizer = impl_->tokenizer.get(), .eos = impl_->defaults.eos},
          .check = [impl = impl_.get()](const GenerationRequest& r) { return impl->CheckRequest(r); }},
      bounded);
}

void Engine::DropKept() {
  if (impl_->kept.seq) impl_->cache->Release(*impl_->kept.seq);
  impl_->kept = {};
}

Result<SessionLimits> Engine::Impl::Sessions() const {
  if (options.cache.mode == CacheMode::kNone) {
    return Unsupported("sessions are of a KV cache, which --cache none does not have");
  }
  // What caches that keep every token hold does not depend on which of them it is.
  const std::string bounded = options.cache.bound.tokens > 0 ? ", cache " + options.cache.Text() : "";
  const AttentionMode& attention = options.attention;
  return SessionLimits{
      .identity = fmt::format("model {} in {}, KV cache {}, attention pattern {}:{}, RoPE {}{}", model->hash(),
                              DTypeName(model->dtype()), KvTypeName(plan.kv_type), static_cast<int>(attention.pattern),
                              attention.k, RopeIdentity(model->spec()), bounded),
      .layers = static_cast<int64_t>(model->kv_shapes().size()),
      .vocab = model->spec().vocab_size,
      .tokens = plan.context,
      .with_keys = !options.cache.Recomputes()};
}

Status Engine::CheckSessions() const { return impl_->Sessions().status(); }

Status Engine::SaveSession(const std::filesystem::path& file, std::string note) {
  ASSIGN_OR_RETURN(const SessionLimits limits, impl_->Sessions());
  const KeptSequence& kept = impl_->kept;
  return kvasir::SaveSession(file, limits,
                             {.tokens = kept.tokens, .planned_length = kept.planned_length, .note = std::move(note)},
                             *impl_->cache, kept.seq);
}

Result<std::string> Engine::LoadSession(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const SessionLimits limits, impl_->Sessions());
  std::optional<SeqId> seq;
  ASSIGN_OR_RETURN(Session session, kvasir::LoadSession(file, limits, *impl_->cache, [this] { DropKept(); }, &seq));
  const std::string scope = PrefixScope(impl_->model->spec(), session.planned_length, {});
  if (seq) impl_->cache->InsertPrefix(*seq, scope, session.tokens);
  impl_->kept = {.seq = seq, .tokens = std::move(session.tokens), .planned_length = session.planned_length, .salt = {}};
  return std::move(session.note);
}

/// Runs `tokens` from an empty cache.
Status Engine::Impl::RunText(std::span<const TokenId> tokens, int64_t first_row, bool one_by_one,
                             const LogitConsumer& consume) {
  ASSIGN_OR_RETURN(const SeqId seq, cache->Create());
  const bool in_steps = one_by_one && cache->bound().tokens > 0;
  const auto length = static_cast<int64_t>(tokens.size());
  const StepInput input{.seq = seq, .tokens = tokens, .planned_length = options.cache.bound.Reach(length)};
  const int64_t vocab = model->spec().vocab_size;
  Status status =
      runner->RunRows(input, first_row, in_steps ? 1 : length, [&](int64_t row, MatView<const float> hidden) -> Status {
        // Behind the hidden states, where the forward pass had its own.
        ASSIGN_OR_RETURN(float* data, arena.Allocate<float>(std::min(kTextLogitRows, hidden.rows) * vocab));
        for (int64_t at = 0; at < hidden.rows; at += kTextLogitRows) {
          const int64_t count = std::min(kTextLogitRows, hidden.rows - at);
          const MatView<float> logits(data, count, vocab);
          RETURN_IF_ERROR(model->Logits(ctx, hidden.Rows(at, count), logits));
          RETURN_IF_ERROR(consume(row + at, logits));
        }
        return OkStatus();
      });
  cache->Release(seq);
  return status;
}

/// Runs for each row the last tokens up to it (A10). Rows that a first whole window holds come from one pass.
Status Engine::Impl::RunWindows(std::span<const TokenId> tokens, int64_t first_row, int64_t every,
                                const LogitConsumer& consume) {
  const auto length = static_cast<int64_t>(tokens.size());
  const int64_t window = std::min(options.cache.bound.tokens, length);
  int64_t row = first_row;
  if (row < window) {
    RETURN_IF_ERROR(RunText(tokens.first(static_cast<size_t>(window)), row, false, consume));
    row += CeilDiv(window - row, every) * every;
  }
  for (; row < length; row += every) {
    const auto last = tokens.subspan(static_cast<size_t>(row + 1 - window), static_cast<size_t>(window));
    const auto shifted = [&](int64_t, MatView<const float> logits) { return consume(row, logits); };
    RETURN_IF_ERROR(RunText(last, window - 1, false, shifted));
  }
  return OkStatus();
}

Status Engine::ForEachLogits(std::span<const TokenId> tokens, int64_t first_row,
                             const std::function<Status(int64_t, MatView<const float>)>& consume) {
  return ForEachLogits(tokens, LogitRows{.first = first_row}, consume);
}

Status Engine::ForEachLogits(std::span<const TokenId> tokens, const LogitRows& rows,
                             const std::function<Status(int64_t, MatView<const float>)>& consume) {
  const auto length = static_cast<int64_t>(tokens.size());
  if (tokens.empty()) return InvalidArgument("there are no tokens to run");
  if (length > impl_->plan.context) {
    return InvalidArgument("{} tokens; the context holds {}: give fewer or a larger -c", length, impl_->plan.context);
  }
  if (rows.first < 0 || rows.first >= length) return InvalidArgument("row {} of {} tokens", rows.first, length);
  if (rows.every < 1) return InvalidArgument("every {}-th row", rows.every);
  DropKept();
  const auto choose = [&](int64_t row, MatView<const float> logits) -> Status {
    for (int64_t r = 0; r < logits.rows; ++r) {
      if ((row + r - rows.first) % rows.every == 0) RETURN_IF_ERROR(consume(row + r, logits.Rows(r, 1)));
    }
    return OkStatus();
  };
  const Impl::LogitConsumer chosen = rows.every == 1 ? consume : Impl::LogitConsumer(choose);
  if (impl_->options.cache.mode == CacheMode::kRecompute) {
    return impl_->RunWindows(tokens, rows.first, rows.every, chosen);
  }
  return impl_->RunText(tokens, rows.first, rows.one_by_one, chosen);
}

}  // namespace kvasir
