#include "fixture.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/test_paths.h"
#include "io/safetensors.h"
#include "model/forward.h"
#include "model/weight_rules.h"
#include "model/weights.h"

namespace kvasir::parity {
namespace {

namespace fs = std::filesystem;

template <typename T>
Result<std::vector<T>> Values(const TensorSource& source, std::string_view name, DType type) {
  const RawTensor* tensor = source.Find(name);
  if (!tensor || tensor->dtype != type) return InvalidData("{}: no \"{}\"", source.description(), name);
  std::vector<T> values(static_cast<size_t>(tensor->elements()));
  std::memcpy(values.data(), tensor->data, values.size() * sizeof(T));
  return values;
}

std::string TestName(std::string name) {
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

}  // namespace

std::vector<int32_t> Expected::AllTokens() const {
  std::vector<int32_t> tokens = prompt;
  tokens.insert(tokens.end(), greedy.begin(), greedy.end() - 1);
  return tokens;
}

float Expected::LargestLogit() const {
  float largest = 0.0f;
  for (float x : logits) largest = std::max(largest, std::abs(x));
  return largest;
}

std::vector<Fixture> AllFixtures() {
  std::vector<Fixture> fixtures;
  const char* other = std::getenv("KVASIR_PARITY_MODELS");
  for (const auto& folder : fs::directory_iterator(other ? fs::path(other) : fs::path(kFixtures) / "models")) {
    if (!folder.is_directory()) continue;
    const fs::path path = folder.path();
    if (fs::exists(path / "config.json")) {
      fixtures.push_back({.name = TestName(path.filename().string()), .model = path, .folder = path});
    }
    for (const auto& file : fs::directory_iterator(path)) {
      if (file.path().extension() != ".gguf") continue;
      fixtures.push_back({.name = TestName(file.path().filename().string()), .model = file.path(), .folder = path});
    }
  }
  KVASIR_CHECK(other ? !fixtures.empty() : fixtures.size() > 50);
  std::sort(fixtures.begin(), fixtures.end(), [](const Fixture& a, const Fixture& b) { return a.name < b.name; });
  return fixtures;
}

std::vector<Fixture> QuantisedFixtures() {
  std::vector<Fixture> fixtures;
  for (const auto& folder : fs::directory_iterator(fs::path(kFixtures) / "quantized")) {
    const fs::path path = folder.path();
    fixtures.push_back({.name = TestName(path.filename().string()), .model = path, .folder = path});
  }
  KVASIR_CHECK(fixtures.size() > 20);
  std::ranges::sort(fixtures, {}, &Fixture::name);
  return fixtures;
}

Result<Expected> LoadExpected(const fs::path& folder) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenSafetensors(folder / "expected.safetensors"));
  Expected expected;
  ASSIGN_OR_RETURN(expected.prompt, Values<int32_t>(*source, "prompt", DType::kI32));
  ASSIGN_OR_RETURN(expected.greedy, Values<int32_t>(*source, "greedy", DType::kI32));
  ASSIGN_OR_RETURN(expected.rows, Values<int32_t>(*source, "rows", DType::kI32));
  ASSIGN_OR_RETURN(expected.logits, Values<float>(*source, "logits", DType::kF32));
  expected.vocabulary = static_cast<int64_t>(expected.logits.size() / expected.rows.size());
  return expected;
}

Runtime::Runtime(int threads) : pool_(threads) {
  auto kernels = SelectKernelSet();
  KVASIR_CHECK(kernels.ok());
  ctx_.pool = &pool_;
  ctx_.scratch = &scratch_;
  ctx_.kernels = *kernels;
}

Result<std::vector<float>> Step(const Model& model, Runtime& runtime, KvCache& cache, ForwardBatch batch,
                                const std::vector<int32_t>& rows) {
  ExecContext& ctx = runtime.ctx();
  ctx.scratch->Reset();
  batch.output_rows = rows;
  for (const ForwardSequence& sequence : batch.sequences) {
    if (!cache.Reserve(sequence.seq, sequence.count)) return ResourceExhausted("the cache is full");
  }
  ASSIGN_OR_RETURN(const MatView<float> hidden, model.Forward(ctx, batch, cache));
  const int64_t vocabulary = model.spec().vocab_size;
  std::vector<float> logits(rows.size() * static_cast<size_t>(vocabulary));
  RETURN_IF_ERROR(model.Logits(ctx, hidden, {logits.data(), static_cast<int64_t>(rows.size()), vocabulary}));
  return logits;
}

Result<std::vector<float>> LogitsBySpec(const DecoderSpec& spec, const ModelFiles& files, const TensorSource& source,
                                        const Expected& expected, Runtime& runtime, std::optional<DType> dtype) {
  RETURN_IF_ERROR(spec.Validate());
  const ModelFamily* family = nullptr;
  for (const ModelFamily& candidate : ModelFamilies()) {
    if (candidate.name == spec.family) family = &candidate;
  }
  KVASIR_CHECK(family);
  auto rules = files.gguf ? family->rules_gguf(spec, *files.gguf) : family->rules(spec, *files.source);
  if (!rules.ok()) return rules.status();
  ModelWeights weights;
  ASSIGN_OR_RETURN(const WeightPlan plan, PlanWeights(spec, *rules, source, dtype, weights));
  ASSIGN_OR_RETURN(const Buffer buffer, PackWeights(plan, runtime.pool(), nullptr));

  std::vector<KvLayerShape> shapes;
  for (const LayerSpec& layer : spec.layers) shapes.push_back({layer.attention.n_kv_heads, layer.attention.head_dim});
  const std::vector<int32_t> tokens = expected.AllTokens();
  const int64_t count = static_cast<int64_t>(tokens.size());
  ASSIGN_OR_RETURN(auto cache,
                   MakeKvCache(CacheKind::kDynamic, {.layers = shapes, .type = KvType::kF32, .max_tokens = count + 1}));
  ASSIGN_OR_RETURN(const SeqId seq, cache->Create());
  KVASIR_CHECK(cache->Reserve(seq, count));
  ForwardBatch batch{.tokens = tokens, .output_rows = expected.rows};
  batch.sequences.push_back({.seq = seq, .count = static_cast<int32_t>(count), .planned_length = count + 1});
  ExecContext& ctx = runtime.ctx();
  ctx.scratch->Reset();
  ASSIGN_OR_RETURN(const MatView<float> hidden, RunForward(ctx, spec, weights, batch, *cache));
  std::vector<float> logits(expected.rows.size() * static_cast<size_t>(spec.vocab_size));
  RETURN_IF_ERROR(RunHead(ctx, spec, weights, hidden, {logits.data(), hidden.rows, spec.vocab_size}));
  return logits;
}

bool HasBlockTypes(const Model& model) {
  return std::ranges::any_of(model.dtypes(), [](DType type) { return DTypeBlockSize(type) > 1; });
}

float Tolerance(const Model& model) {
  if (HasBlockTypes(model)) return 5e-2f;
  return model.dtype() == DType::kBF16 ? 2e-2f : 1e-4f;
}

float RelativeError(std::span<const float> got, std::span<const float> want, float largest) {
  if (got.size() != want.size()) return std::numeric_limits<float>::infinity();
  float worst = 0.0f;
  for (size_t i = 0; i < got.size(); ++i) {
    const float difference = std::abs(got[i] - want[i]);
    if (!(difference <= worst)) worst = std::isnan(difference) ? std::numeric_limits<float>::infinity() : difference;
  }
  return worst / largest;
}

}  // namespace kvasir::parity
