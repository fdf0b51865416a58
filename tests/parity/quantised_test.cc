// A model whose matrices are of all GGUF types: the same logits as from its weights in fp32, and what is damaged is
// named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <set>

#include "base/test_paths.h"
#include "fixture.h"
#include "quant/gguf_blocks.h"

namespace kvasir::parity {
namespace {

using ::testing::HasSubstr;

/// Copies of another source's tensors, to be changed.
class CopiedSource final : public TensorSource {
 public:
  explicit CopiedSource(const TensorSource& from) : description_(from.description()) {
    for (const RawTensor& tensor : from.tensors()) {
      const std::vector<std::byte>& bytes = bytes_.emplace_back(tensor.data, tensor.data + tensor.bytes);
      tensors_.push_back(tensor);
      tensors_.back().data = bytes.data();
      tensors_.back().file = nullptr;
    }
  }

  /// The bytes of tensor `i`.
  std::byte* At(size_t i) { return bytes_[i].data(); }

  /// Stores every block type's values in fp32.
  void Widen() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      RawTensor& tensor = tensors_[i];
      if (!IsGgufBlockType(tensor.dtype)) continue;
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      DequantizeGgufBlocks(tensor.dtype, tensor.data, tensor.elements() / DTypeBlockSize(tensor.dtype), values.data());
      const auto* data = reinterpret_cast<const std::byte*>(values.data());
      bytes_[i].assign(data, data + values.size() * sizeof(float));
      tensor.dtype = DType::kF32;
      tensor.bytes = static_cast<int64_t>(bytes_[i].size());
      tensor.data = bytes_[i].data();
    }
  }

  const RawTensor* Find(std::string_view name) const override {
    for (const RawTensor& tensor : tensors_) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }
  std::span<const RawTensor> tensors() const override { return tensors_; }
  const std::string& description() const override { return description_; }

 private:
  std::vector<RawTensor> tensors_;
  std::deque<std::vector<std::byte>> bytes_;
  std::string description_;
};

class Quantised : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path folder = std::filesystem::path(kFixtures) / "models" / "llama-quants";
    auto expected = LoadExpected(folder);
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    expected_ = *std::move(expected);
    auto files = OpenModelFiles(folder / "llama-quants.gguf");
    ASSERT_TRUE(files.ok()) << files.status().message();
    files_ = *std::move(files);
  }

  Result<std::vector<float>> Logits(const TensorSource& source, std::optional<DType> dtype = std::nullopt) {
    return LogitsBySpec(files_.spec, files_, source, expected_, runtime_, dtype);
  }

  Runtime runtime_;
  Expected expected_;
  ModelFiles files_;
};

TEST_F(Quantised, TheSameLogitsAsInFp32) {
  CopiedSource wide(*files_.source);
  wide.Widen();
  const auto want = Logits(wide);
  ASSERT_TRUE(want.ok()) << want.status().message();
  const auto widened = Logits(*files_.source, DType::kF32);
  ASSERT_TRUE(widened.ok()) << widened.status().message();
  EXPECT_EQ(*widened, *want);
  EXPECT_LE(RelativeError(*widened, expected_.logits, expected_.LargestLogit()), 1e-4f);
  // As they are, weights are the same and activations are rounded.
  const auto got = Logits(*files_.source);
  ASSERT_TRUE(got.ok()) << got.status().message();
  EXPECT_LE(RelativeError(*got, expected_.logits, expected_.LargestLogit()), 5e-2f);
  EXPECT_NE(*got, *want);
}

/// Where a block's scale lies, in bytes.
size_t ScaleOffset(DType type) {
  switch (type) {
    case DType::kQ2_K: return 80;
    case DType::kQ3_K: return 108;
    case DType::kQ6_K: return 208;
    default: return 0;
  }
}

TEST_F(Quantised, ScalesThatAreNotFiniteNameTheirTensor) {
  std::set<DType> types;
  const std::span<const RawTensor> tensors = files_.source->tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const DType type = tensors[i].dtype;
    // A block of mxfp4 has an exponent only.
    if (!IsGgufBlockType(type) || type == DType::kMXFP4 || !types.insert(type).second) continue;
    const int64_t last = tensors[i].bytes - DTypeBlockBytes(type);
    for (uint16_t bits : {uint16_t{0x7c00}, uint16_t{0xfc00}, uint16_t{0x7e01}}) {
      CopiedSource damaged(*files_.source);
      std::memcpy(damaged.At(i) + last + ScaleOffset(type), &bits, sizeof(bits));
      const auto logits = Logits(damaged);
      ASSERT_FALSE(logits.ok()) << tensors[i].name;
      EXPECT_THAT(logits.status().message(), HasSubstr("\"" + tensors[i].name + "\" holds NaN or infinity"));
    }
  }
  EXPECT_EQ(types.size(), 10u);
}

TEST_F(Quantised, ValuesBeyondFp32NameTheirTensor) {
  const std::span<const RawTensor> tensors = files_.source->tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].dtype != DType::kMXFP4) continue;
    CopiedSource damaged(*files_.source);
    damaged.At(i)[0] = std::byte{255};
    damaged.At(i)[1] = std::byte{0x0f};  // -6 · 2^128
    const auto logits = Logits(damaged);
    ASSERT_FALSE(logits.ok());
    EXPECT_THAT(logits.status().message(), HasSubstr("\"" + tensors[i].name + "\" holds NaN or infinity"));
  }
}

}  // namespace
}  // namespace kvasir::parity
