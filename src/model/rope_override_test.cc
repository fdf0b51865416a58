#include "model/rope_override.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "io/json.h"
#include "model/families/common.h"
#include "model/rope.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

/// A small model with rotary positions, trained on 256 tokens.
DecoderSpec SmallSpec() {
  DecoderSpec spec;
  spec.family = "test";
  spec.vocab_size = 10;
  spec.width = spec.embedding_width = 32;
  spec.context = 256;
  spec.position = RopePosition{.dim = 16};
  LayerSpec layer;
  layer.attention.n_heads = layer.attention.n_kv_heads = 2;
  layer.attention.head_dim = 16;
  layer.attention.scale = 0.25f;
  layer.ffn.width = 64;
  spec.layers = {layer};
  return spec;
}

/// What a config.json with this object under "rope_scaling" gives.
RopePosition FromConfig(const std::string& scaling, int64_t context) {
  auto config = ParseJson(R"({"rope_scaling": )" + scaling + "}", "config");
  EXPECT_TRUE(config.ok()) << config.status().message();
  auto rope = families::ReadRope(JsonReader(config->get_object(), "config"), 16, context);
  EXPECT_TRUE(rope.ok()) << rope.status().message();
  return *rope;
}

TEST(RopeOverride, WithoutOneNothingChanges) {
  DecoderSpec spec = SmallSpec();
  ASSERT_TRUE(ApplyRopeOverride({}, spec).ok());
  EXPECT_EQ(RopeIdentity(spec), RopeIdentity(SmallSpec()));
  EXPECT_EQ(spec.context, 256);
}

TEST(RopeOverride, IsWhatAConfigWouldHaveSaid) {
  struct Case {
    RopeOverride rope;
    std::string config;
    int64_t context;  // that the model is then good for
  };
  const std::string yarn =
      R"({"rope_type": "yarn", "factor": 3.5, "original_max_position_embeddings": 200, "beta_fast": 20})";
  const std::string longrope =
      R"({"type": "longrope", "factor": 4, "original_max_position_embeddings": 256,
          "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], "long_factor": [1, 2, 3, 4, 5, 6, 7, 8]})";
  const std::string llama3 = R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 2})";
  for (const Case& test : {
           Case{{.scaling = "linear:4"}, R"({"type": "linear", "factor": 4})", 1024},
           Case{{.factor = 4}, R"({"type": "linear", "factor": 4})", 1024},
           Case{{.scaling = "dynamic:2.5"}, R"({"type": "dynamic", "factor": 2.5})", 256},
           Case{{.scaling = "yarn", .factor = 2}, R"({"type": "yarn", "factor": 2})", 512},
           Case{{.scaling = "yarn:2", .original_context = 100},
                R"({"type": "yarn", "factor": 2, "original_max_position_embeddings": 100})",
                200},
           Case{{.scaling = yarn}, yarn, 700},
           Case{{.scaling = llama3}, llama3, 2048},
           Case{{.scaling = longrope}, longrope, 1024},
       }) {
    DecoderSpec spec = SmallSpec();
    const Status status = ApplyRopeOverride(test.rope, spec);
    ASSERT_TRUE(status.ok()) << test.config << status.message();
    EXPECT_EQ(spec.context, test.context) << test.config;
    DecoderSpec expected = SmallSpec();
    expected.context = test.context;
    expected.position = FromConfig(test.config, 256);
    EXPECT_EQ(RopeIdentity(spec), RopeIdentity(expected)) << test.config;
    for (const int64_t length : {100, 300, 5000}) {
      const auto ours = ComputeRopeFrequencies(std::get<RopePosition>(spec.position), spec.context, length);
      const auto theirs = ComputeRopeFrequencies(std::get<RopePosition>(expected.position), spec.context, length);
      EXPECT_EQ(ours.inverse, theirs.inverse) << test.config;
      EXPECT_EQ(ours.attention_factor, theirs.attention_factor) << test.config;
    }
  }
}

TEST(RopeOverride, NoneTakesTheModelsOwnScalingAway) {
  DecoderSpec spec = SmallSpec();
  spec.context = 1024;
  auto& rope = std::get<RopePosition>(spec.position);
  rope.scaling = {.kind = RopeScaling::Kind::kYarn, .factor = 4, .original_context = 256};
  rope.scaling.frequency_divisors.assign(8, 2.0);
  ASSERT_TRUE(ApplyRopeOverride({.scaling = "none", .theta = 20000}, spec).ok());
  EXPECT_EQ(spec.context, 256);
  const auto& now = std::get<RopePosition>(spec.position);
  EXPECT_EQ(now.theta, 20000);
  EXPECT_EQ(now.scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_TRUE(now.scaling.frequency_divisors.empty());
}

TEST(RopeOverride, ThetaAloneKeepsTheScaling) {
  DecoderSpec spec = SmallSpec();
  std::get<RopePosition>(spec.position).scaling = {
      .kind = RopeScaling::Kind::kLinear, .factor = 4, .original_context = 64};
  ASSERT_TRUE(ApplyRopeOverride({.theta = 5e5}, spec).ok());
  EXPECT_EQ(std::get<RopePosition>(spec.position).scaling.factor, 4);
  EXPECT_EQ(spec.context, 256);
}

TEST(RopeOverride, AnOriginalContextAloneIsThatOfTheModelsScaling) {
  DecoderSpec spec = SmallSpec();
  EXPECT_THAT(ApplyRopeOverride({.original_context = 100}, spec).message(), HasSubstr("is not scaled"));
  auto& rope = std::get<RopePosition>(spec.position);
  rope.scaling = {.kind = RopeScaling::Kind::kYarn, .factor = 4, .original_context = 64};
  ASSERT_TRUE(ApplyRopeOverride({.original_context = 100}, spec).ok());
  EXPECT_EQ(rope.scaling.kind, RopeScaling::Kind::kYarn);
  EXPECT_EQ(rope.scaling.factor, 4);
  EXPECT_EQ(rope.scaling.original_context, 100);
  EXPECT_EQ(spec.context, 256);
}

TEST(RopeOverride, RefusesWhatMakesNoSense) {
  const auto message = [](const RopeOverride& rope) {
    DecoderSpec spec = SmallSpec();
    const Status status = ApplyRopeOverride(rope, spec);
    EXPECT_FALSE(status.ok()) << rope.scaling;
    return status.message();
  };
  EXPECT_THAT(message({.scaling = "wild:2"}), HasSubstr("\"wild\" is not known"));
  EXPECT_THAT(message({.scaling = "yarn"}), HasSubstr("factor"));
  EXPECT_THAT(message({.scaling = "yarn:"}), HasSubstr("no number"));
  EXPECT_THAT(message({.scaling = "yarn:4x"}), HasSubstr("\"4x\" is no number"));
  EXPECT_THAT(message({.scaling = "yarn:nan"}), HasSubstr("no number"));
  EXPECT_THAT(message({.scaling = "yarn:0.5"}), HasSubstr("it must be from 1"));
  EXPECT_THAT(message({.scaling = "linear:1e300"}), HasSubstr("it must be from 1"));
  EXPECT_THAT(message({.scaling = "yarn:2", .factor = 3}), HasSubstr("both"));
  EXPECT_THAT(message({.scaling = "{\"type\": \"yarn\""}), HasSubstr("--rope-scaling"));
  EXPECT_THAT(message({.scaling = "none", .factor = 3}), HasSubstr("no factor"));
  EXPECT_THAT(message({.theta = 0.0}), HasSubstr("theta"));
  EXPECT_THAT(message({.scaling = R"({"type": "longrope", "short_factor": [1], "long_factor": [1]})"}),
              HasSubstr("frequencies"));

  DecoderSpec spec = SmallSpec();
  spec.position = AlibiPosition{.slopes = {0.5f, 0.25f}};
  EXPECT_THAT(ApplyRopeOverride({.scaling = "yarn:2"}, spec).message(), HasSubstr("ALiBi"));
  spec.position = LearnedPosition{.rows = 256};
  EXPECT_THAT(ApplyRopeOverride({.theta = 2}, spec).message(), HasSubstr("no rotary positions"));
}

TEST(RopeIdentity, TellsRotationsApart) {
  std::set<std::string> seen;
  for (const RopeOverride& rope : {RopeOverride{},
                                   {.theta = 500},
                                   {.scaling = "linear:2"},
                                   {.scaling = "linear:4"},
                                   {.scaling = "yarn:2"},
                                   {.scaling = "yarn:2", .original_context = 128},
                                   {.scaling = "dynamic:2"},
                                   {.scaling = R"({"type": "yarn", "factor": 2, "beta_fast": 20})"},
                                   {.scaling = R"({"type": "yarn", "factor": 2, "attention_factor": 1.5})"}}) {
    DecoderSpec spec = SmallSpec();
    ASSERT_TRUE(ApplyRopeOverride(rope, spec).ok()) << rope.scaling;
    EXPECT_TRUE(seen.insert(RopeIdentity(spec)).second) << RopeIdentity(spec);
  }
  DecoderSpec spec = SmallSpec();
  spec.position = NoPosition{};
  EXPECT_EQ(RopeIdentity(spec), "");
}

}  // namespace
}  // namespace kvasir
