// Sampling parameters and the pipeline from one row of logits to one token.
// Semantics and order are Hugging Face's generate(); presence and frequency penalties are OpenAI's.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "decode/random.h"
#include "text/vocab.h"

namespace kvasir {

struct SamplingParams {
  // Order of application, as in the fields below.
  std::map<TokenId, float> logit_bias;  // added to the raw logits; -inf bans a token
  float repetition_penalty = 1.0f;      // over prompt and generated tokens; > 0
  float presence_penalty = 0.0f;        // over generated tokens, OpenAI's formula; [-2, 2]
  float frequency_penalty = 0.0f;       // over generated tokens, times their count; [-2, 2]
  int32_t no_repeat_ngram = 0;          // 0: off
  int32_t min_new_tokens = 0;           // EOS is impossible before
  bool ignore_eos = false;              // EOS is impossible (llama.cpp's --ignore-eos)
  float temperature = 0.0f;             // 0: greedy (the highest logit, the lowest id among equals)
  int32_t top_k = 0;                    // 0: off
  float top_p = 1.0f;                   // (0, 1]
  float min_p = 0.0f;                   // [0, 1]
  float typical_p = 1.0f;               // (0, 1]
  uint64_t seed = 0;
  int32_t min_tokens_to_keep = 1;  // by top-k, top-p, min-p and typical-p each

  bool greedy() const { return temperature == 0.0f; }
  /// What is out of range, in words that name the flag, its value and its range.
  Status Validate(int32_t vocab_size) const;
};

struct SampledToken {
  TokenId id = 0;
  float logprob = 0.0f;  // natural log of the model's own probability, before any processing
};

/// The processors and the random state of one sequence. Not thread-safe; copying forks the sequence.
/// The same seed and stream give the same tokens on every run, machine and number of threads.
class Sampler {
 public:
  /// `eos` as in VocabInfo; `stream` separates the samples of one request (n > 1) under one seed.
  Sampler(const SamplingParams& params, std::span<const TokenId> prompt, std::span<const TokenId> eos,
          uint64_t stream = 0);

  /// Applies all processors (not temperature and the warpers) to `logits` in place. logits: [vocab] fp32.
  void Process(std::span<float> logits) const;

  /// Chooses the next token; `logits` ([vocab] fp32, raw) is used as scratch. NaN, or no token left, is an error.
  /// Of +inf logits each is equally likely. Sampling uses up one random number, greedy none.
  /// `allowed`, where it is not empty: bit i % 64 of word i / 64 says whether token i may be chosen at all; tokens
  /// beyond it may not. The processors see only those.
  Result<SampledToken> Sample(std::span<float> logits, std::span<const uint64_t> allowed = {});

  /// The distribution Sample draws from: [vocab], sums to 1, a one-hot row when greedy; `logits` is used as scratch.
  Result<std::vector<double>> Distribution(std::span<float> logits) const;

  /// Tells the sampler that `token` was appended to the sequence (Sample does not do this by itself).
  void Accept(TokenId token);

  /// Tokens accepted since the prompt.
  std::span<const TokenId> generated() const;

 private:
  struct Count {
    TokenId id;
    int32_t generated;  // 0: in the prompt only
  };

  bool has_processors() const;
  bool counts_tokens() const;
  void CountToken(TokenId token, bool generated);
  void BanRepeatedNgrams(std::span<float> logits) const;

  SamplingParams params_;
  std::vector<TokenId> eos_;
  std::vector<TokenId> history_;  // generated tokens, after the prompt's where n-grams need it
  size_t prompt_size_ = 0;        // tokens of the prompt in history_
  std::vector<Count> counts_;     // each different token once, in order of appearance; empty without penalties
  std::unordered_map<TokenId, size_t> count_index_;  // into counts_
  Random random_;
};

}  // namespace kvasir
