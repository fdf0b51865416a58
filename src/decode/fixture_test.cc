// Against Hugging Face transformers 4.46: tests/fixtures/decode, made by tools/fixtures/make_decode_fixtures.py.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/test_paths.h"
#include "decode/beam_search.h"
#include "decode/sampling.h"

namespace kvasir {
namespace {

uint32_t Mix(uint32_t h) {
  h = (h ^ (h >> 16)) * 0x7FEB352Du;
  h = (h ^ (h >> 15)) * 0x846CA68Bu;
  return h ^ (h >> 16);
}

// The script's hash_logits, bit for bit.
std::vector<float> HashLogits(uint32_t seed, int32_t vocab, float scale, bool ties) {
  std::vector<float> logits;
  for (uint32_t i = 0; i < static_cast<uint32_t>(vocab); ++i) {
    const auto h = static_cast<int32_t>(Mix(seed * 0x9E3779B9u + i * 0x85EBCA6Bu) % (ties ? 33 : 2048));
    if (ties) {
      logits.push_back(static_cast<float>(h - 16) * 0.25f * scale);
    } else {
      const float v = static_cast<float>(h * 512 + static_cast<int32_t>(i) - (1 << 19)) / static_cast<float>(1 << 19);
      logits.push_back(v * v * v * scale);
    }
  }
  return logits;
}

struct Case {
  SamplingParams params;
  BeamParams beam;
  std::vector<TokenId> prompt, generated, eos;
  uint32_t seed = 0;
  int32_t vocab = 0;
  float scale = 1;
  bool ties = false;
  std::vector<std::pair<TokenId, double>> support;
  std::vector<BeamHypothesis> results;
};

template <typename T>
T Read(std::istream& in) {
  T value{};
  in >> value;
  return value;
}

std::vector<TokenId> ReadList(std::istream& in) {
  std::vector<TokenId> list(Read<size_t>(in));
  for (TokenId& token : list) in >> token;
  return list;
}

Case ParseCase(const std::string& line) {
  Case c;
  std::istringstream in(line);
  std::string key;
  while (in >> key) {
    if (key == "case") continue;
    if (key == "bias") {
      const auto n = Read<size_t>(in);
      for (size_t i = 0; i < n; i += 2) {
        const auto token = Read<TokenId>(in);
        c.params.logit_bias[token] = Read<float>(in);
      }
    } else if (key == "rep") {
      in >> c.params.repetition_penalty;
    } else if (key == "presence") {
      in >> c.params.presence_penalty;
    } else if (key == "frequency") {
      in >> c.params.frequency_penalty;
    } else if (key == "ngram") {
      in >> c.params.no_repeat_ngram;
    } else if (key == "min_new") {
      in >> c.params.min_new_tokens;
    } else if (key == "ignore_eos") {
      in >> c.params.ignore_eos;
    } else if (key == "eos") {
      c.eos = ReadList(in);
    } else if (key == "seed") {
      in >> c.seed;
    } else if (key == "vocab") {
      in >> c.vocab;
    } else if (key == "scale") {
      in >> c.scale;
    } else if (key == "ties") {
      in >> c.ties;
    } else if (key == "prompt") {
      c.prompt = ReadList(in);
    } else if (key == "generated") {
      c.generated = ReadList(in);
    } else if (key == "temp") {
      in >> c.params.temperature;
    } else if (key == "top_k") {
      in >> c.params.top_k;
    } else if (key == "top_p") {
      in >> c.params.top_p;
    } else if (key == "min_p") {
      in >> c.params.min_p;
    } else if (key == "typical") {
      in >> c.params.typical_p;
    } else if (key == "keep") {
      in >> c.params.min_tokens_to_keep;
    } else if (key == "support") {
      const auto n = Read<size_t>(in);
      for (size_t i = 0; i < n; ++i) {
        const auto token = Read<TokenId>(in);
        c.support.emplace_back(token, Read<double>(in));
      }
    } else if (key == "beams") {
      in >> c.beam.num_beams;
    } else if (key == "returned") {
      in >> c.beam.num_return;
    } else if (key == "penalty") {
      in >> c.beam.length_penalty;
    } else if (key == "early") {
      c.beam.early_stopping = static_cast<EarlyStopping>(Read<int>(in));
    } else if (key == "max_new") {
      in >> c.beam.max_new_tokens;
    } else if (key == "result") {
      BeamHypothesis result;
      in >> result.score;
      result.tokens = ReadList(in);
      c.results.push_back(std::move(result));
    } else {
      ADD_FAILURE() << "unknown field " << key;
      return c;
    }
    if (!in) ADD_FAILURE() << "malformed field " << key;
  }
  return c;
}

std::vector<std::string> Lines(const std::string& name) {
  std::ifstream file(std::string(kFixtures) + "/decode/" + name);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

TEST(SamplerFixtureTest, DistributionsEqualHuggingFaces) {
  const auto lines = Lines("distributions.txt");
  ASSERT_GE(lines.size(), 500u);
  for (const std::string& line : lines) {
    SCOPED_TRACE(line);
    const Case c = ParseCase(line);
    ASSERT_TRUE(c.params.Validate(c.vocab).ok());
    Sampler sampler(c.params, c.prompt, c.eos);
    for (const TokenId token : c.generated) sampler.Accept(token);
    auto logits = HashLogits(c.seed, c.vocab, c.scale, c.ties);
    const auto distribution = sampler.Distribution(logits);
    ASSERT_TRUE(distribution.ok()) << distribution.status().message();
    // Below 1e-37 a weight is zero in fp32, also in Hugging Face when it samples.
    std::vector<std::pair<TokenId, double>> expected = c.support;
    std::erase_if(expected, [](const auto& entry) { return entry.second < 1e-36; });
    std::vector<std::pair<TokenId, double>> support;
    for (size_t i = 0; i < distribution->size(); ++i) {
      if ((*distribution)[i] > 1e-36) support.emplace_back(static_cast<TokenId>(i), (*distribution)[i]);
    }
    ASSERT_EQ(support.size(), expected.size());
    for (size_t i = 0; i < support.size(); ++i) {
      ASSERT_EQ(support[i].first, expected[i].first);
      ASSERT_NEAR(support[i].second, expected[i].second, 1e-6);
    }
  }
}

TEST(BeamSearchFixtureTest, HypothesesEqualHuggingFaces) {
  const auto lines = Lines("beams.txt");
  ASSERT_GE(lines.size(), 300u);
  for (const std::string& line : lines) {
    SCOPED_TRACE(line);
    const Case c = ParseCase(line);
    ASSERT_TRUE(c.beam.Validate(c.vocab).ok());
    BeamSearch search(c.beam, c.params, c.prompt, c.eos);
    std::vector<std::vector<TokenId>> sequences{c.prompt};
    int steps = 0;
    while (!search.done()) {
      ASSERT_LE(++steps, c.beam.max_new_tokens);
      std::vector<float> logits;
      for (const auto& sequence : sequences) {
        uint32_t state = c.seed;
        for (size_t i = sequence.size() - std::min<size_t>(sequence.size(), 3); i < sequence.size(); ++i) {
          state = Mix(state * 31u + static_cast<uint32_t>(sequence[i]) + 1u);
        }
        const auto row = HashLogits(state, c.vocab, c.scale, false);
        logits.insert(logits.end(), row.begin(), row.end());
      }
      const auto moves = search.Step(logits, static_cast<int32_t>(sequences.size()), c.vocab);
      ASSERT_TRUE(moves.ok()) << moves.status().message();
      ASSERT_EQ(moves->empty(), search.done());
      std::vector<std::vector<TokenId>> next;
      for (const BeamMove& move : *moves) {
        next.push_back(sequences[static_cast<size_t>(move.parent)]);
        next.back().push_back(move.token);
      }
      sequences = std::move(next);
    }
    const auto best = search.Finish();
    ASSERT_EQ(best.size(), c.results.size());
    for (size_t i = 0; i < best.size(); ++i) {
      auto tokens = best[i].tokens;
      // Hugging Face writes the first EOS id, whichever ended the text.
      if (std::find(c.eos.begin(), c.eos.end(), tokens.back()) != c.eos.end()) tokens.back() = c.eos[0];
      ASSERT_EQ(tokens, c.results[i].tokens) << "hypothesis " << i;
      ASSERT_NEAR(best[i].score, c.results[i].score, 1e-5 * std::max(1.0f, std::abs(best[i].score)));
    }
  }
}

}  // namespace
}  // namespace kvasir
