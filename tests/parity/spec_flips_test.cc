// Every field of a DecoderSpec is covered: changing any one of them, in any fixture where it means something, moves the
// logits away from the reference or is refused while the weights are planned.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <set>

#include "fixture.h"

namespace kvasir::parity {
namespace {

/// Changes one field. False: it means nothing in this spec.
struct Flip {
  std::string name;
  std::function<bool(DecoderSpec&)> apply;
};

/// Changes one field in every layer.
Flip LayerFlip(std::string name, std::function<bool(LayerSpec&)> apply) {
  return {std::move(name), [apply = std::move(apply)](DecoderSpec& spec) {
            bool any = false;
            for (LayerSpec& layer : spec.layers) any = apply(layer) || any;
            return any;
          }};
}

template <typename T>
bool Toggle(T& value) {
  value = !value;
  return true;
}

bool Scale(float& value, float factor) {
  value *= factor;
  return true;
}

bool Scale(double& value, double factor) {
  value *= factor;
  return true;
}

/// Large epsilons become usual ones and the other way round.
float OtherEps(float eps) { return eps > 1e-3f ? eps * 0.1f : 0.05f; }

using NormPlace = std::function<std::optional<NormSpec>*(DecoderSpec&, size_t layer)>;

/// Flips of all fields of a norm, at the place that `get` finds; every layer has its own or all share the model's.
void AddNormFlips(const std::string& place, const NormPlace& get, std::vector<Flip>& flips) {
  const auto add = [&](const char* field, std::function<bool(std::optional<NormSpec>&)> apply) {
    flips.push_back({place + "." + field, [get, apply = std::move(apply)](DecoderSpec& spec) {
                       bool any = false;
                       std::set<std::optional<NormSpec>*> seen;
                       for (size_t i = 0; i < spec.layers.size(); ++i) {
                         std::optional<NormSpec>* norm = get(spec, i);
                         if (norm && seen.insert(norm).second) any = apply(*norm) || any;
                       }
                       return any;
                     }});
  };
  add("present", [](auto& norm) {
    if (!norm) return false;
    norm.reset();
    return true;
  });
  add("layer_norm", [](auto& norm) { return norm && Toggle(norm->layer_norm); });
  add("eps", [](auto& norm) {
    if (!norm) return false;
    norm->eps = OtherEps(norm->eps);
    return true;
  });
  add("has_weight", [](auto& norm) { return norm && Toggle(norm->has_weight); });
  add("has_bias", [](auto& norm) { return norm && Toggle(norm->has_bias); });
  add("plus_one", [](auto& norm) { return norm && norm->has_weight && Toggle(norm->plus_one); });
}

void AddAllNormFlips(std::vector<Flip>& flips) {
  const auto layer_norm = [&](const char* name, std::optional<NormSpec> LayerSpec::* member) {
    AddNormFlips(name, [member](DecoderSpec& spec, size_t i) { return &(spec.layers[i].*member); }, flips);
  };
  layer_norm("attn_norm", &LayerSpec::attn_norm);
  layer_norm("attn_branch_norm", &LayerSpec::attn_branch_norm);
  layer_norm("attn_residual_norm", &LayerSpec::attn_residual_norm);
  layer_norm("ffn_norm", &LayerSpec::ffn_norm);
  layer_norm("ffn_branch_norm", &LayerSpec::ffn_branch_norm);
  layer_norm("ffn_residual_norm", &LayerSpec::ffn_residual_norm);
  AddNormFlips("embedding_norm", [](DecoderSpec& spec, size_t) { return &spec.embedding_norm; }, flips);
  AddNormFlips("final_norm", [](DecoderSpec& spec, size_t) { return &spec.final_norm; }, flips);
  const auto qk = [&](const char* field, std::function<bool(NormSpec&)> apply) {
    flips.push_back(LayerFlip(std::string("qk_norm_spec.") + field, [apply = std::move(apply)](LayerSpec& layer) {
      return layer.attention.qk_norm != QkNorm::kNone && apply(layer.attention.qk_norm_spec);
    }));
  };
  qk("layer_norm", [](NormSpec& norm) { return Toggle(norm.layer_norm); });
  qk("eps", [](NormSpec& norm) {
    norm.eps = OtherEps(norm.eps);
    return true;
  });
  qk("has_weight", [](NormSpec& norm) { return Toggle(norm.has_weight); });
  qk("has_bias", [](NormSpec& norm) { return Toggle(norm.has_bias); });
  qk("plus_one", [](NormSpec& norm) { return Toggle(norm.plus_one); });
}

void AddAttentionFlips(std::vector<Flip>& flips) {
  const auto add = [&](const char* field, std::function<bool(AttentionSpec&)> apply) {
    flips.push_back(LayerFlip(std::string("attention.") + field,
                              [apply = std::move(apply)](LayerSpec& layer) { return apply(layer.attention); }));
  };
  add("n_heads", [](AttentionSpec& a) {
    a.n_heads *= 2;
    a.head_dim /= 2;
    return a.head_dim > 0 && a.n_kv_heads * 2 <= a.n_heads;
  });
  add("n_kv_heads", [](AttentionSpec& a) {
    a.n_kv_heads = a.n_kv_heads == a.n_heads ? 1 : a.n_heads;
    return a.n_heads > 1;
  });
  add("head_dim", [](AttentionSpec& a) {
    a.head_dim += 2;
    return true;
  });
  add("qkv_bias", [](AttentionSpec& a) { return Toggle(a.qkv_bias); });
  add("out_bias", [](AttentionSpec& a) { return Toggle(a.out_bias); });
  add("scale", [](AttentionSpec& a) { return Scale(a.scale, 1.05f); });
  add("softcap", [](AttentionSpec& a) {
    a.softcap = a.softcap > 0.0f ? 0.0f : 3.0f;
    return true;
  });
  add("window", [](AttentionSpec& a) {
    a.window = a.window > 0 ? 0 : 8;
    return true;
  });
  add("window by one", [](AttentionSpec& a) {
    if (a.window > 0) ++a.window;
    return a.window > 0;
  });
  add("qkv_clip", [](AttentionSpec& a) {
    a.qkv_clip = a.qkv_clip > 0.0f ? 0.0f : 1.0f;
    return true;
  });
  add("qk_norm", [](AttentionSpec& a) {
    a.qk_norm = a.qk_norm == QkNorm::kNone ? QkNorm::kPerHead : QkNorm::kNone;
    return true;
  });
  add("qk_norm per head", [](AttentionSpec& a) {
    if (a.qk_norm == QkNorm::kPerHead) a.qk_norm = QkNorm::kFullWidth;
    return a.qk_norm == QkNorm::kFullWidth;
  });
}

void AddFfnFlips(std::vector<Flip>& flips) {
  const auto add = [&](std::string field, std::function<bool(FfnSpec&)> apply) {
    flips.push_back(
        LayerFlip("ffn." + field, [apply = std::move(apply)](LayerSpec& layer) { return apply(layer.ffn); }));
  };
  add("width", [](FfnSpec& f) {
    f.width -= 4;
    return true;
  });
  for (int kind = 0; kind <= static_cast<int>(Activation::kReluSquared); ++kind) {
    const Activation activation = static_cast<Activation>(kind);
    add("activation " + std::to_string(kind), [activation](FfnSpec& f) {
      const bool changed = f.activation != activation;
      f.activation = activation;
      return changed;
    });
  }
  add("gated", [](FfnSpec& f) { return Toggle(f.gated); });
  add("up_bias", [](FfnSpec& f) { return Toggle(f.up_bias); });
  add("down_bias", [](FfnSpec& f) { return Toggle(f.down_bias); });
  add("moe.n_experts", [](FfnSpec& f) {
    f.moe.n_experts = f.moe.n_experts > 0 ? f.moe.n_experts - 1 : 2;
    f.moe.top_k = std::max(f.moe.top_k, 1);
    return true;
  });
  add("moe.top_k", [](FfnSpec& f) {
    ++f.moe.top_k;
    return f.moe.n_experts > 0;
  });
  add("moe.renormalize", [](FfnSpec& f) { return Toggle(f.moe.renormalize) && f.moe.n_experts > 0; });
}

/// A flip of one alternative of the position variant.
template <typename Position>
Flip PositionFlip(std::string name, std::function<bool(Position&)> apply) {
  return {"position." + std::move(name), [apply = std::move(apply)](DecoderSpec& spec) {
            auto* position = std::get_if<Position>(&spec.position);
            return position && apply(*position);
          }};
}

Flip ScalingFlip(std::string name, std::function<bool(RopeScaling&)> apply) {
  return PositionFlip<RopePosition>("rope.scaling." + std::move(name),
                                    [apply = std::move(apply)](RopePosition& rope) { return apply(rope.scaling); });
}

void AddPositionFlips(std::vector<Flip>& flips) {
  using Kind = RopeScaling::Kind;
  flips.push_back({"position", [](DecoderSpec& spec) {
                     const bool any = !std::holds_alternative<NoPosition>(spec.position);
                     spec.position = NoPosition{};
                     return any;
                   }});
  flips.push_back(PositionFlip<LearnedPosition>("learned.rows", [](LearnedPosition& p) {
    --p.rows;
    return true;
  }));
  flips.push_back(PositionFlip<LearnedPosition>("learned.offset", [](LearnedPosition& p) {
    p.offset = p.offset > 0 ? 0 : 1;
    return true;
  }));
  flips.push_back(PositionFlip<SinusoidalPosition>("sinusoidal.offset", [](SinusoidalPosition& p) {
    p.offset = 0;
    return true;
  }));
  flips.push_back(PositionFlip<RopePosition>("rope.theta", [](RopePosition& r) { return Scale(r.theta, 1.5); }));
  flips.push_back(PositionFlip<RopePosition>("rope.dim", [](RopePosition& r) {
    r.dim -= 2;
    // Lists of one value per frequency must stay valid: it is the number of rotated dimensions that is to be seen.
    for (auto* list : {&r.scaling.short_factor, &r.scaling.long_factor, &r.scaling.frequency_divisors}) {
      if (!list->empty()) list->pop_back();
    }
    return r.dim > 0;
  }));
  flips.push_back(
      PositionFlip<RopePosition>("rope.interleaved", [](RopePosition& r) { return Toggle(r.interleaved); }));
  flips.push_back(ScalingFlip("kind", [](RopeScaling& s) {
    const bool any = s.kind != Kind::kNone;
    s.kind = Kind::kNone;
    return any;
  }));
  flips.push_back(ScalingFlip("factor", [](RopeScaling& s) {
    return Scale(s.factor, 1.5) && s.kind != Kind::kNone && s.kind != Kind::kLongRope;
  }));
  flips.push_back(ScalingFlip("original_context", [](RopeScaling& s) {
    s.original_context *= 2;
    return s.kind == Kind::kYarn || s.kind == Kind::kLlama3 || (s.kind == Kind::kLongRope && !s.attention_factor);
  }));
  flips.push_back(ScalingFlip("low_freq_factor", [](RopeScaling& s) {
    s.low_freq_factor *= 0.5;
    return s.kind == Kind::kLlama3;
  }));
  flips.push_back(ScalingFlip("high_freq_factor", [](RopeScaling& s) {
    s.high_freq_factor *= 2.0;
    return s.kind == Kind::kLlama3;
  }));
  flips.push_back(ScalingFlip("beta_fast", [](RopeScaling& s) {
    s.beta_fast = 0.5;
    return s.kind == Kind::kYarn;
  }));
  flips.push_back(ScalingFlip("beta_slow", [](RopeScaling& s) {
    s.beta_slow = 0.01;
    return s.kind == Kind::kYarn;
  }));
  flips.push_back(ScalingFlip("mscale", [](RopeScaling& s) {
    s.mscale = 2.0;
    s.mscale_all_dim = 1.0;
    return s.kind == Kind::kYarn;
  }));
  flips.push_back(ScalingFlip("attention_factor", [](RopeScaling& s) {
    s.attention_factor = s.attention_factor.value_or(1.0) * 1.05;
    return true;
  }));
  flips.push_back(ScalingFlip("factor lists", [](RopeScaling& s) {
    std::swap(s.short_factor, s.long_factor);
    return s.kind == Kind::kLongRope;
  }));
  flips.push_back(ScalingFlip("frequency_divisors", [](RopeScaling& s) {
    const bool any = !s.frequency_divisors.empty();
    s.frequency_divisors.clear();
    return any;
  }));
  flips.push_back(PositionFlip<AlibiPosition>("alibi.slopes", [](AlibiPosition& a) {
    std::rotate(a.slopes.begin(), a.slopes.begin() + 1, a.slopes.end());
    return a.slopes.size() > 1;
  }));
  flips.push_back(PositionFlip<AlibiPosition>("alibi.scale", [](AlibiPosition& a) { return Scale(a.scale, 1.05f); }));
  flips.push_back(PositionFlip<AlibiPosition>("alibi.bf16_rounding", [](AlibiPosition& a) {
    // Powers of two times short positions are exact either way.
    bool rounded = false;
    for (float slope : a.slopes) rounded = rounded || ToFloat(ToBFloat16(slope)) != slope;
    return Toggle(a.bf16_rounding) && rounded;
  }));
}

void AddModelFlips(std::vector<Flip>& flips) {
  flips.push_back(LayerFlip("parallel", [](LayerSpec& layer) { return Toggle(layer.parallel); }));
  flips.push_back({"layers", [](DecoderSpec& spec) {
                     spec.layers.pop_back();
                     return !spec.layers.empty();
                   }});
  flips.push_back({"vocab_size", [](DecoderSpec& spec) { return --spec.vocab_size > 0; }});
  flips.push_back({"width", [](DecoderSpec& spec) {
                     spec.width -= 4;
                     return true;
                   }});
  flips.push_back({"embedding_width", [](DecoderSpec& spec) {
                     spec.embedding_width -= 4;
                     return true;
                   }});
  flips.push_back(
      {"embedding_scale", [](DecoderSpec& spec) { return !spec.embedding_norm && Scale(spec.embedding_scale, 1.1f); }});
  flips.push_back({"project_in", [](DecoderSpec& spec) { return Toggle(spec.project_in); }});
  flips.push_back({"project_out", [](DecoderSpec& spec) { return Toggle(spec.project_out); }});
  flips.push_back({"head.tied", [](DecoderSpec& spec) { return Toggle(spec.head.tied); }});
  flips.push_back({"head.bias", [](DecoderSpec& spec) { return Toggle(spec.head.bias); }});
  flips.push_back(
      {"head.normalized", [](DecoderSpec& spec) { return Toggle(spec.head.normalized) && !spec.head.tied; }});
  flips.push_back({"head.scale", [](DecoderSpec& spec) { return Scale(spec.head.scale, 1.05f); }});
  flips.push_back({"head.softcap", [](DecoderSpec& spec) {
                     spec.head.softcap = spec.head.softcap > 0.0f ? 0.0f : 30.0f;
                     return true;
                   }});
}

std::vector<Flip> AllFlips() {
  std::vector<Flip> flips;
  AddModelFlips(flips);
  AddAttentionFlips(flips);
  AddFfnFlips(flips);
  AddPositionFlips(flips);
  AddAllNormFlips(flips);
  return flips;
}

/// Converters write a tied head out as a second tensor: then it makes no difference which one is used.
bool HeadIsACopy(const ModelFiles& files) {
  const RawTensor* embedding = files.source->Find("token_embd.weight");
  const RawTensor* head = files.source->Find("output.weight");
  return embedding && head && embedding->bytes == head->bytes &&
         std::memcmp(embedding->data, head->data, static_cast<size_t>(head->bytes)) == 0;
}

TEST(SpecFlips, EveryFieldOfEveryFixtureMatters) {
  Runtime runtime(1);
  const std::vector<Flip> flips = AllFlips();
  std::map<std::string, int> noticed;
  for (const Fixture& fixture : AllFixtures()) {
    auto expected = LoadExpected(fixture.folder);
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    auto files = OpenModelFiles(fixture.model);
    ASSERT_TRUE(files.ok()) << files.status().message();
    // Rounding would hide small changes: families in bf16 stand there in fp32 too, block types are widened.
    if (files->spec.dtype == DType::kBF16) continue;
    const auto matches = [&](const DecoderSpec& spec) {
      auto logits = LogitsBySpec(spec, *files, *files->source, *expected, runtime, DType::kF32);
      return logits.ok() && RelativeError(*logits, expected->logits, expected->LargestLogit()) <= 1e-4f;
    };
    ASSERT_TRUE(matches(files->spec)) << fixture.name;
    for (const Flip& flip : flips) {
      DecoderSpec spec = files->spec;
      if (!flip.apply(spec) || (flip.name == "head.tied" && HeadIsACopy(*files))) continue;
      const bool unnoticed = matches(spec);
      EXPECT_FALSE(unnoticed) << fixture.name << ": nothing notices a change of " << flip.name;
      noticed[flip.name] += !unnoticed;
    }
  }
  for (const Flip& flip : flips) EXPECT_GT(noticed[flip.name], 0) << flip.name << " is tried by no fixture";
}

}  // namespace
}  // namespace kvasir::parity
