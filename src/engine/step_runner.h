// Runs tokens of several sequences through the model, whatever the cache mode.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "engine/engine.h"
#include "kernels/exec.h"
#include "kv/cache.h"
#include "model/model.h"

namespace kvasir {

/// New tokens of one sequence. With CacheMode::kNone they are the whole sequence.
struct StepInput {
  SeqId seq = 0;
  std::span<const TokenId> tokens;
  int64_t planned_length = 0;  // see ForwardSequence
  bool logits = true;          // after its last token
};

/// Owns scratch memory and the logits of the last step. Not thread-safe.
///
/// What a bounded cache gives depends on how a sequence's tokens come in passes (KvBound), and on nothing else: while
/// it drops nothing, passes are as long as its room and `prefill_chunk` allow, which changes no bit; from position
/// bound.tokens on they end at bound.tokens + i · min(bound.MostPerPass(), prefill_chunk), whatever the input began
/// with and whoever runs beside it.
class StepRunner {
 public:
  /// All references outlive the runner. `prefill_chunk` bounds the tokens of one forward pass.
  StepRunner(const Model& model, KvCache& cache, ExecContext& ctx, int64_t prefill_chunk, AttentionMode attention);

  /// Runs and commits the inputs. Returns logits after the last token of each input that wants them: [such inputs,
  /// vocab] fp32, valid until the next call. A cache that is full is ResourceExhausted; nothing is lost then but the
  /// inputs of this call. `interrupted` is asked before every chunk; when it says true, Run returns Cancelled, and
  /// chunks that ran before are committed.
  Result<MatView<float>> Run(std::span<const StepInput> inputs, const std::function<bool()>& interrupted = {});

  /// Runs one input chunk by chunk and hands out the hidden states after its tokens from `first_row` on, ascending:
  /// consume(index of the first token of these, hidden). No pass has more than `most_per_pass` tokens.
  Status RunRows(const StepInput& input, int64_t first_row, int64_t most_per_pass,
                 const std::function<Status(int64_t, MatView<const float>)>& consume);

  const Model& model() const { return model_; }
  ExecContext& ctx() { return ctx_; }

 private:
  /// The most tokens that the next pass of a sequence may bring.
  int64_t PassTokens(SeqId seq) const;
  Result<MatView<float>> ForwardChunk(std::vector<ForwardSequence> sequences, std::vector<int32_t> tokens,
                                      std::vector<int32_t> output_rows);

  const Model& model_;
  KvCache& cache_;
  ExecContext& ctx_;
  int64_t prefill_chunk_;
  AttentionMode attention_;
  Arena logits_arena_;
};

}  // namespace kvasir
