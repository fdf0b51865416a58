#include "model/memory_plan.h"

#include <algorithm>
#include <limits>
#include <set>

#include "base/checked.h"
#include "base/limits.h"
#include "model/activation_bytes.h"

namespace kvasir {
namespace {

constexpr int64_t kUnknownContext = 2048;  // when a model does not say what it was trained on
// Beside weights, caches and activations: stacks, tables of blocks, texts, the allocator's slack and the ends of huge
// pages. (A run of a model of 6 MiB takes some 20 MiB in all.)
constexpr int64_t kProcessReserve = int64_t{32} << 20;
// Values per token of the vocabulary that samplers keep: scores, an order and weights, and counts for each sequence.
constexpr int64_t kSamplerBytes = 24;
constexpr int64_t kSequenceSamplerBytes = 8;
constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max() - 4096;  // that a cache can count
constexpr int64_t kBeyondAll = int64_t{1} << 58;
constexpr int64_t kPackingPages = int64_t{64} << 20;  // read ahead of being given back, per thread
constexpr int64_t kSmallChunk = 32;

std::vector<KvLayerShape> KvShapes(const DecoderSpec& spec) {
  std::vector<KvLayerShape> shapes;
  shapes.reserve(spec.layers.size());
  for (const LayerSpec& layer : spec.layers) {
    shapes.push_back({layer.attention.n_kv_heads, layer.attention.head_dim});
  }
  return shapes;
}

Result<int64_t> KvCacheBytes(const std::vector<KvLayerShape>& shapes, const RunShape& run) {
  if (run.context > kMostTokens) return kBeyondAll;
  const int64_t full = run.cache == CacheKind::kStatic ? run.sequences : std::min(run.full_sequences, run.sequences);
  // A cache without sequences takes nothing yet.
  ASSIGN_OR_RETURN(
      const std::unique_ptr<KvCache> cache,
      MakeKvCache(run.cache,
                  {.layers = shapes, .type = run.kv_type, .max_tokens = run.context, .max_sequences = run.sequences}));
  const auto bytes = CheckedMul(cache->BytesFor(run.context), full);
  if (!bytes || *bytes > kBeyondAll) return kBeyondAll;
  // A pool that more sequences may want to use doubles, by at most a slab.
  constexpr int64_t kLargestSlab = int64_t{64} << 20;
  return *bytes + (full < run.sequences ? std::min(*bytes, kLargestSlab) : 0);
}

int64_t TrainedContext(const DecoderSpec& spec) { return spec.context > 0 ? spec.context : kUnknownContext; }

/// The most positions a model can take at all; 0: no bound.
int64_t HardContextLimit(const DecoderSpec& spec) {
  const auto* learned = std::get_if<LearnedPosition>(&spec.position);
  return learned ? learned->rows - learned->offset : 0;
}

/// The most tokens up to `most` for which the plan fits; 0: not even one.
int64_t LongestContext(const DecoderSpec& spec, const WeightNeed& weights, RunShape run, int64_t most,
                       int64_t available) {
  int64_t fits = 0;
  int64_t beyond = most + 1;
  while (beyond - fits > 1) {
    run.context = fits + (beyond - fits) / 2;
    const auto plan = PlanMemory(spec, weights, run);
    (plan.ok() && plan->Needed() <= available ? fits : beyond) = run.context;
  }
  return fits;
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
  const int64_t context = LongestContext(spec, weights, run, std::min(run.context, kMostTokens), available);
  if (context > 0) remedies.push_back(fmt::format("-c {} fits", context));
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

Result<MemoryPlan> PlanMemory(const DecoderSpec& spec, const WeightNeed& weights, const RunShape& run) {
  const std::vector<KvLayerShape> shapes = KvShapes(spec);
  MemoryPlan plan;
  plan.parameters = ParameterCount(spec);
  plan.dtype = weights.dtype();
  plan.weights = weights.bytes;
  plan.weights_mapped = weights.mapped;
  plan.kv_type = run.kv_type;
  plan.context = run.context;
  plan.kv_bytes_per_token = KvBytesPerToken(shapes, run.kv_type);
  ASSIGN_OR_RETURN(plan.kv_cache, KvCacheBytes(shapes, run));
  RunShape bounded = run;
  bounded.context = std::min(run.context, kMostTokens);
  plan.activations = ActivationBytes(spec, weights.matrices, bounded);
  plan.process = kProcessReserve + spec.vocab_size * (kSamplerBytes + kSequenceSamplerBytes * run.sequences);
  plan.process_peak = std::max(
      PeakResidentMemory(), ResidentMemory() + plan.Needed() + (weights.mapped ? weights.bytes : weights.source_pages));
  return plan;
}

Result<MemoryPlan> FitMemory(const DecoderSpec& spec, const WeightNeed& weights, RunShape run, int64_t available) {
  const int64_t hard = HardContextLimit(spec);
  const int64_t trained = TrainedContext(spec);
  const bool asked = run.context > 0;
  if (!asked) run.context = hard > 0 ? std::min(trained, hard) : trained;
  if (asked && hard > 0 && run.context > hard) {
    return InvalidArgument("-c {} is beyond the model's {} learned positions", run.context, hard);
  }
  ASSIGN_OR_RETURN(MemoryPlan plan, PlanMemory(spec, weights, run));
  const int64_t wanted = run.context;
  if (!asked && plan.Needed() > available) {
    const int64_t fits = LongestContext(spec, weights, run, wanted, available);
    if (fits > 0) {
      run.context = fits;
      ASSIGN_OR_RETURN(plan, PlanMemory(spec, weights, run));
      plan.note = fmt::format("context {} of {} tokens: that is what fits into {} of free memory", fits, wanted,
                              GigabytesText(available));
    }
  }
  RETURN_IF_ERROR(CheckFits(plan, spec, weights, run, available));
  if (asked && wanted > trained) {
    plan.note = fmt::format("context {} is beyond the {} tokens the model was trained on", wanted, trained);
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
                     GigabytesText(kv_cache), context, GigabytesText(activations), GigabytesText(process));
}

std::string GigabytesText(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 999.5e6) return fmt::format("{:.1f} GB", value / 1e9);
  if (value >= 9.95e6) return fmt::format("{:.0f} MB", value / 1e6);
  if (value >= 999.5e3) return fmt::format("{:.1f} MB", value / 1e6);
  return value >= 9.95e3 ? fmt::format("{:.0f} kB", value / 1e3) : fmt::format("{:.1f} kB", value / 1e3);
}

}  // namespace kvasir
