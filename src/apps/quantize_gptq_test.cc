// Whole folders quantised by GPTQ: every family, the layout of the files, and what goes wrong.
#include "apps/quantize_gptq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "base/test_paths.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/model.h"

namespace kvasir::apps {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class QuantizeGptqTest : public ::testing::Test {
 protected:
  QuantizeGptqTest() {
    std::string name = (fs::temp_directory_path() / "kvasir-gptq-XXXXXX").string();
    top_ = mkdtemp(name.data());
  }
  ~QuantizeGptqTest() override { fs::remove_all(top_); }

  static fs::path Fixture(const std::string& name) { return fs::path(kFixtures) / "models" / name; }
  static fs::path Demo() { return fs::path(kSourceTree) / "models" / "demo"; }
  static std::string Content(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  size_t Entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(top_), fs::directory_iterator()));
  }

  /// A job with samples of numbers below `vocab` in no order.
  GptqJob Job(const fs::path& source, int32_t vocab = 40) const {
    GptqJob job{.source = source, .output = top_ / "out", .threads = 2, .quiet = true};
    uint32_t state = 1;
    for (int i = 0; i < 8 * 16; ++i) {
      state = state * 1664525u + 1013904223u;
      job.calibration_tokens.push_back(static_cast<int32_t>((state >> 16) % static_cast<uint32_t>(vocab)));
    }
    job.flags.samples = 8;
    job.flags.sample_length = 16;
    return job;
  }

  fs::path top_;
};

TEST_F(QuantizeGptqTest, QuantisesEveryFamilyByItsRules) {
  size_t models = 0;
  for (const auto& entry : fs::directory_iterator(Fixture(""))) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    GptqJob job = Job(entry.path());
    job.force = true;
    job.flags.gptq.bits = 3;
    job.flags.gptq.group_size = 16;
    job.flags.dequantize = DType::kF32;
    const auto report = QuantizeByGptq(job);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->kept.empty());
    double before = 0;
    double after = 0;
    for (const GptqEntry& matrix : report->matrices) {
      before += matrix.error_before * matrix.error_before;
      after += matrix.error_after * matrix.error_after;
    }
    EXPECT_LT(after, before);

    // All matrices of all layers, each once, and the result is a model.
    ThreadPool pool(2);
    const auto model = Model::Load(job.output, {.dtype = DType::kF32}, pool);
    ASSERT_TRUE(model.ok()) << model.status().message();
    std::set<std::string> expected;
    for (const MatrixInfo& matrix : (*model)->matrices()) {
      if (!matrix.name.starts_with("layers.") || matrix.name.ends_with(".router")) continue;
      for (const MatrixInfo::Part& part : matrix.parts) expected.insert(part.tensor);
    }
    std::set<std::string> done;
    for (const GptqEntry& matrix : report->matrices) EXPECT_TRUE(done.insert(matrix.tensor).second) << matrix.tensor;
    EXPECT_EQ(done, expected);
    ++models;
  }
  EXPECT_GT(models, 40u);
}

/// The values that the tensors of a module stand for, as AutoGPTQ's code reads them.
std::vector<float> ReadModule(const TensorSource& source, const std::string& module, int bits, bool version_2) {
  const RawTensor* const qweight = source.Find(module + ".qweight");
  const RawTensor* const qzeros = source.Find(module + ".qzeros");
  const RawTensor* const scales = source.Find(module + ".scales");
  const RawTensor* const g_idx = source.Find(module + ".g_idx");
  if (!qweight || !qzeros || !scales || !g_idx) return {};
  const int64_t rows = qweight->shape[1];
  const int64_t cols = g_idx->shape[0];
  EXPECT_EQ(qweight->shape[0], cols / 32 * bits);
  EXPECT_EQ(qzeros->shape[1], rows / 32 * bits);
  EXPECT_EQ(scales->shape, (std::vector<int64_t>{qzeros->shape[0], rows}));
  const auto word = [](const RawTensor& tensor, int64_t i) {
    uint32_t value = 0;
    std::memcpy(&value, tensor.data + i * 4, sizeof(value));
    return value;
  };
  const auto field = [&](const auto& get, int64_t i) {
    uint32_t value = 0;
    for (int b = 0; b < bits; ++b) value |= (get((i * bits + b) / 32) >> ((i * bits + b) % 32) & 1u) << b;
    return static_cast<int>(value);
  };
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t group = word(*g_idx, c);
      const int code = field([&](int64_t w) { return word(*qweight, w * rows + r); }, c);
      const int zero = field([&](int64_t w) { return word(*qzeros, group * qzeros->shape[1] + w); }, r);
      uint16_t scale = 0;
      std::memcpy(&scale, scales->data + (group * rows + r) * 2, sizeof(scale));
      values[static_cast<size_t>(r * cols + c)] =
          ToFloat(Float16{scale}) * static_cast<float>(code - zero - (version_2 ? 0 : 1));
    }
  }
  return values;
}

TEST_F(QuantizeGptqTest, TheLayoutHoldsTheValuesThatPlainTensorsHold) {
  for (int bits : {2, 3, 4, 8}) {
    SCOPED_TRACE(bits);
    GptqJob job = Job(Demo(), 4000);
    job.flags.gptq.bits = bits;
    job.flags.gptq.group_size = 64;
    job.flags.gptq.act_order = bits == 4;
    job.flags.version_2 = bits == 8;
    job.output = top_ / fmt::format("packed{}", bits);
    const auto packed = QuantizeByGptq(job);
    ASSERT_TRUE(packed.ok()) << packed.status().message();
    const fs::path folder = job.output;
    job.output = top_ / fmt::format("plain{}", bits);
    job.flags.dequantize = DType::kF32;
    ASSERT_TRUE(QuantizeByGptq(job).ok());
    const auto source = OpenSafetensorsFolder(folder);
    const auto plain = OpenSafetensorsFolder(job.output);
    ASSERT_TRUE(source.ok() && plain.ok());
    for (const GptqEntry& entry : packed->matrices) {
      const std::string module = entry.tensor.substr(0, entry.tensor.size() - 7);
      const auto values = ReadModule(**source, module, bits, job.flags.version_2);
      const RawTensor* const want = (*plain)->Find(entry.tensor);
      ASSERT_NE(want, nullptr);
      ASSERT_EQ(want->bytes, static_cast<int64_t>(values.size() * 4));
      EXPECT_EQ(std::memcmp(values.data(), want->data, values.size() * 4), 0) << entry.tensor;
      EXPECT_EQ((*source)->Find(entry.tensor), nullptr);
    }
    // Everything else is there as it was.
    EXPECT_NE((*source)->Find("model.embed_tokens.weight"), nullptr);
    EXPECT_EQ(Content(folder / "tokenizer.json"), Content(Demo() / "tokenizer.json"));
    const auto config = ParseJsonFile(folder / "config.json");
    ASSERT_TRUE(config.ok()) << config.status().message();
    const auto& quantization = config->at("quantization_config");
    EXPECT_EQ(quantization.at("bits"), bits);
    EXPECT_EQ(quantization.at("quant_method"), "gptq");
    EXPECT_EQ(quantization.at("checkpoint_format"), job.flags.version_2 ? "gptq_v2" : "gptq");
    EXPECT_EQ(config->at("hidden_size"), 192);
    EXPECT_EQ(Content(job.output / "config.json"), Content(Demo() / "config.json"));
  }
}

TEST_F(QuantizeGptqTest, TheSameForAnyNumberOfThreads) {
  GptqJob job = Job(Fixture("mixtral"));
  job.flags.dequantize = DType::kF32;
  job.threads = 1;
  job.output = top_ / "one";
  ASSERT_TRUE(QuantizeByGptq(job).ok());
  job.threads = 3;
  job.output = top_ / "three";
  ASSERT_TRUE(QuantizeByGptq(job).ok());
  EXPECT_EQ(Content(top_ / "one" / "model.safetensors"), Content(top_ / "three" / "model.safetensors"));
}

TEST_F(QuantizeGptqTest, AimingAtTheOriginalsIsNearerToThem) {
  // The last layer's outputs, against those of the model as it was.
  const auto hidden = [&](const fs::path& path, const std::vector<int32_t>& tokens) {
    ThreadPool pool(2);
    Arena arena;
    ExecContext ctx{.pool = &pool, .scratch = &arena, .kernels = *SelectKernelSet()};
    const auto model = Model::Load(path, {.dtype = DType::kF32}, pool);
    EXPECT_TRUE(model.ok());
    const auto n = static_cast<int32_t>(tokens.size());
    const auto cache =
        MakeKvCache(CacheKind::kDynamic, {.layers = (*model)->kv_shapes(), .type = KvType::kF32, .max_tokens = n});
    const SeqId sequence = *(*cache)->Create();
    EXPECT_TRUE((*cache)->Reserve(sequence, n));
    ForwardBatch batch{.tokens = tokens, .sequences = {{.seq = sequence, .count = n}}};
    for (int32_t i = 0; i < n; ++i) batch.output_rows.push_back(i);
    const auto out = (*model)->Forward(ctx, batch, **cache);
    EXPECT_TRUE(out.ok());
    return std::vector<float>(out->data, out->data + out->rows * out->cols);
  };
  GptqJob job = Job(Demo(), 4000);
  uint32_t state = 7;
  for (int i = 0; i < 4000; ++i) {
    state = state * 1664525u + 1013904223u;
    job.calibration_tokens.push_back(static_cast<int32_t>((state >> 16) % 4000u));
  }
  job.flags.samples = 60;
  job.flags.sample_length = 64;
  job.flags.gptq.bits = 3;
  job.flags.dequantize = DType::kF32;
  const std::vector<int32_t> unseen = {11, 2500, 77, 1234, 8, 3000, 512, 99, 2048, 1, 777, 3999};
  const std::vector<float> want = hidden(Demo(), unseen);
  double errors[2] = {};
  for (const bool aim : {false, true}) {
    job.output = top_ / (aim ? "aimed" : "plain");
    job.flags.aim_at_originals = aim;
    ASSERT_TRUE(QuantizeByGptq(job).ok());
    const std::vector<float> got = hidden(job.output, unseen);
    for (size_t i = 0; i < want.size(); ++i) errors[aim ? 1 : 0] += std::pow(got[i] - want[i], 2.0);
  }
  EXPECT_LT(errors[1], errors[0]);
}

TEST_F(QuantizeGptqTest, MatricesThatTheLayoutCannotHoldStay) {
  // 40 x 56: none of its sizes fits.
  const auto none = QuantizeByGptq(Job(Fixture("llama")));
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().code(), StatusCode::kUnsupported);
  EXPECT_THAT(none.status().message(), HasSubstr("are no multiples of 32"));
  EXPECT_FALSE(fs::exists(top_ / "out"));
  // 32 x 128 and Conv1D's columns for rows.
  for (const char* name : {"phi", "gpt2-unscaled"}) {
    GptqJob job = Job(Fixture(name));
    job.force = true;
    job.flags.gptq.group_size = 32;
    const auto report = QuantizeByGptq(job);
    ASSERT_TRUE(report.ok()) << report.status().message();
    const auto source = OpenSafetensorsFolder(job.output);
    ASSERT_TRUE(source.ok());
    const GptqEntry& first = report->matrices[0];
    const auto values = ReadModule(**source, first.tensor.substr(0, first.tensor.size() - 7), 4, false);
    EXPECT_EQ(values.size(), static_cast<size_t>(first.rows * first.cols));
    for (const std::string& kept : report->kept) {
      EXPECT_NE((*source)->Find(kept.substr(0, kept.find(' '))), nullptr) << kept;
    }
  }
}

TEST_F(QuantizeGptqTest, RoundingToNearestNeedsNoText) {
  GptqJob job = Job(Demo(), 4000);
  job.calibration_tokens.clear();
  EXPECT_THAT(QuantizeByGptq(job).status().message(), HasSubstr("give --calibration FILE"));
  job.flags.nearest = true;
  const auto report = QuantizeByGptq(job);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->matrices.size(), 42u);
  EXPECT_LT(report->bytes_after, report->bytes_before / 2);
}

TEST_F(QuantizeGptqTest, TextsThatAreTooShortAreErrors) {
  GptqJob job = Job(Demo(), 4000);
  job.calibration_tokens.clear();
  job.calibration = top_ / "text.txt";
  EXPECT_EQ(QuantizeByGptq(job).status().code(), StatusCode::kNotFound);
  for (const char* text : {"", "Once upon a time"}) {
    std::ofstream(job.calibration) << text;
    const auto report = QuantizeByGptq(job);
    ASSERT_FALSE(report.ok());
    EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(report.status().message(), HasSubstr("one sample takes 16"));
  }
  std::ofstream(job.calibration) << "\xff\xfe";
  EXPECT_THAT(QuantizeByGptq(job).status().message(), HasSubstr("invalid UTF-8"));
  EXPECT_FALSE(fs::exists(job.output));
}

TEST_F(QuantizeGptqTest, OutputsAreReplacedOnlyWhenTheyAreOurs) {
  GptqJob job = Job(Demo(), 4000);
  job.flags.nearest = true;
  job.output = Demo();
  EXPECT_THAT(QuantizeByGptq(job).status().message(), HasSubstr("is the source itself"));
  job.output = top_ / "out";
  fs::create_directory(job.output);
  std::ofstream(job.output / "letter.txt") << "dear";
  job.force = true;
  EXPECT_THAT(QuantizeByGptq(job).status().message(), HasSubstr("no output of kvasir quantize"));
  fs::remove(job.output / "letter.txt");
  job.force = false;
  ASSERT_TRUE(QuantizeByGptq(job).ok());
  EXPECT_THAT(QuantizeByGptq(job).status().message(), HasSubstr("give --force"));
  job.force = true;
  ASSERT_TRUE(QuantizeByGptq(job).ok());
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(QuantizeGptqTest, AFullDiskLeavesTheOldFolderWhole) {
  GptqJob job = Job(Demo(), 4000);
  job.flags.nearest = true;
  ASSERT_TRUE(QuantizeByGptq(job).ok());
  const std::string old = Content(job.output / "model.safetensors");
  job.force = true;
  job.flags.gptq.bits = 8;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{.rlim_cur = 1 << 20, .rlim_max = limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto report = QuantizeByGptq(job);
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), StatusCode::kIoError) << report.status().message();
  EXPECT_EQ(Content(job.output / "model.safetensors"), old);
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(QuantizeGptqTest, RefusesWhatIsNoPlainCheckpoint) {
  const GptqJob job = Job(Fixture("llama-quants") / "llama-quants.gguf");
  EXPECT_EQ(QuantizeByGptq(job).status().code(), StatusCode::kUnsupported);
  GptqJob bad = Job(Demo(), 4000);
  bad.flags.gptq.bits = 5;
  EXPECT_EQ(QuantizeByGptq(bad).status().code(), StatusCode::kInvalidArgument);
  bad = Job(Demo(), 5000);
  EXPECT_THAT(QuantizeByGptq(bad).status().message(), HasSubstr("outside the vocabulary"));
}

/// A copy of the demonstration model with one norm changed.
void CopyWithNorm(const fs::path& to, const std::string& norm, float value) {
  const fs::path from = fs::path(kSourceTree) / "models" / "demo";
  const auto source = OpenSafetensorsFolder(from);
  ASSERT_TRUE(source.ok());
  std::vector<uint16_t> values;
  std::vector<TensorToWrite> tensors;
  for (const RawTensor& tensor : (*source)->tensors()) {
    std::span<const std::byte> data(tensor.data, static_cast<size_t>(tensor.bytes));
    if (tensor.name == norm) {
      values.assign(static_cast<size_t>(tensor.elements()), ToBFloat16(value).bits);
      data = std::as_bytes(std::span(values));
    }
    tensors.push_back({.name = tensor.name, .dtype = tensor.dtype, .shape = tensor.shape, .data = data});
  }
  ASSERT_FALSE(values.empty());
  fs::create_directory(to);
  fs::copy_file(from / "config.json", to / "config.json");
  ASSERT_TRUE(WriteSafetensors(to / "model.safetensors", tensors, {}).ok());
}

TEST_F(QuantizeGptqTest, ActivationsThatAreNotFiniteNameTheirMatrix) {
  CopyWithNorm(top_ / "model", "model.layers.1.post_attention_layernorm.weight", 3e38f);
  const auto report = QuantizeByGptq(Job(top_ / "model", 4000));
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), StatusCode::kInvalidData);
  EXPECT_THAT(report.status().message(), HasSubstr("layers.1."));
  EXPECT_FALSE(fs::exists(top_ / "out"));
}

}  // namespace
}  // namespace kvasir::apps
