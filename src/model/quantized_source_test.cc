// Every layout of quantised checkpoints against the weights that its codes stand for, and damaged ones.
#include "model/quantized_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "base/test_paths.h"
#include "io/safetensors.h"
#include "io/test_files.h"
#include "model/model.h"
#include "model/weights.h"
#include "quant/coded_blocks.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;
using testing::Fails;
using testing::ReadAll;
using testing::TempFolder;

fs::path FixtureFolder(std::string_view name) { return fs::path(kFixtures) / "quantized" / name; }

template <typename T>
std::vector<T> Values(const RawTensor& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.bytes) / sizeof(T));
  std::memcpy(values.data(), tensor.data, static_cast<size_t>(tensor.bytes));
  return values;
}

/// One row's weights, in the order of the inputs.
std::vector<float> RowOf(const RawTensor& tensor, int64_t row) {
  const int64_t cols = tensor.shape[1];
  std::vector<float> values(static_cast<size_t>(cols));
  if (!tensor.rows) {  // eight-bit floats without scales
    for (int64_t k = 0; k < cols; ++k) {
      const auto code = static_cast<uint8_t>(tensor.data[row * cols + k]);
      values[static_cast<size_t>(k)] = tensor.dtype == DType::kF8E4M3 ? E4M3ToFloat(code) : E5M2ToFloat(code);
    }
    return values;
  }
  std::vector<std::byte> blocks(static_cast<size_t>(*DTypeBytes(tensor.dtype, cols)));
  tensor.rows->Encode(row, blocks.data());
  if (tensor.dtype == DType::kF32) {
    std::memcpy(values.data(), blocks.data(), blocks.size());
  } else {
    DequantizeCodedBlocks(tensor.dtype, blocks.data(), cols / DTypeBlockSize(tensor.dtype), values.data());
  }
  const std::span<const int32_t> order = tensor.rows->order();
  if (order.empty()) return values;
  EXPECT_EQ(order.size(), values.size());
  std::vector<float> sorted(values.size(), std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < order.size(); ++i) sorted[static_cast<size_t>(order[i])] = values[i];
  return sorted;
}

double SumOf(const std::vector<float>& row) {
  double sum = 0.0;
  for (size_t i = 0; i < row.size(); ++i) sum += static_cast<double>(row[i]) * (static_cast<double>(7 * i % 13) - 6.0);
  return sum;
}

/// Compares with the fixture's rows and, for all rows, with its sums.
void ExpectWeights(const RawTensor& tensor, const TensorSource& want) {
  ASSERT_EQ(tensor.shape.size(), 2u) << tensor.name;
  const RawTensor* at_tensor = want.Find(tensor.name + ".at");
  ASSERT_NE(at_tensor, nullptr) << tensor.name;
  const std::vector<int32_t> at = Values<int32_t>(*at_tensor);
  const std::vector<float> rows = Values<float>(*want.Find(tensor.name));
  const std::vector<double> sums = Values<double>(*want.Find(tensor.name + ".sums"));
  const size_t cols = static_cast<size_t>(tensor.shape[1]);
  ASSERT_EQ(rows.size(), at.size() * cols) << tensor.name;
  ASSERT_EQ(static_cast<int64_t>(sums.size()), tensor.shape[0]) << tensor.name;
  const float largest = std::abs(*std::ranges::max_element(rows, {}, [](float x) { return std::abs(x); }));
  for (size_t i = 0; i < at.size(); ++i) {
    const std::vector<float> row = RowOf(tensor, at[i]);
    for (size_t k = 0; k < cols; ++k) {
      ASSERT_NEAR(row[k], rows[i * cols + k], 2e-7f * largest) << tensor.name << " row " << at[i] << " input " << k;
    }
  }
  if (tensor.rows) tensor.rows->GiveBack();  // and read it again
  for (size_t r = 0; r < sums.size(); ++r) {
    const double error = 6e-7 * static_cast<double>(largest) * static_cast<double>(cols);
    ASSERT_NEAR(SumOf(RowOf(tensor, static_cast<int64_t>(r))), sums[r], error) << tensor.name << " row " << r;
  }
}

struct Layout {
  const char* name;
  std::set<DType> types;  // of its matrices
  bool ordered = false;   // whether any of them has an order
};

class QuantizedLayouts : public ::testing::TestWithParam<Layout> {};

TEST_P(QuantizedLayouts, RowsAreTheWeightsThatTheCodesStandFor) {
  const fs::path folder = FixtureFolder(GetParam().name);
  const auto files = OpenModelFiles(folder);
  ASSERT_TRUE(files.ok()) << files.status().message();
  const auto want = OpenSafetensors(folder / "dequantised.safetensors");
  ASSERT_TRUE(want.ok()) << want.status().message();
  std::set<DType> types;
  size_t matrices = 0;
  bool ordered = false;
  for (const RawTensor& tensor : files->source->tensors()) {
    EXPECT_EQ(files->source->Find(tensor.name), &tensor);
    EXPECT_EQ(DTypeBytes(tensor.dtype, tensor.elements()), tensor.bytes) << tensor.name;
    const bool unscaled = tensor.dtype == DType::kF8E4M3 || tensor.dtype == DType::kF8E5M2;
    if (!tensor.rows && !unscaled) {
      // What is left was stored so: no parts of matrices.
      EXPECT_TRUE(IsFloat16Bit(tensor.dtype)) << tensor.name;
      EXPECT_NE(tensor.data, nullptr) << tensor.name;
      continue;
    }
    ++matrices;
    types.insert(tensor.dtype);
    ordered |= tensor.rows && !tensor.rows->order().empty();
    ExpectWeights(tensor, **want);
  }
  EXPECT_EQ(matrices, (*want)->tensors().size() / 3);
  EXPECT_EQ(types, GetParam().types);
  EXPECT_EQ(ordered, GetParam().ordered);
}

const Layout kLayouts[] = {
    {"gpt2-bnb-nf4", {DType::kNF4}},
    {"llama-awq-gemm-g32", {DType::kInt4G32}},
    {"llama-awq-gemv-g64", {DType::kInt4G32}},
    {"llama-bnb-fp4-nested", {DType::kFP4}},
    {"llama-bnb-int8", {DType::kInt8}},
    {"llama-bnb-nf4", {DType::kNF4}},
    {"llama-bnb-nf4-odd", {DType::kF32}},
    {"llama-fp8-channel", {DType::kScaledE4M3}},
    {"llama-fp8-e4m3-plain", {DType::kF8E4M3}},
    {"llama-fp8-tensor", {DType::kScaledE4M3}},
    {"llama-gptq-3bit-g128", {DType::kInt3G128}},
    {"llama-gptq-3bit-g32-act-order", {DType::kInt3G32}, true},
    {"llama-gptq-4bit-g32-asym", {DType::kInt4G32}},
    {"llama-gptq-4bit-g48", {DType::kF32}},
    {"llama-gptq-8bit-channel", {DType::kInt8G32}},
    {"opt-bnb-fp4", {DType::kFP4}},
    {"opt-bnb-int8", {DType::kInt8}},
    {"opt-fp8-e5m2-plain", {DType::kF8E5M2}},
    {"opt-fp8-e5m2-tensor", {DType::kScaledE5M2}},
    {"opt-gptq-2bit-g64", {DType::kInt2G32}},
    {"qwen2-awq-gemm-g128", {DType::kInt4G128}},
    {"qwen2-bnb-nf4-nested", {DType::kNF4}},
    {"qwen2-fp8-block", {DType::kScaledE4M3}},
    {"qwen2-gptq-4bit-g128-act-order", {DType::kInt4G128}, true},
};

INSTANTIATE_TEST_SUITE_P(Fixtures, QuantizedLayouts, ::testing::ValuesIn(kLayouts),
                         [](const ::testing::TestParamInfo<Layout>& layout) {
                           std::string name = layout.param.name;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(Quantized, EveryFixtureIsATest) {
  std::set<std::string> tested;
  for (const Layout& layout : kLayouts) tested.insert(layout.name);
  for (const auto& entry : fs::directory_iterator(fs::path(kFixtures) / "quantized")) {
    EXPECT_TRUE(tested.contains(entry.path().filename().string())) << entry.path();
  }
}

/// A fixture's tensors and config, to be changed and opened again.
class Checkpoint {
 public:
  explicit Checkpoint(std::string_view name, const std::string& file = "config.json") : config_file_(file) {
    const fs::path folder = FixtureFolder(name);
    const auto source = OpenSafetensors(folder / "model.safetensors");
    KVASIR_CHECK(source.ok());
    for (const RawTensor& tensor : (*source)->tensors()) {
      tensors_[tensor.name] = {tensor.dtype, tensor.shape, {tensor.data, tensor.data + tensor.bytes}};
    }
    for (const char* json : {"config.json", "quantize_config.json", "quant_config.json"}) {
      if (fs::exists(folder / json)) files_[json] = ReadAll(folder / json);
    }
  }

  struct Tensor {
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;

    template <typename T>
    void Set(size_t i, T value) {
      std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
    /// Gives it another shape; bytes are cut or filled with zeros.
    void Reshape(std::vector<int64_t> new_shape) {
      shape = std::move(new_shape);
      int64_t elements = 1;
      for (int64_t dim : shape) elements *= dim;
      bytes.resize(static_cast<size_t>(*DTypeBytes(dtype, elements)));
    }
  };
  Tensor& operator[](const std::string& name) {
    KVASIR_CHECK(tensors_.contains(name));
    return tensors_.at(name);
  }
  void Drop(const std::string& name) { KVASIR_CHECK(tensors_.erase(name) == 1); }
  void Copy(const std::string& from, const std::string& to) { tensors_[to] = tensors_.at(from); }

  /// Replaces text in the settings.
  void Config(std::string_view from, std::string_view to) {
    std::string& text = files_.at(config_file_);
    const size_t at = text.find(from);
    KVASIR_CHECK(at != std::string::npos);
    text.replace(at, from.size(), to);
  }
  void DropFile(const std::string& name) { KVASIR_CHECK(files_.erase(name) == 1); }

  Result<ModelFiles> Open() const {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, tensor] : tensors_) tensors.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
    KVASIR_CHECK(WriteSafetensors(folder_.path() / "model.safetensors", tensors, {}).ok());
    for (const auto& [name, text] : files_) folder_.Write(name, text);
    return OpenModelFiles(folder_.path());
  }
  ::testing::AssertionResult FailsWith(std::initializer_list<std::string_view> parts) const {
    return Fails(Open().status(), parts);
  }

 private:
  TempFolder folder_;
  std::string config_file_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> files_;
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kDown = "model.layers.0.mlp.down_proj";

/// What the model's hash is.
std::string HashOf(const Checkpoint& checkpoint) {
  const auto files = checkpoint.Open();
  EXPECT_TRUE(files.ok()) << files.status().message();
  return files.ok() ? FingerprintModel(files->spec, *files->source) : "";
}

TEST(Quantized, FingerprintsSeeTheStoredTensors) {
  Checkpoint checkpoint("llama-gptq-4bit-g32-asym");
  const std::string before = HashOf(checkpoint);
  EXPECT_EQ(before, HashOf(checkpoint));
  checkpoint[kQ + ".qweight"].Set<uint32_t>(0, 0x12345678u);
  const std::string codes = HashOf(checkpoint);
  EXPECT_NE(codes, before);
  checkpoint[kQ + ".qzeros"].Set<uint32_t>(0, 0x12345678u);
  EXPECT_NE(HashOf(checkpoint), codes);
}

TEST(Quantized, AllMissingTensorsAreNamed) {
  Checkpoint nf4("qwen2-bnb-nf4-nested");
  nf4.Drop(kQ + ".weight.absmax");
  nf4.Drop(kQ + ".weight.quant_map");
  nf4.Drop(kDown + ".weight.nested_absmax");
  nf4.Drop(kDown + ".weight.nested_quant_map");
  nf4.Drop("model.layers.0.mlp.up_proj.weight");
  nf4.Drop("model.layers.0.mlp.gate_proj.weight.quant_state.bitsandbytes__nf4");
  EXPECT_TRUE(
      nf4.FailsWith({"model.safetensors", "6 tensors of quantised matrices are missing", kQ + ".weight.absmax",
                     kQ + ".weight.quant_map", kDown + ".weight.nested_absmax", kDown + ".weight.nested_quant_map",
                     "up_proj.weight\"", "gate_proj.weight.quant_state.bitsandbytes__nf4", "incomplete"}));
  Checkpoint int8("llama-bnb-int8");
  int8.Drop(kQ + ".SCB");
  int8.Drop(kDown + ".weight");
  EXPECT_TRUE(int8.FailsWith({"2 tensors", kQ + ".SCB", kDown + ".weight"}));
  Checkpoint gptq("qwen2-gptq-4bit-g128-act-order");
  gptq.Drop(kQ + ".scales");
  gptq.Drop(kDown + ".g_idx");
  gptq.Drop("model.layers.0.mlp.up_proj.qweight");
  EXPECT_TRUE(gptq.FailsWith({"3 tensors", kQ + ".scales", kDown + ".g_idx", "up_proj.qweight"}));
  Checkpoint awq("qwen2-awq-gemm-g128");
  awq.Drop(kQ + ".qzeros");
  awq.Drop(kDown + ".qweight");
  EXPECT_TRUE(awq.FailsWith({"2 tensors", kQ + ".qzeros", kDown + ".qweight"}));
  Checkpoint fp8("qwen2-fp8-block");
  fp8.Drop(kQ + ".weight_scale_inv");
  fp8.Drop(kDown + ".weight");
  EXPECT_TRUE(fp8.FailsWith({"2 tensors", kQ + ".weight_scale_inv", kDown + ".weight"}));
}

TEST(Quantized, ScalesThatAreNotFinite) {
  const struct {
    const char* fixture;
    std::string tensor;
    bool half;
  } cases[] = {{"llama-bnb-nf4", kQ + ".weight.absmax", false},
               {"qwen2-bnb-nf4-nested", kQ + ".weight.nested_absmax", false},
               {"qwen2-bnb-nf4-nested", kQ + ".weight.nested_quant_map", false},
               {"llama-bnb-nf4", kQ + ".weight.quant_map", false},
               {"llama-bnb-int8", kQ + ".SCB", false},
               {"llama-gptq-3bit-g128", kQ + ".scales", true},
               {"qwen2-awq-gemm-g128", kQ + ".scales", true},
               {"qwen2-fp8-block", kQ + ".weight_scale_inv", false}};
  for (const auto& c : cases) {
    Checkpoint checkpoint(c.fixture);
    if (c.half) {
      checkpoint[c.tensor].Set<uint16_t>(3, 0x7c00);
    } else {
      checkpoint[c.tensor].Set<float>(0, kNan);
    }
    EXPECT_TRUE(checkpoint.FailsWith({"model.safetensors", "\"" + c.tensor + "\"",
                                      c.half ? "holds inf at element 3" : "holds nan at element 0",
                                      "download or quantise it anew"}));
  }
}

TEST(Quantized, BitsandbytesStatesThatAreWrong) {
  const std::string name = kQ + ".weight.quant_state.bitsandbytes__nf4";
  const auto with_state = [&](std::string_view text) {
    Checkpoint checkpoint("llama-bnb-nf4");
    auto& state = checkpoint[name];
    state.bytes.assign(testing::Bytes(text).begin(), testing::Bytes(text).end());
    state.shape = {static_cast<int64_t>(text.size())};
    return checkpoint.Open().status();
  };
  EXPECT_TRUE(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[64,64]})").ok());
  EXPECT_TRUE(Fails(with_state("nf4"), {"model.safetensors", name, "no valid state"}));
  EXPECT_TRUE(Fails(with_state(R"([1])"), {name, "not a JSON object"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"af4","blocksize":64,"shape":[64,64]})"),
                    {name, "\"quant_type\" is \"af4\"; known are nf4, fp4"}));
  EXPECT_TRUE(
      Fails(with_state(R"({"quant_type":"fp4","blocksize":64,"shape":[64,64]})"), {name, "says that it is fp4"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":0,"shape":[64,64]})"), {name, "blocksize"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":128,"shape":[64,64]})"),
                    {kQ + ".weight.absmax", "must have the shape [32]"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[64]})"), {name, "1 dimensions"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[64,63]})"), {kQ + ".weight", "64 x 63"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[4294967296,4294967296]})"),
                    {kQ + ".weight", "truncated or its state"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[64,-64]})"), {name, "shape"}));
  EXPECT_TRUE(Fails(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[64,64],"nested_blocksize":256})"),
                    {name, "nested_offset"}));

  Checkpoint other("llama-bnb-nf4");
  other.Copy(name, kQ + ".weight.quant_state.bitsandbytes__int3");
  other.Drop(name);
  EXPECT_TRUE(other.FailsWith({"bitsandbytes__int3", "says that it is nf4"}));
}

TEST(Quantized, BitsandbytesTensorsOfWrongShapes) {
  Checkpoint truncated("qwen2-bnb-nf4-nested");
  truncated[kDown + ".weight.nested_absmax"].Reshape({1});
  EXPECT_TRUE(truncated.FailsWith({kDown + ".weight.nested_absmax", "must have the shape [2]"}));
  Checkpoint short_codes("qwen2-bnb-nf4-nested");
  short_codes[kDown + ".weight.absmax"].Reshape({511});
  EXPECT_TRUE(short_codes.FailsWith({kDown + ".weight.absmax", "must have the shape [512]"}));
  Checkpoint table("qwen2-bnb-nf4-nested");
  table[kDown + ".weight.nested_quant_map"].Reshape({255});
  EXPECT_TRUE(table.FailsWith({"nested_quant_map", "must have the shape [256]"}));
  Checkpoint scales("llama-bnb-int8");
  scales[kQ + ".SCB"].Reshape({63});
  EXPECT_TRUE(scales.FailsWith({kQ + ".SCB", "must have the shape [64]"}));
  Checkpoint layout("llama-bnb-int8");
  layout[kQ + ".weight_format"].Set<uint8_t>(0, 2);
  EXPECT_TRUE(layout.FailsWith({kQ + ".weight_format", "layout of some GPU's own", "save the model anew"}));
  Checkpoint type("llama-bnb-int8");
  type[kQ + ".weight"].dtype = DType::kU8;
  EXPECT_TRUE(type.FailsWith({kQ + ".weight", "must be of type i8"}));
}

TEST(Quantized, GptqIndicesThatAreWrong) {
  for (int32_t group : {-1, 2, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
    Checkpoint checkpoint("qwen2-gptq-4bit-g128-act-order");
    checkpoint[kDown + ".g_idx"].Set<int32_t>(17, group);
    EXPECT_TRUE(checkpoint.FailsWith({"model.safetensors", kDown + ".g_idx",
                                      fmt::format("puts input 17 into group {}, of which there are 2", group)}));
  }
  Checkpoint short_index("qwen2-gptq-4bit-g128-act-order");
  short_index[kDown + ".g_idx"].Reshape({255});
  EXPECT_TRUE(short_index.FailsWith({kDown + ".g_idx", "must have the shape [256]"}));
  Checkpoint type("qwen2-gptq-4bit-g128-act-order");
  type[kDown + ".g_idx"].dtype = DType::kF32;
  EXPECT_TRUE(type.FailsWith({kDown + ".g_idx", "must be of type i32"}));
}

TEST(Quantized, GptqGroupsOfUnequalSizesAreWidened) {
  Checkpoint checkpoint("qwen2-gptq-4bit-g128-act-order");
  std::vector<int32_t> groups(256);
  std::memcpy(groups.data(), checkpoint[kDown + ".g_idx"].bytes.data(), 1024);
  checkpoint[kDown + ".g_idx"].Set<int32_t>(17, 1 - groups[17]);
  ::testing::internal::CaptureStderr();
  const auto files = checkpoint.Open();
  const std::string said = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(files.ok()) << files.status().message();
  const RawTensor* down = files->source->Find(kDown + ".weight");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->dtype, DType::kF32);
  EXPECT_TRUE(down->rows->order().empty());
  for (std::string_view part : {"1 of 7 quantised matrices", "widened to f32", "MiB more than stored",
                                "down_proj.weight", "not of one size", "--dtype bf16"}) {
    EXPECT_NE(said.find(part), std::string::npos) << part << " is not in " << said;
  }
  // Only the moved input has changed.
  const auto original = OpenModelFiles(FixtureFolder("qwen2-gptq-4bit-g128-act-order"));
  ASSERT_TRUE(original.ok());
  const std::vector<float> got = RowOf(*down, 5);
  const std::vector<float> want = RowOf(*original->source->Find(kDown + ".weight"), 5);
  for (size_t i = 0; i < got.size(); ++i) {
    if (i == 17) continue;  // it is in another group now
    EXPECT_FLOAT_EQ(got[i], want[i]) << i;
  }
}

TEST(Quantized, GptqWithAnIndexThatWasNeverSet) {
  Checkpoint checkpoint("llama-gptq-4bit-g32-asym");
  std::ranges::fill(checkpoint[kDown + ".g_idx"].bytes, std::byte{0});
  const auto files = checkpoint.Open();
  ASSERT_TRUE(files.ok()) << files.status().message();
  const auto want = OpenSafetensors(FixtureFolder("llama-gptq-4bit-g32-asym") / "dequantised.safetensors");
  ASSERT_TRUE(want.ok());
  ExpectWeights(*files->source->Find(kDown + ".weight"), **want);
}

TEST(Quantized, GptqTensorsOfWrongShapes) {
  const auto reshaped = [](const std::string& suffix, std::vector<int64_t> shape) {
    Checkpoint checkpoint("llama-gptq-3bit-g128");
    checkpoint[kDown + suffix].Reshape(std::move(shape));
    return checkpoint.Open().status();
  };
  EXPECT_TRUE(Fails(reshaped(".qweight", {23, 128}), {kDown + ".qweight", "does not divide into codes of 3 bits"}));
  EXPECT_TRUE(Fails(reshaped(".qweight", {36, 128}), {kDown + ".scales", "has 2 groups where 384 inputs"}));
  EXPECT_TRUE(Fails(reshaped(".qweight", {24, 64}), {kDown + ".qzeros", "each of 64 outputs"}));
  EXPECT_TRUE(Fails(reshaped(".qweight", {24 * 128}), {kDown + ".qweight", "must be a matrix"}));
  EXPECT_TRUE(Fails(reshaped(".qweight", {0, 128}), {kDown + ".qweight", "is empty"}));
  EXPECT_TRUE(Fails(reshaped(".qzeros", {2, 11}), {kDown + ".qzeros", "zero of 3 bits"}));
  EXPECT_TRUE(Fails(reshaped(".qzeros", {3, 12}), {kDown + ".qzeros", "must have the shape [2, 12]"}));
  EXPECT_TRUE(Fails(reshaped(".scales", {2, 127}), {kDown + ".scales", "must have the shape [2, 128]"}));
  EXPECT_TRUE(Fails(reshaped(".scales", {3, 128}), {kDown + ".scales", "has 3 groups where 256 inputs"}));
  Checkpoint type("llama-gptq-3bit-g128");
  type[kDown + ".qweight"].dtype = DType::kF32;
  EXPECT_TRUE(type.FailsWith({kDown + ".qweight", "must be of type i32"}));
}

TEST(Quantized, GptqSettingsThatAreNotKnown) {
  const auto with = [](std::string_view from, std::string_view to) {
    Checkpoint checkpoint("llama-gptq-3bit-g128");
    checkpoint.Config(from, to);
    return checkpoint.Open().status();
  };
  EXPECT_TRUE(Fails(with("\"bits\": 3", "\"bits\": 5"), {"config.json", "\"bits\" is 5; known are 2, 3, 4, 8"}));
  EXPECT_TRUE(Fails(with("\"bits\": 3", "\"bits\": 4"), {"zero of 4 bits", "\"bits\" or the tensor is wrong"}));
  EXPECT_TRUE(Fails(with("\"bits\": 3,", ""), {"config.json", "bits"}));
  EXPECT_TRUE(Fails(with("\"group_size\": 128", "\"group_size\": 0"), {"\"group_size\" is 0"}));
  EXPECT_TRUE(Fails(with("\"group_size\": 128", "\"group_size\": 64"), {".scales", "\"group_size\" or the tensor"}));
  EXPECT_TRUE(Fails(with("\"bits\": 3", "\"checkpoint_format\": \"marlin\", \"bits\": 3"),
                    {"\"checkpoint_format\" is \"marlin\"; known are gptq, gptq_v2"}));
  EXPECT_TRUE(Fails(with("\"bits\": 3", "\"is_marlin_format\": true, \"bits\": 3"), {"marlin"}));
  EXPECT_TRUE(Fails(with("\"bits\": 3", "\"pack_dtype\": \"int16\", \"bits\": 3"), {"\"pack_dtype\" is \"int16\""}));
  // Layers of their own: the shapes say how many bits there are.
  EXPECT_TRUE(with("\"bits\": 3", "\"dynamic\": {\"+:.*\": {\"bits\": 3}}, \"bits\": 8").ok());
}

TEST(Quantized, AwqThatIsWrong) {
  const auto with = [](std::string_view from, std::string_view to) {
    Checkpoint checkpoint("llama-awq-gemv-g64");
    checkpoint.Config(from, to);
    return checkpoint.Open().status();
  };
  EXPECT_TRUE(
      Fails(with("\"gemv\"", "\"gemv_fast\""), {"config.json", "\"version\" is \"gemv_fast\"; known are gemm, gemv"}));
  EXPECT_TRUE(Fails(with("\"gemv\"", "\"gemm\""), {".q", "must have the shape"}));
  EXPECT_TRUE(Fails(with("\"bits\": 4", "\"bits\": 3"), {"\"bits\" is 3"}));
  EXPECT_TRUE(Fails(with("\"bits\": 4", "\"backend\": \"llm-awq\", \"bits\": 4"), {"\"backend\" is \"llm-awq\""}));
  EXPECT_TRUE(Fails(with("\"group_size\": 64", "\"group_size\": 48"), {"do not divide into groups of 48"}));
  EXPECT_TRUE(Fails(with("\"group_size\": 64", "\"group_size\": 0"), {"\"group_size\" is 0"}));
  EXPECT_TRUE(Fails(with("\"group_size\": 64", "\"group_size\": 2"), {".qzeros", "room for less than"}));
  Checkpoint scales("qwen2-awq-gemm-g128");
  scales[kDown + ".scales"].Reshape({1, 128});
  EXPECT_TRUE(scales.FailsWith({kDown + ".scales", "must have the shape [2, 128]"}));
  Checkpoint zeros("qwen2-awq-gemm-g128");
  zeros[kDown + ".qzeros"].Reshape({2, 15});
  EXPECT_TRUE(zeros.FailsWith({kDown + ".qzeros", "must have the shape [2, 16]"}));
  Checkpoint type("qwen2-awq-gemm-g128");
  type[kDown + ".scales"].dtype = DType::kI16;
  EXPECT_TRUE(type.FailsWith({kDown + ".scales", "must be of type f32 or f16 or bf16"}));
}

TEST(Quantized, Fp8ThatIsWrong) {
  Checkpoint blocks("qwen2-fp8-block");
  blocks.Config("[\n   128,\n   128\n  ]", "[128, 64]");
  EXPECT_TRUE(blocks.FailsWith({"weight_scale_inv", "must have the shape [2, 3]"}));
  Checkpoint sizes("qwen2-fp8-block");
  sizes.Config("[\n   128,\n   128\n  ]", "[128]");
  EXPECT_TRUE(sizes.FailsWith({"config.json", "\"weight_block_size\" must be two numbers"}));
  Checkpoint shape("llama-fp8-channel");
  shape[kQ + ".weight_scale"].Reshape({32, 1});
  EXPECT_TRUE(shape.FailsWith({kQ + ".weight_scale", "neither one scale nor one for each of 64 outputs"}));
  Checkpoint empty("llama-fp8-channel");
  empty[kQ + ".weight_scale"].Reshape({0, 1});
  EXPECT_TRUE(empty.FailsWith({kQ + ".weight_scale", "is empty"}));
  Checkpoint stacked("llama-fp8-channel");
  stacked[kQ + ".weight"].shape = {2, 32, 64};
  EXPECT_TRUE(stacked.FailsWith({kQ + ".weight", "must be a matrix"}));
}

TEST(Quantized, Fp8InSmallBlocksIsWidened) {
  Checkpoint checkpoint("llama-fp8-channel");
  checkpoint.Config("\"activation_scale_ub\"", "\"weight_block_size\": [1, 64], \"activation_scale_ub\"");
  for (const char* layer : {"0", "1"}) {
    checkpoint[fmt::format("model.layers.{}.mlp.down_proj.weight_scale", layer)].Reshape({64, 2});
  }
  const auto files = checkpoint.Open();
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ(files->source->Find(kDown + ".weight")->dtype, DType::kF32);
  EXPECT_EQ(files->source->Find(kQ + ".weight")->dtype, DType::kScaledE4M3);
}

TEST(Quantized, Fp8WithoutSettingsIsFoundByItsScales) {
  Checkpoint checkpoint("llama-fp8-channel");
  checkpoint.Config("\"quantization_config\"", "\"other_config\"");
  const auto files = checkpoint.Open();
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ(files->source->Find(kQ + ".weight")->dtype, DType::kScaledE4M3);
}

TEST(Quantized, CompressedTensorsOtherThanFp8) {
  Checkpoint format("llama-fp8-tensor");
  format.Config("\"float-quantized\"", "\"pack-quantized\"");
  EXPECT_TRUE(format.FailsWith({"config.json", "\"format\" is \"pack-quantized\"", "GPTQ, AWQ or GGUF"}));
  Checkpoint type("llama-fp8-tensor");
  type.Config("\"type\": \"float\"", "\"type\": \"int\"");
  EXPECT_TRUE(type.FailsWith({"config.json", "\"weights\"", "of type int with 8 bits"}));
}

TEST(Quantized, MethodsThatAreNotKnown) {
  Checkpoint method("llama-gptq-3bit-g128");
  method.Config("\"gptq\"", "\"hqq\"");
  EXPECT_TRUE(method.FailsWith({"config.json", "\"quant_method\" is \"hqq\"; known are bitsandbytes, gptq, awq"}));
  Checkpoint kind("llama-gptq-3bit-g128");
  kind.Config("\"quantization_config\": {", "\"quantization_config\": 3, \"other\": {");
  EXPECT_TRUE(kind.FailsWith({"config.json", "quantization_config"}));
  Checkpoint packed("opt-gptq-2bit-g64");
  packed.DropFile("quantize_config.json");
  EXPECT_TRUE(packed.FailsWith({".qweight", "quantize_config.json", "says how"}));
  Checkpoint twice("llama-gptq-3bit-g128");
  twice.Copy("model.norm.weight", kQ + ".weight");
  EXPECT_TRUE(twice.FailsWith({kQ + ".weight", "twice"}));
}

TEST(Quantized, SettingsWithoutQuantisedTensorsAreSaidAloud) {
  Checkpoint checkpoint("llama-fp8-e4m3-plain");
  checkpoint.Config("{", "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"},");
  ::testing::internal::CaptureStderr();
  const auto files = checkpoint.Open();
  const std::string said = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_NE(said.find("no matrix is quantised so"), std::string::npos) << said;
}

}  // namespace
}  // namespace kvasir
