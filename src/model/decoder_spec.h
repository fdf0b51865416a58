// A decoder model as data: everything the forward pass needs to know about one architecture, and nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "kernels/ops.h"

namespace kvasir {

struct NormSpec {
  bool layer_norm = false;  // LayerNorm; else RMSNorm
  float eps = 1e-5f;
  bool has_weight = true;
  bool has_bias = false;
  bool plus_one = false;  // stored as w - 1 (Gemma's Hugging Face files; GGUF bakes the 1 in)
};

// --- Positions (R1–R5) ---------------------------------------------------------------------------------------------

struct NoPosition {};

/// R2: a learned table added to the embedding; position p uses row p + offset.
struct LearnedPosition {
  int64_t rows = 0;    // of the table
  int64_t offset = 0;  // OPT: 2
};

/// R1: sin and cos halves ([sin | cos], frequencies 10000^(-i/(d/2 - 1)) as fairseq has them) added to the embedding.
struct SinusoidalPosition {
  int64_t offset = 0;  // XGLM: 2
};

inline constexpr double kMaxRopeFactor = 1e6;

/// R5: how RoPE's frequencies are changed for longer inputs.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kDynamicNtk, kYarn, kLlama3, kLongRope };
  Kind kind = Kind::kNone;
  double factor = 1.0;
  int64_t original_context = 0;
  double low_freq_factor = 1.0;            // kLlama3
  double high_freq_factor = 4.0;           // kLlama3
  double beta_fast = 32.0;                 // kYarn
  double beta_slow = 1.0;                  // kYarn
  double mscale = 0.0;                     // kYarn, 0: unset
  double mscale_all_dim = 0.0;             // kYarn, 0: unset
  std::optional<double> attention_factor;  // multiplies cos and sin; unset: the kind's own formula
  std::vector<double> short_factor;        // kLongRope: one per frequency, up to original_context …
  std::vector<double> long_factor;         // … and beyond it
  /// Divides each frequency (GGUF's rope_freqs.weight, llama3 scaling worked out); empty: none. One per frequency.
  std::vector<double> frequency_divisors;
};

/// R3: rotary embedding of the first `dim` elements of every head.
struct RopePosition {
  double theta = 10000.0;
  int32_t dim = 0;
  bool interleaved = false;  // pairs (2i, 2i+1); else (i, i + dim/2)
  RopeScaling scaling;
};

/// R4: a bias of slope[head] · distance on the scores.
struct AlibiPosition {
  std::vector<float> slopes;   // [n_heads]
  bool bf16_rounding = false;  // AttentionArgs::alibi_bf16
  float scale = 1.0f;          // AttentionArgs::alibi_scale
};

using PositionSpec = std::variant<NoPosition, LearnedPosition, SinusoidalPosition, RopePosition, AlibiPosition>;

/// Press 2021: geometric slopes 2^(-8i/n) for the next lower power of two, then every other of the doubled sequence.
/// max_bias is MPT's alibi_bias_max (8).
std::vector<float> AlibiSlopes(int32_t n_heads, double max_bias = 8.0);

// --- Layers --------------------------------------------------------------------------------------------------------

enum class QkNorm { kNone, kPerHead, kFullWidth };  // one weight [head_dim] for all heads, or [heads · head_dim]

struct AttentionSpec {
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;  // n_heads: MHA, 1: MQA, else GQA (A5)
  int32_t head_dim = 0;
  bool qkv_bias = false;
  bool out_bias = false;
  float scale = 0.0f;     // of q·k; usually 1/sqrt(head_dim)
  float softcap = 0.0f;   // 0: none
  int64_t window = 0;     // 0: all; else the last `window` positions, the token itself included
  float qkv_clip = 0.0f;  // 0: none; clamps q, k and v (MPT)
  QkNorm qk_norm = QkNorm::kNone;
  NormSpec qk_norm_spec;
};

struct MoeSpec {
  int32_t n_experts = 0;  // 0: a dense FFN
  int32_t top_k = 0;
  bool renormalize = true;  // the chosen experts' softmax weights sum to 1
};

struct FfnSpec {
  int32_t width = 0;
  Activation activation = Activation::kSilu;
  bool gated = true;     // down(act(gate x) · up x); else down(act(up x))
  bool up_bias = false;  // also the gate's
  bool down_bias = false;
  MoeSpec moe;
};

/// One layer. With x the residual stream:
///   sequential: x += post(attn(pre(x))), then x += post(ffn(pre(x)));
///   parallel:   x += attn(pre(x)) + ffn(pre'(x)), where pre' is ffn_norm, or attn_norm's output when absent.
/// attn_norm and ffn_norm come before their branch; *_branch_norm normalises a branch's output before it is added
/// (Gemma 2); *_residual_norm normalises x after the addition (post-norm, OPT-350m).
struct LayerSpec {
  AttentionSpec attention;
  FfnSpec ffn;
  bool parallel = false;
  std::optional<NormSpec> attn_norm;
  std::optional<NormSpec> attn_branch_norm;
  std::optional<NormSpec> attn_residual_norm;
  std::optional<NormSpec> ffn_norm;
  std::optional<NormSpec> ffn_branch_norm;
  std::optional<NormSpec> ffn_residual_norm;
};

struct HeadSpec {
  bool tied = false;  // the embedding table is the head
  bool bias = false;
  bool normalized = false;  // every row divided by its length at load (Baichuan 2)
  float scale = 1.0f;       // of the logits
  float softcap = 0.0f;     // 0: none
};

struct DecoderSpec {
  std::string family;         // the family's name, for people only
  std::string architecture;   // as the file says it, for people only
  DType dtype = DType::kF32;  // the checkpoint's own (P2)
  int32_t vocab_size = 0;
  int32_t width = 0;            // of the residual stream
  int32_t embedding_width = 0;  // differs from width only with project_in/out (OPT-350m)
  int64_t context = 0;          // trained length; 0: unknown
  float embedding_scale = 1.0f;
  PositionSpec position;
  std::optional<NormSpec> embedding_norm;
  bool project_in = false;   // embedding_width → width, without bias
  bool project_out = false;  // width → embedding_width before the head
  std::optional<NormSpec> final_norm;
  HeadSpec head;
  std::vector<LayerSpec> layers;
  // Ids from config.json; generation_config.json and the tokenizer may know better.
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
  std::optional<int32_t> pad_id;

  /// Checks that all sizes are positive, bounded and consistent. Families call it last.
  Status Validate() const;
};

/// Parameters of the model by the spec (P1), embeddings and head included (a tied one once).
int64_t ParameterCount(const DecoderSpec& spec);

}  // namespace kvasir
