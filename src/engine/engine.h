// The engine: a model, its tokenizer and its cache behind one call that turns requests into text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "decode/beam_search.h"
#include "decode/constraint.h"
#include "decode/sampling.h"
#include "decode/stop.h"
#include "decode/token_trie.h"
#include "kernels/exec.h"
#include "kv/cache.h"
#include "model/memory_plan.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir {

enum class CacheMode {
  kNone,       // K1: every step runs the whole text
  kDynamic,    // K2
  kStatic,     // K3
  kWindow,     // A9: the last bound.tokens tokens
  kRecompute,  // A10: every step runs the last bound.tokens tokens from position 0 on, O(T·L²) for a text of T
  kSink,       // A11: the first bound.sinks tokens and the last ones, bound.tokens in all
  kPaged,      // A4: a fixed pool of blocks for all sequences, which share the blocks of common prefixes (K5)
};

/// What becomes of the keys and values of tokens, as --cache has it.
struct CachePolicy {
  CacheMode mode = CacheMode::kDynamic;
  KvBound bound = {};
  int64_t block_tokens = 0;  // kPaged: 0 is kPagedBlockTokens

  /// Whether every step begins anew, so that nothing in the cache is of use to the next one.
  bool Recomputes() const { return mode == CacheMode::kNone || mode == CacheMode::kRecompute; }
  /// "sink:4,256".
  std::string Text() const;
  /// InvalidArgument for a bound that holds nothing, blocks of a size that cannot be, or what the mode does not have.
  Status Validate() const;
};

/// Where the logits of a text are wanted.
struct LogitRows {
  int64_t first = 0;
  int64_t every = 1;  // of the rows from `first` on: first, first + every, …
  /// One token in each pass, as in decoding: what a bounded cache keeps then does not depend on passes. Others give the
  /// same bits either way and take their prompt's chunks.
  bool one_by_one = false;
};

struct EngineOptions {
  std::filesystem::path model;
  std::optional<DType> dtype;     // unset: the checkpoint's own
  std::optional<DType> weights;   // LoadOptions::weights
  std::optional<KvType> kv_type;  // unset: f32 for fp32 weights, else bf16
  int threads = 0;                // 0: AvailableProcessors()
  int64_t context = 0;            // 0: the trained length, or what fits into memory if that is less
  CachePolicy cache;
  int64_t pool_tokens = 0;                         // PagedConfig's: 0 is the context for each of max_sequences
  int64_t most_prefix_blocks = kAllBlocks;         // PagedConfig's
  AttentionMode attention;                         // A1, A2, A6–A8
  RopeOverride rope;                               // R5
  bool exact_prefill = false;                      // prompts: never ExecContext::round_weights
  int64_t prefill_chunk = 512;                     // tokens of a prompt run at once (-b)
  int64_t max_sequences = 8;                       // beams or samples alive at once
  std::string pre_tokenizer;                       // GGUF: how text is divided; empty: as the file says
  bool load_tokenizer = true;                      // a missing tokenizer is then no error, but text cannot be used
  std::function<void(int64_t, int64_t)> progress;  // bytes packed, bytes in all
  /// Called once with a plan that fits, before any weight is read; `available` is what is free then, in bytes.
  std::function<void(const MemoryPlan&, int64_t available)> planned;
};

/// What an engine with these options runs, for plans of memory.
RunShape PlannedRun(const EngineOptions& options, const WeightNeed& weights, int threads, const KernelSet& kernels);

/// Defaults of generation_config.json (or GGUF), where the file gives them; else greedy.
struct GenerationDefaults {
  SamplingParams sampling;
  BeamParams beams;
  std::optional<int32_t> max_new_tokens;
  std::vector<TokenId> eos;  // all ids that end a text: generation_config, else config, else tokenizer
};

struct GenerationRequest {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  int32_t max_new_tokens = 128;
  std::vector<std::string> stop;  // stop strings; the text ends before them
  int32_t n = 1;                  // samples from one prompt, sharing its cache
  BeamParams beams;               // num_beams > 1: beam search; n is then beams.num_return
  /// Keep the sequence for the next request, which reuses the common prefix (K5). REQUIRES: n == 1, no beams.
  bool keep = false;
  /// What the text may be; null: anything. Every sample keeps to it and ends with it, if its length suffices; its text
  /// is the bytes that the constraint has read. Log-probabilities stay the model's own. For tokens of
  /// Engine::token_trie(); other requests of the same engine may share it. REQUIRES: no beams.
  std::shared_ptr<Constraint> constraint;
  /// Requests share what a cache knows of common prefixes only if they have the same one: how long an answer takes to
  /// begin then tells nobody what others have asked.
  std::string cache_salt;
  bool skip_special = true;  // special tokens are left out of the text
  int32_t top_logprobs = 0;  // of each place, so many of the most probable tokens are told; at most kMostTopLogprobs
  /// Asked between forward passes (chunks of the prompt, steps of decoding). True ends the request with what there is,
  /// which may be no token at all; the output then says kCancelled.
  std::function<bool()> interrupted;
};

/// A token that might have been chosen, with the natural log of the model's own probability.
struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0.0f;
};
inline constexpr int32_t kMostTopLogprobs = 20;

struct GeneratedSample {
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // of each token, if asked for; the most probable first
  FinishReason finish = FinishReason::kNone;
  float score = 0.0f;  // beam search: the hypothesis' score
};

struct Timings {
  double load_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
  int64_t prefill_tokens = 0;  // run through the model
  int64_t cached_tokens = 0;   // of the prompt, found in the cache: in the kept sequence or the tree of prefixes
  int64_t decode_tokens = 0;   // generated after the first one of each sample
};

/// Peaks since the start or ResetMemoryPeaks (P7).
struct MemoryReport {
  int64_t weights = 0;
  int64_t kv_cache = 0;
  int64_t activation_peak = 0;
  int64_t process_peak = 0;  // resident, pages of mapped files included
};
/// The report for a process that holds these weights.
MemoryReport ReportMemory(const Model& model);

struct GenerationOutput {
  std::vector<GeneratedSample> samples;
  Timings timings;
  MemoryReport memory;
};

/// A step of sample `index`: a token, and what can be shown of the text because of it.
struct TextEvent {
  int32_t index = 0;
  std::string_view text;         // never a part of a UTF-8 character, never part of a stop string; may be empty
  std::optional<TokenId> token;  // just chosen; none where text held back is shown since the request was interrupted
  float logprob = 0.0f;          // the token's
  std::span<const TokenLogprob> top_logprobs;  // GenerationRequest's
  FinishReason finish = FinishReason::kNone;   // of the sample's last event
};

/// Called for every token; returning false cancels the request. Beam search calls it once per hypothesis, at the end,
/// with its last token.
using TextCallback = std::function<bool(const TextEvent& event)>;

class BatchLoop;
struct SchedulerOptions;

/// Not thread-safe: one call at a time.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Load(const EngineOptions& options);
  ~Engine();

  const Model& model() const;
  const Tokenizer* tokenizer() const;  // null when there is none
  /// The bytes of the tokens that a text may consist of, for constraints: without special tokens and ends of text. Made
  /// at the first call, which takes a moment. NotFound without a tokenizer.
  Result<std::shared_ptr<const TokenTrie>> token_trie();
  const GenerationDefaults& defaults() const;
  /// The model's chat template, compiled at first use; NotFound when it has none.
  Result<const ChatTemplate*> chat_template();
  int64_t context() const;  // tokens that one sequence may hold
  /// What loading said it would take; its note says how the context was chosen where that is worth a line.
  const MemoryPlan& memory_plan() const;
  double load_ms() const;
  MemoryReport Memory() const;
  /// Blocks of the KV cache at this moment, for metrics.
  KvBlockUse CacheBlocks() const;
  const KvCache& cache() const;
  const EngineOptions& options() const;
  int threads() const;
  ExecContext& exec();  // for bench: counters, kernel set

  /// What Generate would refuse the request for before it begins. Thread-safe, also beside other calls.
  Status CheckRequest(const GenerationRequest& request) const;

  /// Checks the request, then generates. Errors: empty prompt, ids out of range, prompt longer than the context,
  /// sampling parameters out of range, NaN logits, no memory.
  Result<GenerationOutput> Generate(const GenerationRequest& request, const TextCallback& on_text = {});

  /// A loop that runs many requests at once (engine/batch_loop.h). While it lives, no other call may use the cache. The
  /// engine outlives it. A step has no more tokens than EngineOptions::prefill_chunk. Unsupported for caches that
  /// forget tokens or keep nothing.
  Result<std::unique_ptr<BatchLoop>> Batch(const SchedulerOptions& options);

  /// Logits after the tokens from index `first_row` on (0: all of them): consume(row, logits) is called with
  /// consecutive rows, at most 64 at a time, [rows, vocab] fp32. The head is not run for earlier rows.
  Status ForEachLogits(std::span<const TokenId> tokens, int64_t first_row,
                       const std::function<Status(int64_t row, MatView<const float> logits)>& consume);
  /// The same for a choice of rows; where not every one is wanted they come one at a time.
  Status ForEachLogits(std::span<const TokenId> tokens, const LogitRows& rows,
                       const std::function<Status(int64_t row, MatView<const float> logits)>& consume);

  /// Forgets the sequence kept for reuse (its prefix may still be known to a paged cache).
  void DropKept();

  /// Whether this engine's cache can be saved and loaded as a session at all.
  Status CheckSessions() const;
  /// Writes the sequence kept for reuse (GenerationRequest::keep; none is one without tokens), and a note of the
  /// caller's, so that another process can go on with it (K5); see engine/session_file.h. Of a cache that recomputes
  /// these are the tokens that it would run again. Unsupported without a cache.
  Status SaveSession(const std::filesystem::path& file, std::string note = {});
  /// Makes a saved sequence the one kept for reuse and returns its note. A file that is refused changes nothing; when
  /// memory runs out, or the file changes while it is read, no sequence is kept.
  Result<std::string> LoadSession(const std::filesystem::path& file);

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
