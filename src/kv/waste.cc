#include "kv/waste.h"

namespace kvasir {

Result<double> MeasureKvWaste(KvCache& cache, std::span<const TextLengths> texts) {
  double slots = 0;
  double wasted = 0;
  for (const TextLengths& text : texts) {
    ASSIGN_OR_RETURN(const SeqId seq, cache.Create());
    bool fits = true;
    for (int64_t step = 0; fits && step <= text.answer; ++step) {
      const int64_t tokens = step == 0 ? text.prompt : 1;
      fits = cache.Reserve(seq, tokens);
      if (!fits) break;
      cache.Commit(seq, tokens);
      const KvBlockUse use = cache.BlockUse();
      slots += static_cast<double>(use.slots);
      wasted += static_cast<double>(use.wasted_slots);
    }
    cache.Release(seq);
    if (!fits) return ResourceExhausted("a text of {} + {} tokens does not fit the cache", text.prompt, text.answer);
  }
  return slots > 0 ? wasted / slots : 0.0;
}

}  // namespace kvasir
