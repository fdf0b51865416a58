// Generation under a constraint: every answer keeps to it, alone and in company.
#include "decode/constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/test_paths.h"
#include "decode/json_constraint.h"
#include "decode/json_schema.h"
#include "engine/batch_loop.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using testing::DemoOptions;
using ::testing::HasSubstr;
using testing::LoadOrDie;

constexpr std::string_view kPerson =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer","minimum":0,)"
    R"("maximum":120},"tags":{"type":"array","items":{"enum":["red","green"]},"maxItems":2}},)"
    R"("required":["name","age","tags"],"additionalProperties":false})";

std::shared_ptr<const JsonGrammar> Person() {
  const auto grammar = CompileJsonSchemaText(kPerson, "schema");
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return *grammar;
}

/// Any person, from any tokens.
GenerationRequest Request(Engine& engine, float temperature, uint64_t seed) {
  GenerationRequest request;
  request.prompt = *engine.tokenizer()->Encode("Once upon a time");
  request.max_new_tokens = 150;
  request.sampling.temperature = temperature;
  request.sampling.seed = seed;
  const auto tokens = engine.token_trie();
  EXPECT_TRUE(tokens.ok()) << tokens.status().message();
  request.constraint = MakeJsonConstraint(Person(), *tokens);
  return request;
}

void ExpectPerson(const GeneratedSample& sample) {
  EXPECT_EQ(sample.finish, FinishReason::kEos) << sample.text;
  const auto value = ParseJson(sample.text, "answer");
  ASSERT_TRUE(value.ok()) << value.status().message() << "\n" << sample.text;
  EXPECT_LE(value->at("age").as_int64(), 120);
  EXPECT_LE(value->at("tags").as_array().size(), 2u);
  EXPECT_EQ(value->as_object().size(), 3u);
}

TEST(ConstraintTest, EveryAnswerKeepsToItsSchemaAtAnyTemperature) {
  const auto engine = LoadOrDie(DemoOptions());
  for (const float temperature : {0.0f, 0.8f, 5.0f, 50.0f}) {
    auto request = Request(*engine, temperature, 7);
    request.n = 4;
    request.sampling.repetition_penalty = 1.3f;
    std::vector<std::string> shown(4);
    const auto output = engine->Generate(request, [&](const TextEvent& event) {
      shown[static_cast<size_t>(event.index)] += event.text;
      return true;
    });
    ASSERT_TRUE(output.ok()) << output.status().message();
    for (size_t i = 0; i < 4; ++i) {
      ExpectPerson(output->samples[i]);
      EXPECT_EQ(shown[i], output->samples[i].text);
    }
  }
}

TEST(ConstraintTest, TheLengthStillEndsAnAnswer) {
  const auto engine = LoadOrDie(DemoOptions());
  auto request = Request(*engine, 0.8f, 1);
  request.max_new_tokens = 5;
  const auto output = engine->Generate(request);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->samples[0].finish, FinishReason::kLength);
  // And so does the value, though no end of text may be chosen.
  request = Request(*engine, 0.8f, 1);
  request.sampling.ignore_eos = true;
  const auto whole = engine->Generate(request);
  ASSERT_TRUE(whole.ok());
  ExpectPerson(whole->samples[0]);
}

TEST(ConstraintTest, LogprobsAreTheModelsOwn) {
  const auto engine = LoadOrDie(DemoOptions());
  const auto request = Request(*engine, 0.0f, 1);
  const auto output = engine->Generate(request);
  ASSERT_TRUE(output.ok());
  const GeneratedSample& sample = output->samples[0];
  std::vector<TokenId> text = request.prompt;
  text.insert(text.end(), sample.token_ids.begin(), sample.token_ids.end());
  const auto first = static_cast<int64_t>(request.prompt.size()) - 1;
  size_t compared = 0;
  const auto compare = [&](int64_t row, MatView<const float> logits) {
    for (int64_t r = 0; r < logits.rows && row + r - first < static_cast<int64_t>(sample.token_ids.size()); ++r) {
      const auto i = static_cast<size_t>(row + r - first);
      double sum = 0;
      const float* own = logits.row(r);
      const float max = *std::max_element(own, own + logits.cols);
      for (int64_t c = 0; c < logits.cols; ++c) sum += std::exp(static_cast<double>(own[c] - max));
      EXPECT_NEAR(sample.logprobs[i], own[sample.token_ids[i]] - max - std::log(sum), 1e-4);
      ++compared;
    }
    return OkStatus();
  };
  ASSERT_TRUE(engine->ForEachLogits(text, first, compare).ok());
  EXPECT_EQ(compared, sample.token_ids.size());
  // Otherwise other words would have come.
  EXPECT_LT(*std::ranges::min_element(sample.logprobs), -3.0f);
}

TEST(ConstraintTest, AnswersDoNotDependOnCompanyOrPreemption) {
  const auto alone = LoadOrDie(DemoOptions());
  constexpr size_t kRequests = 8;
  const auto request = [](Engine& engine, size_t i) {
    auto made = Request(engine, i % 3 == 0 ? 0.0f : 1.5f, i);
    if (i == 4) made.n = 3;
    if (i == 5) made.constraint = nullptr;
    return made;
  };
  std::vector<std::vector<GeneratedSample>> expected;
  for (size_t i = 0; i < kRequests; ++i) {
    auto output = alone->Generate(request(*alone, i));
    ASSERT_TRUE(output.ok()) << output.status().message();
    expected.push_back(output->samples);
  }
  for (const int64_t pool : {int64_t{0}, int64_t{240}}) {
    const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged, pool));
    auto loop = engine->Batch({.max_running = 6, .step_tokens = 40});
    ASSERT_TRUE(loop.ok()) << loop.status().message();
    const auto shared = Request(*engine, 0, 0).constraint;
    std::vector<std::vector<GeneratedSample>> answers(kRequests);
    for (size_t i = 0; i < kRequests; ++i) {
      auto made = request(*engine, i);
      if (made.constraint && i % 2 == 1) made.constraint = shared;  // states of several requests in one
      const auto id = (*loop)->Submit({.generation = made, .on_done = [&answers, i](Result<BatchOutput> output) {
                                         ASSERT_TRUE(output.ok()) << output.status().message();
                                         answers[i] = std::move(output->samples);
                                       }});
      ASSERT_TRUE(id.ok()) << id.status().message();
    }
    for (bool more = true; more;) {
      const auto step = (*loop)->Step();
      ASSERT_TRUE(step.ok());
      more = *step;
    }
    EXPECT_EQ((*loop)->counts().preempted > 0, pool > 0);
    for (size_t i = 0; i < kRequests; ++i) {
      ASSERT_EQ(answers[i].size(), expected[i].size());
      for (size_t s = 0; s < answers[i].size(); ++s) {
        EXPECT_EQ(answers[i][s].token_ids, expected[i][s].token_ids);
        EXPECT_EQ(answers[i][s].logprobs, expected[i][s].logprobs);
        EXPECT_EQ(answers[i][s].text, expected[i][s].text);
        if (i != 5) ExpectPerson(answers[i][s]);
      }
    }
  }
}

TEST(ConstraintTest, BeamsAreRefusedAndTooNarrowVocabulariesSaySo) {
  const auto engine = LoadOrDie(DemoOptions());
  auto request = Request(*engine, 0, 0);
  request.beams = {.num_beams = 2};
  const auto beams = engine->Generate(request);
  ASSERT_FALSE(beams.ok());
  EXPECT_EQ(beams.status().code(), StatusCode::kUnsupported);
  request = Request(*engine, 0, 0);
  for (TokenId id = 0; id < engine->tokenizer()->vocab().size; ++id) {
    if (engine->tokenizer()->TokenBytes(id)->find('{') != std::string::npos) {
      request.sampling.logit_bias[id] = -std::numeric_limits<float>::infinity();
    }
  }
  const auto banned = engine->Generate(request);
  ASSERT_FALSE(banned.ok());
  EXPECT_THAT(banned.status().message(), HasSubstr("no token is left"));
}

double Milliseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

/// Follows a text token by token; the largest time of a mask in milliseconds, and the mean.
std::pair<double, double> TimeMasks(Constraint& constraint, const std::vector<TokenId>& ids, std::string_view name) {
  double longest = 0;
  double sum = 0;
  Constraint::State state = constraint.Start();
  for (const TokenId id : ids) {
    const auto start = std::chrono::steady_clock::now();
    const auto mask = constraint.Mask(state);
    const double took = Milliseconds(std::chrono::steady_clock::now() - start);
    EXPECT_TRUE(mask.ok()) << mask.status().message();
    longest = std::max(longest, took);
    sum += took;
    const auto next = constraint.Next(state, id);
    EXPECT_TRUE(next.ok()) << name << " " << next.status().message();
    if (!next.ok()) break;
    state = *next;
  }
  return {longest, sum / static_cast<double>(ids.size())};
}

TEST(ConstraintTest, MasksOfRealVocabulariesTakeLittle) {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  const std::pair<const char*, std::string> schemas[] = {
      {"object", R"({"type":"object"})"},
      {"person", std::string(kPerson)},
      {"pattern", R"({"type":"object","properties":{"name":{"type":"string","pattern":"^[^0-9]*$"},)"
                  R"("age":{"type":"number","minimum":0},"tags":{"type":"array","maxItems":9}},"required":["name"]})"}};
  const std::string text = R"({"name": "Ada \"x\" é", "age": 36, "tags": ["red", "green"]})";
  std::ifstream list(std::filesystem::path(kFixtures) / "tokenizers/real/list.tsv");
  for (std::string line; std::getline(list, line);) {
    const size_t tab = line.find('\t');
    const std::filesystem::path path = std::filesystem::path(data) / line.substr(tab + 1);
    if (path.extension() == ".gguf") continue;
    const auto tokenizer = std::filesystem::is_directory(path) ? LoadTokenizer(path) : LoadTokenizerFile(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const auto ids = (*tokenizer)->Encode(text, {.add_special = false});
    ASSERT_TRUE(ids.ok());
    std::string written;
    for (const TokenId id : *ids) written += *(*tokenizer)->TokenBytes(id);
    if (written != text && written != " " + text) continue;  // it cannot write it as it is (case, spaces)
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::string> bytes;
    for (TokenId id = 0; id < (*tokenizer)->vocab().size; ++id) bytes.push_back(*(*tokenizer)->TokenBytes(id));
    const auto trie = TokenTrie::Make(std::move(bytes));
    ASSERT_TRUE(trie.ok());
    const double made = Milliseconds(std::chrono::steady_clock::now() - start);
    for (const auto& [name, schema] : schemas) {
      const auto grammar = CompileJsonSchemaText(schema, "schema");
      ASSERT_TRUE(grammar.ok()) << grammar.status().message();
      const auto constraint = MakeJsonConstraint(*grammar, *trie);
      const auto [cold, cold_mean] = TimeMasks(*constraint, *ids, name);
      const auto [warm, warm_mean] = TimeMasks(*constraint, *ids, name);
      fmt::print("{:24} {:7} tokens, trie {:6.1f} ms, {:8}: a mask cold {:.3f} ms ({:.3f} at most), warm {:.5f} ms\n",
                 line.substr(0, tab), (*tokenizer)->vocab().size, made, name, cold_mean, cold, warm_mean);
      // A wrong order of growth would take seconds; the bound leaves room for sanitizers on a busy machine.
      EXPECT_LT(cold, 2000);
      EXPECT_LT(warm, 100);
    }
  }
}

}  // namespace
}  // namespace kvasir
