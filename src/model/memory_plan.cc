#include "model/memory_plan.h"

#include <algorithm>
#include <limits>
#include <set>

#include "base/checked.h"
#include "base/limits.h"
#include "model/activation_bytes.h"

namespace kvasir {
std::vector<KvLayerShape> KvShapes(const DecoderSpec& spec) {
  std::vector<KvLayerShape> shapes;
  shapes.reserve(spec.layers.size());
  for (const LayerSpec& layer : spec.layers) {
    shapes.push_back({layer.attention.n_kv_heads, layer.attention.head_dim});
  }
  return shapes;
}

namespace {

constexpr int64_t kUnknownContext = 2048;  // when a model does not say what it was trained on
// Beside weights, caches and activations: stacks, tables of blocks, texts, the allocator's slack and the ends of huge
// pages. (A run of a model of 6 MiB takes some 20 MiB in all.)
constexpr int64_t kProcessReserve = int64_t{32} << 20;
// Values per token of the vocabulary that samplers keep: scores, an order and weights, and counts for each sequence.
constexpr int64_t kSamplerBytes = 24;
constexpr int64_t kSequenceSamplerBytes = 8;
constexpr int64_t kBeyondAll = int64_t{1} << 58;
constexpr int64_t kPackingPages = int64_t{64} << 20;  // read ahead of being given back, per thread
constexpr int64_t kSmallChunk = 32;

bool IsRing(CacheKind kind) { return kind == CacheKind::kWindow || kind == CacheKind::kSink; }

/// Whether every step runs its tokens from position 0 on (A10).
bool Recomputes(const RunShape& run) { return run.bound.tokens > 0 && !IsRing(run.cache); }

/// Sets the plan's bytes of the cache, and the tokens of its pool.
Status PlanKvCache(const DecoderSpec& spec, const RunShape& run, MemoryPlan& plan) {
  plan.kv_cache = kBeyondAll;
  if (run.context > kMostKvTokens || run.CachedTokens() > kMostKvTokens) return OkStatus();
  // Rings that began as forks share no block once they have gone round, nor do tokens that are run again.
  const bool all = run.cache == CacheKind::kStatic || run.bound.tokens > 0;
  const int64_t full = all ? run.sequences : std::min(run.full_sequences, run.sequences);
  const std::vector<KvLayerShape> shapes = KvShapes(spec);
  if (run.cache == CacheKind::kPaged) {
    const auto pool = PagedPoolSize(CacheConfig(spec, shapes, run));
    if (!pool.ok() && pool.status().code() != StatusCode::kResourceExhausted) return pool.status();
    if (!pool.ok() || pool->bytes > kBeyondAll) return OkStatus();
    plan.kv_cache = pool->bytes;
    plan.pool_tokens = pool->tokens;
    return OkStatus();
  }
  // A cache without sequences takes nothing yet.
  ASSIGN_OR_RETURN(const std::unique_ptr<KvCache> cache, MakeKvCache(run.cache, CacheConfig(spec, shapes, run)));
  const auto bytes = CheckedMul(cache->BytesFor(run.CachedTokens()), full);
  if (!bytes || *bytes > kBeyondAll) return OkStatus();
  // A pool that more sequences may want to use doubles, by at most a slab.
  constexpr int64_t kLargestSlab = int64_t{64} << 20;
  plan.kv_cache = *bytes + (full < run.sequences ? std::min(*bytes, kLargestSlab) : 0);
  return OkStatus();
}

int64_t TrainedContext(const DecoderSpec& spec) { return spec.context > 0 ? spec.context : kUnknownContext; }

/// The most positions a model can take at all; 0: no bound.
int64_t HardContextLimit(const DecoderSpec& spec) {
  const auto* learned = std::get_if<LearnedPosition>(&spec.position);
  return learned ? learned->rows - learned->offset : 0;
}

/// What bounds the tokens that a run's cache holds.
int64_t& CacheLimit(RunShape& run) {
  if (run.pool_tokens > 0) return run.pool_tokens;
  return run.bound.tokens > 0 ? run.bound.tokens : run.context;
}

/// The most tokens up to `most` that the cache can hold so that the plan fits; 0: not even one.
int64_t LongestCache(const DecoderSpec& spec, const WeightNeed& weights, RunShape run, int64_t most,
                     int64_t available) {
  int64_t fits = run.bound.sinks;  // which alone are no cache
  int64_t beyond = most + 1;
  while (beyond - fits > 1) {
    CacheLimit(run) = fits + (beyond - fits) / 2;
    const auto plan = PlanMemory(spec, weights, run);
    (plan.ok() && plan->Needed() <= available ? fits : beyond) = CacheLimit(run);
  }
  return fits > run.bound.sinks ? fits : 0;
}

/// A bounded cache has to go together with the model's positions.
Status CheckBound(const DecoderSpec& spec, const RunShape& run) {
  const int64_t hard = HardContextLimit(spec);
  if (Recomputes(run) && hard > 0 && run.bound.tokens > hard) {
    return InvalidArgument("--cache recompute:{} is beyond the model's {} learned positions", run.bound.tokens, hard);
  }
  const bool added = std::holds_alternative<LearnedPosition>(spec.position) ||
                     std::holds_alternative<SinusoidalPosition>(spec.position);
  if (run.cache == CacheKind::kSink && added) {
    return InvalidArgument(
        "--cache sink: this model adds positions to its embedding, so that keys in a cache cannot move to other ones; "
        "--cache recompute:L runs texts of any length with it");
  }
  // Kernels find what a stride leaves by slot.
  const auto strided = [&](int64_t layer) { return PatternOf(run.attention, layer, 0).stride > 1; };
  if (run.bound.tokens > 0 && !Recomputes(run) && (strided(0) || strided(1))) {
    return InvalidArgument(
        "--attention atrous and sparse do not go together with --cache window and sink, in which tokens stand where "
        "others were dropped; --attention local:K does, and --cache recompute:L with any pattern");
  }
  return OkStatus();
}

/// The context of a run that asks for none, before it is known whether it fits.
int64_t DefaultContext(const DecoderSpec& spec, const RunShape& run) {
  const int64_t hard = HardContextLimit(spec);
  if (Recomputes(run)) return kMostKvTokens;
  if (run.bound.tokens > 0) return hard > 0 ? hard : kMostKvTokens;
  return hard > 0 ? std::min(TrainedContext(spec), hard) : TrainedContext(spec);
}

/// What would make the plan smaller, with how much; at least one proposal.
std::string Remedies(const MemoryPlan& plan, const DecoderSpec& spec, const WeightNeed& weights, const RunShape& run,
                     int64_t available) {
  std::vector<std::string> remedies;
  const auto saved_by = [&](const auto& change) {
    RunShape other = run;
    change(other);
    const auto smaller = PlanMemory(spec, weights, other);
    return smaller.ok() ? plan.Needed() - smaller->Needed() : 0;
  };
  const int64_t most = run.pool_tokens > 0 ? run.pool_tokens : run.CachedTokens();
  const int64_t tokens = LongestCache(spec, weights, run, std::min(most, kMostKvTokens), available);
  if (tokens > 0 && run.pool_tokens > 0) {
    remedies.push_back(fmt::format("--pool-tokens {} fits", tokens));
  } else if (tokens > 0) {
    remedies.push_back(run.bound.tokens > 0 ? fmt::format("a --cache of {} tokens fits", tokens)
                                            : fmt::format("-c {} fits", tokens));
  }
  for (KvType type : {KvType::kBF16, KvType::kI8}) {
    const int64_t saved = saved_by([type](RunShape& other) { other.kv_type = type; });
    if (saved > 0) remedies.push_back(fmt::format("--kv-type {} saves {}", KvTypeName(type), GigabytesText(saved)));
  }
  if (run.chunk > kSmallChunk) {
    const int64_t saved = saved_by([](RunShape& other) { other.chunk = kSmallChunk; });
    if (saved > plan.Needed() / 20) {
      remedies.push_back(fmt::format("-b {} saves {}", kSmallChunk, GigabytesText(saved)));
    }
  }
  if (!plan.weights_mapped && plan.weights > plan.Needed() / 10) {
    if (plan.dtype == DType::kF32) {
      remedies.push_back(fmt::format("--dtype bf16 saves {}", GigabytesText(plan.weights / 2)));
    }
    if (DTypeBlockSize(plan.dtype) == 1) {
      remedies.push_back("--weights int8 and --weights nf4 hold the layers in 8 and 4.5 bits a weight");
    }
    remedies.push_back("`kvasir pack` on a larger machine makes a file whose weights are mapped, not held");
    remedies.push_back("a file of lower precision takes less");
  }
  if (remedies.empty()) remedies.push_back("free some memory");
  return fmt::format("{}", fmt::join(remedies, "; "));
}

}  // namespace

WeightNeed NeedOfWeights(const WeightPlan& plan, bool mapped, int threads) {
  WeightNeed need{.bytes = plan.bytes, .mapped = mapped, .source_pages = 0, .dtypes = plan.dtypes, .matrices = {}};
  std::set<MatrixShape> shapes;
  std::set<const RawTensor*> sources;
  int64_t all_pages = 0;
  int64_t kept_pages = 0;  // of rows that do not lie one after another: nothing is given back while they are read
  for (const WeightSlot& slot : plan.slots) {
    if (slot.matrix) shapes.insert({slot.format, slot.rows, slot.cols, slot.gated, slot.bytes_behind > 0});
    for (const auto* segments : {&slot.segments, &slot.gate_segments}) {
      for (const RowSegment& segment : *segments) {
        if (!sources.insert(segment.tensor).second) continue;
        all_pages += segment.tensor->bytes;
        if (segment.transposed || segment.step != 1) kept_pages += segment.tensor->bytes;
      }
    }
  }
  need.matrices.assign(shapes.begin(), shapes.end());
  if (!mapped) need.source_pages = std::min(all_pages, kept_pages + threads * kPackingPages);
  return need;
}

KvType DefaultKvType(DType weights) { return weights == DType::kF32 ? KvType::kF32 : KvType::kBF16; }

KvCacheConfig CacheConfig(const DecoderSpec& spec, std::span<const KvLayerShape> layers, const RunShape& run) {
  const bool ring = IsRing(run.cache);
  return {.layers = layers,
          .type = run.kv_type,
          .max_tokens = ring ? run.context : run.CachedTokens(),
          .max_sequences = run.sequences,
          .bound = ring ? run.bound : KvBound{},
          .rotated_keys = std::holds_alternative<RopePosition>(spec.position),
          .paged = {.block_tokens = run.block_tokens, .pool_tokens = run.pool_tokens}};
}

Result<MemoryPlan> PlanMemory(const DecoderSpec& spec, const WeightNeed& weights, const RunShape& run) {
  RETURN_IF_ERROR(CheckBound(spec, run));
  MemoryPlan plan;
  plan.parameters = ParameterCount(spec);
  plan.dtype = weights.dtype();
  plan.weights = weights.bytes;
  plan.weights_mapped = weights.mapped;
  plan.kv_type = run.kv_type;
  plan.context = run.context;
  plan.cached_tokens = run.CachedTokens();
  plan.kv_bytes_per_token = KvBytesPerToken(KvShapes(spec), run.kv_type);
  RETURN_IF_ERROR(PlanKvCache(spec, run, plan));
  RunShape bounded = run;
  bounded.context = std::min(run.CachedTokens(), kMostKvTokens);
  plan.activations = ActivationBytes(spec, weights.matrices, bounded);
  plan.process = kProcessReserve + spec.vocab_size * (kSamplerBytes + kSequenceSamplerBytes * run.sequences);
  plan.process_peak = std::max(
      PeakResidentMemory(), ResidentMemory() + plan.Needed() + (weights.mapped ? weights.bytes : weights.source_pages));
  return plan;
}

/// A pool in which every sequence finds its whole context is rarely filled. Where it would take more than half of what
/// is free beside the rest, it gets that half, or one whole context where this is more and fits.
Status ChoosePool(const DecoderSpec& spec, const WeightNeed& weights, int64_t available, RunShape& run) {
  ASSIGN_OR_RETURN(const MemoryPlan whole, PlanMemory(spec, weights, run));
  const int64_t half = (available - (whole.Needed() - whole.kv_cache)) / 2;
  if (whole.kv_cache <= half || half <= 0 || whole.kv_bytes_per_token <= 0) return OkStatus();
  run.pool_tokens = std::clamp(half / whole.kv_bytes_per_token, run.context, kMostKvTokens);
  ASSIGN_OR_RETURN(const MemoryPlan shared, PlanMemory(spec, weights, run));
  if (shared.Needed() > available) run.pool_tokens = 0;
  return OkStatus();
}

Result<MemoryPlan> FitMemory(const DecoderSpec& spec, const WeightNeed& weights, RunShape run, int64_t available) {
  const int64_t hard = HardContextLimit(spec);
  const int64_t trained = TrainedContext(spec);
  const bool asked = run.context > 0;
  const bool bounded = run.bound.tokens > 0;
  if (!asked) run.context = DefaultContext(spec, run);
  if (asked && hard > 0 && run.context > hard && !Recomputes(run)) {
    return InvalidArgument("-c {} is beyond the model's {} learned positions", run.context, hard);
  }
  const bool pool = run.pool_tokens > 0;
  if (pool && asked && run.context > run.pool_tokens) {
    return InvalidArgument("--pool-tokens {} are too few for one sequence of -c {}", run.pool_tokens, run.context);
  }
  if (pool) run.context = std::min(run.context, run.pool_tokens);
  if (!pool && run.cache == CacheKind::kPaged && run.sequences > 1) {
    RETURN_IF_ERROR(ChoosePool(spec, weights, available, run));
  }
  ASSIGN_OR_RETURN(MemoryPlan plan, PlanMemory(spec, weights, run));
  const int64_t wanted = run.context;
  if (!asked && !bounded && !pool && plan.Needed() > available) {
    const int64_t fits = LongestCache(spec, weights, run, wanted, available);
    if (fits > 0) {
      run.context = fits;
      ASSIGN_OR_RETURN(plan, PlanMemory(spec, weights, run));
      plan.note = fmt::format("context {} of {} tokens: that is what fits into {} of free memory", fits, wanted,
                              GigabytesText(available));
    }
  }
  RETURN_IF_ERROR(CheckFits(plan, spec, weights, run, available));
  // With sinks, and where tokens are run again, no position is beyond the cache.
  const bool within = run.cache == CacheKind::kSink || Recomputes(run);
  if (asked && wanted > trained && !within) {
    plan.note = fmt::format("context {} is beyond the {} tokens the model was trained on", wanted, trained);
  } else if (bounded && plan.cached_tokens > trained) {
    plan.note =
        fmt::format("--cache keeps {} tokens, more than the {} the model was trained on", plan.cached_tokens, trained);
  }
  if (weights.mapped && plan.Needed() + plan.weights > available) {
    plan.note += fmt::format(
        "{}the {} of packed weights do not fit into the memory that is free beside the rest: they will be read from "
        "the file again and again, which is slow",
        plan.note.empty() ? "" : "; ", GigabytesText(plan.weights));
  }
  return plan;
}

Status CheckFits(const MemoryPlan& plan, const DecoderSpec& spec, const WeightNeed& weights, const RunShape& run,
                 int64_t available) {
  if (plan.Needed() <= available) return OkStatus();
  return ResourceExhausted("{}; {}", plan.Text(available), Remedies(plan, spec, weights, run, available));
}

std::string MemoryPlan::Text(int64_t available) const {
  return fmt::format("needs {}, {} free: weights {} as {}{}, KV cache {} for {} tokens, activations {}, process {}",
                     GigabytesText(Needed()), GigabytesText(available), GigabytesText(weights), DTypeName(dtype),
                     weights_mapped ? " (mapped from the packed file: page cache, not counted)" : "",
                     GigabytesText(kv_cache), pool_tokens > 0 ? pool_tokens : cached_tokens, GigabytesText(activations),
                     GigabytesText(process));
}

std::string GigabytesText(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 999.5e6) return fmt::format("{:.1f} GB", value / 1e9);
  if (value >= 9.95e6) return fmt::format("{:.0f} MB", value / 1e6);
  if (value >= 999.5e3) return fmt::format("{:.1f} MB", value / 1e6);
  return value >= 9.95e3 ? fmt::format("{:.0f} kB", value / 1e3) : fmt::format("{:.1f} kB", value / 1e3);
}

}  // namespace kvasir
