// A2's promise: scratch memory that does not grow with the text, where A1 holds every score.
#include "apps/techniques/attention_layer.h"
#include "apps/techniques/technique.h"
#include "base/limits.h"

namespace kvasir::apps {
namespace {

constexpr LayerShape kShape{.type = KvType::kBF16, .n_heads = 2, .kv_heads = 1, .head_dim = 128};

/// The most scratch memory that attention to the whole prompt takes, by the engine's own account.
Result<int64_t> PeakScratch(TechniqueBench& bench, const AttentionLayer& layer, int64_t tokens, bool plain) {
  Arena arena;
  ExecContext ctx = bench.ctx;
  ctx.scratch = &arena;
  const AttentionArgs args = layer.Prompt(tokens);
  ResetMemoryPeaks();
  const int64_t before = GetMemoryUse(MemoryOwner::kActivations).current;
  RETURN_IF_ERROR(plain ? AttentionPlain(ctx, {&args, 1}) : Attention(ctx, {&args, 1}));
  return GetMemoryUse(MemoryOwner::kActivations).peak - before;
}

/// What A1 takes: scores in fp32, and keys and values widened to fp32.
int64_t PlainBytes(int64_t tokens) {
  return 4 * tokens * tokens * kShape.n_heads + 2 * 4 * tokens * kShape.kv_heads * kShape.head_dim;
}

}  // namespace

Result<Section> MeasureAttentionMemory(TechniqueBench& bench) {
  const int64_t first = bench.quick ? 256 : 1024;
  const int64_t last = bench.quick ? 2048 : 65536;
  const int64_t last_plain = bench.quick ? 512 : 16384;
  Section section;
  section.notes = {
      fmt::format("Causal attention of a whole prompt to itself in one layer of {} query heads that share one KV head "
                  "of {} values, cache in bf16. Scratch memory is the peak that the engine's own account (by owner, "
                  "P7) saw during the call.",
                  kShape.n_heads, kShape.head_dim),
      fmt::format("A1 is --attention plain: it holds 4·T² bytes of scores for each query head, and keys and values "
                  "widened to fp32. It is measured up to {} tokens and computed beyond, or where memory does not "
                  "suffice.",
                  last_plain),
      "N5, for reference: the scores of 40 heads in bf16 take 40·2·T² bytes."};
  section.columns = {{.key = "tokens", .title = "tokens"},
                     {.key = "heads", .title = "heads"},
                     {.key = "head_dim", .title = "head size"},
                     {.key = "a2_scratch_bytes", .title = "A2 scratch", .bytes = true},
                     {.key = "a1_scratch_bytes", .title = "A1 scratch", .bytes = true},
                     {.key = "a1_source", .title = "A1 is"},
                     {.key = "a1_score_bytes_per_head", .title = "A1 scores a head", .bytes = true},
                     {.key = "n5_bytes", .title = "40 heads, bf16 (N5)", .bytes = true}};
  Series tiles{.name = "A2, measured", .points = {}};
  Series plain{.name = "A1, measured", .points = {}};
  Series computed{.name = "A1, computed", .points = {}, .dashed = true, .color = 1};
  Series n5{.name = "N5: scores of 40 heads in bf16", .points = {}, .dashed = true};
  ASSIGN_OR_RETURN(const AttentionLayer layer, AttentionLayer::Make(bench.ctx, kShape, last, last));
  for (int64_t tokens = first; tokens <= last; tokens *= 2) {
    ASSIGN_OR_RETURN(const int64_t a2, PeakScratch(bench, layer, tokens, false));
    const bool measured = tokens <= last_plain && PlainBytes(tokens) <= AvailableMemory() / 2;
    int64_t a1 = PlainBytes(tokens);
    if (measured) {
      ASSIGN_OR_RETURN(a1, PeakScratch(bench, layer, tokens, true));
    }
    const int64_t widened = PlainBytes(tokens) - 4 * tokens * tokens * kShape.n_heads;
    const int64_t reference = 40 * 2 * tokens * tokens;
    section.rows.push_back({tokens, int64_t{kShape.n_heads}, int64_t{kShape.head_dim}, a2, a1,
                            measured ? "measured" : "computed", (a1 - widened) / kShape.n_heads, reference});
    const auto x = static_cast<double>(tokens);
    tiles.points.emplace_back(x, static_cast<double>(a2));
    if (measured) plain.points.emplace_back(x, static_cast<double>(a1));
    // The computed line begins where the measured one ends.
    if (!measured || tokens * 2 > last_plain) computed.points.emplace_back(x, static_cast<double>(a1));
    n5.points.emplace_back(x, static_cast<double>(reference));
  }
  section.plots = {{.title = "Scratch memory of one layer's attention",
                    .x = {.label = "tokens of the prompt", .unit = AxisUnit::kTokens, .log = true},
                    .y = {.label = "bytes", .unit = AxisUnit::kBytes, .log = true},
                    .series = {tiles, plain, computed, n5},
                    .bars = {}}};
  return section;
}

}  // namespace kvasir::apps
