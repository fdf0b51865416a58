// RoPE's frequencies and their scalings (R3, R5).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/decoder_spec.h"

namespace kvasir {

struct RopeFrequencies {
  std::vector<float> inverse;     // radians per position, [dim/2]
  float attention_factor = 1.0f;  // multiplies cos and sin
};

/// The frequencies for a sequence that is planned to reach `length` tokens; `context` is the trained length.
/// Su 2021 (arXiv:2104.09864); linear: Chen 2023 (arXiv:2306.15595); YaRN: Peng 2023 (arXiv:2309.00071); LongRoPE:
/// Ding 2024 (arXiv:2402.13753); dynamic NTK and Llama-3 scaling as in Hugging Face transformers.
RopeFrequencies ComputeRopeFrequencies(const RopePosition& rope, int64_t context, int64_t length);

/// out: dim/2 cosines, then dim/2 sines, of one position.
void FillCosSin(const RopeFrequencies& frequencies, int64_t position, float* out);

}  // namespace kvasir
