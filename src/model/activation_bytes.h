// The scratch memory of forward passes, worked out ahead of time.
#pragma once

#include <cstdint>
#include <span>

#include "model/decoder_spec.h"
#include "model/memory_plan.h"

namespace kvasir {

/// Rows of logits that are computed at once where a whole text's are wanted.
inline constexpr int64_t kTextLogitRows = 64;

/// The most bytes of activations and logits at once when `run` is run with matrices of these shapes: what forward.cc
/// allocates, buffer by buffer, for the longest chunk. run.context must be set.
int64_t ActivationBytes(const DecoderSpec& spec, std::span<const MatrixShape> matrices, const RunShape& run);

}  // namespace kvasir
