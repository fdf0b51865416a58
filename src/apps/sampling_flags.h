// Flags of sampling and beam search, laid over the model's own defaults.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "base/status.h"
#include "engine/engine.h"

namespace kvasir::apps {

/// What the user asked for; what is empty comes from the model.
struct SamplingFlags {
  std::optional<double> temperature;
  std::optional<int32_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> typical_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int32_t> no_repeat_ngram;
  std::vector<std::string> logit_bias;
  std::optional<int32_t> min_new_tokens;
  std::optional<int64_t> max_new_tokens;  // -1: until the context is full
  bool ignore_eos = false;
  std::vector<std::string> stop;
  int64_t seed = 0;  // -1: drawn

  /// -n, stop strings, temperature and everything that shapes one sequence.
  void AddSampling(FlagTable& flags);

  /// Lays the flags over `defaults` into the request: sampling, max_new_tokens, stop. Warns aloud of flags that have
  /// no effect on greedy text.
  Status Apply(const GenerationDefaults& defaults, GenerationRequest* request) const;

  /// New tokens for a prompt of `prompt_tokens` in a context of `context`.
  Result<int32_t> MaxNewTokens(const GenerationDefaults& defaults, int64_t prompt_tokens, int64_t context) const;
};

/// Flags of several answers: samples and beams.
struct BeamFlags {
  int32_t num_samples = 1;
  std::optional<int32_t> num_beams;
  std::optional<int32_t> num_return;
  std::optional<double> length_penalty;
  std::optional<EarlyStopping> early_stopping;

  void Add(FlagTable& flags);
  Status Apply(const GenerationDefaults& defaults, GenerationRequest* request) const;
  /// Sequences that are alive at once with these flags; the model's defaults are not known before loading.
  int64_t MaxSequences() const;
};

}  // namespace kvasir::apps
