#include "engine/embedding.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvasir {
namespace {

/// A vector of length 1 in the direction of `sum`; zeros stay zeros.
std::vector<float> Normalised(const std::vector<double>& sum) {
  double squares = 0;
  for (const double x : sum) squares += x * x;
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> vector(sum.size());
  std::ranges::transform(sum, vector.begin(), [&](double x) { return static_cast<float>(x * scale); });
  return vector;
}

}  // namespace

EmbeddingQueue::~EmbeddingQueue() {
  for (const Job& job : jobs_) {
    if (job.seq) cache_.Release(*job.seq);
  }
}

void EmbeddingQueue::Add(int64_t id, EmbeddingRequest request) {
  KVASIR_CHECK(!request.tokens.empty());
  jobs_.push_back({.id = id, .request = std::move(request)});
}

void EmbeddingQueue::Cancel(int64_t id) {
  const auto job = std::ranges::find(jobs_, id, &Job::id);
  if (job == jobs_.end()) return;
  if (job->seq) cache_.Release(*job->seq);
  jobs_.erase(job);
}

/// Ends the first job.
void EmbeddingQueue::End(Result<std::vector<float>> result) {
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  if (job.seq) cache_.Release(*job.seq);
  if (job.request.on_done) job.request.on_done(std::move(result));
}

Status EmbeddingQueue::RunSome(Job& job, int64_t most_tokens) {
  const std::vector<TokenId>& tokens = job.request.tokens;
  const size_t count = std::min(tokens.size() - job.at, static_cast<size_t>(most_tokens));
  const bool last_piece = job.at + count == tokens.size();
  const bool mean = job.request.pooling == Pooling::kMean;
  const auto length = static_cast<int64_t>(count);
  const int64_t first_row = mean ? 0 : last_piece ? length - 1 : length;
  const StepInput input{.seq = *job.seq,
                        .tokens = std::span(tokens).subspan(job.at, count),
                        .planned_length = static_cast<int64_t>(tokens.size())};
  const Status status =
      runner_.RunRows(input, first_row, most_tokens, [&](int64_t, MatView<const float> hidden) -> Status {
        job.sum.resize(static_cast<size_t>(hidden.cols));
        for (int64_t r = 0; r < hidden.rows; ++r) {
          for (int64_t c = 0; c < hidden.cols; ++c)
            job.sum[static_cast<size_t>(c)] += static_cast<double>(hidden.row(r)[c]);
        }
        return OkStatus();
      });
  // A part of the piece may have been run where there was no room for all of it.
  job.at = static_cast<size_t>(cache_.NextPosition(*job.seq));
  return status;
}

void EmbeddingQueue::GiveWay() {
  Job& job = jobs_.front();
  cache_.Release(*std::exchange(job.seq, std::nullopt));
  job.at = 0;
  job.sum.clear();
  job.wants_room = job.gave_way = true;
}

void EmbeddingQueue::Step(int64_t most_tokens, bool others_run) {
  if (jobs_.empty()) return;
  Job& job = jobs_.front();
  if (job.gave_way && others_run) return;
  if (!job.seq) {
    auto seq = cache_.Create();
    if (!seq.ok()) {
      job.wants_room = true;
      if (!others_run) End(seq.status());
      return;
    }
    job.seq = *seq;
  }
  const Status status = RunSome(job, most_tokens);
  if (status.code() == StatusCode::kResourceExhausted && others_run) {
    job.wants_room = true;
    return;
  }
  if (!status.ok()) return End(status);
  if (job.at < job.request.tokens.size()) return;
  if (std::ranges::any_of(job.sum, [](double x) { return !std::isfinite(x); })) {
    return End(Internal("the hidden states are no numbers; the weights may be broken"));
  }
  End(Normalised(job.sum));
}

}  // namespace kvasir
