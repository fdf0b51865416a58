// How much of a cache's memory holds nothing.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "kv/cache.h"

namespace kvasir {

struct TextLengths {
  int64_t prompt = 0;  // tokens, at least 1
  int64_t answer = 0;
};

/// Share of the slots of sequences' blocks that hold no token, 0 to 1: what texts of these lengths leave empty in the
/// mean over all their steps of decoding (0: no step). Counted in `cache`, where the texts are made one after another,
/// prompts in one pass and answers token by token, and gone when this returns. ResourceExhausted when one does not fit.
/// REQUIRES: no other sequence is alive.
Result<double> MeasureKvWaste(KvCache& cache, std::span<const TextLengths> texts);

}  // namespace kvasir
