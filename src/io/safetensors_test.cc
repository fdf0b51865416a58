#include "io/safetensors.h"

#include <chrono>

#include "base/dtype.h"
#include "io/test_files.h"

namespace kvasir {
namespace {

using testing::Bytes;
using testing::Fails;
using testing::Fixture;
using testing::Raw;
using testing::ReadAll;
using testing::TempFolder;

std::string File(std::string_view header, size_t data_bytes = 0) {
  return Raw<uint64_t>(header.size()) + std::string(header) + std::string(data_bytes, '\0');
}

Status ParseError(const std::string& bytes) { return ParseSafetensorsHeader(Bytes(bytes), "m.safetensors").status(); }
Status HeaderError(std::string_view header, size_t data_bytes = 16) { return ParseError(File(header, data_bytes)); }
/// The error of one tensor "w" described by these members.
Status TensorError(std::string_view members, size_t data_bytes = 16) {
  return HeaderError(fmt::format(R"({{"w":{{{}}}}})", members), data_bytes);
}

std::string Describe(std::string_view name, int begin, int end) {
  return fmt::format(R"("{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", name, end - begin, begin, end);
}

template <typename T>
void ExpectRamp(const TensorSource& source, std::string_view name, DType dtype) {
  const RawTensor* tensor = source.Find(name);
  ASSERT_NE(tensor, nullptr) << name;
  EXPECT_EQ(tensor->dtype, dtype) << name;
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3})) << name;
  ASSERT_EQ(tensor->bytes, static_cast<int64_t>(6 * sizeof(T))) << name;
  std::vector<T> values(6);
  std::memcpy(values.data(), tensor->data, 6 * sizeof(T));
  EXPECT_EQ(values, (std::vector<T>{0, 1, 2, 3, 4, 5})) << name;
}

TEST(SafetensorsTest, ReadsEveryTypeOfTheOfficialWriter) {
  const auto opened = OpenSafetensors(Fixture("all_types.safetensors"));
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const TensorSource& file = **opened;
  EXPECT_EQ(file.tensors().size(), 13u);
  EXPECT_EQ(file.description(), Fixture("all_types.safetensors").string());
  ExpectRamp<double>(file, "f64", DType::kF64);
  ExpectRamp<float>(file, "f32", DType::kF32);
  ExpectRamp<int64_t>(file, "i64", DType::kI64);
  ExpectRamp<int32_t>(file, "i32", DType::kI32);
  ExpectRamp<int16_t>(file, "i16", DType::kI16);
  ExpectRamp<int8_t>(file, "i8", DType::kI8);
  ExpectRamp<uint8_t>(file, "u8", DType::kU8);
  uint16_t bits = 0;
  std::memcpy(&bits, file.Find("bf16")->data + 10, 2);
  EXPECT_EQ(file.Find("bf16")->dtype, DType::kBF16);
  EXPECT_EQ(bits, ToBFloat16(5.0f).bits);
  std::memcpy(&bits, file.Find("f16")->data + 10, 2);
  EXPECT_EQ(file.Find("f16")->dtype, DType::kF16);
  EXPECT_EQ(bits, ToFloat16(5.0f).bits);
  EXPECT_EQ(file.Find("bool")->dtype, DType::kBool);
  EXPECT_EQ(file.Find("bool")->data[0], std::byte{0});
  EXPECT_EQ(file.Find("bool")->data[5], std::byte{1});
  EXPECT_TRUE(file.Find("scalar")->shape.empty());
  EXPECT_EQ(file.Find("scalar")->bytes, 4);
  EXPECT_EQ(file.Find("empty")->bytes, 0);
  EXPECT_NE(file.Find("größe"), nullptr);
  EXPECT_EQ(file.Find("nowhere"), nullptr);
  const auto unsigned_types = OpenSafetensors(Fixture("unsigned.safetensors"));
  ASSERT_TRUE(unsigned_types.ok()) << unsigned_types.status().message();
  ExpectRamp<uint16_t>(**unsigned_types, "u16", DType::kU16);
  ExpectRamp<uint32_t>(**unsigned_types, "u32", DType::kU32);
  ExpectRamp<uint64_t>(**unsigned_types, "u64", DType::kU64);
}

TEST(SafetensorsTest, ReadsTheHeader) {
  const std::string bytes = ReadAll(Fixture("all_types.safetensors"));
  const auto header = ParseSafetensorsHeader(Bytes(bytes), "m");
  ASSERT_TRUE(header.ok()) << header.status().message();
  EXPECT_EQ(header->metadata, (std::map<std::string, std::string>{{"note", "quote \" and \\ and é"}}));
  int64_t at = 0;
  for (const auto& entry : header->entries) {
    EXPECT_EQ(entry.begin, at);
    at = entry.end;
  }
  EXPECT_EQ(header->data_begin + at, static_cast<int64_t>(bytes.size()));
}

TEST(SafetensorsTest, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(ParseSafetensorsHeader(Bytes(File("{}")), "m").ok());
  EXPECT_TRUE(ParseSafetensorsHeader(Bytes(File(R"({"__metadata__":{}}   )")), "m").ok());
  // In any order; an empty tensor where another begins.
  const auto header = ParseSafetensorsHeader(
      Bytes(File("{" + Describe("b", 4, 16) + "," + Describe("none", 4, 4) + "," + Describe("a", 0, 4) + "}", 16)),
      "m");
  ASSERT_TRUE(header.ok()) << header.status().message();
  EXPECT_EQ(header->entries[0].name, "a");
  EXPECT_EQ(header->entries[1].name, "none");
  EXPECT_EQ(header->entries[2].name, "b");
  // A header of 640 bytes begins like a pickle of Python.
  EXPECT_TRUE(ParseSafetensorsHeader(Bytes(File("{}" + std::string(638, ' '))), "m").ok());
}

TEST(SafetensorsTest, EveryTruncationIsAnErrorThatNamesTheFile) {
  for (const char* name : {"all_types.safetensors", "unsigned.safetensors"}) {
    const std::string whole = ReadAll(Fixture(name));
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::string prefix = whole.substr(0, size);
      EXPECT_TRUE(Fails(ParseError(std::string(prefix.begin(), prefix.end())), {"m.safetensors", ""})) << size;
    }
    EXPECT_TRUE(Fails(ParseError(whole.substr(0, whole.size() - 1)), {"tensor \"", "truncated"}));
  }
}

TEST(SafetensorsTest, AbsurdHeaderLengths) {
  EXPECT_TRUE(Fails(ParseError(""), {"0 bytes long", "truncated"}));
  EXPECT_TRUE(Fails(ParseError("1234567"), {"7 bytes long"}));
  for (uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7}) {
    EXPECT_TRUE(Fails(ParseError(Raw(length) + "{}"), {fmt::format("header of {} bytes, the limit is", length)}));
  }
  EXPECT_TRUE(Fails(ParseError(Raw<uint64_t>(3) + "{}"), {"header of 3 bytes where 2 are left"}));
  EXPECT_TRUE(Fails(ParseError(Raw<uint64_t>(100'000'000) + "{}"), {"where 2 are left"}));
  EXPECT_TRUE(Fails(ParseError(Raw<uint64_t>(0) + "{}"), {"no JSON object"}));
}

TEST(SafetensorsTest, BadHeaderJson) {
  EXPECT_TRUE(Fails(HeaderError("[]"), {"m.safetensors", "no JSON object"}));
  EXPECT_TRUE(Fails(HeaderError(" {}"), {"no JSON object"}));
  EXPECT_TRUE(Fails(HeaderError("{\"a\":"), {"m.safetensors: header: line 1", "truncated"}));
  EXPECT_TRUE(Fails(HeaderError("{}x"), {"m.safetensors: header: line 1, column 3", "text follows"}));
  EXPECT_TRUE(Fails(HeaderError(std::string_view("{}\0\0", 4)), {"text follows"}));
  EXPECT_TRUE(Fails(HeaderError("{\"\xff\": 1}"), {"not valid UTF-8"}));
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "{\"a\":";
  EXPECT_TRUE(Fails(HeaderError(deep), {"nested more than"}));
  EXPECT_TRUE(Fails(HeaderError("{" + Describe("w", 0, 8) + "," + Describe("w", 8, 16) + "}"),
                    {"m.safetensors", "\"w\" stands twice"}));
  EXPECT_TRUE(Fails(HeaderError(R"({"__metadata__":7})"), {"__metadata__", "object of strings"}));
  EXPECT_TRUE(Fails(HeaderError(R"({"__metadata__":{"k":7}})"), {"__metadata__", "\"k\" must be a string"}));
  EXPECT_TRUE(Fails(HeaderError(R"({"__metadata__":{"k":"1","k":"2"}})"), {"\"k\" stands twice"}));
}

TEST(SafetensorsTest, BadTensorDescriptions) {
  EXPECT_TRUE(Fails(HeaderError(R"({"w":7})"), {"m.safetensors: tensor \"w\"", "an object"}));
  EXPECT_TRUE(Fails(TensorError(R"("shape":[16],"data_offsets":[0,16])"), {"tensor \"w\"", "\"dtype\" is missing"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","data_offsets":[0,16])"), {"tensor \"w\"", "\"shape\""}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":16,"data_offsets":[0,16])"), {"tensor \"w\"", "\"shape\""}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":[16])"), {"tensor \"w\"", "\"data_offsets\""}));
  for (const char* offsets : {"[]", "[0]", "[0,16,16]", "16"}) {
    EXPECT_TRUE(Fails(TensorError(fmt::format(R"("dtype":"U8","shape":[16],"data_offsets":{})", offsets)),
                      {"tensor \"w\"", "\"data_offsets\" must be two numbers"}));
  }
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":["16"],"data_offsets":[0,16])"), {"\"shape\"[0]", "integer"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":[-1],"data_offsets":[0,16])"), {"\"shape\"[0] is -1"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":[1.5],"data_offsets":[0,16])"), {"\"shape\"[0] is 1.5"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":8,"shape":[16],"data_offsets":[0,16])"), {"\"dtype\" must be a string"}));
}

TEST(SafetensorsTest, RefusesOtherDtypesByName) {
  for (const char* dtype : {"F8_E8M0", "F8_E4M3FNUZ", "F4", "C64", "f32", "", "Q4_0"}) {
    const Status status = TensorError(fmt::format(R"("dtype":"{}","shape":[16],"data_offsets":[0,16])", dtype));
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_TRUE(Fails(status, {"m.safetensors: tensor \"w\"", fmt::format("its dtype {} is not supported", dtype)}));
  }
}

TEST(SafetensorsTest, ReadsEightBitFloats) {
  const TempFolder folder;
  for (const auto& [name, dtype] : {std::pair("F8_E4M3", DType::kF8E4M3), std::pair("F8_E4M3FN", DType::kF8E4M3),
                                    std::pair("F8_E5M2", DType::kF8E5M2)}) {
    const std::string header = fmt::format(R"({{"w":{{"dtype":"{}","shape":[2,2],"data_offsets":[0,4]}}}})", name);
    const std::string bytes = Raw(static_cast<uint64_t>(header.size())) + header + "\x38\x3c\x40\x7b";
    const auto source = OpenSafetensors(folder.Write("m.safetensors", bytes));
    ASSERT_TRUE(source.ok()) << source.status().message();
    const RawTensor* tensor = (*source)->Find("w");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->dtype, dtype) << name;
    EXPECT_EQ(tensor->bytes, 4);
  }
}

TEST(SafetensorsTest, SizesThatDoNotAgreeOrOverflow) {
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"F32","shape":[3],"data_offsets":[0,16])"),
                    {"m.safetensors: tensor \"w\": 12 bytes by its shape and dtype F32, 16 bytes by its offsets"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":[0],"data_offsets":[0,16])"), {"0 bytes by its shape"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":[16],"data_offsets":[16,0])"), {"ends at 0 before it begins"}));
  for (const char* shape : {"[9223372036854775807]", "[4294967296,4294967296]", "[9223372036854775807,2,0]",
                            "[4611686018427387904]", "[65536,65536,65536,65536]"}) {
    EXPECT_TRUE(Fails(TensorError(fmt::format(R"("dtype":"F32","shape":{},"data_offsets":[0,16])", shape)),
                      {"tensor \"w\": its dimensions are too large"}))
        << shape;
  }
  EXPECT_TRUE(
      Fails(TensorError(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,16])"), {"\"shape\"[0]"}));
  EXPECT_TRUE(Fails(TensorError(R"("dtype":"U8","shape":[16],"data_offsets":[18446744073709551600,0])"),
                    {"\"data_offsets\"[0]"}));
  EXPECT_TRUE(
      Fails(TensorError(R"("dtype":"U8","shape":[16],"data_offsets":[9223372036854775791,9223372036854775807])"),
            {"tensor \"w\"", "holes"}));
}

TEST(SafetensorsTest, OverlapsHolesAndRests) {
  const auto two = [](int a, int b, int c, int d, size_t data_bytes) {
    return HeaderError("{" + Describe("v", a, b) + "," + Describe("w", c, d) + "}", data_bytes);
  };
  EXPECT_TRUE(two(0, 8, 8, 16, 16).ok());
  EXPECT_TRUE(Fails(two(0, 9, 8, 16, 16), {"tensor \"w\": begins at 8, inside tensor \"v\", which ends at 9"}));
  EXPECT_TRUE(Fails(two(0, 16, 4, 8, 16), {"inside tensor \"v\""}));
  EXPECT_TRUE(Fails(two(0, 8, 0, 8, 16), {"inside tensor \"v\""}));
  EXPECT_TRUE(Fails(two(0, 8, 9, 16, 16), {"tensor \"w\": begins at 9", "ends at 8", "holes"}));
  EXPECT_TRUE(Fails(two(1, 8, 8, 16, 16), {"tensor \"v\": begins at 1"}));
  EXPECT_TRUE(Fails(two(0, 8, 8, 16, 15), {"tensor \"w\": ends at byte 16 of the data, the file has 15"}));
  EXPECT_TRUE(Fails(two(0, 8, 8, 16, 17), {"m.safetensors: 1 bytes follow after the last tensor"}));
  EXPECT_TRUE(Fails(HeaderError("{}", 1), {"1 bytes follow"}));
}

TEST(SafetensorsTest, NamesOtherFormatsAndGivesTheCommandThatConverts) {
  const TempFolder folder;
  const auto error = [&](const char* name, std::string_view start) {
    return OpenSafetensors(folder.Write(name, std::string(start) + std::string(64, '\0'))).status();
  };
  for (std::string_view start : {std::string_view("PK\x03\x04"), std::string_view("\x80\x02\x8a\x0a")}) {
    const Status status = error("pytorch_model.bin", start);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_TRUE(Fails(status, {"pytorch_model.bin", "PyTorch", "python3 -c \"import sys; from transformers import",
                               fmt::format("'{0}' '{0}-safetensors'", folder.path().string())}));
  }
  EXPECT_TRUE(Fails(error("a.safetensors", "GGUF\x03"), {"a.safetensors", "it is a GGUF file"}));
  EXPECT_TRUE(Fails(error("a.safetensors", "version https://git-lfs.github.com/spec/v1"), {"git lfs pull"}));
  EXPECT_TRUE(Fails(error("a.safetensors", "<!DOCTYPE html>"), {"web page"}));
}

TEST(SafetensorsTest, FilesThatAreEmptyOrAbsent) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(OpenSafetensors(folder.Write("a.safetensors", "")).status(), {"a.safetensors", "empty"}));
  EXPECT_EQ(OpenSafetensors(folder.path() / "no.safetensors").status().code(), StatusCode::kNotFound);
}

TEST(SafetensorsTest, SparseFilesCostNeitherMemoryNorTime) {
  const TempFolder folder;
  const std::string header = R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  for (const std::string& start : {Raw<uint64_t>(100'000'000) + "{", File(header), Raw<uint64_t>(0)}) {
    const auto path = folder.Write("sparse.safetensors", start);
    std::filesystem::resize_file(path, uint64_t{1} << 36);
    const testing::PeakMeter peak;
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(Fails(OpenSafetensors(path).status(), {"sparse.safetensors"}));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
    EXPECT_LT(peak.Growth(), 64 << 20);
  }
}

}  // namespace
}  // namespace kvasir
