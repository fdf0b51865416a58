// One request from prompt to text: the generation loop.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/step_runner.h"

namespace kvasir {

/// A sequence kept between requests for reuse of its prefix (K5).
struct KeptSequence {
  std::optional<SeqId> seq;
  std::vector<TokenId> tokens;  // whose keys and values are in the cache
  int64_t planned_length = 0;   // that their rotations were made for
};

/// What a generation needs from the engine.
struct GenerationContext {
  StepRunner& runner;
  KvCache& cache;
  CachePolicy policy;
  int64_t context;
  const Tokenizer* tokenizer;  // null: no text is made
  std::span<const TokenId> eos;
  KeptSequence& kept;
};

/// Greedy decoding or sampling of request.n sequences. REQUIRES: a checked request.
Result<GenerationOutput> GenerateSamples(const GenerationContext& context, const GenerationRequest& request,
                                         const TextCallback& on_text);

/// Beam search. REQUIRES: a checked request with beams.num_beams > 1.
Result<GenerationOutput> GenerateBeams(const GenerationContext& context, const GenerationRequest& request,
                                       const TextCallback& on_text);

}  // namespace kvasir
