// Beam search over one prompt, as Hugging Face's generate(num_beams=…, do_sample=False).
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "decode/sampling.h"
#include "text/vocab.h"

namespace kvasir {

enum class EarlyStopping { kFalse, kTrue, kNever };

struct BeamParams {
  int32_t num_beams = 1;
  int32_t num_return = 1;  // best sequences returned, <= num_beams
  float length_penalty = 1.0f;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  int32_t max_new_tokens = 1;

  /// What is out of range, in words that name the flag, its value and its range.
  Status Validate(int32_t vocab_size) const;
};

/// The new beam i continues old beam `parent` with `token`.
struct BeamMove {
  int32_t parent;
  TokenId token;
};

struct BeamHypothesis {
  std::vector<TokenId> tokens;  // generated only, with its EOS if it ended in one
  float score;                  // sum of processed log-probabilities / length^length_penalty, EOS counted
};

/// State of one search. Knows no model: the caller runs the beams, hands in their logits and moves caches about.
/// As Hugging Face 4.46's BeamSearchScorer, ties going to the lower beam, then the lower token. Two differences in
/// what is returned: a hypothesis ends in the EOS it chose (Hugging Face writes the first of the EOS ids), and is not
/// padded. The processors work on log-probabilities, as there; temperature and the warpers are not applied.
/// Not thread-safe. REQUIRES: params and processors are valid.
class BeamSearch {
 public:
  BeamSearch(const BeamParams& params, const SamplingParams& processors, std::span<const TokenId> prompt,
             std::span<const TokenId> eos);

  /// logits: [rows, vocab] fp32, used as scratch; rows is 1 at the first call (the prompt) and num_beams afterwards.
  /// Returns num_beams moves, or none when the search is done. NaN, a row that is all -inf, and processors that rule
  /// out every token are errors.
  Result<std::vector<BeamMove>> Step(std::span<float> logits, int32_t rows, int32_t vocab);

  bool done() const { return done_; }

  /// The best num_return hypotheses, best first. REQUIRES: done(), or the caller stops here for another reason.
  std::vector<BeamHypothesis> Finish();

 private:
  struct Beam {
    Sampler sampler;
    float score;  // sum of processed log-probabilities
  };
  struct Candidate {
    float score;
    int32_t beam;
    TokenId token;
  };
  struct Hypothesis {
    std::vector<TokenId> tokens;
    double score;
  };

  Result<std::vector<Candidate>> BestCandidates(std::span<float> logits, int32_t rows, int32_t vocab);
  void AddHypothesis(std::vector<TokenId> tokens, double sum, size_t length);
  bool CannotImprove(double best_sum, size_t length) const;
  bool IsEos(TokenId token) const;

  BeamParams params_;
  std::vector<TokenId> eos_;
  std::vector<Beam> beams_;
  std::vector<Hypothesis> finished_;  // at most num_beams, in order of arrival
  double worst_finished_ = 1e9;       // the lowest score of them
  int32_t steps_ = 0;
  bool complete_ = false;  // nothing open can beat what is finished
  bool done_ = false;      // complete, or at the maximum length
};

}  // namespace kvasir
