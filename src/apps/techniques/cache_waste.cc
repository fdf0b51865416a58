// A4: what blocks leave unused of a KV cache, and what reserving the maximum does, over a trace of real requests.
#include <algorithm>

#include "apps/techniques/technique.h"
#include "kv/cache.h"

namespace kvasir::apps {
namespace {

struct Policy {
  std::string name;
  CacheKind kind;
  int64_t context;  // tokens of the longest sequence; requests beyond it are refused
};

struct Waste {
  int64_t requests = 0;
  int64_t refused = 0;
  int64_t used = 0;       // tokens at the end of each request, summed over the requests
  int64_t allocated = 0;  // slots
  int64_t block_slots = 0;

  double percent() const {
    return allocated > 0 ? 100.0 * static_cast<double>(allocated - used) / static_cast<double>(allocated) : 0.0;
  }
};

/// Runs a request's tokens through the cache as generation does: the prompt at once, then one after another.
Status Fill(KvCache& cache, SeqId seq, const TraceRequest& request) {
  const auto add = [&](int64_t tokens) -> Status {
    if (!cache.Reserve(seq, tokens)) return ResourceExhausted("no memory for {} tokens", request.tokens());
    cache.Commit(seq, tokens);
    return OkStatus();
  };
  if (request.context_tokens > 0) RETURN_IF_ERROR(add(request.context_tokens));
  for (int64_t i = 0; i < request.generated_tokens; ++i) RETURN_IF_ERROR(add(1));
  return OkStatus();
}

Result<Waste> Measure(const Policy& policy, const std::vector<TraceRequest>& trace) {
  constexpr KvLayerShape kLayer{.kv_heads = 1, .head_dim = 1};  // what is counted are slots
  ASSIGN_OR_RETURN(const std::unique_ptr<KvCache> cache,
                   MakeKvCache(policy.kind, {.layers = {&kLayer, 1}, .max_tokens = policy.context}));
  Waste waste{.block_slots = cache->BlockSlots()};
  for (const TraceRequest& request : trace) {
    if (request.tokens() > policy.context) {
      ++waste.refused;
      continue;
    }
    ASSIGN_OR_RETURN(const SeqId seq, cache->Create());
    RETURN_IF_ERROR(Fill(*cache, seq, request));
    ++waste.requests;
    waste.used += cache->KeptTokens(seq);
    waste.allocated += cache->BytesInUse() / cache->BlockBytes(0) * cache->BlockSlots();
    cache->Release(seq);
  }
  return waste;
}

}  // namespace

Result<Section> MeasureCacheWaste(TechniqueBench& bench) {
  Section section;
  if (bench.trace == nullptr) {
    section.notes = {"Not measured: give a trace of requests with --trace FILE."};
    return section;
  }
  constexpr int64_t kUsualContext = 8192;
  int64_t longest = 0;
  for (const TraceRequest& request : *bench.trace) longest = std::max(longest, request.tokens());
  const Policy policies[] = {
      {"small blocks from one pool (paged)", CacheKind::kPaged, longest},
      {"blocks as the text grows (dynamic)", CacheKind::kDynamic, longest},
      {"the longest request reserved (static)", CacheKind::kStatic, longest},
      {fmt::format("a context of {} reserved (static)", kUsualContext), CacheKind::kStatic, kUsualContext},
  };
  section.notes = {
      fmt::format("{} requests of the trace, the longest of {} tokens, one after another through caches of one tiny "
                  "layer: the prompt at once, then token after token. Slots are counted at each request's end by the "
                  "cache's own account and summed over the requests.",
                  bench.trace->size(), longest),
      "Published (PagedAttention, Kwon 2023, arXiv:2309.06180): reserving the maximum wastes 60 to 80 %, blocks under "
      "4 %."};
  section.columns = {{.key = "policy", .title = "KV cache"},
                     {.key = "block_slots", .title = "slots a block"},
                     {.key = "context", .title = "context"},
                     {.key = "requests", .title = "requests"},
                     {.key = "refused", .title = "too long"},
                     {.key = "used_slots", .title = "slots used"},
                     {.key = "allocated_slots", .title = "slots allocated"},
                     {.key = "waste_pct", .title = "wasted, %", .decimals = 2}};
  Plot plot{.title = "Slots allocated and never used",
            .x = {.label = "% of the slots allocated"},
            .y = {},
            .series = {},
            .bars = {}};
  for (const Policy& policy : policies) {
    ASSIGN_OR_RETURN(const Waste waste, Measure(policy, *bench.trace));
    section.rows.push_back({policy.name, waste.block_slots, policy.context, waste.requests, waste.refused, waste.used,
                            waste.allocated, waste.percent()});
    plot.bars.push_back({policy.name, waste.percent(), fmt::format("{:.1f} %", waste.percent())});
  }
  section.plots.push_back(std::move(plot));
  return section;
}

}  // namespace kvasir::apps
