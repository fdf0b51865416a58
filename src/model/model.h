// A loaded decoder: its spec, its packed weights, and the forward pass.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "io/gguf.h"
#include "kernels/exec.h"
#include "kernels/ops.h"
#include "kv/cache.h"
#include "model/attention_mode.h"
#include "model/decoder_spec.h"
#include "model/memory_plan.h"
#include "model/rope_override.h"

namespace kvasir {

struct WeightRules;

/// One sequence's share of a step.
struct ForwardSequence {
  SeqId seq = 0;
  int32_t first_token = 0;  // index into ForwardBatch::tokens
  int32_t count = 0;        // new tokens, at position NextPosition(seq) and behind; all that a bounded cache reserved
  /// Prompt plus the tokens that may follow, fixed when the sequence was admitted: RoPE scalings that depend on the
  /// length use it, so that cached keys stay right. 0: the trained context.
  int64_t planned_length = 0;
};

/// The work of one step. Plain data.
struct ForwardBatch {
  std::vector<int32_t> tokens;  // of all sequences, one after another
  std::vector<ForwardSequence> sequences;
  /// Empty: every token is the child of the one before it. Else of each token, which token of its sequence in this
  /// batch it follows (an offset less than its own), -1: the committed text. Each then sees its own path only, at the
  /// positions that the path has; KvCache::CommitSlots keeps one.
  std::vector<int32_t> parents;
  std::vector<int32_t> output_rows;  // indices into `tokens` whose hidden state is wanted, ascending
  AttentionMode attention;
};

struct LoadOptions {
  std::optional<DType> dtype;    // f32, f16 or bf16; unset: the checkpoint's own (P2)
  std::optional<DType> weights;  // int8, nf4 or fp4: what the layers' matrices are rounded to (P3, P4)
  RopeOverride rope;
  /// Called with (bytes packed, bytes in all) from time to time.
  std::function<void(int64_t, int64_t)> progress;
  /// Called once, before any weight is read or memory taken for it; an error ends the loading.
  std::function<Status(const DecoderSpec&, const WeightNeed&)> planned;
};

/// A packed matrix of a model and the tensors that its rows come from.
struct MatrixInfo {
  std::string name;  // "layers.3.qkv"
  struct Part {
    std::string tensor;   // as the checkpoint calls it
    int64_t matrix = -1;  // of a tensor that holds several (experts), else -1
  };
  std::vector<Part> parts;
  PackedWeight weight;
};

/// Immutable after loading. Forward is called by one thread at a time.
class Model {
 public:
  /// Loads a Hugging Face folder, a .safetensors file with its config.json beside it, a .gguf file, or a packed file
  /// of `kvasir pack`. Errors name file, tensor and reason; all missing tensors are listed; unexpected ones are
  /// warned of. 16-bit weights stay 16-bit; every weight is held once.
  static Result<std::unique_ptr<Model>> Load(const std::filesystem::path& path, const LoadOptions& options,
                                             ThreadPool& pool);
  ~Model();

  const DecoderSpec& spec() const;
  DType dtype() const;                    // of most bytes of the packed matrices
  std::span<const DType> dtypes() const;  // of all of them, those of most bytes first
  std::span<const MatrixInfo> matrices() const;
  int64_t weight_bytes() const;
  int64_t parameter_count() const;
  /// Shapes for KvCacheConfig.
  std::span<const KvLayerShape> kv_shapes() const;
  /// Bytes of weights read by a step of `tokens` tokens with `outputs` output rows (embedding rows and, for mixtures,
  /// all experts that could be used are counted), and matrix FLOPs of it without attention.
  int64_t StepWeightBytes(int64_t tokens, int64_t outputs) const;
  int64_t StepMatMulFlops(int64_t tokens, int64_t outputs) const;

  /// Runs the batch, writing keys and values into slots that the caller has Reserved in `cache` (not committed here).
  /// Token ids must be in [0, vocab_size): others are InvalidArgument, as are positions beyond a learned table and
  /// parents that are no tree. Trees in caches that forget tokens are Unsupported.
  /// hidden: [output_rows, width of the head's input] fp32, after the final norm; memory of ctx.scratch, valid until
  /// the caller resets the arena.
  Result<MatView<float>> Forward(ExecContext& ctx, const ForwardBatch& batch, KvCache& cache) const;

  /// logits[r, v] of hidden rows. logits: [rows, vocab_size].
  Status Logits(ExecContext& ctx, MatView<const float> hidden, MatView<float> logits) const;

  /// Writes the packed weights with a layout id and the model's hash; the folder's other files are not copied.
  Status WritePacked(const std::filesystem::path& file) const;

  /// Identifies weights and spec: packed files and sessions are bound to it.
  const std::string& hash() const;

 private:
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What `path` is: its spec and the tensors inside, without loading weights. For inspect and plans.
struct ModelFiles {
  std::filesystem::path path;
  std::string format;  // "safetensors", "gguf", "packed"
  std::unique_ptr<TensorSource> source;
  const GgufFile* gguf = nullptr;  // source, when it is one
  DecoderSpec spec;
  std::filesystem::path folder;  // where config, tokenizer and generation config are looked for
};
Result<ModelFiles> OpenModelFiles(const std::filesystem::path& path);

/// The spec that a config.json gives, without any weights.
Result<DecoderSpec> ReadConfig(const std::filesystem::path& config);

/// What Model::Load(path, options, …) will take for the weights, by the headers of the files; `files` are those of
/// `path`.
Result<WeightNeed> PlanWeightMemory(const std::filesystem::path& path, const ModelFiles& files,
                                    const LoadOptions& options, int threads);

/// Which rows of the files' tensors make up each weight.
Result<WeightRules> RulesFor(const ModelFiles& files);

}  // namespace kvasir
