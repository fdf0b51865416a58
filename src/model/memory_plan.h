// What a run takes of memory, worked out from the headers of a model's files before any weight is read (P1, P7).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/exec.h"
#include "kv/cache.h"
#include "model/attention_mode.h"
#include "model/decoder_spec.h"
#include "model/weights.h"

namespace kvasir {

/// P1's rule in bytes: X billion parameters take 4·X GB in fp32 and 2·X GB in 16 bits.
inline int64_t RuleBytesFp32(int64_t parameters) { return 4 * parameters; }
inline int64_t RuleBytes16Bit(int64_t parameters) { return 2 * parameters; }

/// A packed matrix as far as products with it take scratch memory.
struct MatrixShape {
  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  bool gated = false;
  bool changes_inputs = false;  // they are scaled or brought into another order first
  friend auto operator<=>(const MatrixShape&, const MatrixShape&) = default;
};

/// What each layer of a model caches.
std::vector<KvLayerShape> KvShapes(const DecoderSpec& spec);

/// What a model's weights take.
struct WeightNeed {
  int64_t bytes = 0;  // packed, exactly
  /// They are pages of a packed file (`kvasir pack`): page cache, which the system shares, gives back and reads again,
  /// and not memory of this process.
  bool mapped = false;
  /// The most pages of the model's own files that are resident at once while they are packed; page cache as well.
  int64_t source_pages = 0;
  std::vector<DType> dtypes;          // of the matrices, those of most bytes first
  std::vector<MatrixShape> matrices;  // each shape once

  DType dtype() const { return dtypes.empty() ? DType::kF32 : dtypes.front(); }
};
WeightNeed NeedOfWeights(const WeightPlan& plan, bool mapped, int threads);

/// What is going to be run.
struct RunShape {
  KvType kv_type = KvType::kBF16;
  CacheKind cache = CacheKind::kDynamic;
  /// What kWindow and kSink keep; with another kind the tokens that are run again at every step (A10). No tokens: the
  /// cache holds the context.
  KvBound bound;
  /// Tokens of the longest sequence; 0 (FitMemory only): the trained length, or what fits, and with a bound as many as
  /// positions allow.
  int64_t context = 0;
  /// Of kPaged: PagedConfig's; a pool of a given size holds the longest sequence at least.
  int64_t block_tokens = 0;
  int64_t pool_tokens = 0;
  int64_t chunk = 512;         // most tokens of one forward pass
  int64_t sequences = 1;       // alive at once
  int64_t full_sequences = 1;  // of these, how many may fill the context; a static cache gives every sequence all of it
  AttentionMode attention;
  bool round_weights = false;  // ExecContext's
  int threads = 1;
  const KernelSet* kernels = nullptr;

  /// Tokens that the cache holds of the longest sequence.
  int64_t CachedTokens() const { return bound.Reach(context); }
};

/// What the cache of such a run is made with; `layers` outlive the config. run.context must be set.
KvCacheConfig CacheConfig(const DecoderSpec& spec, std::span<const KvLayerShape> layers, const RunShape& run);

struct MemoryPlan {
  int64_t parameters = 0;
  DType dtype = DType::kF32;  // of most bytes of the weights
  int64_t weights = 0;
  bool weights_mapped = false;
  KvType kv_type = KvType::kBF16;
  int64_t context = 0;        // tokens
  int64_t cached_tokens = 0;  // of these, how many are kept at once
  int64_t pool_tokens = 0;    // of all sequences together, in a paged cache; 0: another one
  int64_t kv_bytes_per_token = 0;
  int64_t kv_cache = 0;
  int64_t activations = 0;  // of forward passes and their logits
  int64_t process = 0;      // the rest: sampling, tables, stacks, the allocator's slack
  /// The most that will be resident, pages of mapped files included; those are not part of Needed().
  int64_t process_peak = 0;
  std::string note;  // one line: a context that is not what was trained or asked for, mapped weights that do not fit

  /// Bytes of memory of its own that the process will take in addition to what it has.
  int64_t Needed() const { return (weights_mapped ? 0 : weights) + kv_cache + activations + process; }
  /// "needs 1.9 GB, 23.1 GB free: weights 1.8 GB as q4_k, KV cache 46 MB for 2048 tokens, …".
  std::string Text(int64_t available) const;
};

/// f32 for fp32 weights, else bf16.
KvType DefaultKvType(DType weights);

/// Upper bounds, and near ones (tests compare them with what runs take). Fails only for shapes that no cache can hold
/// and for bounded caches that the model's positions do not allow.
Result<MemoryPlan> PlanMemory(const DecoderSpec& spec, const WeightNeed& weights, const RunShape& run);

/// The plan for run.context, or for as many tokens as the model was trained on and `available` bytes hold (one
/// sequence must fit; further ones that share its prompt are refused when memory runs out). ResourceExhausted, with
/// what is needed, what is free and what would help, when it does not fit; InvalidArgument for a context beyond the
/// model's positions.
Result<MemoryPlan> FitMemory(const DecoderSpec& spec, const WeightNeed& weights, RunShape run, int64_t available);

/// ResourceExhausted with all that when `plan`, made for `run`, needs more than `available` bytes.
Status CheckFits(const MemoryPlan& plan, const DecoderSpec& spec, const WeightNeed& weights, const RunShape& run,
                 int64_t available);

/// Bytes as people read them: "1.9 GB", "46 MB", "6.3 MB", "12 kB" (powers of 1000).
std::string GigabytesText(int64_t bytes);

}  // namespace kvasir
