// GGUF files that are wrong in one place each.
#include <chrono>
#include <limits>

#include "io/gguf.h"
#include "io/test_files.h"

namespace kvasir {
namespace {

using testing::Bytes;
using testing::Fails;
using testing::Fixture;
using testing::Raw;
using testing::ReadAll;
using testing::TempFolder;

// GGUF's numbers of types.
constexpr uint32_t kUint8 = 0, kUint32 = 4, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9, kUint64 = 10;
constexpr uint32_t kF32 = 0, kQ8 = 8;
constexpr std::pair<uint32_t, DType> kBlockTypes[] = {
    {2, DType::kQ4_0},    {3, DType::kQ4_1},    {6, DType::kQ5_0},  {7, DType::kQ5_1},  {8, DType::kQ8_0},
    {10, DType::kQ2_K},   {11, DType::kQ3_K},   {12, DType::kQ4_K}, {13, DType::kQ5_K}, {14, DType::kQ6_K},
    {20, DType::kIQ4_NL}, {23, DType::kIQ4_XS}, {39, DType::kMXFP4}};

std::string Text(std::string_view text) { return Raw<uint64_t>(text.size()) + std::string(text); }
std::string Key(std::string_view key, uint32_t type, const std::string& value) { return Text(key) + Raw(type) + value; }
std::string ArrayKey(std::string_view key, uint32_t type, uint64_t count, const std::string& elements) {
  return Key(key, kArray, Raw(type) + Raw(count) + elements);
}
/// `dims` in GGUF's order, fastest first.
std::string Tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string bytes = Text(name) + Raw(static_cast<uint32_t>(dims.size()));
  for (uint64_t dim : dims) bytes += Raw(dim);
  return bytes + Raw(type) + Raw(offset);
}

struct Parts {
  uint32_t version = 3;
  std::vector<std::string> keys;
  std::vector<std::string> tensors;
  size_t data_bytes = 0;
};

std::string Build(const Parts& parts) {
  std::string bytes =
      "GGUF" + Raw(parts.version) + Raw<uint64_t>(parts.tensors.size()) + Raw<uint64_t>(parts.keys.size());
  for (const std::string& key : parts.keys) bytes += key;
  for (const std::string& tensor : parts.tensors) bytes += tensor;
  if (!parts.tensors.empty()) bytes.resize((bytes.size() + 31) / 32 * 32);
  return bytes + std::string(parts.data_bytes, '\0');
}

Status ParseError(const std::string& bytes) { return GgufFile::Parse(Bytes(bytes), "m.gguf").status(); }
Status KeyError(const std::string& key) { return ParseError(Build({.keys = {key}})); }
Status TensorError(const std::string& tensor, size_t data_bytes = 4096) {
  return ParseError(Build({.tensors = {tensor}, .data_bytes = data_bytes}));
}

TEST(GgufBadInputTest, TheBuilderMakesGoodFiles) {
  const std::string bytes = Build({.keys = {Key("k", kUint8, "\x07")},
                                   .tensors = {Tensor("a", {3, 2}, kF32, 0), Tensor("b", {32}, kQ8, 32),
                                               Tensor("s", {}, kF32, 96), Tensor("none", {0, 5}, kF32, 96)},
                                   .data_bytes = 100});
  const auto file = GgufFile::Parse(Bytes(bytes), "m.gguf");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*(*file)->Int("k", 0, 9), 7);
  EXPECT_EQ((*file)->Find("a")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ((*file)->Find("s")->elements(), 1);
  EXPECT_EQ((*file)->Find("none")->bytes, 0);
  EXPECT_TRUE(GgufFile::Parse(Bytes(Build({})), "empty").ok());
}

TEST(GgufBadInputTest, EveryTruncationIsAnErrorThatNamesTheFile) {
  for (const char* name : {"all_types.gguf", "aligned.gguf"}) {
    const std::string whole = ReadAll(Fixture(name));
    // The writer pads behind the last tensor, which nobody needs.
    const auto parsed = GgufFile::Parse(Bytes(whole), "m.gguf");
    ASSERT_TRUE(parsed.ok());
    const RawTensor& last = (*parsed)->tensors().back();
    const size_t needed = static_cast<size_t>(last.data - Bytes(whole).data() + last.bytes);
    for (size_t size = 0; size < needed; ++size) {
      // A copy of exactly that size, so that reading one byte too far is seen by sanitizers.
      const std::string prefix = whole.substr(0, size);
      EXPECT_TRUE(Fails(ParseError(std::string(prefix.begin(), prefix.end())), {"m.gguf"})) << size;
    }
    EXPECT_TRUE(Fails(ParseError(whole.substr(0, needed - 1)), {fmt::format("tensor \"{}\"", last.name), "truncated"}));
  }
}

TEST(GgufBadInputTest, FilesThatAreEmptyShortOrAbsent) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(GgufFile::Open(folder.Write("empty.gguf", "")).status(), {"empty.gguf", "empty"}));
  EXPECT_TRUE(Fails(GgufFile::Open(folder.Write("short.gguf", "GGUF\x03")).status(), {"short.gguf", "truncated"}));
  EXPECT_EQ(GgufFile::Open(folder.path() / "no.gguf").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(Fails(GgufFile::Open(folder.path()).status(), {"directory"}));
}

TEST(GgufBadInputTest, NamesOtherFormats) {
  const auto error = [](std::string_view start) { return ParseError(std::string(start) + std::string(64, '\0')); };
  EXPECT_TRUE(Fails(error("lmgg"), {"m.gguf: is no GGUF file", "before GGUF"}));
  EXPECT_TRUE(Fails(error("tjgg"), {"before GGUF"}));
  EXPECT_TRUE(Fails(error("PK\x03\x04"), {"PyTorch checkpoint", "python3 -c"}));
  EXPECT_TRUE(Fails(error("version https://git-lfs.github.com/spec/v1"), {"Git LFS pointer", "git lfs pull"}));
  EXPECT_TRUE(Fails(error("<!DOCTYPE html>"), {"web page"}));
  EXPECT_TRUE(Fails(error("whatever"), {"does not begin with GGUF"}));
}

TEST(GgufBadInputTest, Versions) {
  EXPECT_TRUE(Fails(ParseError(Build({.version = 1})), {"version 1", "versions 2 and 3"}));
  EXPECT_TRUE(Fails(ParseError(Build({.version = 4})), {"version 4"}));
  EXPECT_TRUE(Fails(ParseError(Build({.version = 0})), {"version 0"}));
  EXPECT_TRUE(Fails(ParseError(Build({.version = 0x03000000})), {"m.gguf", "big-endian"}));
}

TEST(GgufBadInputTest, AbsurdCounts) {
  const std::string start = "GGUF" + Raw<uint32_t>(3);
  for (uint64_t count : {uint64_t{5}, uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX}) {
    EXPECT_TRUE(Fails(ParseError(start + Raw<uint64_t>(0) + Raw(count) + std::string(40, '\0')),
                      {fmt::format("claims {} metadata entries where 40 bytes are left", count)}));
    EXPECT_TRUE(Fails(ParseError(start + Raw(count) + Raw<uint64_t>(0) + std::string(40, '\0')),
                      {fmt::format("claims {} tensors", count)}));
  }
  EXPECT_TRUE(Fails(ParseError(start + Raw<uint64_t>(0) + Raw<uint64_t>(70000) + std::string(1 << 20, '\0')),
                    {"70000 metadata entries, the limit is 65536"}));
}

TEST(GgufBadInputTest, AbsurdLengthsOfTextsAndArrays) {
  // 2^61 and 2^62 times the size of an element wrap to zero.
  for (uint64_t length :
       {uint64_t{1000}, uint64_t{1} << 40, uint64_t{1} << 61, uint64_t{1} << 62, UINT64_MAX - 7, UINT64_MAX}) {
    EXPECT_TRUE(Fails(KeyError(Raw(length) + "key" + std::string(20, '\0')),
                      {"metadata entry 0", fmt::format("{} bytes is claimed", length)}));
    EXPECT_TRUE(Fails(KeyError(Key("k", kString, Raw(length) + "text")), {"the value of \"k\"", "is claimed"}));
    for (uint32_t type : {kUint8, kUint32, kBool, kString, kUint64}) {
      EXPECT_TRUE(Fails(KeyError(ArrayKey("k", type, length, "12345678")),
                        {"the value of \"k\"", fmt::format("an array of {} elements is claimed", length)}));
    }
  }
  // Strings inside an array are bounded each on their own.
  EXPECT_TRUE(Fails(KeyError(ArrayKey("k", kString, 2, Text("a") + Raw<uint64_t>(1 << 30) + "b")),
                    {"the value of \"k\"", "is claimed"}));
  EXPECT_TRUE(Fails(KeyError(Raw<uint64_t>(70000) + std::string(70020, 'k')), {"the limit is 65535"}));
}

TEST(GgufBadInputTest, BadKeysAndValues) {
  EXPECT_TRUE(Fails(KeyError(Key("", kUint8, "1") + "pad"), {"metadata entry 0", "its name is empty"}));
  EXPECT_TRUE(Fails(KeyError(Key("\xff", kUint8, "1")), {"metadata entry 0", "not valid UTF-8"}));
  EXPECT_TRUE(Fails(KeyError(Key("k", 13, "12345678")), {"the value of \"k\"", "unknown type 13"}));
  EXPECT_TRUE(Fails(KeyError(Key("k", UINT32_MAX, "12345678")), {"unknown type 4294967295"}));
  EXPECT_TRUE(Fails(KeyError(ArrayKey("k", 13, 0, "")), {"\"k\"", "unknown type 13"}));
  EXPECT_TRUE(Fails(KeyError(ArrayKey("k", kArray, 1, Raw(kUint8) + Raw<uint64_t>(0))),
                    {"\"k\"", "arrays of arrays are not supported"}));
  EXPECT_TRUE(Fails(KeyError(Key("k", kBool, "\x02")), {"\"k\"", "2 is no truth value"}));
  EXPECT_TRUE(Fails(KeyError(ArrayKey("k", kBool, 2, "\x01\x7f")), {"\"k\"", "127 is no truth value"}));
  EXPECT_TRUE(Fails(ParseError(Build({.keys = {Key("k", kUint8, "1"), Key("j", kUint8, "1"), Key("k", kUint8, "2")}})),
                    {"m.gguf: the key \"k\" stands twice"}));
}

TEST(GgufBadInputTest, NumbersThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::string bytes = Build({.keys = {Key("nan", kFloat32, Raw(nan)), Key("infinity", kFloat32, Raw(-infinity)),
                                            ArrayKey("list", kFloat32, 2, Raw(1.0f) + Raw(nan))}});
  const auto file = GgufFile::Parse(Bytes(bytes), "m.gguf");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_TRUE(Fails((*file)->Number("nan").status(), {"m.gguf: \"nan\" is nan, it must be finite"}));
  EXPECT_TRUE(Fails((*file)->Number("infinity", 1.0).status(), {"\"infinity\" is -inf"}));
  EXPECT_TRUE(Fails((*file)->NumberList("list").status(), {"\"list\"[1] is nan"}));
}

TEST(GgufBadInputTest, Alignments) {
  for (uint32_t alignment : {0u, 3u, 33u, 0x80000000u}) {
    EXPECT_TRUE(
        Fails(KeyError(Key("general.alignment", kUint32, Raw(alignment))), {"general.alignment", "power of two"}));
  }
  EXPECT_TRUE(Fails(KeyError(Key("general.alignment", kUint64, Raw(UINT64_MAX))), {"power of two"}));
  EXPECT_TRUE(Fails(KeyError(Key("general.alignment", kString, Text("32"))), {"power of two"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {1}, kF32, 16)), {"tensor \"w\": its offset 16", "alignment 32"}));
  // The largest alignment puts the data behind the end of the file.
  EXPECT_TRUE(Fails(ParseError(Build({.keys = {Key("general.alignment", kUint32, Raw(1u << 30))},
                                      .tensors = {Tensor("w", {1}, kF32, 0)},
                                      .data_bytes = 64})),
                    {"tensor \"w\"", "the file has only 0 bytes"}));
}

TEST(GgufBadInputTest, BadTensorDescriptions) {
  EXPECT_TRUE(Fails(TensorError(Tensor("", {1}, kF32, 0)), {"tensor 0", "its name is empty"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("\xc3(", {1}, kF32, 0)), {"tensor 0", "not valid UTF-8"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {1, 1, 1, 1, 1}, kF32, 0)), {"m.gguf: tensor \"w\": has 5 dimensions"}));
  EXPECT_TRUE(Fails(TensorError(Text("w") + Raw(UINT32_MAX) + std::string(64, '\0')), {"4294967295 dimensions"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {33}, kQ8, 0)), {"tensor \"w\": rows of 33", "blocks of 32 (q8_0)"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {16, 2}, kQ8, 0)), {"tensor \"w\": rows of 16"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {}, kQ8, 0)), {"tensor \"w\": rows of 1"}));
  EXPECT_TRUE(Fails(
      ParseError(Build({.tensors = {Tensor("w", {1}, kF32, 0), Tensor("v", {1}, kF32, 32), Tensor("w", {1}, kF32, 64)},
                        .data_bytes = 128})),
      {"m.gguf: tensor \"w\" stands twice"}));
}

TEST(GgufBadInputTest, BlocksThatAreCutShort) {
  for (const auto& [id, dtype] : kBlockTypes) {
    const uint64_t size = static_cast<uint64_t>(DTypeBlockSize(dtype));
    const size_t bytes = static_cast<size_t>(6 * DTypeBlockBytes(dtype));
    const std::string tensor = Tensor("w", {2 * size, 3}, id, 0);
    const std::string whole = Build({.tensors = {tensor}, .data_bytes = bytes});
    const auto file = GgufFile::Parse(Bytes(whole), "m.gguf");
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ((*file)->tensors()[0].dtype, dtype);
    EXPECT_EQ((*file)->tensors()[0].bytes, static_cast<int64_t>(bytes));
    EXPECT_TRUE(Fails(TensorError(tensor, bytes - 1), {"m.gguf: tensor \"w\"", "truncated"}));
    for (uint64_t row : {size - 1, size + 1, size / 2}) {
      EXPECT_TRUE(Fails(TensorError(Tensor("w", {row, 32}, id, 0), 1 << 20),
                        {fmt::format("m.gguf: tensor \"w\": rows of {}", row),
                         fmt::format("blocks of {} ({})", size, DTypeName(dtype))}));
    }
  }
}

TEST(GgufBadInputTest, SizesThatOverflow) {
  const uint64_t half = uint64_t{1} << 32;
  const std::vector<std::vector<uint64_t>> shapes = {{UINT64_MAX},        {uint64_t{1} << 63},
                                                     {half, half},        {half, half, half, half},
                                                     {uint64_t{1} << 62}, {0, 2, INT64_MAX}};
  for (const auto& shape : shapes) {
    EXPECT_TRUE(
        Fails(TensorError(Tensor("w", shape, kF32, 0)), {"m.gguf: tensor \"w\": its dimensions are too large"}));
  }
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {uint64_t{1} << 40}, kF32, 0)), {"tensor \"w\"", "4398046511104 bytes"}));
}

TEST(GgufBadInputTest, OffsetsOutsideTheFileOrEachOther) {
  // The last one's end wraps to a small number.
  for (uint64_t offset : {uint64_t{4096}, uint64_t{1} << 40, UINT64_MAX - 31}) {
    EXPECT_TRUE(Fails(TensorError(Tensor("w", {16}, kF32, offset)),
                      {"m.gguf: tensor \"w\": 64 bytes", fmt::format("at offset {}", offset), "only 4096 bytes"}));
  }
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {1024}, kF32, 32)), {"tensor \"w\": 4096 bytes at offset 32"}));
  const auto two = [](uint64_t first, uint64_t second) {
    return ParseError(
        Build({.tensors = {Tensor("v", {16}, kF32, first), Tensor("w", {16}, kF32, second)}, .data_bytes = 128}));
  };
  EXPECT_TRUE(Fails(two(0, 32), {"m.gguf: tensor \"w\": overlaps tensor \"v\""}));
  EXPECT_TRUE(Fails(two(32, 0), {"tensor \"v\": overlaps tensor \"w\""}));
  EXPECT_TRUE(Fails(two(0, 0), {"overlaps"}));
  EXPECT_TRUE(two(64, 0).ok());
}

TEST(GgufBadInputTest, UnknownTypes) {
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {32}, 4, 0)), {"tensor \"w\": its type q4_2", "removed from ggml"}));
  EXPECT_TRUE(
      Fails(TensorError(Tensor("w", {256}, 16, 0)), {"tensor \"w\": its type iq2_xxs", "convert the original"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {32}, 99, 0)), {"tensor \"w\": has the unknown type number 99"}));
  EXPECT_TRUE(Fails(TensorError(Tensor("w", {32}, UINT32_MAX, 0)), {"4294967295"}));
}

TEST(GgufBadInputTest, BadSplitKeys) {
  EXPECT_TRUE(Fails(KeyError(Key("split.count", kUint32, Raw(70000u))), {"\"split.count\"", "65535"}));
  EXPECT_TRUE(Fails(KeyError(Key("split.count", kString, Text("2"))), {"\"split.count\""}));
  EXPECT_TRUE(Fails(KeyError(Key("split.no", kUint32, Raw(1u))), {"\"split.no\"", "from 0 to 0"}));
  EXPECT_TRUE(KeyError(Key("split.count", kUint32, Raw(0u))).ok());
}

/// A file of holes claims as much as it likes and costs the disk nothing; it must cost no memory either.
TEST(GgufBadInputTest, SparseFilesCostNeitherMemoryNorTime) {
  const TempFolder folder;
  const auto start = [](uint64_t tensors, uint64_t keys) {
    return "GGUF" + Raw<uint32_t>(3) + Raw(tensors) + Raw(keys);
  };
  const auto array = [&](uint32_t type, uint64_t count) {
    return start(0, 1) + Key("k", kArray, Raw(type) + Raw(count));
  };
  const std::vector<std::pair<std::string, std::string>> cases = {
      {start(0, 1) + Key("k", kString, Raw(uint64_t{1} << 29)), "the limit is 134217728"},
      {start(0, 1) + Key("k", kString, Raw(uint64_t{1} << 35)), "the limit is 134217728"},
      {array(kUint8, (uint64_t{1} << 23) + 1), "hold more than 8388608 elements"},
      {array(kUint8, uint64_t{1} << 35), "hold more than 8388608 elements"},
      {array(kString, uint64_t{1} << 32), "hold more than 8388608 elements"},
      {start(0, 60000), "metadata entry 0: its name is empty"},
      {start(1 << 20, 0), "tensor 0: its name is empty"},
      {start((1 << 20) + 1, 0), "1048577 tensors, the limit is 1048576"},
  };
  for (const auto& [bytes, message] : cases) {
    const auto path = folder.Write("sparse.gguf", bytes);
    std::filesystem::resize_file(path, uint64_t{1} << 36);
    const testing::PeakMeter peak;
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(Fails(GgufFile::Open(path).status(), {"sparse.gguf", message}));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2)) << message;
    EXPECT_LT(peak.Growth(), 64 << 20) << message;
  }
}

TEST(GgufBadInputTest, TextsAreBoundedTogether) {
  const TempFolder folder;
  const std::string first = "GGUF" + Raw<uint32_t>(3) + Raw<uint64_t>(0) + Raw<uint64_t>(1) +
                            Key("k", kArray, Raw(kString) + Raw<uint64_t>(2) + Raw(uint64_t{100} << 20));
  const auto path = folder.Write("sparse.gguf", first);
  std::filesystem::resize_file(path, first.size() + (100 << 20));
  std::ofstream(path, std::ios::binary | std::ios::app) << Raw(uint64_t{100} << 20);
  std::filesystem::resize_file(path, uint64_t{1} << 36);
  EXPECT_TRUE(Fails(GgufFile::Open(path).status(), {"\"k\"", "metadata and names take more than 134217728 bytes"}));
}

}  // namespace
}  // namespace kvasir
