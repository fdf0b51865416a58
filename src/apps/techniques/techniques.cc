#include <algorithm>

#include "apps/bench_run.h"
#include "apps/techniques/technique.h"

namespace kvasir::apps {
namespace {

template <class Fn>
void ForEachPart(std::string_view text, char separator, const Fn& fn) {
  while (true) {
    const size_t end = std::min(text.find(separator), text.size());
    fn(text.substr(0, end));
    if (end == text.size()) return;
    text.remove_prefix(end + 1);
  }
}

}  // namespace

const std::vector<Technique>& AllTechniques() {
  static const std::vector<Technique> all = {
      {"attention-memory", "A1 A2 N5", "Memory of attention: tiles (A2) against whole score matrices (A1)",
       MeasureAttentionMemory},
      {"attention-speed", "A1 A2", "Speed of a prompt's attention: tiles (A2) against whole score matrices (A1)",
       MeasureAttentionSpeed},
      {"attention-decode", "A3 A5", "Attention while decoding (A3): one query over a long cache",
       MeasureAttentionDecode},
      {"attention-patterns", "A6 A7 A8", "Attention that leaves keys out (A6 to A8) against full attention (A2)",
       MeasureAttentionPatterns},
      {"cache-waste", "A4", "KV cache: slots allocated and used, blocks against reserving the maximum (A4)",
       MeasureCacheWaste},
      {"cache-ratio", "K1 K2", "Writing a text with a KV cache (K2) and without (K1)", MeasureCacheRatio},
      {"streaming", "A9 A10 A11 K4",
       "A text without end: a window (A9), the window run again (A10), and attention sinks (A11)", MeasureStreaming},
      {"many-turns", "K5", "A conversation's first tokens, with and without the KV cache of earlier turns (K5)",
       MeasureManyTurns},
      {"kv-types", "K7", "Types of the KV cache (K7): bytes and speed of decoding", MeasureCacheTypes},
      {"batching", "V1 V2", "Many requests at once: batches that end together (V1), and continuous batching (V2)",
       MeasureBatching},
      {"chunked-prefill", "V3", "A long prompt among answers: run whole, and in chunks beside them (V3)",
       MeasureChunkedPrefill},
  };
  return all;
}

bool HasId(const Technique& technique, std::string_view id) {
  bool has = false;
  ForEachPart(technique.ids, ' ', [&](std::string_view own) { has = has || own == id; });
  return has;
}

Result<std::vector<Technique>> ChooseTechniques(std::string_view list) {
  const std::vector<Technique>& all = AllTechniques();
  if (list.empty()) return all;
  std::vector<bool> chosen(all.size(), false);
  Status status;
  ForEachPart(list, ',', [&](std::string_view word) {
    bool found = false;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].name != word && !HasId(all[i], word)) continue;
      found = true;
      chosen[i] = true;
    }
    if (found || !status.ok()) return;
    std::string known;
    for (const Technique& t : all) known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", t.name, t.ids);
    status = InvalidArgument("\"{}\" is none of {}", word, known);
  });
  RETURN_IF_ERROR(status);
  std::vector<Technique> result;
  for (size_t i = 0; i < all.size(); ++i) {
    if (chosen[i]) result.push_back(all[i]);
  }
  return result;
}

Result<std::unique_ptr<Engine>> LoadTechniqueEngine(const TechniqueBench& bench, CacheMode cache, int64_t context,
                                                    int64_t sequences) {
  return LoadTechniqueEngine(bench, CachePolicy{.mode = cache}, context, sequences);
}

Result<std::unique_ptr<Engine>> LoadTechniqueEngine(const TechniqueBench& bench, const CachePolicy& cache,
                                                    int64_t context, int64_t sequences) {
  EngineOptions options = bench.model->Options();
  options.threads = bench.ctx.pool->size();
  options.cache = cache;
  options.context = context;
  options.max_sequences = sequences;
  options.exact_prefill = true;
  options.load_tokenizer = false;
  return LoadEngine(*bench.model, std::move(options), true);
}

}  // namespace kvasir::apps
