// AWQ as AutoAWQ stores it (Lin 2024, arXiv:2306.00978), four bits, weight = scale · (code - zero).
// gemm: "X.qweight" [inputs, outputs / 8] and "X.qzeros" [groups, outputs / 8] hold eight outputs in a word,
// interleaved; "X.scales" [groups, outputs]. gemv: "X.qweight" [outputs, inputs / 8] in order, "X.qzeros" [outputs,
// groups / 8] and "X.scales" [outputs, groups], both padded at the end.
#include "base/checked.h"
#include "model/quantized_reader.h"

namespace kvasir::quantized {
namespace {

constexpr int64_t kPerWord = 8;

uint32_t Nibble(const std::byte* words, int64_t word, int64_t at) {
  return LoadAt<uint32_t>(words, word) >> (4 * at) & 15;
}

struct Arrays {
  int64_t rows;
  int64_t cols;
  int64_t group_size;
  const std::byte* codes;
  const std::byte* zeros;
  Floats scales;
};

/// The layout of gemm: where the nibble of output row % 8 stands in its word.
struct GemmLayout : Arrays {
  static constexpr int64_t kPlace[kPerWord] = {0, 4, 1, 5, 2, 6, 3, 7};

  uint32_t Zero(int64_t row, int64_t group) const {
    return Nibble(zeros, (group * rows + row) / kPerWord, kPlace[row % kPerWord]);
  }
  float Scale(int64_t row, int64_t group) const { return scales[group * rows + row]; }
  uint8_t Code(int64_t row, int64_t input) const {
    return static_cast<uint8_t>(Nibble(codes, (input * rows + row) / kPerWord, kPlace[row % kPerWord]));
  }
};

struct GemvLayout : Arrays {
  int64_t zero_words;  // for each output

  uint32_t Zero(int64_t row, int64_t group) const {
    return Nibble(zeros, row * zero_words + group / kPerWord, group % kPerWord);
  }
  float Scale(int64_t row, int64_t group) const { return scales[row * zero_words * kPerWord + group]; }
  uint8_t Code(int64_t row, int64_t input) const {
    return static_cast<uint8_t>(Nibble(codes, (row * cols + input) / kPerWord, input % kPerWord));
  }
};

template <typename Base>
struct AwqLayout : Base {
  CodedBlock Block(int64_t row, int64_t input) const {
    const int64_t group = input / this->group_size;
    const float scale = this->Scale(row, group);
    return {.scale = scale, .minimum = -scale * static_cast<float>(this->Zero(row, group))};
  }
  float Value(int64_t row, int64_t input) const {
    const int64_t group = input / this->group_size;
    const int32_t difference = int32_t{this->Code(row, input)} - static_cast<int32_t>(this->Zero(row, group));
    return this->Scale(row, group) * static_cast<float>(difference);
  }
};

Status AddAwq(MatrixList& list, const std::string& stem, bool gemv, int64_t group_setting) {
  const RawTensor* const codes = list.Need(stem + ".qweight");
  const RawTensor* const zeros = list.Need(stem + ".qzeros");
  const RawTensor* const scales = list.Need(stem + ".scales");
  if (!codes || !zeros || !scales) return OkStatus();
  for (const RawTensor* tensor : {codes, zeros}) RETURN_IF_ERROR(list.CheckType(*tensor, {DType::kI32}));
  for (const RawTensor* tensor : {codes, zeros, scales}) RETURN_IF_ERROR(list.CheckMatrix(*tensor));
  // Elements are in memory, so that their number times eight cannot overflow.
  const int64_t rows = gemv ? codes->shape[0] : codes->shape[1] * kPerWord;
  const int64_t cols = gemv ? codes->shape[1] * kPerWord : codes->shape[0];
  const int64_t group_size = group_setting > 0 ? group_setting : cols;
  if (cols % group_size != 0) {
    return list.Wrong(*codes, fmt::format("has {} inputs, which do not divide into groups of {}; \"group_size\" or the "
                                          "tensor is wrong",
                                          cols, group_size));
  }
  const int64_t groups = cols / group_size;
  const int64_t zero_words = zeros->shape[1];
  if (gemv) {
    if (zero_words < CeilDiv(groups, kPerWord)) {
      return list.Wrong(*zeros,
                        fmt::format("has room for less than {} groups; \"group_size\" or the tensor is wrong", groups));
    }
    RETURN_IF_ERROR(list.CheckShape(*zeros, {rows, zero_words}));
    RETURN_IF_ERROR(list.CheckShape(*scales, {rows, zero_words * kPerWord}));
  } else {
    RETURN_IF_ERROR(list.CheckShape(*zeros, {groups, rows / kPerWord}));
    RETURN_IF_ERROR(list.CheckShape(*scales, {groups, rows}));
  }
  RETURN_IF_ERROR(list.CheckScales(*scales));

  Matrix matrix{.name = stem + ".weight", .rows = rows, .cols = cols, .place = codes};
  matrix.parts = {codes, zeros, scales};
  matrix.type = GroupedType(4, group_size, cols);
  if (!matrix.type) matrix.misfit = "its groups do not divide into blocks of 32";
  const Arrays arrays{rows, cols, group_size, codes->data, zeros->data, Floats(*scales)};
  if (gemv) {
    list.Add(std::move(matrix), AwqLayout<GemvLayout>{{arrays, zero_words}});
  } else {
    list.Add(std::move(matrix), AwqLayout<GemmLayout>{{arrays}});
  }
  return OkStatus();
}

}  // namespace

Status ReadAwq(const JsonReader& settings, MatrixList& list) {
  ASSIGN_OR_RETURN(std::string version, settings.String({"version"}, "gemm"));
  for (char& c : version) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (version != "gemm" && version != "gemv") {
    return Unsupported("{}: \"version\" is \"{}\"; known are gemm, gemv; bring the checkpoint in one of them",
                       settings.what(), version);
  }
  ASSIGN_OR_RETURN(const std::string backend, settings.String({"backend"}, "autoawq"));
  if (backend != "autoawq") {
    return Unsupported("{}: \"backend\" is \"{}\"; only autoawq is known; quantise the model with that",
                       settings.what(), backend);
  }
  ASSIGN_OR_RETURN(const int64_t bits, settings.Int({"bits", "w_bit"}, 1, 32, 4));
  if (bits != 4) return Unsupported("{}: \"bits\" is {}; AWQ's only known number is 4", settings.what(), bits);
  ASSIGN_OR_RETURN(const int64_t group_size, settings.Int({"group_size", "q_group_size"}, -1, INT32_MAX, 128));
  if (group_size == 0) {
    return InvalidData("{}: \"group_size\" is 0; it must be -1 (all inputs) or above 0", settings.what());
  }
  std::set<std::string> stems;
  for (const RawTensor& tensor : list.tensors()) {
    for (std::string_view suffix : {".qweight", ".qzeros"}) {
      if (auto stem = StemOf(tensor.name, suffix)) stems.insert(*std::move(stem));
    }
  }
  for (const std::string& stem : stems) RETURN_IF_ERROR(AddAwq(list, stem, version == "gemv", group_size));
  return OkStatus();
}

}  // namespace kvasir::quantized
