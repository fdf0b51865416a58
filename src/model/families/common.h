// What the readers of several families share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/gguf.h"
#include "io/json.h"
#include "model/decoder_spec.h"
#include "model/weight_rules.h"

namespace kvasir::families {

// Bounds that keep sizes from a config within int32 before DecoderSpec::Validate looks at them.
inline constexpr int64_t kMaxSize = 1 << 26;
inline constexpr int64_t kMaxLayers = 10'000;
inline constexpr int64_t kMaxHeads = 65'536;
inline constexpr int64_t kMaxLength = int64_t{1} << 40;

/// Keys of config.json that all families have: dtype, vocab_size, bos/eos/pad ids. Refuses quantization_config.
Status ReadCommon(const JsonReader& config, DecoderSpec& spec);

/// A required size in [1, kMaxSize] under the first of `names` that is present.
Result<int32_t> ReadSize(const JsonReader& config, JsonReader::Names names, std::optional<int64_t> fallback = {});

/// hidden_act / activation_function by Hugging Face's names.
Result<Activation> ParseActivation(const JsonReader& config, JsonReader::Names names,
                                   std::optional<std::string> fallback = {});

/// rope_theta, rope_scaling / rope_parameters. `dim` rotary dimensions of each head; `context` the trained length.
Result<RopePosition> ReadRope(const JsonReader& config, int64_t dim, int64_t context, double default_theta = 10000.0);

/// The scaling that an object such as rope_scaling describes, its theta aside.
Result<RopeScaling> ReadScaling(const JsonReader& fields, int64_t context);

/// num_hidden_layers and its older names, bounded before anything is allocated by it.
Result<int64_t> ReadLayerCount(const JsonReader& config, JsonReader::Names names);

/// `layers` copies of one layer. REQUIRES: layers <= kMaxLayers.
std::vector<LayerSpec> Repeat(const LayerSpec& layer, int64_t layers);

/// The common prefix of names in this checkpoint: the first of `prefixes` under which `probe` is found, else the
/// first prefix (so that messages name what is usual).
std::string FindPrefix(const TensorSource& source, std::initializer_list<std::string_view> prefixes,
                       std::string_view probe);

/// NAME.weight and NAME.bias.
NormRule NormNamed(const std::string& name);
LinearRule LinearNamed(const std::string& name, bool transposed = false);

/// Rows [first, first+count) of NAME.weight and NAME.bias.
LinearRule LinearRows(const std::string& name, int64_t first, int64_t count, bool transposed = false);

/// NAME's rows as [q of all heads | k | v], `q` and `kv` rows each, into a layer's rules.
void SplitContiguousQkv(const std::string& name, const AttentionSpec& attention, bool transposed, LayerRule& layer);

/// NAME's rows as one group per key-value head: [its query heads | k | v]. MHA: q, k, v of head 0, of head 1, …
/// A tensor that is missing or has other rows than the spec demands is named whole, for the plan to complain of: so
/// the number of rules is bounded by what the file really holds.
void SplitGroupedQkv(const TensorSource& source, const std::string& name, const AttentionSpec& attention,
                     LayerRule& layer);

/// An error where the router of a layer is missing or not [n_experts, …]: checked before rules for experts are made,
/// since a config can claim any number.
Status CheckRouter(const TensorSource& source, const std::string& name, int64_t n_experts);

/// n_heads, n_kv_heads, head_dim and the usual scale 1/sqrt(head_dim). `kv_heads` 0: as many as heads; `head_dim` 0:
/// width / heads, which must divide.
Status SetHeads(std::string_view what, int64_t width, int64_t heads, int64_t kv_heads, int64_t head_dim,
                AttentionSpec& attention);

/// Keys that change the computation in ways that kvasir lacks: an error names the first that is true or, for numbers
/// and objects, set.
Status RefuseKeys(const JsonReader& config, JsonReader::Names keys);

NormSpec LayerNormOf(double eps, bool bias = true);
NormSpec RmsNormOf(double eps);

/// Rotary dimensions: int(head_dim · partial_rotary_factor), which may stand in rope_parameters.
Result<int64_t> ReadRotaryDim(const JsonReader& config, int64_t head_dim, JsonReader::Names names, double fallback);

/// Windows by "layer_types" (a list of "full_attention" and "sliding_attention"), if the config has it.
/// Returns whether it has. REQUIRES: spec.layers is filled.
Result<bool> ReadLayerTypes(const JsonReader& config, int64_t window, DecoderSpec& spec);

// --- GGUF ----------------------------------------------------------------------------------------------------------

/// dtype, vocabulary size, token ids, context and sizes that every GGUF architecture has; `arch` is its key prefix.
Status ReadGgufCommon(const GgufFile& file, const std::string& arch, DecoderSpec& spec);

/// ARCH.rope.* with rope_freqs.weight; interleaved as the family's GGUF rows demand.
Result<RopePosition> ReadGgufRope(const GgufFile& file, const std::string& arch, int64_t head_dim, bool interleaved);

struct GgufShape {
  bool layer_norm = false;  // with a bias where the file has one; else RMSNorm
  bool gated = true;
  Activation activation = Activation::kSilu;
};

/// One layer by the keys and tensors that most architectures share: heads, head size, FFN width, norms before both
/// branches, biases as the file has them, experts; spec.final_norm too. `layer` is not repeated yet.
Status ReadGgufLayer(const GgufFile& file, const std::string& arch, const GgufShape& shape, DecoderSpec& spec,
                     LayerSpec& layer);

/// spec.layers = `layer` ARCH.block_count times, then Validate.
Status FinishGguf(const GgufFile& file, const std::string& arch, const LayerSpec& layer, DecoderSpec& spec);

/// Rules by GGUF's usual names; `permuted`: Q and K rows need UnpermutedHeads.
Result<WeightRules> GgufRules(const DecoderSpec& spec, const GgufFile& file, bool permuted);

/// Undoes the converter's permutation of Q and K rows for half-split rotation: inside every head GGUF has rows
/// 0, d/2, 1, d/2+1, …; the result has 0 … d-1. Bounded as SplitGroupedQkv.
LinearRule UnpermutedHeads(const TensorSource& source, const std::string& name, int64_t heads, int64_t head_dim);

}  // namespace kvasir::families
