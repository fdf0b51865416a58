// Configs as published give the published numbers of parameters; broken or unsupported ones give clear errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/serialize.hpp>

#include <algorithm>

#include "io/json.h"
#include "model/weight_rules.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

Result<DecoderSpec> ParseConfig(const std::string& text) {
  ASSIGN_OR_RETURN(const json::value config, ParseJson(text, "config.json"));
  const JsonReader reader(config.get_object(), "config.json");
  ASSIGN_OR_RETURN(const std::string type, reader.String({"model_type"}));
  for (const ModelFamily& family : ModelFamilies()) {
    if (std::ranges::find(family.model_types, type) != family.model_types.end()) return family.parse(reader);
  }
  return NotFound("no family");
}

struct Published {
  const char* name;
  int64_t parameters;
  const char* config;
};

// The keys that the files on the hub have, as far as they bear on the shape.
const Published kPublished[] = {
    {"gpt2", 124'439'808,
     R"({"model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
         "layer_norm_epsilon": 1e-05, "activation_function": "gelu_new", "vocab_size": 50257})"},
    {"starcoder", 15'517'456'384,
     R"({"model_type": "gpt_bigcode", "n_embd": 6144, "n_head": 48, "n_inner": 24576, "n_layer": 40,
         "n_positions": 8192, "multi_query": true, "activation_function": "gelu", "vocab_size": 49152,
         "layer_norm_epsilon": 1e-05, "torch_dtype": "float32"})"},
    {"gpt-neo-1.3B", 1'315'575'808,
     R"({"model_type": "gpt_neo", "hidden_size": 2048, "num_heads": 16, "num_layers": 24, "intermediate_size": null,
         "attention_types": [[["global", "local"], 12]], "max_position_embeddings": 2048, "window_size": 256,
         "vocab_size": 50257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05})"},
    {"Llama-2-70b", 68'976'648'192,
     R"({"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
         "num_hidden_layers": 80, "num_key_value_heads": 8, "max_position_embeddings": 4096, "vocab_size": 32000,
         "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "torch_dtype": "float16", "rope_scaling": null})"},
    {"Llama-3.2-1B", 1'235'814'400,
     R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
         "num_hidden_layers": 16, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
         "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
         "vocab_size": 128256, "eos_token_id": [128001, 128008, 128009],
         "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"}})"},
    {"Mistral-7B-v0.1", 7'241'732'096,
     R"({"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 32000,
         "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "torch_dtype": "bfloat16"})"},
    {"Mixtral-8x7B", 46'702'792'704,
     R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
         "sliding_window": null, "vocab_size": 32000, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
         "rope_theta": 1000000.0, "torch_dtype": "bfloat16"})"},
    {"Qwen2-7B", 7'615'616'512,
     R"({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
         "num_hidden_layers": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072, "vocab_size": 152064,
         "max_window_layers": 28, "sliding_window": 131072, "use_sliding_window": false, "rms_norm_eps": 1e-06,
         "rope_theta": 1000000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"Qwen3-8B", 8'190'735'360,
     R"({"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
         "num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128, "attention_bias": false,
         "max_position_embeddings": 40960, "vocab_size": 151936, "rms_norm_eps": 1e-06, "rope_theta": 1000000,
         "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"falcon-7b", 6'921'720'704,
     R"({"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32,
         "multi_query": true, "parallel_attn": true, "bias": false, "alibi": false, "vocab_size": 65024,
         "new_decoder_architecture": false, "layer_norm_epsilon": 1e-05, "num_kv_heads": 71})"},
    {"falcon-40b of the first days", 41'303'293'952,
     R"({"model_type": "RefinedWeb", "hidden_size": 8192, "n_head": 128, "n_head_kv": 8, "n_layer": 60, "alibi": false,
         "bias": false, "parallel_attn": true, "vocab_size": 65024, "layer_norm_epsilon": 1e-05})"},
    {"falcon-rw-1b", 1'311'625'216,
     R"({"model_type": "falcon", "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 24,
         "multi_query": false, "parallel_attn": false, "bias": true, "alibi": true, "vocab_size": 50304,
         "new_decoder_architecture": false, "layer_norm_epsilon": 1e-05})"},
    {"mpt-7b", 6'649'286'656,
     R"({"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32, "expansion_ratio": 4, "no_bias": true,
         "max_seq_len": 2048, "vocab_size": 50432, "norm_type": "low_precision_layernorm", "learned_pos_emb": true,
         "attn_config": {"alibi": true, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "qk_ln": false,
                         "attn_type": "multihead_attention", "attn_uses_sequence_id": false, "clip_qkv": null,
                         "prefix_lm": false, "softmax_scale": null}, "logit_scale": null})"},
    {"bloom", 176'247'271'424,
     R"({"model_type": "bloom", "hidden_size": 14336, "n_head": 112, "n_layer": 70, "seq_length": 2048,
         "layer_norm_epsilon": 1e-05, "vocab_size": 250880, "apply_residual_connection_post_layernorm": false})"},
    {"opt-350m", 331'196'416,
     R"({"model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
         "word_embed_proj_dim": 512, "do_layer_norm_before": false, "activation_function": "relu", "vocab_size": 50272,
         "max_position_embeddings": 2048, "_remove_final_layer_norm": false})"},
    {"xglm-564M", 564'463'616,
     R"({"model_type": "xglm", "d_model": 1024, "ffn_dim": 4096, "attention_heads": 16, "num_layers": 24,
         "max_position_embeddings": 2048, "scale_embedding": true, "activation_function": "gelu",
         "vocab_size": 256008})"},
    {"pythia-6.9b", 6'857'302'016,
     R"({"model_type": "gpt_neox", "hidden_size": 4096, "intermediate_size": 16384, "num_attention_heads": 32,
         "num_hidden_layers": 32, "rotary_pct": 0.25, "rotary_emb_base": 10000, "use_parallel_residual": true,
         "max_position_embeddings": 2048, "layer_norm_eps": 1e-05, "hidden_act": "gelu", "vocab_size": 50432,
         "tie_word_embeddings": false, "torch_dtype": "float16"})"},
    {"phi-2", 2'779'683'840,
     R"({"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32,
         "num_hidden_layers": 32, "partial_rotary_factor": 0.4, "layer_norm_eps": 1e-05, "hidden_act": "gelu_new",
         "num_key_value_heads": 32, "max_position_embeddings": 2048, "qk_layernorm": false, "vocab_size": 51200,
         "tie_word_embeddings": false, "torch_dtype": "float16"})"},
    {"Phi-3-mini-4k", 3'821'079'552,
     R"({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "vocab_size": 32064,
         "original_max_position_embeddings": 4096, "sliding_window": 2047, "rms_norm_eps": 1e-05,
         "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"gemma-2b", 2'506'172'416,
     R"({"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
         "num_hidden_layers": 18, "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 8192,
         "hidden_act": "gelu", "rms_norm_eps": 1e-06, "vocab_size": 256000, "torch_dtype": "bfloat16"})"},
    {"gemma-2-9b", 9'241'705'984,
     R"({"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_attention_heads": 16,
         "num_hidden_layers": 42, "num_key_value_heads": 8, "head_dim": 256, "max_position_embeddings": 8192,
         "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096,
         "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "rms_norm_eps": 1e-06,
         "vocab_size": 256000, "torch_dtype": "float32"})"},
    {"Baichuan2-7B", 7'505'973'248,
     R"({"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "hidden_size": 4096,
         "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32, "model_max_length": 4096,
         "max_position_embeddings": 4096, "rms_norm_eps": 1e-06, "vocab_size": 125696, "hidden_act": "silu",
         "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"Baichuan2-13B", 13'896'668'160,
     R"({"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "hidden_size": 5120,
         "intermediate_size": 13696, "num_attention_heads": 40, "num_hidden_layers": 40, "model_max_length": 4096,
         "rms_norm_eps": 1e-06, "vocab_size": 125696, "hidden_act": "silu", "tie_word_embeddings": false,
         "torch_dtype": "bfloat16"})"},
    {"stablelm-3b-4e1t", 2'795'443'200,
     R"({"model_type": "stablelm", "hidden_size": 2560, "intermediate_size": 6912, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.25, "layer_norm_eps": 1e-05,
         "max_position_embeddings": 4096, "rope_theta": 10000, "hidden_act": "silu", "vocab_size": 50304,
         "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
};

TEST(Families, PublishedConfigsHaveTheirPublishedSizes) {
  for (const Published& published : kPublished) {
    auto spec = ParseConfig(published.config);
    ASSERT_TRUE(spec.ok()) << published.name << ": " << spec.status().message();
    EXPECT_EQ(ParameterCount(*spec), published.parameters) << published.name;
  }
}

DecoderSpec PublishedSpec(std::string_view name) {
  for (const Published& published : kPublished) {
    if (published.name == name) return *ParseConfig(published.config);
  }
  ADD_FAILURE() << name;
  return {};
}

TEST(Families, DefaultsThatConfigsLeaveOut) {
  EXPECT_EQ(PublishedSpec("Mistral-7B-v0.1").layers[0].attention.window, 4096);
  EXPECT_EQ(PublishedSpec("Qwen2-7B").layers[27].attention.window, 0);
  EXPECT_EQ(PublishedSpec("gemma-2b").layers[0].ffn.activation, Activation::kGeluTanh);
  EXPECT_EQ(PublishedSpec("gemma-2-9b").layers[0].attention.window, 4096);
  EXPECT_EQ(PublishedSpec("gemma-2-9b").layers[1].attention.window, 0);
  EXPECT_EQ(PublishedSpec("gpt-neo-1.3B").layers[0].attention.window, 0);
  EXPECT_EQ(PublishedSpec("gpt-neo-1.3B").layers[1].attention.window, 256);
  EXPECT_TRUE(PublishedSpec("Baichuan2-7B").head.normalized);
  EXPECT_TRUE(std::holds_alternative<RopePosition>(PublishedSpec("Baichuan2-7B").position));
  EXPECT_TRUE(std::holds_alternative<AlibiPosition>(PublishedSpec("Baichuan2-13B").position));
  EXPECT_EQ(PublishedSpec("falcon-7b").layers[0].attention.n_kv_heads, 1);
  EXPECT_TRUE(PublishedSpec("falcon-40b of the first days").layers[0].ffn_norm.has_value());
  EXPECT_EQ(std::get<RopePosition>(PublishedSpec("phi-2").position).dim, 32);
  EXPECT_EQ(PublishedSpec("Llama-3.2-1B").eos_ids, (std::vector<int32_t>{128001, 128008, 128009}));
}

TEST(Families, AttentionLayersStandForAttentionTypes) {
  const auto parse = [](std::string_view types) {
    return ParseConfig(fmt::format(R"({{"model_type": "gpt_neo", "hidden_size": 32, "num_heads": 2, "num_layers": 3, {},
        "max_position_embeddings": 64, "window_size": 5, "vocab_size": 100}})",
                                   types));
  };
  for (const char* types :
       {R"("attention_layers": ["local", "global", "local"])",
        R"("attention_types": [[["local", "global"], 1], [["local"], 1]], "attention_layers": ["not read"])"}) {
    const auto spec = parse(types);
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    ASSERT_EQ(spec->layers.size(), 3u);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(spec->layers[i].attention.window, i == 1 ? 0 : 5);
  }
  for (const char* types : {R"("attention_layers": ["local"])", R"("attention_layers": ["local", "global", "banded"])",
                            R"("attention_layers": 3)", R"("window_size": 5)"}) {
    EXPECT_FALSE(parse(types).ok()) << types;
  }
}

/// A published config with one key set to another value.
std::string With(std::string_view name, std::string_view key, std::string_view value) {
  for (const Published& published : kPublished) {
    if (published.name != name) continue;
    json::object config = ParseJson(published.config, "test")->get_object();
    config[key] = *ParseJson(value, "test");
    return json::serialize(config);
  }
  ADD_FAILURE() << name;
  return "{}";
}

struct Bad {
  const char* name;
  const char* key;
  const char* value;
  const char* message;
};

const Bad kBad[] = {
    {"Llama-2-70b", "num_attention_heads", "63", "63 attention heads do not divide the hidden size 8192"},
    {"Llama-2-70b", "num_key_value_heads", "7", "7 key-value heads do not divide 64 attention heads"},
    {"Llama-2-70b", "num_key_value_heads", "128", "128 key-value heads do not divide 64 attention heads"},
    {"Llama-2-70b", "num_attention_heads", "0", "num_attention_heads"},
    {"Llama-2-70b", "hidden_size", "-8192", "hidden_size"},
    {"Llama-2-70b", "hidden_size", "\"8192\"", "hidden_size"},
    {"Llama-2-70b", "hidden_size", "8192.5", "hidden_size"},
    {"Llama-2-70b", "hidden_size", "60000000", "hidden size = 60000000"},
    {"Llama-2-70b", "vocab_size", "4000000000", "vocab_size"},
    {"Llama-2-70b", "num_hidden_layers", "1000000000", "num_hidden_layers"},
    {"Llama-2-70b", "head_dim", "127", "rotary dimensions"},
    {"Llama-2-70b", "head_dim", "4096", "head size"},
    {"Llama-2-70b", "rms_norm_eps", "-1", "epsilon"},
    {"Llama-2-70b", "rope_theta", "0", "theta"},
    {"Llama-2-70b", "rope_theta", "1", "theta of 1; it must be above 1"},
    {"Llama-2-70b", "rope_theta", "1e-300", "theta"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"wild\", \"factor\": 2}", "\"wild\" is not known"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"linear\"}", "factor"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"linear\", \"factor\": 0}", "factor"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"linear\", \"factor\": 0.5}", "factor of 0.5; it must be from 1"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"dynamic\", \"factor\": 1e20}", "factor"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 0}", "low_freq_factor"},
    {"Llama-2-70b", "rope_scaling", "[2]", "rope_scaling"},
    {"Llama-2-70b", "torch_dtype", "\"int8\"", "int8"},
    {"Llama-2-70b", "quantization_config", "{\"bits\": 4}", "quantization_config"},
    {"Llama-2-70b", "hidden_act", "\"mish\"", "\"hidden_act\" is \"mish\", an activation"},
    {"Mixtral-8x7B", "num_experts_per_tok", "9", "experts per token"},
    {"Qwen2-7B", "layer_types", "[\"full_attention\"]", "\"layer_types\" is not a list of 28 names"},
    {"gpt2", "add_cross_attention", "true", "add_cross_attention"},
    {"gpt2", "n_head", "7", "7 attention heads do not divide the hidden size 768"},
    {"gpt2", "attention_layers", "[\"dense\"]", "\"attention_layers\" is not a list of 12 names"},
    {"gpt-neo-1.3B", "attention_types", "[[[\"global\", \"local\"], 1000000000000]]", "attention_types"},
    {"gpt-neo-1.3B", "attention_types", "[[[\"odd\"], 24]]", "\"odd\" is not known"},
    {"falcon-7b", "parallel_attn", "1", "parallel_attn"},
    {"falcon-7b", "num_ln_in_parallel_attn", "2", "num_ln_in_parallel_attn"},
    {"mpt-7b", "attn_config", "{\"qk_ln\": true}", "\"qk_ln\" is set"},
    {"mpt-7b", "attn_config", "{\"prefix_lm\": true}", "\"prefix_lm\" is set"},
    {"mpt-7b", "attn_config", "{\"rope\": true}", "\"rope\" is set"},
    {"mpt-7b", "attn_config", "{\"clip_qkv\": -1}", "QKV clip"},
    {"mpt-7b", "attn_config", "{\"softmax_scale\": -1}", "attention scale of -1"},
    {"mpt-7b", "attn_config", "{\"softmax_scale\": 1e9}", "attention scale"},
    {"mpt-7b", "attn_config", "{\"alibi\": true, \"alibi_bias_max\": -8}", "ALiBi"},
    {"mpt-7b", "attn_config", "{\"alibi\": true, \"alibi_bias_max\": 5000}", "ALiBi"},
    {"mpt-7b", "attn_config", "[]", "attn_config"},
    {"mpt-7b", "norm_type", "\"rmsnorm\"", "norm_type \"rmsnorm\""},
    {"mpt-7b", "logit_scale", "\"odd\"", "logit_scale \"odd\""},
    {"mpt-7b", "logit_scale", "0", "a logit scale of 0"},
    {"mpt-7b", "logit_scale", "1e30", "a logit scale"},
    {"Llama-2-70b", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 1e30}",
     "attention_factor"},
    {"mpt-7b", "expansion_ratio", "100000", "expansion_ratio"},
    {"bloom", "apply_residual_connection_post_layernorm", "true", "apply_residual_connection_post_layernorm"},
    {"opt-350m", "max_position_embeddings", "0", "max_position_embeddings"},
    {"pythia-6.9b", "rotary_pct", "0.26", "rotary dimensions"},
    {"pythia-6.9b", "rotary_pct", "-0.25", "partial rotary factor"},
    {"phi-2", "qk_layernorm", "true", "\"qk_layernorm\" is set"},
    {"stablelm-3b-4e1t", "qk_layernorm", "true", "\"qk_layernorm\" is set"},
    {"gemma-2-9b", "query_pre_attn_scalar", "0", "query_pre_attn_scalar"},
    {"gemma-2-9b", "attn_logit_softcapping", "-50", "softcap"},
    {"gemma-2-9b", "final_logit_softcapping", "-30", "a logit softcap of -30"},
    {"Phi-3-mini-4k", "rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1]}",
     "48 frequencies"},
    {"Baichuan2-7B", "position_embedding", "\"odd\"", "position_embedding \"odd\""},
};

TEST(Families, BadConfigsSayWhatIsWrong) {
  for (const Bad& bad : kBad) {
    const auto spec = ParseConfig(With(bad.name, bad.key, bad.value));
    ASSERT_FALSE(spec.ok()) << bad.name << ": " << bad.key << " = " << bad.value;
    EXPECT_THAT(spec.status().message(), HasSubstr(bad.message)) << bad.name << ": " << bad.key << " = " << bad.value;
  }
}

/// A file without tensors.
class EmptySource final : public TensorSource {
 public:
  const RawTensor* Find(std::string_view) const override { return nullptr; }
  std::span<const RawTensor> tensors() const override { return {}; }
  const std::string& description() const override { return description_; }

 private:
  std::string description_ = "empty.safetensors";
};

TEST(Families, ClaimedSizesDoNotMakeMoreRulesThanAFileCanHold) {
  const Bad huge[] = {
      {"bloom", "n_head", "7168", ""},
      {"falcon-rw-1b", "num_attention_heads", "1024", ""},
      {"Mixtral-8x7B", "num_local_experts", "4096", "block_sparse_moe.gate.weight\" is missing"},
  };
  const EmptySource source;
  for (const Bad& claim : huge) {
    auto spec = ParseConfig(With(claim.name, claim.key, claim.value));
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    const auto family = std::ranges::find(ModelFamilies(), spec->family, &ModelFamily::name);
    ASSERT_NE(family, ModelFamilies().end());
    const auto rules = family->rules(*spec, source);
    if (!rules.ok()) {
      EXPECT_THAT(rules.status().message(), HasSubstr(claim.message));
      continue;
    }
    for (const LayerRule& layer : rules->layers) {
      EXPECT_EQ(layer.q.weight.rows.size(), 1u) << claim.name;
      EXPECT_LE(layer.experts.size(), 1u) << claim.name;
    }
  }
}

TEST(Families, NamesAreUniqueAndComplete) {
  std::vector<std::string_view> types;
  std::vector<std::string_view> architectures;
  for (const ModelFamily& family : ModelFamilies()) {
    EXPECT_TRUE(family.parse && family.rules) << family.name;
    EXPECT_EQ(family.gguf_architectures.empty(), family.parse_gguf == nullptr) << family.name;
    EXPECT_EQ(family.gguf_architectures.empty(), family.rules_gguf == nullptr) << family.name;
    types.insert(types.end(), family.model_types.begin(), family.model_types.end());
    architectures.insert(architectures.end(), family.gguf_architectures.begin(), family.gguf_architectures.end());
  }
  for (auto* names : {&types, &architectures}) {
    std::ranges::sort(*names);
    EXPECT_EQ(std::ranges::adjacent_find(*names), names->end());
  }
}

}  // namespace
}  // namespace kvasir
