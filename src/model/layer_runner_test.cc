// Layers run one at a time see the same inputs as in the model's own forward pass.
#include "model/layer_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/test_paths.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokens = 11;

/// Keeps the inputs of every matrix whose name is known.
class Recorder final : public MatMulObserver {
 public:
  void Know(const std::byte* data, const std::string& name) { names_[data] = name; }
  void OnMatMul(const PackedWeight& w, MatView<const float> x) override {
    const auto name = names_.find(w.data);
    if (name == names_.end()) return;
    std::vector<float>& kept = inputs[name->second];
    for (int64_t t = 0; t < x.rows; ++t) kept.insert(kept.end(), x.row(t), x.row(t) + x.cols);
  }
  std::map<std::string, std::vector<float>> inputs;

 private:
  std::map<const std::byte*, std::string> names_;
};

class LayerRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto kernels = SelectKernelSet();
    ASSERT_TRUE(kernels.ok());
    ctx_ = {.pool = &pool_, .scratch = &arena_, .kernels = *kernels};
  }
  static fs::path Fixture(const std::string& name) { return fs::path(kFixtures) / "models" / name; }
  static std::vector<int32_t> Tokens(const DecoderSpec& spec) {
    std::vector<int32_t> tokens(kTokens);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * 37 + 5) % spec.vocab_size);
    return tokens;
  }

  ThreadPool pool_{2};
  Arena arena_;
  ExecContext ctx_;
};

TEST_F(LayerRunnerTest, SeesWhatTheModelSees) {
  int64_t models = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(kFixtures) / "models")) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    const auto model = Model::Load(entry.path(), {.dtype = DType::kF32}, pool_);
    ASSERT_TRUE(model.ok()) << model.status().message();
    const auto tokens = Tokens((*model)->spec());
    const KvCacheConfig config{.layers = (*model)->kv_shapes(), .type = KvType::kF32, .max_tokens = kTokens};
    const auto cache = MakeKvCache(CacheKind::kDynamic, config);
    ASSERT_TRUE(cache.ok());
    const SeqId sequence = *(*cache)->Create();
    ASSERT_TRUE((*cache)->Reserve(sequence, kTokens));
    Recorder whole;
    for (const MatrixInfo& matrix : (*model)->matrices()) {
      if (matrix.name.starts_with("layers.")) whole.Know(matrix.weight.data, matrix.name);
    }
    ctx_.observer = &whole;
    const auto hidden = (*model)->Forward(
        ctx_, {.tokens = tokens, .sequences = {{.seq = sequence, .count = kTokens, .planned_length = kTokens}}},
        **cache);
    ctx_.observer = nullptr;
    ASSERT_TRUE(hidden.ok()) << hidden.status().message();

    const auto runner = LayerRunner::Open(entry.path(), pool_);
    ASSERT_TRUE(runner.ok()) << runner.status().message();
    const int64_t width = (*runner)->spec().width;
    // Two samples, one after the other: the second must not see the first.
    std::vector<float> x(static_cast<size_t>(2 * kTokens * width));
    const MatView<float> samples(x.data(), 2 * kTokens, width);
    auto other = tokens;
    std::ranges::reverse(other);
    const std::vector<std::vector<int32_t>> both = {other, tokens};
    ASSERT_TRUE((*runner)->Embed(ctx_, both, samples).ok());
    Recorder single;
    for (size_t layer = 0; layer < (*runner)->spec().layers.size(); ++layer) {
      ASSERT_TRUE((*runner)->LoadLayer(static_cast<int>(layer)).ok());
      ASSERT_TRUE((*runner)->Run(ctx_, LayerPart::kDown, samples.Rows(0, kTokens)).ok());
      for (const LayerMatrix& matrix : (*runner)->matrices()) single.Know(matrix.data, matrix.name);
      ctx_.observer = &single;
      ASSERT_TRUE((*runner)->Run(ctx_, LayerPart::kDown, samples.Rows(kTokens, kTokens)).ok());
      ctx_.observer = nullptr;
    }
    EXPECT_EQ(single.inputs, whole.inputs);
    ++models;
  }
  EXPECT_GT(models, 40);
}

TEST_F(LayerRunnerTest, EndsAfterAPart) {
  const auto runner = LayerRunner::Open(Fixture("llama-gqa"), pool_);
  ASSERT_TRUE(runner.ok());
  std::vector<float> x(static_cast<size_t>(kTokens * (*runner)->spec().width));
  const MatView<float> view(x.data(), kTokens, (*runner)->spec().width);
  const std::vector<std::vector<int32_t>> samples = {Tokens((*runner)->spec())};
  ASSERT_TRUE((*runner)->Embed(ctx_, samples, view).ok());
  const std::vector<float> start = x;
  ASSERT_TRUE((*runner)->LoadLayer(0).ok());
  size_t seen = 1;
  for (const LayerPart part : {LayerPart::kQkv, LayerPart::kOut, LayerPart::kUp, LayerPart::kDown}) {
    Recorder recorder;
    for (const LayerMatrix& matrix : (*runner)->matrices()) recorder.Know(matrix.data, matrix.name);
    x = start;
    ctx_.observer = &recorder;
    ASSERT_TRUE((*runner)->Run(ctx_, part, view).ok());
    ctx_.observer = nullptr;
    EXPECT_EQ(recorder.inputs.size(), seen++);
  }
}

TEST_F(LayerRunnerTest, ReadsAndReplacesMatricesWhereverTheirRowsAre) {
  // Rows of one tensor spread over heads, gate and up in one tensor, columns for rows, one tensor for both branches.
  for (const char* name : {"gpt-neox", "phi3", "gpt2", "palm-fused", "falcon-40b", "mixtral", "mpt"}) {
    if (!fs::exists(Fixture(name))) continue;
    SCOPED_TRACE(name);
    const auto runner = LayerRunner::Open(Fixture(name), pool_);
    ASSERT_TRUE(runner.ok());
    ASSERT_TRUE((*runner)->LoadLayer(0).ok());
    const int64_t width = (*runner)->spec().width;
    const std::vector<std::vector<int32_t>> samples = {Tokens((*runner)->spec())};
    std::vector<float> start(static_cast<size_t>(kTokens * width));
    ASSERT_TRUE((*runner)->Embed(ctx_, samples, MatView<float>(start.data(), kTokens, width)).ok());
    std::vector<float> before = start;
    ASSERT_TRUE((*runner)->Run(ctx_, LayerPart::kDown, MatView<float>(before.data(), kTokens, width)).ok());
    for (const LayerMatrix& matrix : (*runner)->matrices()) {
      for (const SourceMatrix& source : matrix.sources) {
        std::vector<float> values(static_cast<size_t>(source.rows() * source.cols()));
        ASSERT_TRUE((*runner)->Read(source, values.data()).ok());
        ASSERT_EQ(source.cols(), matrix.cols);
        const std::vector<float> zeros(values.size());
        (*runner)->Replace(source, zeros.data());
        std::vector<float> without = start;
        ASSERT_TRUE((*runner)->Run(ctx_, LayerPart::kDown, MatView<float>(without.data(), kTokens, width)).ok());
        EXPECT_NE(without, before) << source.tensor->name;
        (*runner)->Replace(source, values.data());
        std::vector<float> again = start;
        ASSERT_TRUE((*runner)->Run(ctx_, LayerPart::kDown, MatView<float>(again.data(), kTokens, width)).ok());
        EXPECT_EQ(again, before) << source.tensor->name;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
