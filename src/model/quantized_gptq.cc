// GPTQ as AutoGPTQ and GPTQModel store it (Frantar 2023, arXiv:2210.17323): "X.qweight" [inputs · bits / 32, outputs]
// holds the codes of 32 inputs in `bits` words, first input lowest; "X.qzeros" [groups, outputs · bits / 32] likewise
// along the outputs; "X.scales" [groups, outputs]; "X.g_idx" [inputs] says to which group an input belongs.
#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "model/quantized_reader.h"

namespace kvasir::quantized {
namespace {

struct Settings {
  int64_t bits = 0;        // 0: each matrix has its own
  int64_t group_size = 0;  // -1: one group; 0: each matrix has its own
  bool activation_order = false;
  bool first_version = true;  // zeros are stored less one
};

/// A field of `bits` bits at bit `at` of a string of words that lie `stride` words apart.
uint32_t Field(const std::byte* words, int64_t stride, int64_t at, int64_t bits) {
  const int64_t word = at / 32;
  const int64_t shift = at % 32;
  uint32_t value = LoadAt<uint32_t>(words, word * stride) >> shift;
  if (shift + bits > 32) value |= LoadAt<uint32_t>(words, (word + 1) * stride) << (32 - shift);
  return value & ((1u << bits) - 1);
}

struct GptqLayout {
  int64_t bits;
  bool first_version;
  int64_t rows;
  const std::byte* codes;
  const std::byte* zeros;
  Floats scales;
  std::vector<int32_t> groups;  // of each input

  uint32_t Zero(int64_t group, int64_t row) const {
    const int64_t words = rows * bits / 32;
    const std::byte* const line = zeros + group * words * 4;
    const uint32_t mask = (1u << bits) - 1;
    if (!first_version) return Field(line, 1, row * bits, bits);
    if (bits == 3) return (Field(line, 1, row * bits, bits) + 1) & mask;
    // GPTQModel takes one from every field of a word at once: a zero of 0 borrows from the field above it.
    const int64_t per_word = 32 / bits;
    const uint32_t word = LoadAt<uint32_t>(line, row / per_word) + 0xffffffffu / mask;
    return word >> (row % per_word * bits) & mask;
  }
  int64_t GroupOf(int64_t input) const { return groups[static_cast<size_t>(input)]; }
  CodedBlock Block(int64_t row, int64_t input) const {
    const int64_t group = GroupOf(input);
    const float scale = scales[group * rows + row];
    return {.scale = scale, .minimum = -scale * static_cast<float>(Zero(group, row))};
  }
  uint8_t Code(int64_t row, int64_t input) const {
    return static_cast<uint8_t>(Field(codes + row * 4, rows, input * bits, bits));
  }
  float Value(int64_t row, int64_t input) const {
    const int64_t group = GroupOf(input);
    const int32_t difference = int32_t{Code(row, input)} - static_cast<int32_t>(Zero(group, row));
    return scales[group * rows + row] * static_cast<float>(difference);
  }
};

Result<Settings> ReadSettings(const JsonReader& reader) {
  Settings settings;
  ASSIGN_OR_RETURN(const std::string format, reader.String({"checkpoint_format"}, "gptq"));
  ASSIGN_OR_RETURN(const bool marlin, reader.Bool({"is_marlin_format"}, false));
  if (marlin || (format != "gptq" && format != "gptq_v2")) {
    return Unsupported(
        "{}: \"checkpoint_format\" is \"{}\"; known are gptq, gptq_v2; bring the checkpoint in one of them",
        reader.what(), marlin ? "marlin" : format);
  }
  ASSIGN_OR_RETURN(const std::string words, reader.String({"pack_dtype"}, "int32"));
  if (words != "int32") {
    return Unsupported("{}: \"pack_dtype\" is \"{}\"; only int32 is known; pack the model in int32", reader.what(),
                       words);
  }
  settings.first_version = format == "gptq";
  ASSIGN_OR_RETURN(settings.activation_order, reader.Bool({"desc_act"}, false));
  ASSIGN_OR_RETURN(settings.bits, reader.Int({"bits"}, 1, 32));
  if (settings.bits != 2 && settings.bits != 3 && settings.bits != 4 && settings.bits != 8) {
    return Unsupported("{}: \"bits\" is {}; known are 2, 3, 4, 8", reader.what(), settings.bits);
  }
  ASSIGN_OR_RETURN(settings.group_size, reader.Int({"group_size"}, -1, INT32_MAX, -1));
  if (settings.group_size == 0) {
    return InvalidData("{}: \"group_size\" is 0; it must be -1 (all inputs) or above 0", reader.what());
  }
  // Rules by which layers differ from the rest; their tensors' shapes say the same.
  ASSIGN_OR_RETURN(const json::object* rules, reader.Object({"dynamic"}));
  if (rules != nullptr && !rules->empty()) settings.bits = settings.group_size = 0;
  return settings;
}

/// The tensors of one matrix and what their shapes say.
struct Parts {
  const RawTensor* codes = nullptr;
  const RawTensor* zeros = nullptr;
  const RawTensor* scales = nullptr;
  const RawTensor* index = nullptr;  // may be absent
  int64_t bits = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t groups = 0;
  int64_t group_size = 0;
};

Status CheckParts(const MatrixList& list, const Settings& settings, Parts& parts) {
  for (const RawTensor* tensor : {parts.codes, parts.zeros}) RETURN_IF_ERROR(list.CheckType(*tensor, {DType::kI32}));
  for (const RawTensor* tensor : {parts.codes, parts.zeros, parts.scales}) RETURN_IF_ERROR(list.CheckMatrix(*tensor));
  parts.rows = parts.codes->shape[1];
  parts.groups = parts.scales->shape[0];
  // Elements are in memory, so that counts of bits cannot overflow.
  const int64_t zero_bits = parts.zeros->shape[1] * 32;
  parts.bits = settings.bits != 0 ? settings.bits : zero_bits / parts.rows;
  if (parts.bits != 2 && parts.bits != 3 && parts.bits != 4 && parts.bits != 8) {
    return list.Wrong(*parts.zeros, fmt::format("has {} bits for {} outputs; 2, 3, 4 or 8 for each are known",
                                                zero_bits, parts.rows));
  }
  if (zero_bits != parts.rows * parts.bits) {
    return list.Wrong(*parts.zeros, fmt::format("does not hold one zero of {} bits for each of {} outputs; \"bits\" or "
                                                "the tensor is wrong",
                                                parts.bits, parts.rows));
  }
  const int64_t code_bits = parts.codes->shape[0] * 32;
  if (code_bits % parts.bits != 0) {
    return list.Wrong(*parts.codes, fmt::format("does not divide into codes of {} bits", parts.bits));
  }
  parts.cols = code_bits / parts.bits;
  parts.group_size = settings.group_size > 0 ? settings.group_size : parts.cols;
  if (settings.group_size == 0 && parts.cols % parts.groups == 0) parts.group_size = parts.cols / parts.groups;
  if (parts.groups != CeilDiv(parts.cols, parts.group_size)) {
    return list.Wrong(*parts.scales,
                      fmt::format("has {} groups where {} inputs in groups of {} make {}; \"group_size\" "
                                  "or the tensor is wrong",
                                  parts.groups, parts.cols, parts.group_size, CeilDiv(parts.cols, parts.group_size)));
  }
  RETURN_IF_ERROR(list.CheckShape(*parts.scales, {parts.groups, parts.rows}));
  RETURN_IF_ERROR(list.CheckShape(*parts.zeros, {parts.groups, parts.zeros->shape[1]}));
  if (parts.index != nullptr) {
    RETURN_IF_ERROR(list.CheckType(*parts.index, {DType::kI32}));
    RETURN_IF_ERROR(list.CheckShape(*parts.index, {parts.cols}));
  }
  return list.CheckScales(*parts.scales);
}

/// The group of every input, each below parts.groups.
Result<std::vector<int32_t>> ReadGroups(const MatrixList& list, const Settings& settings, const Parts& parts) {
  std::vector<int32_t> groups(static_cast<size_t>(parts.cols));
  const auto in_order = [&] {
    for (size_t i = 0; i < groups.size(); ++i)
      groups[i] = static_cast<int32_t>(static_cast<int64_t>(i) / parts.group_size);
    return groups;
  };
  if (parts.index == nullptr) return in_order();
  std::memcpy(groups.data(), parts.index->data, groups.size() * sizeof(int32_t));
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i] >= 0 && groups[i] < parts.groups) continue;
    return list.Wrong(*parts.index, fmt::format("puts input {} into group {}, of which there are {}; the checkpoint is "
                                                "damaged, download or quantise it anew",
                                                i, groups[i], parts.groups));
  }
  // Old writers left the index empty where it says nothing.
  const bool unset = std::ranges::all_of(groups, [](int32_t group) { return group == 0; });
  return unset && !settings.activation_order ? in_order() : groups;
}

/// Inputs by group, or nothing where they are so already.
std::vector<int32_t> OrderOf(const std::vector<int32_t>& groups) {
  if (std::ranges::is_sorted(groups)) return {};
  std::vector<int32_t> order(groups.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int32_t input) { return groups[static_cast<size_t>(input)]; });
  return order;
}

bool AllOfSize(const std::vector<int32_t>& groups, int64_t count, int64_t size) {
  std::vector<int64_t> sizes(static_cast<size_t>(count));
  for (int32_t group : groups) ++sizes[static_cast<size_t>(group)];
  return std::ranges::all_of(sizes, [size](int64_t n) { return n == size; });
}

Status AddGptq(MatrixList& list, const Settings& settings, const std::string& stem) {
  Parts parts;
  parts.codes = list.Need(stem + ".qweight");
  parts.zeros = list.Need(stem + ".qzeros");
  parts.scales = list.Need(stem + ".scales");
  parts.index = settings.activation_order ? list.Need(stem + ".g_idx") : list.Find(stem + ".g_idx");
  if (!parts.codes || !parts.zeros || !parts.scales || (settings.activation_order && !parts.index)) return OkStatus();
  RETURN_IF_ERROR(CheckParts(list, settings, parts));
  ASSIGN_OR_RETURN(std::vector<int32_t> groups, ReadGroups(list, settings, parts));

  Matrix matrix{.name = stem + ".weight", .rows = parts.rows, .cols = parts.cols, .place = parts.codes};
  matrix.parts = {parts.codes, parts.zeros, parts.scales, parts.index};
  if (!AllOfSize(groups, parts.groups, parts.group_size)) {
    matrix.misfit = "its groups are not of one size";
  } else if (matrix.type = GroupedType(parts.bits, parts.group_size, parts.cols); matrix.type) {
    matrix.order = OrderOf(groups);
  } else {
    matrix.misfit = "its groups do not divide into blocks of 32";
  }
  list.Add(std::move(matrix), GptqLayout{.bits = parts.bits,
                                         .first_version = settings.first_version,
                                         .rows = parts.rows,
                                         .codes = parts.codes->data,
                                         .zeros = parts.zeros->data,
                                         .scales = Floats(*parts.scales),
                                         .groups = std::move(groups)});
  return OkStatus();
}

}  // namespace

Status ReadGptq(const JsonReader& reader, MatrixList& list) {
  ASSIGN_OR_RETURN(const Settings settings, ReadSettings(reader));
  std::set<std::string> stems;
  for (const RawTensor& tensor : list.tensors()) {
    for (std::string_view suffix : {".qweight", ".qzeros", ".g_idx"}) {
      if (auto stem = StemOf(tensor.name, suffix)) stems.insert(*std::move(stem));
    }
  }
  for (const std::string& stem : stems) RETURN_IF_ERROR(AddGptq(list, settings, stem));
  return OkStatus();
}

}  // namespace kvasir::quantized
