#include "engine/step_runner.h"

#include <algorithm>
#include <numeric>

namespace kvasir {
namespace {

/// Takes ExecContext::round_weights back for a while, unless `allowed`. Sequences that run together would otherwise
/// round each other's weights: what a sequence gets may not depend on its company.
class RoundingAllowed {
 public:
  RoundingAllowed(ExecContext& ctx, bool allowed) : ctx_(ctx), before_(ctx.round_weights) {
    ctx_.round_weights = before_ && allowed;
  }
  ~RoundingAllowed() { ctx_.round_weights = before_; }
  RoundingAllowed(const RoundingAllowed&) = delete;
  RoundingAllowed& operator=(const RoundingAllowed&) = delete;

 private:
  ExecContext& ctx_;
  const bool before_;
};

}  // namespace

StepRunner::StepRunner(const Model& model, KvCache& cache, ExecContext& ctx, int64_t prefill_chunk,
                       AttentionMode attention)
    : model_(model),
      cache_(cache),
      ctx_(ctx),
      prefill_chunk_(std::max<int64_t>(prefill_chunk, 1)),
      attention_(attention) {}

int64_t StepRunner::PassTokens(SeqId seq) const {
  const KvBound bound = cache_.bound();
  if (bound.tokens == 0) return prefill_chunk_;
  const int64_t position = cache_.NextPosition(seq);
  if (position < bound.tokens) return std::min(prefill_chunk_, bound.tokens - position);
  const int64_t pass = std::min(prefill_chunk_, bound.MostPerPass());
  return pass - (position - bound.tokens) % pass;
}

Result<MatView<float>> StepRunner::ForwardChunk(std::vector<ForwardSequence> sequences, std::vector<int32_t> tokens,
                                                std::vector<int32_t> output_rows) {
  for (const ForwardSequence& sequence : sequences) {
    if (!cache_.Reserve(sequence.seq, sequence.count)) {
      if (cache_.kind() == CacheKind::kPaged) {
        return ResourceExhausted(
            "the KV cache is full: a sequence of {} tokens wants {} more, and its pool has {} free blocks of {}; use a "
            "larger --pool-tokens or fewer sequences",
            cache_.NextPosition(sequence.seq), sequence.count, cache_.BlockUse().free(), cache_.BlockSlots());
      }
      return ResourceExhausted(
          "the KV cache is full at {} tokens; use a smaller context, fewer sequences or a smaller "
          "--kv-type",
          cache_.NextPosition(sequence.seq));
    }
  }
  ForwardBatch batch;
  batch.tokens = std::move(tokens);
  batch.sequences = std::move(sequences);
  batch.output_rows = std::move(output_rows);
  batch.attention = attention_;
  const RoundingAllowed rounding(ctx_, batch.sequences.size() == 1);
  ctx_.scratch->Reset();
  ASSIGN_OR_RETURN(MatView<float> hidden, model_.Forward(ctx_, batch, cache_));
  for (const ForwardSequence& sequence : batch.sequences) cache_.Commit(sequence.seq, sequence.count);
  return hidden;
}

Result<MatView<float>> StepRunner::Run(std::span<const StepInput> inputs, const std::function<bool()>& interrupted) {
  const int64_t vocab = model_.spec().vocab_size;
  logits_arena_.Reset();
  const int64_t wanted = std::ranges::count_if(inputs, &StepInput::logits);
  ASSIGN_OR_RETURN(float* data, logits_arena_.Allocate<float>(wanted * vocab));
  const MatView<float> logits(data, wanted, vocab);

  // Chunks are filled input after input; an input's last token asks for logits.
  std::vector<ForwardSequence> sequences;
  std::vector<int32_t> tokens;
  std::vector<int32_t> output_rows;
  int64_t done_outputs = 0;
  const auto flush = [&]() -> Status {
    if (tokens.empty()) return OkStatus();
    if (interrupted && interrupted()) return Status(StatusCode::kCancelled, "interrupted");
    const int64_t outputs = static_cast<int64_t>(output_rows.size());
    ASSIGN_OR_RETURN(const MatView<float> hidden, ForwardChunk(std::exchange(sequences, {}), std::exchange(tokens, {}),
                                                               std::exchange(output_rows, {})));
    const RoundingAllowed rounding(ctx_, false);
    if (outputs > 0) RETURN_IF_ERROR(model_.Logits(ctx_, hidden, logits.Rows(done_outputs, outputs)));
    done_outputs += outputs;
    return OkStatus();
  };
  const bool bounded = cache_.bound().tokens > 0;
  for (const StepInput& input : inputs) {
    if (input.tokens.empty()) return InvalidArgument("a sequence has no tokens to run");
    size_t at = 0;
    while (at < input.tokens.size()) {
      const size_t left = input.tokens.size() - at;
      size_t count = std::min(static_cast<size_t>(prefill_chunk_) - tokens.size(), left);
      if (bounded) {
        // Its passes are its own: they are not cut for what others left of a chunk.
        const size_t pass = std::min(static_cast<size_t>(PassTokens(input.seq)), left);
        if (pass > count) RETURN_IF_ERROR(flush());
        count = pass;
      }
      sequences.push_back({.seq = input.seq,
                           .first_token = static_cast<int32_t>(tokens.size()),
                           .count = static_cast<int32_t>(count),
                           .planned_length = input.planned_length});
      tokens.insert(tokens.end(), input.tokens.begin() + static_cast<ptrdiff_t>(at),
                    input.tokens.begin() + static_cast<ptrdiff_t>(at + count));
      at += count;
      if (at == input.tokens.size() && input.logits) output_rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
      const bool full = tokens.size() == static_cast<size_t>(prefill_chunk_);
      // A sequence comes once in a chunk.
      if (full || at < input.tokens.size()) RETURN_IF_ERROR(flush());
    }
  }
  RETURN_IF_ERROR(flush());
  return logits;
}

Status StepRunner::RunRows(const StepInput& input, int64_t first_row, int64_t most_per_pass,
                           const std::function<Status(int64_t, MatView<const float>)>& consume) {
  const auto length = static_cast<int64_t>(input.tokens.size());
  for (int64_t at = 0; at < length;) {
    const int64_t count = std::min({PassTokens(input.seq), most_per_pass, length - at});
    const auto chunk = input.tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(count));
    // Rows before the first wanted one end here: neither the last norm nor the head sees them.
    const int64_t skipped = std::clamp<int64_t>(first_row - at, 0, count);
    std::vector<int32_t> rows(static_cast<size_t>(count - skipped));
    std::iota(rows.begin(), rows.end(), static_cast<int32_t>(skipped));
    ASSIGN_OR_RETURN(const MatView<float> hidden, ForwardChunk({{.seq = input.seq,
                                                                 .first_token = 0,
                                                                 .count = static_cast<int32_t>(count),
                                                                 .planned_length = input.planned_length}},
                                                               {chunk.begin(), chunk.end()}, std::move(rows)));
    if (skipped < count) RETURN_IF_ERROR(consume(at + skipped, hidden));
    at += count;
  }
  return OkStatus();
}

}  // namespace kvasir
