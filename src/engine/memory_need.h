// What a running engine takes beside weights and KV cache, worked out ahead of time.
#pragma once

#include <cstdint>

#include "model/decoder_spec.h"

namespace kvasir {

/// The most bytes of activations and logits at once, for passes of at most `chunk` tokens and this many sequences.
/// An upper estimate: nothing that the forward pass holds is left out, and what it hands back early is counted too.
int64_t ActivationBytes(const DecoderSpec& spec, int64_t chunk, int64_t sequences);

/// Bytes that plain attention (A1) adds for every token of context: it holds all scores of a chunk.
int64_t PlainAttentionBytesPerToken(const DecoderSpec& spec, int64_t chunk);

}  // namespace kvasir
