#include "decode/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "decode/softmax.h"

namespace kvasir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// All beams start as the same prompt; this keeps the others' candidates behind those of the first.
constexpr float kDuplicateScore = -1e9f;

// logits -> log-probabilities, in place.
Status LogSoftmax(std::span<float> row) {
  const RowSummary summary = Summarize(row);
  if (summary.has_nan || summary.max == -kInfinity) {
    return InvalidData("the model's logits {}; its weights are damaged or overflow in this precision (try --dtype f32)",
                       summary.has_nan ? "hold NaN" : "are all -inf");
  }
  for (float& logit : row) logit = static_cast<float>(summary.LogProb(logit));
  return OkStatus();
}

}  // namespace

Status BeamParams::Validate(int32_t vocab_size) const {
  constexpr int32_t kMaxBeams = 1024;
  if (num_beams < 1 || num_beams > kMaxBeams) {
    return InvalidArgument("--num-beams {} is out of range: 1 to {}", num_beams, kMaxBeams);
  }
  if (vocab_size < 2) return InvalidArgument("--num-beams: a vocabulary of {} tokens leaves no choice", vocab_size);
  if (num_return < 1 || num_return > num_beams) {
    return InvalidArgument("{} sequences to return are out of range: 1 to --num-beams {}", num_return, num_beams);
  }
  if (!std::isfinite(length_penalty)) {
    return InvalidArgument("--length-penalty {} is out of range: any finite number (1 is the mean, 0 is off)",
                           length_penalty);
  }
  if (max_new_tokens < 1) return InvalidArgument("-n {} is out of range: 1 or more for beam search", max_new_tokens);
  return OkStatus();
}

BeamSearch::BeamSearch(const BeamParams& params, const SamplingParams& processors, std::span<const TokenId> prompt,
                       std::span<const TokenId> eos)
    : params_(params), eos_(eos.begin(), eos.end()) {
  const Sampler sampler(processors, prompt, eos);
  beams_.assign(static_cast<size_t>(params.num_beams), Beam{sampler, kDuplicateScore});
  beams_.front().score = 0.0f;
}

bool BeamSearch::IsEos(TokenId token) const { return std::find(eos_.begin(), eos_.end(), token) != eos_.end(); }

Result<std::vector<BeamSearch::Candidate>> BeamSearch::BestCandidates(std::span<float> logits, int32_t rows,
                                                                      int32_t vocab) {
  // Enough that num_beams are left when every beam ends in every EOS.
  const size_t wanted = std::max<size_t>(2, 1 + eos_.size()) * beams_.size();
  const auto better = [](const Candidate& a, const Candidate& b) {
    return std::tuple(-a.score, a.beam, a.token) < std::tuple(-b.score, b.beam, b.token);
  };
  std::vector<Candidate> best;
  best.reserve(2 * wanted);
  float threshold = -kInfinity;  // the worst of `wanted` candidates once there are as many
  bool full = false;
  const auto compact = [&] {
    if (best.size() < wanted) return;
    const auto last = best.begin() + static_cast<std::ptrdiff_t>(wanted - 1);
    std::nth_element(best.begin(), last, best.end(), better);
    threshold = last->score;
    full = true;
    best.resize(wanted);
  };
  const auto size = static_cast<size_t>(vocab);
  for (size_t beam = 0; beam < beams_.size(); ++beam) {
    const bool duplicate = rows == 1 && beam > 0;
    // The prompt's duplicates count only where its own row does not have enough possible tokens.
    if (duplicate && full && threshold > kDuplicateScore) break;
    const auto row = logits.subspan(duplicate ? 0 : beam * size, size);
    if (!duplicate) {
      RETURN_IF_ERROR(LogSoftmax(row));
      beams_[beam].sampler.Process(row);
    }
    const float sum = beams_[beam].score;
    for (size_t token = 0; token < size; ++token) {
      const float score = row[token] + sum;
      // Candidates come in order of beam and token, so a later one of the same score is always worse.
      if (full && !(score > threshold)) continue;
      best.push_back({score, static_cast<int32_t>(beam), static_cast<TokenId>(token)});
      if (best.size() >= 2 * wanted) compact();
    }
    if (rows == 1) compact();
  }
  compact();
  std::sort(best.begin(), best.end(), better);
  return best;
}

void BeamSearch::AddHypothesis(std::vector<TokenId> tokens, double sum, size_t length) {
  const double score = sum / std::pow(static_cast<double>(length), static_cast<double>(params_.length_penalty));
  if (finished_.size() >= beams_.size() && !(score > worst_finished_)) return;
  finished_.push_back({std::move(tokens), score});
  const auto worse = [](const Hypothesis& a, const Hypothesis& b) { return a.score < b.score; };
  if (finished_.size() > beams_.size()) finished_.erase(std::min_element(finished_.begin(), finished_.end(), worse));
  worst_finished_ = std::min_element(finished_.begin(), finished_.end(), worse)->score;
}

bool BeamSearch::CannotImprove(double best_sum, size_t length) const {
  if (finished_.size() < beams_.size()) return false;
  if (params_.early_stopping == EarlyStopping::kTrue) return true;
  // With "never" and a positive penalty the longest text has the best chance: sums are negative.
  const bool longest = params_.early_stopping == EarlyStopping::kNever && params_.length_penalty > 0.0f;
  const double divisor = longest ? static_cast<double>(params_.max_new_tokens) : static_cast<double>(length);
  return worst_finished_ >= best_sum / std::pow(divisor, static_cast<double>(params_.length_penalty));
}

Result<std::vector<BeamMove>> BeamSearch::Step(std::span<float> logits, int32_t rows, int32_t vocab) {
  if (done_) return std::vector<BeamMove>{};
  const int32_t expected_rows = steps_ == 0 ? 1 : params_.num_beams;
  if (rows != expected_rows || vocab < 1 || logits.size() != static_cast<size_t>(rows) * static_cast<size_t>(vocab)) {
    return Internal("beam search: {} logits for {} rows of {}, expected {} rows", logits.size(), rows, vocab,
                    expected_rows);
  }
  ASSIGN_OR_RETURN(const std::vector<Candidate> candidates, BestCandidates(logits, rows, vocab));
  if (candidates.front().score == -kInfinity) {
    return InvalidArgument(
        "beam search: no token is left to choose: --logit-bias, --no-repeat-ngram, --min-new-tokens and --ignore-eos "
        "rule out every one; relax one of them");
  }

  const auto length = static_cast<size_t>(steps_) + 1;
  std::vector<BeamMove> moves;
  std::vector<Beam> next;
  moves.reserve(beams_.size());
  next.reserve(beams_.size());
  for (size_t rank = 0; rank < candidates.size() && next.size() < beams_.size(); ++rank) {
    const Candidate& candidate = candidates[rank];
    const Beam& parent = beams_[static_cast<size_t>(candidate.beam)];
    if (IsEos(candidate.token)) {
      if (rank >= beams_.size()) continue;  // worse than what could go on
      const auto generated = parent.sampler.generated();
      std::vector<TokenId> tokens(generated.begin(), generated.end());
      tokens.push_back(candidate.token);
      AddHypothesis(std::move(tokens), static_cast<double>(candidate.score), length);
      continue;
    }
    next.push_back({parent.sampler, candidate.score});
    next.back().sampler.Accept(candidate.token);
    moves.push_back({rows == 1 ? 0 : candidate.beam, candidate.token});
  }
  if (next.size() < beams_.size()) {
    return InvalidArgument("--num-beams {}: a vocabulary of {} tokens with {} ids of EOS has too few to go on",
                           params_.num_beams, vocab, eos_.size());
  }
  beams_ = std::move(next);
  ++steps_;
  complete_ = CannotImprove(static_cast<double>(candidates.front().score), length);
  done_ = complete_ || steps_ >= params_.max_new_tokens;
  if (done_) moves.clear();
  return moves;
}

std::vector<BeamHypothesis> BeamSearch::Finish() {
  if (!complete_ && steps_ > 0) {
    for (const Beam& beam : beams_) {
      const auto generated = beam.sampler.generated();
      AddHypothesis({generated.begin(), generated.end()}, static_cast<double>(beam.score), generated.size());
    }
  }
  complete_ = done_ = true;
  // Of equal scores the last to arrive comes first, as in a stable ascending sort read from its end.
  std::vector<size_t> order(finished_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [this](size_t a, size_t b) { return std::pair(finished_[a].score, a) > std::pair(finished_[b].score, b); });
  std::vector<BeamHypothesis> best;
  for (const size_t i : order) {
    if (best.size() >= static_cast<size_t>(params_.num_return)) break;
    best.push_back({finished_[i].tokens, static_cast<float>(finished_[i].score)});
  }
  return best;
}

}  // namespace kvasir
