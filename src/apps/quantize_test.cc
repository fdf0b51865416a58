// kvasir quantize from end to end on the small checkpoints of the fixtures, and its parts alone.
#include "apps/quantize.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cctype>
#include <cmath>
#include <csignal>
#include <cstring>
#include <map>

#include "apps/imatrix.h"
#include "apps/quantize_source.h"
#include "apps/quantize_types.h"
#include "base/test_paths.h"
#include "engine/engine.h"
#include "io/safetensors.h"
#include "io/test_files.h"
#include "quant/gguf_blocks.h"
#include "quant/quantize.h"

namespace kvasir::apps {
namespace {

namespace fs = std::filesystem;
using testing::Fails;
using testing::ReadAll;
using testing::TempFolder;

fs::path ModelFixture(std::string_view name) { return fs::path(kFixtures) / "models" / name; }
fs::path Demo() { return fs::path(kSourceTree) / "models" / "demo"; }

QuantizeOptions Options(const fs::path& source, const fs::path& output, std::string type) {
  QuantizeOptions options;
  options.source = source;
  options.output = output;
  options.type = std::move(type);
  options.threads = 2;
  options.json = true;  // no bar
  return options;
}

/// Runs with standard output thrown away.
Status Quantize(const QuantizeOptions& options) {
  ::testing::internal::CaptureStdout();
  const Status status = RunRtnQuantize(options);
  ::testing::internal::GetCapturedStdout();
  return status;
}

TEST(QuantizeTypes, Globs) {
  EXPECT_TRUE(GlobMatches("blk.*.attn_v", "blk.12.attn_v"));
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("a?c*", "abcdef"));
  EXPECT_FALSE(GlobMatches("output", "attn_output"));
  EXPECT_FALSE(GlobMatches("a?c", "ac"));
  EXPECT_TRUE(GlobMatches(std::string(50, '*') + "b", std::string(50000, 'a') + "b"));
  EXPECT_EQ(KindOfTensor("blk.12.ffn_down.weight"), "blk.*.ffn_down.weight");
  EXPECT_EQ(KindOfTensor("h.0.attn.0.x2"), "h.*.attn.*.x2");
}

std::vector<TensorToType> ManyTensors(int layers, bool tied) {
  std::vector<TensorToType> tensors = {{"token_embd.weight", {1000, 512}}, {"output_norm.weight", {512}}};
  if (!tied) tensors.push_back({"output.weight", {1000, 512}});
  for (int i = 0; i < layers; ++i) {
    const std::string at = fmt::format("blk.{}.", i);
    tensors.push_back({at + "attn_q.weight", {512, 512}});
    tensors.push_back({at + "attn_v.weight", {128, 512}});
    tensors.push_back({at + "ffn_down.weight", {512, 1408}});
    tensors.push_back({at + "ffn_gate_inp.weight", {8, 512}, DType::kF16});
    tensors.push_back({at + "ffn_norm.weight", {512}, DType::kBF16});
  }
  return tensors;
}

DType TypeOf(const TypePlan& plan, const std::vector<TensorToType>& tensors, std::string_view name) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return plan.types[i];
  }
  ADD_FAILURE() << name;
  return DType::kF64;
}

TEST(QuantizeTypes, UniformTypesAndRules) {
  const auto tensors = ManyTensors(8, false);
  const auto plan =
      PlanTypes("q4_k", {"blk.*=q5_k", "blk.1.attn_v=q8_0", "output=q6_k", "*.ffn_gate_inp=f32"}, tensors);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->file_type, 14u);
  EXPECT_EQ(TypeOf(*plan, tensors, "token_embd.weight"), DType::kQ4_K);
  EXPECT_EQ(TypeOf(*plan, tensors, "output.weight"), DType::kQ6_K);
  EXPECT_EQ(TypeOf(*plan, tensors, "blk.1.attn_v.weight"), DType::kQ8_0);
  EXPECT_EQ(TypeOf(*plan, tensors, "blk.2.attn_v.weight"), DType::kQ5_K);
  EXPECT_EQ(TypeOf(*plan, tensors, "blk.2.ffn_gate_inp.weight"), DType::kF32);
  EXPECT_EQ(TypeOf(*plan, tensors, "output_norm.weight"), DType::kF32);
  // 1408 is no multiple of 256.
  EXPECT_EQ(TypeOf(*plan, tensors, "blk.3.ffn_down.weight"), DType::kQ5_1);
  ASSERT_EQ(plan->notes.size(), 1u);
  EXPECT_NE(plan->notes[0].find("blk.*.ffn_down.weight: rows of 1408"), std::string::npos) << plan->notes[0];
}

TEST(QuantizeTypes, RoutersAndNormsStayPlain) {
  const auto tensors = ManyTensors(2, false);
  const auto plan = PlanTypes("q8_0", {}, tensors);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(TypeOf(*plan, tensors, "blk.0.ffn_gate_inp.weight"), DType::kF16);
  EXPECT_EQ(TypeOf(*plan, tensors, "blk.0.ffn_norm.weight"), DType::kF32);
}

TEST(QuantizeTypes, Mixtures) {
  for (const bool tied : {false, true}) {
    const auto tensors = ManyTensors(16, tied);
    const auto plan = PlanTypes("q4_k_m", {}, tensors);
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->file_type, 15u);
    EXPECT_EQ(TypeOf(*plan, tensors, tied ? "token_embd.weight" : "output.weight"), DType::kQ6_K);
    EXPECT_EQ(TypeOf(*plan, tensors, "token_embd.weight"), tied ? DType::kQ6_K : DType::kQ4_K);
    // More bits in the first and last eighth, and in every third layer between.
    int more = 0;
    for (int i = 0; i < 16; ++i) {
      more += TypeOf(*plan, tensors, fmt::format("blk.{}.attn_v.weight", i)) == DType::kQ6_K ? 1 : 0;
    }
    EXPECT_EQ(TypeOf(*plan, tensors, "blk.0.attn_v.weight"), DType::kQ6_K);
    EXPECT_EQ(TypeOf(*plan, tensors, "blk.2.attn_v.weight"), DType::kQ4_K);
    EXPECT_EQ(TypeOf(*plan, tensors, "blk.4.attn_v.weight"), DType::kQ6_K);
    EXPECT_EQ(TypeOf(*plan, tensors, "blk.15.attn_v.weight"), DType::kQ6_K);
    EXPECT_EQ(more, 8);
  }
  const auto tensors = ManyTensors(16, false);
  const auto two = PlanTypes("q2_k_m", {}, tensors);
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(TypeOf(*two, tensors, "blk.5.attn_v.weight"), DType::kQ4_K) << "four query heads to a key-value head";
}

TEST(QuantizeTypes, BadNames) {
  const auto tensors = ManyTensors(1, false);
  EXPECT_TRUE(Fails(PlanTypes("q4_x", {}, tensors).status(), {"--type \"q4_x\"", "q4_k_m", "iq4_xs"}));
  EXPECT_TRUE(Fails(PlanTypes("q4_k", {"outptu=q6_k"}, tensors).status(), {"outptu=q6_k", "matches no tensor"}));
  EXPECT_TRUE(Fails(PlanTypes("q4_k", {"output=q7"}, tensors).status(), {"\"q7\" is no type", "q6_k"}));
  EXPECT_TRUE(Fails(PlanTypes("q4_k", {"output"}, tensors).status(), {"GLOB=TYPE"}));
  EXPECT_TRUE(Fails(PlanTypes("q4_k", {"=q6_k"}, tensors).status(), {"GLOB=TYPE"}));
}

/// Logits after each of a few tokens, computed in fp32.
std::vector<float> Logits(const fs::path& path) {
  EngineOptions options;
  options.model = path;
  options.dtype = DType::kF32;
  options.threads = 2;
  options.load_tokenizer = false;
  const auto engine = Engine::Load(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  std::vector<float> all;
  if (!engine.ok()) return all;
  const std::vector<TokenId> tokens = {1, 5, 2, 7, 7, 3, 11, 4, 0, 9, 8, 6};
  const Status status = (*engine)->ForEachLogits(tokens, 0, [&](int64_t, MatView<const float> logits) {
    for (int64_t r = 0; r < logits.rows; ++r) all.insert(all.end(), logits.row(r), logits.row(r) + logits.cols);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return all;
}

// Every family that can be written: names, permuted rows, packed matrices and keys, told by the reader.
class QuantizeFamilies : public ::testing::TestWithParam<const char*> {};

TEST_P(QuantizeFamilies, AreTheSameModelInGguf) {
  const TempFolder folder;
  const fs::path source = ModelFixture(GetParam());
  if (!fs::exists(source / "tokenizer.json")) {
    // The checkpoints of the fixtures have no vocabulary of their own; one of the right size is made up.
    for (const auto& entry : fs::directory_iterator(source)) {
      fs::copy(entry.path(), folder.path() / entry.path().filename());
    }
    auto files = OpenModelFiles(source);
    ASSERT_TRUE(files.ok()) << files.status().message();
    std::string vocab;
    for (int32_t i = 0; i < files->spec.vocab_size; ++i) vocab += fmt::format("{}\"t{}\":{}", i ? "," : "", i, i);
    folder.Write("tokenizer.json",
                 R"({"model":{"type":"BPE","vocab":{)" + vocab +
                     R"(},"merges":[]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})");
  }
  const fs::path input = fs::exists(source / "tokenizer.json") ? source : folder.path();
  const fs::path output = folder.path() / "out.gguf";
  const Status status = Quantize(Options(input, output, "f32"));
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> before = Logits(input);
  const std::vector<float> after = Logits(output);
  ASSERT_EQ(before.size(), after.size());
  float largest = 0.0f;
  for (const float x : before) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 1e-5f * largest) << i;
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeFamilies,
                         ::testing::Values("llama", "llama-gqa", "llama3", "llama3.2-tied", "llama-linear-rope",
                                           "llama-yarn-rope", "mistral-full", "mixtral", "qwen2", "qwen2-tied", "qwen3",
                                           "gemma", "gemma2", "phi3", "phi3-longrope-short", "gpt2"),
                         [](const auto& fixture) {
                           std::string name = fixture.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                           return name;
                         });

TEST(Quantize, FamiliesThatCannotBeWrittenAreNamed) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(Quantize(Options(ModelFixture("bloom"), folder.path() / "out.gguf", "q8_0")),
                    {"\"bloom\"", "cannot be written", "qwen2"}));
  EXPECT_EQ(folder.CountFiles(), 0u);
}

QuantizeOptions DemoOptions(const TempFolder& folder, std::string type) {
  QuantizeOptions options = Options(Demo(), folder.path() / "demo.gguf", std::move(type));
  options.pre_tokenizer = "gpt-2";
  return options;
}

TEST(Quantize, TheResultDoesNotDependOnThreads) {
  const TempFolder folder;
  QuantizeOptions options = DemoOptions(folder, "q4_k_m");
  options.threads = 1;
  ASSERT_TRUE(Quantize(options).ok());
  const std::string one = ReadAll(options.output);
  options.threads = 5;
  options.force = true;
  ASSERT_TRUE(Quantize(options).ok());
  EXPECT_TRUE(one == ReadAll(options.output));
}

TEST(Quantize, GgufKeepsItsMetadata) {
  const TempFolder folder;
  ASSERT_TRUE(Quantize(DemoOptions(folder, "bf16")).ok());
  const fs::path source = folder.path() / "demo.gguf";
  const fs::path output = folder.path() / "small.gguf";
  ASSERT_TRUE(Quantize(Options(source, output, "q5_0")).ok());
  const auto before = ReadGgufEntries(source);
  const auto after = ReadGgufEntries(output);
  ASSERT_TRUE(before.ok() && after.ok());
  ASSERT_EQ(before->size(), after->size());
  for (size_t i = 0; i < before->size(); ++i) {
    EXPECT_EQ((*before)[i].key, (*after)[i].key);
    const bool changes = (*before)[i].key == "general.file_type";
    EXPECT_EQ((*before)[i].value == (*after)[i].value, !changes) << (*before)[i].key;
  }
  const auto file = GgufFile::Open(output);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Find("blk.0.attn_q.weight")->dtype, DType::kQ5_0);
  EXPECT_EQ((*file)->Find("output_norm.weight")->dtype, DType::kF32);
  EXPECT_TRUE(
      Fails(Quantize(Options(output, folder.path() / "again.gguf", "q4_0")), {"quantised already", "--requantize"}));
  QuantizeOptions again = Options(output, folder.path() / "again.gguf", "q4_0");
  again.requantize = true;
  EXPECT_TRUE(Quantize(again).ok());
}

TEST(Quantize, FoldersOfPlainTypes) {
  const TempFolder folder;
  const fs::path output = folder.path() / "half";
  ASSERT_TRUE(Quantize(Options(Demo(), output, "f16")).ok());
  EXPECT_NE(ReadAll(output / "config.json").find("\"torch_dtype\":\"float16\""), std::string::npos);
  EXPECT_EQ(ReadAll(output / "tokenizer.json"), ReadAll(Demo() / "tokenizer.json"));
  const auto before = OpenSafetensorsFolder(Demo());
  const auto after = OpenSafetensorsFolder(output);
  ASSERT_TRUE(before.ok() && after.ok());
  ASSERT_EQ((*before)->tensors().size(), (*after)->tensors().size());
  for (const RawTensor& tensor : (*after)->tensors()) {
    EXPECT_EQ(tensor.dtype, DType::kF16);
    EXPECT_EQ(tensor.shape, (*before)->Find(tensor.name)->shape);
  }
  EXPECT_TRUE(Fails(Quantize(Options(Demo(), folder.path() / "q", "q4_k")), {"no .gguf file", "q4_k"}));
}

/// The demonstration model with a few inputs of every matrix made 512 times larger, in fp32; it says the same.
class OutlierModel {
 public:
  explicit OutlierModel(const fs::path& folder) {
    for (const char* name : {"config.json", "tokenizer.json"}) fs::copy(Demo() / name, folder / name);
    const auto source = OpenSafetensorsFolder(Demo());
    EXPECT_TRUE(source.ok());
    for (const RawTensor& tensor : (*source)->tensors()) {
      Matrix& matrix = matrices_[tensor.name];
      matrix.shape = tensor.shape;
      matrix.values.resize(static_cast<size_t>(tensor.bytes / 2));
      DequantizeRow(tensor.dtype, tensor.data, tensor.bytes / 2, matrix.values.data());
    }
    const auto files = OpenModelFiles(Demo());
    const AttentionSpec& attention = files->spec.layers[0].attention;
    for (size_t i = 0; i < files->spec.layers.size(); ++i) {
      prefix_ = fmt::format("model.layers.{}.", i);
      Scale("input_layernorm", 7, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {7});
      Scale("post_attention_layernorm", 9, {"mlp.gate_proj", "mlp.up_proj"}, {9});
      Scale("mlp.up_proj", 11, {"mlp.down_proj"}, {11});
      std::vector<int64_t> columns;
      for (int32_t h = 0; h < attention.n_heads / attention.n_kv_heads; ++h)
        columns.push_back(h * attention.head_dim + 5);
      Scale("self_attn.v_proj", 5, {"self_attn.o_proj"}, columns);
    }
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, matrix] : matrices_) {
      tensors.push_back({name, DType::kF32, matrix.shape, std::as_bytes(std::span(matrix.values))});
    }
    const Status written = WriteSafetensors(folder / "model.safetensors", tensors, {});
    EXPECT_TRUE(written.ok()) << written.message();
  }

 private:
  struct Matrix {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };

  void Scale(const char* norm, int64_t row, std::initializer_list<const char*> behind,
             const std::vector<int64_t>& columns) {
    Matrix& before = matrices_.at(prefix_ + norm + ".weight");
    const int64_t n = before.shape.size() == 1 ? 1 : before.shape[1];
    for (int64_t i = 0; i < n; ++i) before.values[static_cast<size_t>(row * n + i)] *= 512.0f;
    for (const char* name : behind) {
      Matrix& matrix = matrices_.at(prefix_ + name + ".weight");
      for (int64_t r = 0; r < matrix.shape[0]; ++r) {
        for (const int64_t k : columns) matrix.values[static_cast<size_t>(r * matrix.shape[1] + k)] /= 512.0f;
      }
    }
  }

  std::map<std::string, Matrix> matrices_;
  std::string prefix_;
};

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b.at(i), 2);
  return std::sqrt(sum);
}

TEST(Quantize, ColumnsBehindOutliersAreNotLost) {
  const TempFolder folder;
  const OutlierModel outliers(folder.path());
  const auto quantized = [&](const fs::path& model, const char* name, bool equalize) {
    QuantizeOptions options = Options(model, folder.path() / name, "q8_0");
    options.pre_tokenizer = "gpt-2";
    options.equalize = equalize;
    const Status status = Quantize(options);
    EXPECT_TRUE(status.ok()) << status.message();
    return options.output;
  };
  const std::vector<float> exact = Logits(Demo());
  const double usual = Distance(exact, Logits(quantized(Demo(), "usual.gguf", true)));
  EXPECT_LT(Distance(exact, Logits(folder.path())), 0.01 * usual);
  EXPECT_LT(Distance(exact, Logits(quantized(folder.path(), "scaled.gguf", true))), 1.5 * usual);
  EXPECT_GT(Distance(exact, Logits(quantized(folder.path(), "left.gguf", false))), 3.0 * usual);
  // Where no column stands out, nothing changes.
  EXPECT_TRUE(ReadAll(folder.path() / "usual.gguf") == ReadAll(quantized(Demo(), "same.gguf", false)));
}

TEST(Quantize, BadPaths) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(Quantize(Options(folder.path() / "none", folder.path() / "a.gguf", "q8_0")), {"no such model"}));
  EXPECT_TRUE(Fails(Quantize(Options(Demo(), Demo(), "f16")), {"is the source itself"}));
  const fs::path old = folder.Write("old.gguf", "old");
  EXPECT_TRUE(Fails(Quantize(Options(Demo(), old, "q8_0")), {"exists already", "--force"}));
  EXPECT_TRUE(Fails(Quantize(Options(Demo(), folder.path() / "a.gguf", "q8_0")), {"no name", "--pre"}));
  QuantizeOptions both = DemoOptions(folder, "q4_k");
  both.imatrix = both.calibration = old.string();
  EXPECT_TRUE(Fails(Quantize(both), {"not both"}));
  EXPECT_EQ(ReadAll(old), "old");
  EXPECT_EQ(folder.CountFiles(), 1u);
}

TEST(Quantize, AFullDiskLeavesTheOldFile) {
  const TempFolder folder;
  QuantizeOptions options = DemoOptions(folder, "q8_0");
  folder.Write("demo.gguf", "old");
  options.force = true;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1'000'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status = RunRtnQuantize(options);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(Fails(status, {"demo.gguf", "left as it was"}));
  EXPECT_EQ(ReadAll(options.output), "old");
  EXPECT_EQ(folder.CountFiles(), 1u);
}

TEST(Quantize, NamesTensorsThatAreNotFinite) {
  const TempFolder folder;
  for (const float bad : {std::nanf(""), INFINITY, 1e30f}) {
    std::vector<float> values(64, 1.0f);
    values[40] = bad;
    const std::vector<GgufTensor> tensors = {{"token_embd.weight", DType::kF32, {2, 32}}};
    const std::vector<GgufEntry> entries = {
        GgufText("general.architecture", "llama"),   GgufUint32("llama.block_count", 1),
        GgufUint32("llama.embedding_length", 32),    GgufUint32("llama.feed_forward_length", 32),
        GgufUint32("llama.attention.head_count", 2), GgufFloat32("llama.attention.layer_norm_rms_epsilon", 1e-5f)};
    auto writer = GgufWriter::Create(folder.path() / "in.gguf", entries, tensors);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Append(std::as_bytes(std::span(values))).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
    EXPECT_TRUE(Fails(Quantize(Options(folder.path() / "in.gguf", folder.path() / "out.gguf", "q4_0")),
                      {"token_embd.weight", "row 1", "column 8"}));
    EXPECT_EQ(folder.CountFiles(), 1u);
  }
}

TEST(Imatrix, RoundTripAndOldForm) {
  const TempFolder folder;
  ImportanceMatrix matrix;
  matrix.dataset = "text.txt";
  matrix.chunks = 3;
  matrix.chunk_tokens = 256;
  matrix.entries["blk.0.ffn_up.weight"] = {4, {1, 2, 3, 4}, {2}};
  matrix.entries["blk.0.ffn_up_exps.weight"] = {2, {1, 2, 0, 0, 5, 6}, {1, 0, 2}};
  const fs::path file = folder.path() / "m.gguf";
  ASSERT_TRUE(WriteImportance(matrix, file).ok());
  const auto read = ReadImportance(file);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->chunks, 3);
  const ImportanceEntry& experts = read->entries.at("blk.0.ffn_up_exps.weight");
  EXPECT_EQ(experts.counts, (std::vector<float>{1, 0, 2}));
  EXPECT_EQ(experts.Mean(2), (std::vector<float>{2.5f, 3.0f}));
  EXPECT_TRUE(experts.Mean(1).empty());
  std::string old = testing::Raw<int32_t>(1) + testing::Raw<int32_t>(3) + "abc" + testing::Raw<int32_t>(2) +
                    testing::Raw<int32_t>(2) + testing::Raw(4.0f) + testing::Raw(8.0f);
  const auto read_old = ReadImportance(folder.Write("m.dat", old));
  ASSERT_TRUE(read_old.ok()) << read_old.status().message();
  EXPECT_EQ(read_old->entries.at("abc").Mean(0), (std::vector<float>{2.0f, 4.0f}));
  for (size_t size = 1; size < old.size(); ++size) {
    EXPECT_FALSE(ReadImportance(folder.Write("cut.dat", old.substr(0, size))).ok()) << size;
  }
  std::memcpy(old.data() + old.size() - 4, "\0\0\xc0\x7f", 4);
  EXPECT_TRUE(Fails(ReadImportance(folder.Write("nan.dat", old)).status(), {"abc", "finite"}));
}

TEST(Imatrix, CalibrationLowersTheErrorThatMatters) {
  const TempFolder folder;
  std::string text;
  for (int i = 0; i < 400; ++i) text += "Once upon a time there was a little girl who liked the sun. ";
  QuantizeOptions options = DemoOptions(folder, "q4_0");
  options.calibration = folder.Write("short.txt", "Once upon a time.").string();
  EXPECT_TRUE(Fails(Quantize(options), {"short.txt", "needs 512"}));
  options.calibration = folder.Write("empty.txt", "").string();
  EXPECT_TRUE(Fails(Quantize(options), {"empty.txt", "needs 512"}));
  options.calibration = folder.Write("text.txt", text).string();
  options.calibration_chunks = 4;
  options.save_imatrix = (folder.path() / "imatrix.gguf").string();
  Status status = Quantize(options);
  ASSERT_TRUE(status.ok()) << status.message();
  const std::string weighted = ReadAll(options.output);
  // The saved matrix gives the same file.
  options.calibration.clear();
  options.save_imatrix.clear();
  options.imatrix = (folder.path() / "imatrix.gguf").string();
  options.force = true;
  ASSERT_TRUE(Quantize(options).ok());
  EXPECT_TRUE(weighted == ReadAll(options.output));
  const auto matrix = ReadImportance(options.imatrix);
  ASSERT_TRUE(matrix.ok());
  const ImportanceEntry& entry = matrix->entries.at("blk.1.ffn_down.weight");
  EXPECT_EQ(entry.counts[0], 4.0f * 256.0f);
  const std::vector<float> mean = entry.Mean(0);
  const auto error = [&](const fs::path& path) {
    const auto file = GgufFile::Open(path);
    const auto full = GgufFile::Open(folder.path() / "full.gguf");
    const RawTensor* a = (*file)->Find("blk.1.ffn_down.weight");
    const RawTensor* b = (*full)->Find("blk.1.ffn_down.weight");
    const int64_t columns = a->shape[1];
    std::vector<float> values(static_cast<size_t>(a->elements()));
    DequantizeGgufBlocks(a->dtype, a->data, a->elements() / 32, values.data());
    double sum = 0.0;
    for (int64_t i = 0; i < a->elements(); ++i) {
      float exact = 0.0f;
      std::memcpy(&exact, b->data + 4 * i, 4);
      const double difference = static_cast<double>(exact) - values[static_cast<size_t>(i)];
      sum += difference * difference * mean[static_cast<size_t>(i % columns)];
    }
    return sum;
  };
  QuantizeOptions full = DemoOptions(folder, "f32");
  full.output = folder.path() / "full.gguf";
  ASSERT_TRUE(Quantize(full).ok());
  QuantizeOptions plain = DemoOptions(folder, "q4_0");
  plain.output = folder.path() / "plain.gguf";
  ASSERT_TRUE(Quantize(plain).ok());
  EXPECT_LT(error(options.output), error(plain.output));
  // Another model's matrix.
  options.source = full.output;
  options.output = folder.path() / "other.gguf";
  ImportanceMatrix wrong = *matrix;
  wrong.entries["blk.0.attn_q.weight"] = {4, {1, 2, 3, 4}, {2}};
  ASSERT_TRUE(WriteImportance(wrong, folder.path() / "wrong.gguf").ok());
  options.imatrix = (folder.path() / "wrong.gguf").string();
  options.pre_tokenizer.clear();
  EXPECT_TRUE(Fails(Quantize(options), {"blk.0.attn_q.weight", "another model's"}));
}

}  // namespace
}  // namespace kvasir::apps
