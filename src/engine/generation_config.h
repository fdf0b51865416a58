// Defaults of generation that come with a model.
#pragma once

#include <filesystem>

#include "base/status.h"
#include "engine/engine.h"
#include "model/decoder_spec.h"

namespace kvasir {

/// Reads generation_config.json in `folder` where it exists, with Hugging Face's meaning (do_sample without a top_k is
/// top_k 50); greedy where it does not. EOS ids come from it, else from the spec, else from the tokenizer (which may
/// be null). Ids outside the vocabulary and values out of range are errors.
Result<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& folder, const DecoderSpec& spec,
                                                  const Tokenizer* tokenizer);

}  // namespace kvasir
