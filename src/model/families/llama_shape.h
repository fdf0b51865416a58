// The shape that most families since LLaMA share: norms before both branches, rotary positions, a gated FFN, no biases,
// and Hugging Face's names model.layers.N.self_attn.q_proj and so on. Families change what differs.
#pragma once

#include <string_view>

#include "model/families/common.h"

namespace kvasir::families {

/// What a family's configuration class assumes where config.json says nothing.
struct LlamaShape {
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: hidden_size / heads
  int64_t context = 2048;
  double eps = 1e-6;
  double theta = 10000.0;
  double partial_rotary = 1.0;
  bool tied = false;
  bool layer_norm = false;  // LayerNorm with bias under "layer_norm_eps"; else RMSNorm under "rms_norm_eps"
  std::string_view activation = "silu";
};

/// Reads common keys, sizes, heads, norms, FFN and RoPE. `layer` is one layer, to be changed and given to FinishLayers.
Status ReadLlamaShape(const JsonReader& config, const LlamaShape& shape, DecoderSpec& spec, LayerSpec& layer);

/// spec.layers = `layer` num_hidden_layers times.
Status FillLayers(const JsonReader& config, const LayerSpec& layer, DecoderSpec& spec);

/// Rules by LLaMA's Hugging Face names.
WeightRules LlamaShapeRules(const DecoderSpec& spec, const TensorSource& source);

/// The name before a layer's tensors, e.g. "model.layers.3.". `prefix` as LlamaShapePrefix found it.
std::string LlamaShapePrefix(const TensorSource& source);

}  // namespace kvasir::families
