// A tiny checkpoint with what its reference implementation computed from it (tools/fixtures/make_model_fixtures.py).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/exec.h"
#include "kv/cache.h"
#include "model/model.h"

namespace kvasir::parity {

struct Expected {
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;  // its greedy continuation
  std::vector<int32_t> rows;    // positions in prompt + greedy whose logits are known
  std::vector<float> logits;    // [rows, vocabulary]
  int64_t vocabulary = 0;

  std::vector<int32_t> AllTokens() const;  // prompt and greedy without the last, which is never an input
  float LargestLogit() const;
};

/// A Hugging Face folder or a GGUF file, and the expectations beside it.
struct Fixture {
  std::string name;  // for test names: letters, digits and underscores
  std::filesystem::path model;
  std::filesystem::path folder;
};

/// All fixtures, sorted by name: the committed ones, or those in the folder KVASIR_PARITY_MODELS (made with --vary).
/// Aborts when there are none.
std::vector<Fixture> AllFixtures();

/// Checkpoints that others have quantised (tools/fixtures/make_quantized_fixtures.py), sorted by name.
std::vector<Fixture> QuantisedFixtures();

Result<Expected> LoadExpected(const std::filesystem::path& folder);

/// Threads, scratch and kernels for one test.
class Runtime {
 public:
  explicit Runtime(int threads = 2);
  ExecContext& ctx() { return ctx_; }
  ThreadPool& pool() { return pool_; }

 private:
  ThreadPool pool_;
  Arena scratch_;
  ExecContext ctx_;
};

/// Logits of the wanted rows of one step. rows: indices into `batch.tokens`. Does not commit.
Result<std::vector<float>> Step(const Model& model, Runtime& runtime, KvCache& cache, ForwardBatch batch,
                                const std::vector<int32_t>& rows);

/// Logits of expected.rows by a model with this spec and the tensors of `source`, named as in `files`; an error where
/// its weights cannot be planned, packed or run.
Result<std::vector<float>> LogitsBySpec(const DecoderSpec& spec, const ModelFiles& files, const TensorSource& source,
                                        const Expected& expected, Runtime& runtime,
                                        std::optional<DType> dtype = std::nullopt);

/// Tolerances of a model by its weights' type, as parts of the largest logit. Products with block types round the
/// activations to eight bits; their weights alone are held to the tolerance of fp32 by loading them so.
float Tolerance(const Model& model);
bool HasBlockTypes(const Model& model);

/// The largest difference between two lists as a part of `largest`; infinity for NaN or different sizes.
float RelativeError(std::span<const float> got, std::span<const float> want, float largest);

}  // namespace kvasir::parity
