// Checkpoints that others have quantised, their rows brought to fp32 one by one: the logits that transformers computes
// from the weights that the codes stand for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "fixture.h"
#include "quant/coded_blocks.h"

namespace kvasir::parity {
namespace {

/// Another source's tensors, those that are made row by row or are eight-bit floats as fp32 [outputs, inputs].
class WideSource final : public TensorSource {
 public:
  /// `conv1d`: quantised matrices are turned into [inputs, outputs], as such families store them.
  WideSource(const TensorSource& from, bool conv1d) : description_(from.description()) {
    for (const RawTensor& tensor : from.tensors()) {
      tensors_.push_back(tensor);
      const bool fp8 = tensor.dtype == DType::kF8E4M3 || tensor.dtype == DType::kF8E5M2;
      if (tensor.rows || fp8) Widen(tensors_.back(), conv1d && tensor.rows);
    }
  }
  const RawTensor* Find(std::string_view name) const override {
    const auto at = std::ranges::find(tensors_, name, &RawTensor::name);
    return at == tensors_.end() ? nullptr : &*at;
  }
  std::span<const RawTensor> tensors() const override { return tensors_; }
  const std::string& description() const override { return description_; }

 private:
  static std::vector<float> RowOf(const RawTensor& tensor, int64_t row) {
    const int64_t cols = tensor.shape[1];
    std::vector<float> values(static_cast<size_t>(cols));
    if (!tensor.rows) {
      for (size_t k = 0; k < values.size(); ++k) {
        const auto code = static_cast<uint8_t>(tensor.data[row * cols + static_cast<int64_t>(k)]);
        values[k] = tensor.dtype == DType::kF8E4M3 ? E4M3ToFloat(code) : E5M2ToFloat(code);
      }
      return values;
    }
    std::vector<std::byte> blocks(static_cast<size_t>(*DTypeBytes(tensor.dtype, cols)));
    tensor.rows->Encode(row, blocks.data());
    if (IsCodedType(tensor.dtype)) {
      DequantizeCodedBlocks(tensor.dtype, blocks.data(), cols / DTypeBlockSize(tensor.dtype), values.data());
    } else {
      std::memcpy(values.data(), blocks.data(), blocks.size());
    }
    const std::vector<float> encoded = values;
    const std::span<const int32_t> order = tensor.rows->order();
    for (size_t i = 0; i < order.size(); ++i) values[static_cast<size_t>(order[i])] = encoded[i];
    return values;
  }

  void Widen(RawTensor& tensor, bool transpose) {
    const size_t rows = static_cast<size_t>(tensor.shape[0]);
    const size_t cols = static_cast<size_t>(tensor.shape[1]);
    std::vector<float>& values = values_.emplace_back(rows * cols);
    for (size_t r = 0; r < rows; ++r) {
      const std::vector<float> row = RowOf(tensor, static_cast<int64_t>(r));
      for (size_t k = 0; k < cols; ++k) values[transpose ? k * rows + r : r * cols + k] = row[k];
    }
    if (transpose) std::swap(tensor.shape[0], tensor.shape[1]);
    tensor.dtype = DType::kF32;
    tensor.bytes = static_cast<int64_t>(values.size() * sizeof(float));
    tensor.data = reinterpret_cast<const std::byte*>(values.data());
    tensor.file = nullptr;
    tensor.rows = nullptr;
  }

  std::vector<RawTensor> tensors_;
  std::deque<std::vector<float>> values_;
  std::string description_;
};

class QuantisedCheckpoints : public ::testing::TestWithParam<Fixture> {};

TEST_P(QuantisedCheckpoints, LogitsOfTheirRows) {
  const auto expected = LoadExpected(GetParam().folder);
  ASSERT_TRUE(expected.ok()) << expected.status().message();
  const auto files = OpenModelFiles(GetParam().model);
  ASSERT_TRUE(files.ok()) << files.status().message();
  const WideSource wide(*files->source, files->spec.family == "gpt2");
  Runtime runtime;
  const auto logits = LogitsBySpec(files->spec, *files, wide, *expected, runtime, DType::kF32);
  ASSERT_TRUE(logits.ok()) << logits.status().message();
  EXPECT_LE(RelativeError(*logits, expected->logits, expected->LargestLogit()), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, QuantisedCheckpoints, ::testing::ValuesIn(QuantisedFixtures()),
                         [](const ::testing::TestParamInfo<Fixture>& fixture) { return fixture.param.name; });

}  // namespace
}  // namespace kvasir::parity
