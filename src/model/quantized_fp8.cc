// Eight-bit float weights with scales beside them: "X.weight_scale", one for the tensor, for each output or for each
// block (compressed-tensors, fbgemm, vLLM), or "X.weight_scale_inv" for each block (DeepSeek, Qwen), which despite its
// name is multiplied too.
#include <algorithm>

#include "base/checked.h"
#include "base/log.h"
#include "model/quantized_reader.h"

namespace kvasir::quantized {
namespace {

/// Inputs that share a scale in packed weights.
constexpr int64_t kPackedScale = 128;

/// Rows and columns that share a scale; 0: the settings do not say.
struct BlockShape {
  int64_t rows = 0;
  int64_t cols = 0;
};

struct Fp8Layout {
  const std::byte* codes;
  int64_t cols;
  bool e4m3;
  Floats scales;
  BlockShape block;
  int64_t scale_cols;

  CodedBlock Block(int64_t row, int64_t input) const {
    return {.scale = scales[row / block.rows * scale_cols + input / block.cols]};
  }
  uint8_t Code(int64_t row, int64_t input) const { return LoadAt<uint8_t>(codes, row * cols + input); }
  float Value(int64_t row, int64_t input) const {
    const uint8_t code = Code(row, input);
    return Block(row, input).scale * (e4m3 ? E4M3ToFloat(code) : E5M2ToFloat(code));
  }
};

/// "weight_block_size" and the like: two numbers.
Result<BlockShape> ReadBlockShape(const JsonReader& settings, JsonReader::Names names) {
  if (!settings.Has(names)) return BlockShape{};
  ASSIGN_OR_RETURN(const std::vector<int64_t> sizes, settings.IntList(names, 1, INT32_MAX));
  if (sizes.size() != 2) {
    return InvalidData("{}: \"{}\" must be two numbers, rows and columns", settings.what(), *names.begin());
  }
  return BlockShape{sizes[0], sizes[1]};
}

/// Which block shape the scales' own shape says. `block`: by the settings.
Result<BlockShape> ShapeOfScales(const MatrixList& list, const RawTensor& weight, const RawTensor& scales,
                                 BlockShape block) {
  const int64_t rows = weight.shape[0];
  const int64_t cols = weight.shape[1];
  const int64_t count = scales.elements();
  if (count == 1) return BlockShape{rows, cols};
  if (block.rows > 0) {
    RETURN_IF_ERROR(list.CheckShape(scales, {CeilDiv(rows, block.rows), CeilDiv(cols, block.cols)}));
    return block;
  }
  if (count == rows && scales.shape[0] == rows && scales.shape.size() <= 2) return BlockShape{1, cols};
  return list.Wrong(scales, fmt::format("is neither one scale nor one for each of {} outputs, and the settings name no "
                                        "block size; \"weight_block_size\" is missing or the tensor is wrong",
                                        rows));
}

Status AddFp8(MatrixList& list, const RawTensor& weight, BlockShape block) {
  const RawTensor* scales = list.Find(weight.name + "_scale_inv");
  // DeepSeek's blocks, should the settings not say.
  if (scales != nullptr && block.rows == 0) block = {128, 128};
  if (scales == nullptr) scales = list.Find(weight.name + "_scale");
  if (scales == nullptr) scales = list.Need(weight.name + (block.rows > 0 ? "_scale_inv" : "_scale"));
  if (scales == nullptr) return OkStatus();
  RETURN_IF_ERROR(list.CheckMatrix(weight));
  if (scales->elements() == 0) return list.Wrong(*scales, "is empty");
  RETURN_IF_ERROR(list.CheckScales(*scales));
  ASSIGN_OR_RETURN(block, ShapeOfScales(list, weight, *scales, block));
  Matrix matrix{.name = weight.name, .rows = weight.shape[0], .cols = weight.shape[1], .place = &weight};
  matrix.parts = {&weight, scales};
  const bool e4m3 = weight.dtype == DType::kF8E4M3;
  const DType type = e4m3 ? DType::kScaledE4M3 : DType::kScaledE5M2;
  const int64_t values = DTypeBlockSize(type);
  if (matrix.cols % values != 0) {
    matrix.misfit = "its rows do not divide into blocks of 32";
  } else if (block.cols < matrix.cols && block.cols % kPackedScale != 0) {
    matrix.misfit = "its blocks are no multiples of 128";
  } else {
    matrix.type = type;
  }
  list.Add(std::move(matrix), Fp8Layout{.codes = weight.data,
                                        .cols = weight.shape[1],
                                        .e4m3 = e4m3,
                                        .scales = Floats(*scales),
                                        .block = block,
                                        .scale_cols = CeilDiv(weight.shape[1], block.cols)});
  return OkStatus();
}

/// Scales of activations and of caches in eight bits: here both stay wider.
bool IsActivationScale(std::string_view name) {
  constexpr std::string_view kSuffixes[] = {".input_scale",  ".input_scale_ub", ".activation_scale",
                                            ".output_scale", ".k_scale",        ".v_scale",
                                            ".q_scale",      ".kv_scale",       ".prob_output_scale"};
  return std::ranges::any_of(kSuffixes, [&](std::string_view suffix) { return name.ends_with(suffix); });
}

Status ReadMatrices(MatrixList& list, BlockShape block) {
  int64_t unused = 0;
  for (const RawTensor& tensor : list.tensors()) {
    const bool fp8 = tensor.dtype == DType::kF8E4M3 || tensor.dtype == DType::kF8E5M2;
    if (fp8 && tensor.shape.size() >= 2) RETURN_IF_ERROR(AddFp8(list, tensor, block));
    for (std::string_view suffix : {"_scale", "_scale_inv"}) {
      const auto name = StemOf(tensor.name, suffix);
      if (name && name->ends_with(".weight")) list.Need(*name);
    }
    if (IsActivationScale(tensor.name)) {
      list.Hide(tensor);
      ++unused;
    }
  }
  if (unused > 0) LogInfo("{} scales of eight-bit activations are not needed: they are computed wider here", unused);
  return OkStatus();
}

/// That a group of compressed-tensors' layers has fp8 weights, and their blocks.
Result<BlockShape> ReadGroup(const JsonReader& group) {
  ASSIGN_OR_RETURN(const json::object* object, group.Object({"weights"}));
  if (object == nullptr) return BlockShape{};
  const JsonReader weights(*object, group.what() + ": \"weights\"");
  ASSIGN_OR_RETURN(const int64_t bits, weights.Int({"num_bits"}, 1, 64, 8));
  ASSIGN_OR_RETURN(const std::string type, weights.String({"type"}, "int"));
  if (bits != 8 || type != "float") {
    return Unsupported(
        "{}: are of type {} with {} bits; of compressed-tensors only float with 8 is known; bring the model as GPTQ, "
        "AWQ or GGUF, or its 16-bit original",
        weights.what(), type, bits);
  }
  return ReadBlockShape(weights, {"block_structure"});
}

}  // namespace

Status ReadFp8(const JsonReader& settings, MatrixList& list) {
  ASSIGN_OR_RETURN(const BlockShape block, ReadBlockShape(settings, {"weight_block_size"}));
  return ReadMatrices(list, block);
}

Status ReadCompressedFp8(const JsonReader& settings, MatrixList& list) {
  ASSIGN_OR_RETURN(const std::string format, settings.String({"format"}, "float-quantized"));
  if (format != "float-quantized" && format != "naive-quantized") {
    return Unsupported(
        "{}: \"format\" is \"{}\"; known are float-quantized, naive-quantized; bring the model as GPTQ, AWQ or GGUF, "
        "or "
        "its 16-bit original",
        settings.what(), format);
  }
  ASSIGN_OR_RETURN(const json::object* groups, settings.Object({"config_groups"}));
  BlockShape block;
  for (const auto& member : groups != nullptr ? *groups : json::object()) {
    const std::string what = fmt::format("{}: \"{}\"", settings.what(), std::string_view(member.key()));
    if (!member.value().is_object()) return InvalidData("{} must be an object", what);
    ASSIGN_OR_RETURN(const BlockShape own, ReadGroup(JsonReader(member.value().get_object(), what)));
    if (own.rows > 0) block = own;
  }
  return ReadMatrices(list, block);
}

}  // namespace kvasir::quantized
