#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/limits.h"
#include "base/log.h"
#include "engine/generation.h"
#include "engine/generation_config.h"
#include "engine/memory_need.h"
#include "engine/step_runner.h"

namespace kvasir {
namespace {

constexpr int64_t kUnknownContext = 2048;  // when a model does not say what it was trained on
// Left beside activations: stacks, tables of blocks, texts, the allocator's slack. (The whole process takes some 20 MiB
// with a model of 6 MiB.)
constexpr int64_t kProcessReserve = int64_t{32} << 20;
constexpr int64_t kLogitRows = 64;

int64_t TrainedContext(const DecoderSpec& spec) { return spec.context > 0 ? spec.context : kUnknownContext; }

/// The most positions a model can take at all; 0: no bound.
int64_t HardContextLimit(const DecoderSpec& spec) {
  const auto* learned = std::get_if<LearnedPosition>(&spec.position);
  return learned ? learned->rows - learned->offset : 0;
}

}  // namespace

struct Engine::Impl {
  EngineOptions options;
  std::unique_ptr<ThreadPool> pool;
  Arena arena;
  ExecContext ctx;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  GenerationDefaults defaults;
  KvType kv_type = KvType::kBF16;
  int64_t context = 0;
  std::string context_note;
  std::unique_ptr<KvCache> cache;
  std::optional<StepRunner> runner;
  KeptSequence kept;
  double load_ms = 0;

  Status ChooseContext();
  Status CheckRequest(const GenerationRequest& request) const;
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Status Engine::Impl::ChooseContext() {
  const DecoderSpec& spec = model->spec();
  const int64_t hard = HardContextLimit(spec);
  const int64_t trained = TrainedContext(spec);
  const int64_t wanted = options.context > 0 ? options.context : hard > 0 ? std::min(trained, hard) : trained;
  if (options.context > 0 && hard > 0 && wanted > hard) {
    return InvalidArgument("-c {} is beyond the model's {} learned positions", wanted, hard);
  }
  // Free memory is divided into a fixed part, which grows with the model's width and -b (a model of 1 B parameters at
  // -b 512 takes some 100 MB: 2·4 bytes · 512 tokens · 20,000 values, and 68 rows of logits), and one that grows with
  // the context. One sequence must fit in full; further ones share its prompt and are refused when memory runs out.
  const int64_t chunk = std::min(options.prefill_chunk, wanted);
  const int64_t fixed = kProcessReserve + ActivationBytes(spec, chunk, options.max_sequences);
  int64_t per_token = KvBytesPerToken(model->kv_shapes(), kv_type);
  if (options.plain_attention) per_token += PlainAttentionBytesPerToken(spec, chunk);
  const int64_t available = AvailableMemory();
  const int64_t fits = std::max<int64_t>(available - fixed, 0) / std::max<int64_t>(per_token, 1);
  const auto megabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  context = wanted;
  if (fits < 1) {
    return ResourceExhausted("no memory is left for a KV cache: {:.0f} MB are free, {:.0f} MB are needed beside it",
                             megabytes(available), megabytes(fixed));
  }
  if (fits < wanted && options.context > 0) {
    return ResourceExhausted(
        "-c {} needs {:.0f} MB of KV cache and {:.0f} MB beside it, {:.0f} MB are free; use a smaller -c", wanted,
        megabytes(per_token) * static_cast<double>(wanted), megabytes(fixed), megabytes(available));
  }
  if (fits < wanted) {
    context = fits;
    context_note =
        fmt::format("context {} of {} tokens: that is what fits into {:.0f} MB of free memory with {:.0f} MB beside it",
                    context, trained, megabytes(available), megabytes(fixed));
  } else if (wanted > trained) {
    context_note = fmt::format("context {} is beyond the {} tokens the model was trained on", wanted, trained);
  }
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
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->pool = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : AvailableProcessors());
  impl->ctx.pool = impl->pool.get();
  impl->ctx.scratch = &impl->arena;
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
  ASSIGN_OR_RETURN(
      impl->model,
      Model::Load(options.model, {.dtype = options.dtype, .weights = options.weights, .progress = options.progress},
                  *impl->pool));
  impl->kv_type = options.kv_type.value_or(impl->model->dtype() == DType::kF32 ? KvType::kF32 : KvType::kBF16);
  RETURN_IF_ERROR(impl->ChooseContext());
  ASSIGN_OR_RETURN(impl->cache,
                   MakeKvCache(options.cache == CacheMode::kStatic ? CacheKind::kStatic : CacheKind::kDynamic,
                               {.layers = impl->model->kv_shapes(),
                                .type = impl->kv_type,
                                .max_tokens = impl->context,
                                .max_sequences = impl->options.max_sequences}));
  impl->runner.emplace(*impl->model, *impl->cache, impl->ctx, options.prefill_chunk, options.plain_attention);
  impl->load_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

const Model& Engine::model() const { return *impl_->model; }
const Tokenizer* Engine::tokenizer() const { return impl_->tokenizer.get(); }
const GenerationDefaults& Engine::defaults() const { return impl_->defaults; }
int64_t Engine::context() const { return impl_->context; }
const std::string& Engine::context_note() const { return impl_->context_note; }
double Engine::load_ms() const { return impl_->load_ms; }
const EngineOptions& Engine::options() const { return impl_->options; }
int Engine::threads() const { return impl_->pool->size(); }
ExecContext& Engine::exec() { return impl_->ctx; }

Result<const ChatTemplate*> Engine::chat_template() {
  if (!impl_->chat_template) {
    if (!impl_->tokenizer || impl_->tokenizer->chat_template().empty()) {
      return NotFound("{}: the model comes without a chat template", impl_->options.model.string());
    }
    ASSIGN_OR_RETURN(impl_->chat_template, ChatTemplate::Compile(impl_->tokenizer->chat_template()));
  }
  return &*impl_->chat_template;
}

MemoryReport Engine::Memory() const {
  return {.weights = impl_->model->weight_bytes(),
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
  if (length >= context) {
    return InvalidArgument(
        "the prompt has {} tokens, the context holds {} and needs room for an answer; shorten the "
        "prompt or raise -c",
        length, context);
  }
  if (request.max_new_tokens < 1)
    return InvalidArgument("-n {}: at least 1 new token is needed", request.max_new_tokens);
  RETURN_IF_ERROR(request.sampling.Validate(vocab));
  const int64_t wanted = std::max<int64_t>(request.n, request.beams.num_beams);
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
  if (request.keep && wanted > 1) return InvalidArgument("only a single sequence can be kept for reuse");
  return OkStatus();
}

Result<GenerationOutput> Engine::Generate(const GenerationRequest& request, const TextCallback& on_text) {
  RETURN_IF_ERROR(impl_->CheckRequest(request));
  const GenerationContext context{.runner = *impl_->runner,
                                  .cache = *impl_->cache,
                                  .cache_mode = impl_->options.cache,
                                  .context = impl_->context,
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

void Engine::DropKept() {
  if (impl_->kept.seq) impl_->cache->Release(*impl_->kept.seq);
  impl_->kept = {};
}

Status Engine::ForEachLogits(std::span<const TokenId> tokens, int64_t first_row,
                             const std::function<Status(int64_t, MatView<const float>)>& consume) {
  const auto length = static_cast<int64_t>(tokens.size());
  if (tokens.empty()) return InvalidArgument("there are no tokens to run");
  if (length > impl_->context) {
    return InvalidArgument("{} tokens; the context holds {}: give fewer or a larger -c", length, impl_->context);
  }
  if (first_row < 0 || first_row >= length) return InvalidArgument("row {} of {} tokens", first_row, length);
  DropKept();
  ASSIGN_OR_RETURN(const SeqId seq, impl_->cache->Create());
  const auto run = [&]() -> Status {
    const int64_t vocab = impl_->model->spec().vocab_size;
    Arena arena;
    ASSIGN_OR_RETURN(float* data, arena.Allocate<float>(std::min(kLogitRows, length - first_row) * vocab));
    const StepInput input{.seq = seq, .tokens = tokens, .planned_length = length};
    return impl_->runner->RunRows(input, first_row, [&](int64_t row, MatView<const float> hidden) -> Status {
      for (int64_t at = 0; at < hidden.rows; at += kLogitRows) {
        const int64_t count = std::min(kLogitRows, hidden.rows - at);
        const MatView<float> logits(data, count, vocab);
        RETURN_IF_ERROR(impl_->model->Logits(impl_->ctx, hidden.Rows(at, count), logits));
        RETURN_IF_ERROR(consume(row + at, logits));
      }
      return OkStatus();
    });
  };
  Status status = run();
  impl_->cache->Release(seq);
  return status;
}

}  // namespace kvasir
