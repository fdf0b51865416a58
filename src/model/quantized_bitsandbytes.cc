// bitsandbytes: 4-bit matrices (nf4 and fp4, Dettmers 2023, arXiv:2305.14314) as flat runs of blocks with a scale each,
// which double quantisation stores in eight bits; 8-bit ones (LLM.int8(), Dettmers 2022, arXiv:2208.07339) with a scale
// for each row.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/checked.h"
#include "model/quantized_reader.h"

namespace kvasir::quantized {
namespace {

constexpr std::string_view kStateInfix = ".quant_state.bitsandbytes__";
constexpr int64_t kMaxBlock = 65536;

/// What "X.weight.quant_state.bitsandbytes__TYPE", a JSON text, says.
struct State {
  DType type = DType::kNF4;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t block_size = 0;
  int64_t nested_block_size = 0;  // 0: scales are stored in fp32
  float nested_offset = 0.0f;
};

/// Weight i of the flat matrix: code in the upper half of byte i / 2 if i is even; scale of block i / block_size.
struct FourBitLayout {
  State state;
  std::array<float, 16> table;
  const std::byte* codes;
  const std::byte* scales;         // fp32, or codes of nested_table
  const std::byte* nested_scales;  // fp32
  const std::byte* nested_table;   // fp32 [256]

  float Scale(int64_t block) const {
    if (state.nested_block_size == 0) return LoadAt<float>(scales, block);
    const float value = LoadAt<float>(nested_table, LoadAt<uint8_t>(scales, block));
    return value * LoadAt<float>(nested_scales, block / state.nested_block_size) + state.nested_offset;
  }
  CodedBlock Block(int64_t row, int64_t input) const {
    return {.scale = Scale((row * state.cols + input) / state.block_size)};
  }
  uint8_t Code(int64_t row, int64_t input) const {
    const int64_t i = row * state.cols + input;
    const uint8_t both = LoadAt<uint8_t>(codes, i / 2);
    return i % 2 == 0 ? both >> 4 : both & 15;
  }
  float Value(int64_t row, int64_t input) const { return Block(row, input).scale * table[Code(row, input)]; }
};

struct EightBitLayout {
  const std::byte* codes;
  int64_t cols;
  Floats scales;

  CodedBlock Block(int64_t row, int64_t) const { return {.scale = scales[row] / 127.0f}; }
  uint8_t Code(int64_t row, int64_t input) const { return LoadAt<uint8_t>(codes, row * cols + input); }
  float Value(int64_t row, int64_t input) const {
    return Block(row, input).scale * static_cast<float>(static_cast<int8_t>(Code(row, input)));
  }
};

/// "X.weight" of a tensor of its scales or values, or nothing.
std::optional<std::string> FourBitName(std::string_view name) {
  for (std::string_view suffix : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    if (auto stem = StemOf(name, suffix)) return stem;
  }
  return std::nullopt;
}

Result<State> ReadState(const MatrixList& list, const RawTensor& tensor) {
  RETURN_IF_ERROR(list.CheckType(tensor, {DType::kU8}));
  const std::string_view text(reinterpret_cast<const char*>(tensor.data), static_cast<size_t>(tensor.bytes));
  const std::string what = list.Wrong(tensor, "is no valid state").message();
  ASSIGN_OR_RETURN(const json::value document, ParseJson(text, what, {.max_bytes = 1 << 16}));
  if (!document.is_object()) return InvalidData("{}: not a JSON object", what);
  const JsonReader reader(document.get_object(), what);
  State state;
  ASSIGN_OR_RETURN(const std::string type, reader.String({"quant_type"}));
  if (type != "nf4" && type != "fp4") {
    return Unsupported("{}: \"quant_type\" is \"{}\"; known are nf4, fp4", what, type);
  }
  if (!std::string_view(tensor.name).ends_with(type)) {
    return list.Wrong(tensor, fmt::format("says that it is {}; the checkpoint is damaged", type));
  }
  state.type = type == "nf4" ? DType::kNF4 : DType::kFP4;
  ASSIGN_OR_RETURN(state.block_size, reader.Int({"blocksize"}, 1, kMaxBlock));
  ASSIGN_OR_RETURN(const std::vector<int64_t> shape, reader.IntList({"shape"}, 1, INT64_MAX));
  if (shape.size() != 2)
    return Unsupported("{}: \"shape\" has {} dimensions; only matrices are known", what, shape.size());
  state.rows = shape[0];
  state.cols = shape[1];
  if (reader.Has({"nested_blocksize"})) {
    ASSIGN_OR_RETURN(state.nested_block_size, reader.Int({"nested_blocksize"}, 1, kMaxBlock));
    ASSIGN_OR_RETURN(const double offset, reader.Number({"nested_offset"}));
    state.nested_offset = static_cast<float>(offset);
    if (!std::isfinite(state.nested_offset)) return InvalidData("{}: \"nested_offset\" is too large", what);
  }
  return state;
}

/// Checks a table or list of fp32 scales.
Status CheckFloats(const MatrixList& list, const RawTensor& tensor, int64_t count) {
  RETURN_IF_ERROR(list.CheckType(tensor, {DType::kF32}));
  RETURN_IF_ERROR(list.CheckShape(tensor, {count}));
  return list.CheckScales(tensor);
}

/// `state_tensor`: null where it is missing; then `type` says what it should be.
Status AddFourBit(MatrixList& list, const std::string& name, const RawTensor* state_tensor, std::string_view type) {
  if (state_tensor == nullptr) state_tensor = list.Need(name + std::string(kStateInfix) + std::string(type));
  const RawTensor* const weight = list.Need(name);
  const RawTensor* const absmax = list.Need(name + ".absmax");
  const RawTensor* const map = list.Need(name + ".quant_map");
  if (state_tensor == nullptr) return OkStatus();
  ASSIGN_OR_RETURN(const State state, ReadState(list, *state_tensor));
  const bool nested = state.nested_block_size > 0;
  const RawTensor* const nested_absmax = nested ? list.Need(name + ".nested_absmax") : nullptr;
  const RawTensor* const nested_map = nested ? list.Need(name + ".nested_quant_map") : nullptr;
  if (!weight || !absmax || !map || (nested && (!nested_absmax || !nested_map))) return OkStatus();

  const std::optional<int64_t> count = CheckedMul(state.rows, state.cols);
  // The bytes may be stored as another type (bnb_4bit_quant_storage).
  if (!count || CeilDiv(*count, 2) != weight->bytes) {
    return list.Wrong(*weight, fmt::format("holds {} bytes where {} x {} codes are to be; it is truncated or its state "
                                           "is of another tensor",
                                           weight->bytes, state.rows, state.cols));
  }
  const int64_t blocks = CeilDiv(*count, state.block_size);
  if (nested) {
    RETURN_IF_ERROR(list.CheckType(*absmax, {DType::kU8}));
    RETURN_IF_ERROR(list.CheckShape(*absmax, {blocks}));
    RETURN_IF_ERROR(CheckFloats(list, *nested_absmax, CeilDiv(blocks, state.nested_block_size)));
    RETURN_IF_ERROR(CheckFloats(list, *nested_map, 256));
  } else {
    RETURN_IF_ERROR(CheckFloats(list, *absmax, blocks));
  }
  RETURN_IF_ERROR(CheckFloats(list, *map, 16));

  FourBitLayout layout{.state = state,
                       .table = {},
                       .codes = weight->data,
                       .scales = absmax->data,
                       .nested_scales = nested ? nested_absmax->data : nullptr,
                       .nested_table = nested ? nested_map->data : nullptr};
  std::memcpy(layout.table.data(), map->data, sizeof(layout.table));
  Matrix matrix{.name = name, .rows = state.rows, .cols = state.cols, .place = weight};
  matrix.parts = {weight, state_tensor, absmax, map, nested_absmax, nested_map};
  const float* const values = state.type == DType::kNF4 ? kNf4Values : kFp4Values;
  if (!std::equal(layout.table.begin(), layout.table.end(), values)) {
    matrix.misfit = "its table of values is not the usual one";
  } else if (state.cols % DTypeBlockSize(state.type) != 0) {
    matrix.misfit = "its rows do not divide into blocks of 64";
  } else if (state.block_size % DTypeBlockSize(state.type) != 0) {
    matrix.misfit = "its blocks are no multiples of 64";
  } else {
    matrix.type = state.type;
  }
  list.Add(std::move(matrix), layout);
  return OkStatus();
}

Status AddEightBit(MatrixList& list, const std::string& stem) {
  const RawTensor* const weight = list.Need(stem + ".weight");
  const RawTensor* const scales = list.Need(stem + ".SCB");
  if (!weight || !scales) return OkStatus();
  RETURN_IF_ERROR(list.CheckType(*weight, {DType::kI8}));
  RETURN_IF_ERROR(list.CheckMatrix(*weight));
  const int64_t rows = weight->shape[0];
  const int64_t cols = weight->shape[1];
  RETURN_IF_ERROR(list.CheckShape(*scales, {rows}));
  RETURN_IF_ERROR(list.CheckScales(*scales));
  const RawTensor* const format = list.Find(stem + ".weight_format");
  if (format != nullptr) {
    const bool by_rows = format->bytes > 0 && std::all_of(format->data, format->data + format->bytes,
                                                          [](std::byte b) { return b == std::byte{0}; });
    if (!by_rows) {
      return list.Wrong(*format,
                        "names a layout of some GPU's own; save the model anew with a newer bitsandbytes, which "
                        "stores rows");
    }
  }
  Matrix matrix{.name = weight->name, .rows = rows, .cols = cols, .place = weight};
  matrix.parts = {weight, scales, format};
  if (cols % DTypeBlockSize(DType::kInt8) == 0) {
    matrix.type = DType::kInt8;
  } else {
    matrix.misfit = "its rows do not divide into blocks of 64";
  }
  list.Add(std::move(matrix), EightBitLayout{.codes = weight->data, .cols = cols, .scales = Floats(*scales)});
  return OkStatus();
}

}  // namespace

Status ReadBitsandbytes(const JsonReader& settings, MatrixList& list) {
  ASSIGN_OR_RETURN(const std::string type, settings.String({"bnb_4bit_quant_type"}, "nf4"));
  std::map<std::string, const RawTensor*> four_bit;  // to the tensor of the state
  std::set<std::string> eight_bit;
  for (const RawTensor& tensor : list.tensors()) {
    if (const size_t at = tensor.name.find(kStateInfix); at != std::string::npos) {
      four_bit[tensor.name.substr(0, at)] = &tensor;
    } else if (auto name = FourBitName(tensor.name)) {
      four_bit.emplace(*std::move(name), nullptr);
    } else if (auto stem = StemOf(tensor.name, ".SCB")) {
      eight_bit.insert(*std::move(stem));
    } else if (auto layer = StemOf(tensor.name, ".weight")) {
      if (tensor.dtype == DType::kU8) four_bit.emplace(tensor.name, nullptr);
      if (tensor.dtype == DType::kI8) eight_bit.insert(*std::move(layer));
    }
  }
  for (const auto& [name, state] : four_bit) RETURN_IF_ERROR(AddFourBit(list, name, state, type));
  for (const std::string& stem : eight_bit) RETURN_IF_ERROR(AddEightBit(list, stem));
  return OkStatus();
}

}  // namespace kvasir::quantized
