#include "engine/memory_need.h"

#include <algorithm>

namespace kvasir {
namespace {

constexpr int64_t kFloat = 4;  // bytes

/// Floats that one token holds while it goes through a layer.
int64_t LayerFloats(const LayerSpec& layer, int64_t width) {
  const AttentionSpec& a = layer.attention;
  const int64_t heads = int64_t{a.n_heads} * a.head_dim;
  const int64_t kv = int64_t{a.n_kv_heads} * a.head_dim;
  // QKV, the heads' output, the inputs of both branches, one branch's output, and the FFN's inner values.
  int64_t floats = heads + 2 * kv + heads + 3 * width + layer.ffn.width;
  // A mixture gathers an expert's inputs and keeps its outputs.
  if (layer.ffn.moe.n_experts > 0) floats += layer.ffn.moe.n_experts + 2 * width;
  return floats;
}

}  // namespace

int64_t ActivationBytes(const DecoderSpec& spec, int64_t chunk, int64_t sequences) {
  int64_t layer_floats = 0;
  for (const LayerSpec& layer : spec.layers) layer_floats = std::max(layer_floats, LayerFloats(layer, spec.width));
  // The residual stream, the embedding before its projection, positions or rotations, and what goes to the head.
  const int64_t token_floats = layer_floats + 3 * int64_t{spec.width} + 2 * int64_t{spec.embedding_width};
  // Logits: 64 rows at a time for whole texts; per sequence a row, its copy, and what the sampler keeps to choose.
  const int64_t logit_rows = 64 + 4 * sequences;
  // Scratch memory grows by doubling.
  return 2 * kFloat * chunk * token_floats + kFloat * logit_rows * spec.vocab_size;
}

int64_t PlainAttentionBytesPerToken(const DecoderSpec& spec, int64_t chunk) {
  int64_t floats = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& a = layer.attention;
    // A score for every query and head, and the token's key and value as fp32.
    floats = std::max(floats, chunk * a.n_heads + 2 * int64_t{a.n_kv_heads} * a.head_dim);
  }
  return 2 * kFloat * floats;
}

}  // namespace kvasir
