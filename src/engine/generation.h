// One request from prompt to text: the generation loop.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
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
  std::string salt;             // GenerationRequest::cache_salt
};

/// Beside tokens, what keys and values of an engine's sequences depend on, and who may share them (KvCache's scope):
/// the rotations that a sequence is given at its admission, which some scalings of RoPE turn with its planned length,
/// and the request's salt.
std::string PrefixScope(const DecoderSpec& spec, int64_t planned_length, std::string_view salt);

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
