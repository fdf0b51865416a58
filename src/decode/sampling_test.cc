#include "decode/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "decode/beam_search.h"
#include "decode/softmax.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SamplingParams Sampling(float temperature = 1.0f, uint64_t seed = 1) {
  SamplingParams params;
  params.temperature = temperature;
  params.seed = seed;
  return params;
}

std::vector<float> NormalLogits(size_t n, float sigma, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(rng);
  return logits;
}

SampledToken MustSample(Sampler& sampler, std::vector<float> logits) {
  const auto token = sampler.Sample(logits);
  EXPECT_TRUE(token.ok()) << token.status().message();
  return token.ok() ? *token : SampledToken{-1, 0};
}

// The distribution by the definition, in the obvious way.
std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp((static_cast<double>(x) - max) / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

TEST(SoftmaxTest, SummaryAgreesWithLibmAtEveryTail) {
  for (size_t n = 1; n < 70; ++n) {
    for (const size_t size : {n, n + 1000, n + 5000}) {
      const auto logits = NormalLogits(size, 8.0f, static_cast<uint32_t>(size));
      const RowSummary row = Summarize(logits);
      const auto best = std::max_element(logits.begin(), logits.end());
      ASSERT_EQ(row.argmax, best - logits.begin());
      ASSERT_EQ(row.max, *best);
      double sum = 0;
      for (const float x : logits) sum += std::exp(static_cast<double>(x) - static_cast<double>(*best));
      ASSERT_NEAR(row.log_sum_exp, std::log(sum), 3e-7);
      ASSERT_EQ(FindMax(logits).argmax, row.argmax);
    }
  }
}

TEST(SoftmaxTest, ExpWeightsAreAccurateEverywhere) {
  std::vector<float> logits;
  for (int i = 0; i < 80003; ++i) logits.push_back(5.0f - 0.00125f * static_cast<float>(i));
  std::vector<float> weights(logits.size());
  double sum = 0;
  const double returned = ExpWeights(logits, 5.0f, 1.0, weights);
  for (size_t i = 0; i < logits.size(); ++i) {
    const float exponent = logits[i] - 5.0f;
    const double expected = std::exp(static_cast<double>(exponent));
    sum += expected;
    if (exponent <= -87.0f) {
      ASSERT_EQ(weights[i], 0.0f);
    } else {
      ASSERT_NEAR(static_cast<double>(weights[i]) / expected, 1.0, 2e-7) << exponent;
    }
  }
  EXPECT_EQ(weights[0], 1.0f);
  EXPECT_NEAR(returned / sum, 1.0, 3e-8);
  const double halved = ExpWeights(logits, 5.0f, 0.5, weights);
  EXPECT_NEAR(static_cast<double>(weights[800]), std::exp(-0.5), 1e-6);
  EXPECT_NEAR(halved / sum, 2.0, 0.01);
}

TEST(SoftmaxTest, FindsNanAnywhere) {
  for (const size_t size : {1u, 17u, 1024u, 3001u}) {
    for (size_t at = 0; at < size; at += 1 + size / 37) {
      std::vector<float> logits(size, 1.0f);
      logits[at] = at % 2 == 0 ? kNan : -kNan;
      EXPECT_TRUE(Summarize(logits).has_nan);
      logits[at] = kInf;
      EXPECT_FALSE(Summarize(logits).has_nan);
      logits[at] = -kInf;
      EXPECT_FALSE(Summarize(logits).has_nan);
    }
  }
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler(SamplingParams{}, {}, {});
  const auto token = MustSample(sampler, {1.0f, 3.0f, -2.0f, 3.0f});
  EXPECT_EQ(token.id, 1);
  EXPECT_NEAR(token.logprob, std::log(Softmax({1.0f, 3.0f, -2.0f, 3.0f}, 1.0)[1]), 1e-6);
}

TEST(SamplerTest, LogprobIsOfTheModelsOwnDistribution) {
  auto params = Sampling(0.25f);
  params.logit_bias = {{2, 50.0f}};
  params.top_k = 1;
  Sampler sampler(params, {}, {});
  const std::vector<float> logits{1.0f, 3.0f, -2.0f, 3.0f};
  const auto token = MustSample(sampler, logits);
  EXPECT_EQ(token.id, 2);
  EXPECT_NEAR(token.logprob, std::log(Softmax(logits, 1.0)[2]), 1e-6);
}

TEST(SamplerTest, BadLogitsAreErrors) {
  for (const float temperature : {0.0f, 1.0f}) {
    Sampler sampler(Sampling(temperature), {}, {});
    std::vector<float> nan{0.0f, kNan, 1.0f};
    EXPECT_THAT(sampler.Sample(nan).status().message(), HasSubstr("NaN"));
    std::vector<float> none{-kInf, -kInf};
    EXPECT_THAT(sampler.Sample(none).status().message(), HasSubstr("-inf"));
    EXPECT_FALSE(sampler.Sample({}).ok());
    auto params = Sampling(temperature);
    params.ignore_eos = true;
    params.logit_bias = {{0, -kInf}};
    const TokenId eos[] = {1};
    Sampler banned(params, {}, eos);
    std::vector<float> two{1.0f, 2.0f};
    EXPECT_THAT(banned.Sample(two).status().message(), HasSubstr("--ignore-eos"));
    two = {1.0f, 2.0f};
    EXPECT_FALSE(banned.Distribution(two).ok());
  }
}

TEST(SamplerTest, InfiniteLogitsAreEquallyLikely) {
  Sampler greedy(SamplingParams{}, {}, {});
  EXPECT_EQ(MustSample(greedy, {0.0f, kInf, 5.0f, kInf}).id, 1);
  EXPECT_NEAR(MustSample(greedy, {0.0f, kInf, 5.0f, kInf}).logprob, std::log(0.5), 1e-6);
  Sampler sampler(Sampling(0.7f), {}, {});
  std::vector<float> logits{0.0f, kInf, 5.0f, kInf};
  EXPECT_NEAR(MustSample(sampler, logits).logprob, std::log(0.5), 1e-6);
  const auto p = sampler.Distribution(logits);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(*p, (std::vector<double>{0.0, 0.5, 0.0, 0.5}));
}

TEST(SamplerTest, ExtremeTemperaturesStayFinite) {
  Sampler cold(Sampling(1e-40f), {}, {});
  std::vector<float> logits{1.0f, 3e38f, -3e38f, 2.9e38f};
  EXPECT_EQ((*cold.Distribution(logits))[1], 1.0);
  Sampler hot(Sampling(3e38f), {}, {});
  logits = {1.0f, 2.0f, 3.0f, 4.0f};
  EXPECT_NEAR((*hot.Distribution(logits))[0], 0.25, 1e-9);
}

// The warpers in the obvious way (full sorts; 1e-7 as documented), for
std::vector<double> NaiveWarp(const SamplingParams& params, const std::vector<float>& logits) {
  std::vector<size_t> kept(logits.size());
  std::iota(kept.begin(), kept.end(), 0u);
  const auto weight = [&](size_t i) {
    return std::exp(static_cast<double>(logits[i]) / static_cast<double>(params.temperature));
  };
  const auto total = [&] {
    double sum = 0;
    for (const size_t i : kept) sum += weight(i);
    return sum;
  };
  const auto order = [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a > b; };
  std::sort(kept.begin(), kept.end(), order);
  if (params.top_k > 0) {
    while (kept.size() > static_cast<size_t>(params.top_k) &&
           logits[kept.back()] < logits[kept[static_cast<size_t>(params.top_k) - 1]]) {
      kept.pop_back();
    }
  }
  if (params.top_p < 1.0f) {
    const double needed = (static_cast<double>(params.top_p) - 1e-7) * total();
    double sum = 0;
    size_t n = 0;
    while (n < kept.size() && sum < needed) sum += weight(kept[n++]);
    kept.resize(n);
  }
  if (params.min_p > 0.0f) {
    const double edge = static_cast<double>(params.min_p) * weight(kept[0]);
    while (weight(kept.back()) < edge) kept.pop_back();
  }
  if (params.typical_p < 1.0f) {
    const double z = total();
    double entropy = 0;
    for (const size_t i : kept) entropy -= weight(i) / z * std::log(weight(i) / z);
    const auto shift = [&](size_t i) { return std::abs(-std::log(weight(i) / z) - entropy); };
    std::sort(kept.begin(), kept.end(), [&](size_t a, size_t b) { return shift(a) < shift(b); });
    double sum = 0;
    size_t n = 0;
    while (n < kept.size() && sum < (static_cast<double>(params.typical_p) - 1e-7) * z) sum += weight(kept[n++]);
    kept.resize(n);
  }
  std::vector<double> p(logits.size(), 0.0);
  const double z = total();
  for (const size_t i : kept) p[i] = weight(i) / z;
  return p;
}

TEST(SamplerTest, LargeVocabulariesAgreeWithFullSorts) {
  for (const float sigma : {0.5f, 3.0f}) {
    const auto logits = NormalLogits(20000, sigma, 3);
    for (int which = 0; which < 12; ++which) {
      auto params = Sampling(which % 2 == 0 ? 0.7f : 1.3f);
      if (which < 3) params.top_k = which == 0 ? 1 : which * 700;
      if (which >= 2 && which < 8) params.top_p = 0.31f + 0.09f * static_cast<float>(which);
      if (which >= 7 && which < 9) params.min_p = 0.02f;
      if (which >= 9) params.typical_p = which == 9 ? 0.2f : 0.9f;
      Sampler sampler(params, {}, {});
      auto scratch = logits;
      const auto p = sampler.Distribution(scratch);
      ASSERT_TRUE(p.ok());
      const auto expected = NaiveWarp(params, logits);
      for (size_t i = 0; i < logits.size(); ++i) {
        ASSERT_EQ((*p)[i] > 0, expected[i] > 0) << which << " " << i << " " << (*p)[i] << " " << expected[i];
        ASSERT_NEAR((*p)[i], expected[i], 1e-6 * expected[i] + 1e-9) << which << " " << i << " sigma " << sigma;
      }
    }
  }
}

TEST(SamplerTest, ConstantLogitsDoNotDegenerate) {
  auto params = Sampling();
  params.top_k = 5;
  Sampler top_k(params, {}, {});
  std::vector<float> logits(100000, 2.0f);
  EXPECT_NEAR((*top_k.Distribution(logits))[99999], 1e-5, 1e-12);  // ties with the k-th stay
  params.top_k = 0;
  params.top_p = 0.25f;
  Sampler top_p(params, {}, {});
  logits.assign(100000, 2.0f);
  const auto p = top_p.Distribution(logits);
  EXPECT_EQ(std::count_if(p->begin(), p->end(), [](double x) { return x > 0; }), 25000);
  EXPECT_EQ((*p)[74999], 0.0);  // the higher ids stay, as in Hugging Face's ascending sort
  EXPECT_GT((*p)[75000], 0.0);
}

// The 0.999 quantile of chi-square with n degrees of freedom, by Wilson and Hilferty.
double ChiSquareLimit(double n) { return n * std::pow(1.0 - 2.0 / (9.0 * n) + 3.09 * std::sqrt(2.0 / (9.0 * n)), 3); }

TEST(SamplerTest, SamplesFollowTheDistribution) {
  const auto logits = NormalLogits(600, 1.5f, 11);
  std::vector<SamplingParams> variants(4, Sampling(0.9f, 77));
  variants[1].top_k = 30;
  variants[2].top_p = 0.8f;
  variants[3].typical_p = 0.6f;
  for (const SamplingParams& params : variants) {
    Sampler sampler(params, {}, {});
    auto scratch = logits;
    const auto p = *sampler.Distribution(scratch);
    constexpr int kDraws = 50000;
    std::vector<int> counts(logits.size(), 0);
    for (int i = 0; i < kDraws; ++i) {
      scratch = logits;
      const auto token = sampler.Sample(scratch);
      ASSERT_TRUE(token.ok());
      ++counts[static_cast<size_t>(token->id)];
    }
    double chi_square = 0;
    double bins = 0;
    double rest_expected = 0;
    double rest_seen = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0.0) {
        ASSERT_EQ(counts[i], 0);
      } else if (p[i] * kDraws < 8) {
        rest_expected += p[i] * kDraws;
        rest_seen += counts[i];
      } else {
        chi_square += std::pow(counts[i] - p[i] * kDraws, 2) / (p[i] * kDraws);
        ++bins;
      }
    }
    if (rest_expected > 8) {
      chi_square += std::pow(rest_seen - rest_expected, 2) / rest_expected;
      ++bins;
    }
    EXPECT_LT(chi_square, ChiSquareLimit(bins - 1)) << bins << " bins";
  }
}

TEST(SamplerTest, SeedsAndStreamsAreReproducibleAndDiffer) {
  const auto logits = NormalLogits(1000, 1.0f, 5);
  const auto draw = [&](uint64_t seed, uint64_t stream) {
    Sampler sampler(Sampling(1.0f, seed), {}, {}, stream);
    std::vector<TokenId> tokens;
    for (int i = 0; i < 8; ++i) tokens.push_back(MustSample(sampler, logits).id);
    return tokens;
  };
  EXPECT_EQ(draw(1, 0), draw(1, 0));
  EXPECT_NE(draw(1, 0), draw(2, 0));
  EXPECT_NE(draw(1, 0), draw(1, 1));
  EXPECT_NE(draw(1, 1), draw(1, 2));
}

TEST(RandomTest, IsTheReferenceSequence) {
  // From the authors' C code: splitmix64 of 0 gives the state, then xoshiro256**.
  Random random(0);
  EXPECT_EQ(random.Next(), 0x99EC5F36CB75F2B4u);
  EXPECT_EQ(random.Next(), 0xBF6E1F784956452Au);
  EXPECT_EQ(random.Next(), 0x1A5F849D4933E6E0u);
  for (int i = 0; i < 1000; ++i) {
    const double u = random.Uniform();
    EXPECT_GE(u, 0.0);
    EXPECT_LT(u, 1.0);
  }
}

TEST(SamplerTest, CopyingForksTheSequence) {
  const auto logits = NormalLogits(100, 1.0f, 5);
  auto params = Sampling();
  params.frequency_penalty = 2.0f;
  Sampler a(params, {}, {});
  a.Accept(3);
  Sampler b = a;
  b.Accept(4);
  EXPECT_EQ(a.generated().size(), 1u);
  EXPECT_EQ(b.generated().size(), 2u);
  std::vector<float> zeros(6, 0.0f);
  a.Process(zeros);
  EXPECT_EQ(zeros, (std::vector<float>{0, 0, 0, -2, 0, 0}));
}

TEST(SamplerTest, NgramsAreFoundInLinearTime) {
  SamplingParams params;
  params.no_repeat_ngram = 5000;
  std::vector<TokenId> prompt(200000, 1);
  const Sampler sampler(params, prompt, {});
  std::vector<float> logits(3, 0.0f);
  sampler.Process(logits);  // 10^9 comparisons if done naively
  EXPECT_EQ(logits, (std::vector<float>{0.0f, -kInf, 0.0f}));
}

TEST(SamplerTest, TokensOutsideTheHeadAreIgnored) {
  auto params = Sampling();
  params.repetition_penalty = 2.0f;
  params.no_repeat_ngram = 1;
  const std::vector<TokenId> prompt{1, 99, 1};
  const TokenId eos[] = {120};
  params.ignore_eos = true;
  Sampler sampler(params, prompt, eos);
  EXPECT_NE(MustSample(sampler, {1.0f, 2.0f}).id, 1);
}

TEST(SamplingParamsTest, ValidateNamesTheFlag) {
  const std::vector<std::pair<std::string, std::function<void(SamplingParams&)>>> bad = {
      {"--logit-bias", [](auto& p) { p.logit_bias[10] = 1; }},
      {"--logit-bias", [](auto& p) { p.logit_bias[-1] = 1; }},
      {"--logit-bias", [](auto& p) { p.logit_bias[1] = kNan; }},
      {"--logit-bias", [](auto& p) { p.logit_bias[1] = kInf; }},
      {"--repeat-penalty", [](auto& p) { p.repetition_penalty = 0; }},
      {"--repeat-penalty", [](auto& p) { p.repetition_penalty = kNan; }},
      {"--presence-penalty", [](auto& p) { p.presence_penalty = 2.1f; }},
      {"--frequency-penalty", [](auto& p) { p.frequency_penalty = kNan; }},
      {"--no-repeat-ngram", [](auto& p) { p.no_repeat_ngram = -1; }},
      {"--min-new-tokens", [](auto& p) { p.min_new_tokens = -1; }},
      {"--temp", [](auto& p) { p.temperature = -0.1f; }},
      {"--temp", [](auto& p) { p.temperature = kNan; }},
      {"--temp", [](auto& p) { p.temperature = kInf; }},
      {"--top-k", [](auto& p) { p.top_k = -1; }},
      {"--top-p", [](auto& p) { p.top_p = 0; }},
      {"--top-p", [](auto& p) { p.top_p = 1.5f; }},
      {"--top-p", [](auto& p) { p.top_p = kNan; }},
      {"--min-p", [](auto& p) { p.min_p = -0.1f; }},
      {"--typical-p", [](auto& p) { p.typical_p = 0; }},
      {"min_tokens_to_keep", [](auto& p) { p.min_tokens_to_keep = 0; }},
  };
  for (const auto& [flag, change] : bad) {
    SamplingParams params;
    ASSERT_TRUE(params.Validate(10).ok());
    change(params);
    EXPECT_THAT(params.Validate(10).message(), HasSubstr(flag));
    EXPECT_EQ(params.Validate(10).code(), StatusCode::kInvalidArgument);
  }
}

TEST(BeamParamsTest, ValidateNamesTheFlag) {
  EXPECT_TRUE(BeamParams{}.Validate(10).ok());
  EXPECT_THAT((BeamParams{.num_beams = 0}).Validate(10).message(), HasSubstr("--num-beams"));
  EXPECT_THAT((BeamParams{.num_beams = 2, .num_return = 3}).Validate(10).message(), HasSubstr("--num-beams"));
  EXPECT_THAT((BeamParams{.length_penalty = kNan}).Validate(10).message(), HasSubstr("--length-penalty"));
  EXPECT_THAT((BeamParams{.max_new_tokens = 0}).Validate(10).message(), HasSubstr("-n"));
}

TEST(BeamSearchTest, BadLogitsAreErrors) {
  BeamSearch search({.num_beams = 2, .max_new_tokens = 4}, {}, {}, {});
  std::vector<float> logits{0.0f, kNan, 0.0f};
  EXPECT_THAT(search.Step(logits, 1, 3).status().message(), HasSubstr("NaN"));
  EXPECT_FALSE(search.Step(logits, 2, 3).ok());
  SamplingParams banned;
  banned.logit_bias = {{0, -kInf}, {1, -kInf}};
  BeamSearch none({.num_beams = 2, .max_new_tokens = 4}, banned, {}, {});
  std::vector<float> two{0.0f, 1.0f};
  EXPECT_THAT(none.Step(two, 1, 2).status().message(), HasSubstr("--logit-bias"));
}

TEST(BeamSearchTest, StoppedEarlyGivesTheOpenBeams) {
  BeamSearch search({.num_beams = 2, .num_return = 2, .max_new_tokens = 9}, {}, {}, {});
  std::vector<float> logits{0.0f, 3.0f, 2.0f, 1.0f, 0.5f};
  const auto moves = search.Step(logits, 1, 5);
  ASSERT_TRUE(moves.ok());
  ASSERT_EQ(moves->size(), 2u);
  EXPECT_EQ((*moves)[0].parent, 0);
  EXPECT_EQ((*moves)[1].parent, 0);
  const auto best = search.Finish();
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[0].tokens, std::vector<TokenId>{1});
  EXPECT_EQ(best[1].tokens, std::vector<TokenId>{2});
  EXPECT_TRUE(search.done());
  EXPECT_TRUE(search.Step(logits, 2, 5)->empty());
}

}  // namespace
}  // namespace kvasir
