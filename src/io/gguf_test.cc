// GGUF files made by the official Python package.
#include "io/gguf.h"

#include <cstdlib>

#include "base/dtype.h"
#include "io/test_files.h"

namespace kvasir {
namespace {

using testing::Fails;
using testing::Fixture;
using testing::ReadAll;
using testing::TempFolder;

template <typename T>
std::vector<T> Values(const RawTensor& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.bytes) / sizeof(T));
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(T));
  return values;
}

template <typename T>
void ExpectRamp(const TensorSource& source, std::string_view name, DType dtype) {
  const RawTensor* tensor = source.Find(name);
  ASSERT_NE(tensor, nullptr) << name;
  EXPECT_EQ(tensor->dtype, dtype) << name;
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3})) << name;
  EXPECT_EQ(Values<T>(*tensor), (std::vector<T>{0, 1, 2, 3, 4, 5})) << name;
}

void ExpectAllMetadata(const GgufFile& file) {
  EXPECT_EQ(*file.Int("test.uint8", 0, 255), 200);
  EXPECT_EQ(*file.Int("test.int8", -128, 127), -100);
  EXPECT_EQ(*file.Int("test.uint16", 0, 65535), 60000);
  EXPECT_EQ(*file.Int("test.int16", -32768, 0), -30000);
  EXPECT_EQ(*file.Int("test.uint32", 0, INT64_MAX), 4000000000);
  EXPECT_EQ(*file.Int("test.int32", INT64_MIN, 0), -2000000000);
  EXPECT_EQ(*file.Int("test.int64", INT64_MIN, 0), INT64_MIN);
  EXPECT_EQ(std::get<uint64_t>(*file.FindValue("test.uint64")), UINT64_MAX);
  EXPECT_EQ(*file.Number("test.float32"), 0.5);
  EXPECT_EQ(*file.Number("test.float64"), 0.1);
  EXPECT_EQ(*file.Number("test.int8"), -100.0);
  EXPECT_TRUE(*file.Bool("test.true"));
  EXPECT_FALSE(*file.Bool("test.false"));
  EXPECT_EQ(*file.String("test.string"), "größe");
  for (const char* type : {"uint8", "uint16", "uint32", "uint64"}) {
    EXPECT_EQ(*file.IntList(fmt::format("test.array.{}", type), 0, 250), (std::vector<int64_t>{1, 2, 250})) << type;
  }
  for (const char* type : {"int8", "int16", "int32", "int64"}) {
    EXPECT_EQ(*file.IntList(fmt::format("test.array.{}", type), -1, 120), (std::vector<int64_t>{-1, 2, 120})) << type;
  }
  EXPECT_EQ(**file.NumberList("test.array.float32"), (std::vector<double>{0.5, -1.0}));
  EXPECT_EQ(**file.NumberList("test.array.float64"), (std::vector<double>{0.1, -1.0}));
  EXPECT_EQ(*file.IntList("test.array.bool", 0, 1), (std::vector<int64_t>{1, 0, 1}));
  EXPECT_EQ(**file.StringList("test.array.string"), (std::vector<std::string>{"a", "", "größe"}));
}

void ExpectAllTensors(const GgufFile& file) {
  ExpectRamp<float>(file, "f32", DType::kF32);
  ExpectRamp<int8_t>(file, "i8", DType::kI8);
  ExpectRamp<int16_t>(file, "i16", DType::kI16);
  ExpectRamp<int32_t>(file, "i32", DType::kI32);
  ExpectRamp<int64_t>(file, "i64", DType::kI64);
  ExpectRamp<double>(file, "f64", DType::kF64);
  const RawTensor* half = file.Find("f16");
  ASSERT_NE(half, nullptr);
  ASSERT_EQ(half->dtype, DType::kF16);
  EXPECT_EQ(Values<uint16_t>(*half).at(5), ToFloat16(5.0f).bits);
  // The ramp -60 … 67, two rows of 64.
  const RawTensor* bf16 = file.Find("bf16");
  ASSERT_NE(bf16, nullptr);
  EXPECT_EQ(bf16->dtype, DType::kBF16);
  EXPECT_EQ(bf16->shape, (std::vector<int64_t>{2, 64}));
  EXPECT_EQ(Values<uint16_t>(*bf16).at(64), ToBFloat16(4.0f).bits);
  const RawTensor* cube = file.Find("cube");
  ASSERT_NE(cube, nullptr);
  EXPECT_EQ(cube->shape, (std::vector<int64_t>{2, 3, 4}));
  EXPECT_EQ(Values<float>(*cube).at(23), 23.0f);
}

/// Block types lie as four blocks; the last element of the ramp is 67, so is the scale's numerator of q8_0.
void ExpectBlocks(const GgufFile& file) {
  const RawTensor* q8 = file.Find("q8_0");
  const RawTensor* q4 = file.Find("q4_0");
  ASSERT_NE(q8, nullptr);
  ASSERT_NE(q4, nullptr);
  EXPECT_EQ(q8->dtype, DType::kQ8_0);
  EXPECT_EQ(q4->dtype, DType::kQ4_0);
  EXPECT_EQ(q8->shape, (std::vector<int64_t>{2, 64}));
  EXPECT_EQ(q8->elements(), 128);
  EXPECT_EQ(q8->bytes, 4 * 34);
  EXPECT_EQ(q4->bytes, 4 * 18);
  const auto scale = Values<uint8_t>(*q8);
  uint16_t bits = 0;
  std::memcpy(&bits, scale.data() + 3 * 34, sizeof(bits));
  EXPECT_EQ(bits, ToFloat16(67.0f / 127.0f).bits);
  EXPECT_EQ(static_cast<int8_t>(scale.back()), 127);
}

TEST(GgufTest, ReadsEveryTypeOfVersions2And3) {
  for (const char* name : {"all_types.gguf", "version2.gguf"}) {
    const auto file = GgufFile::Open(Fixture(name));
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ((*file)->tensors().size(), 11u);
    EXPECT_EQ((*file)->metadata()[0].first, "general.architecture");
    EXPECT_EQ((*file)->description(), Fixture(name).string());
    EXPECT_EQ((*file)->Find("nowhere"), nullptr);
    for (const RawTensor& tensor : (*file)->tensors()) EXPECT_NE(tensor.file, nullptr);
    ExpectAllMetadata(**file);
    ExpectAllTensors(**file);
    ExpectBlocks(**file);
  }
}

TEST(GgufTest, ParsesBytesInMemory) {
  const std::string bytes = ReadAll(Fixture("all_types.gguf"));
  const auto file = GgufFile::Parse(testing::Bytes(bytes), "memory");
  ASSERT_TRUE(file.ok()) << file.status().message();
  ExpectAllMetadata(**file);
  ExpectAllTensors(**file);
  const std::string part = ReadAll(Fixture("split-00001-of-00003.gguf"));
  EXPECT_TRUE(Fails(GgufFile::Parse(testing::Bytes(part), "memory").status(), {"memory", "part 1 of 3"}));
}

TEST(GgufTest, FollowsTheAlignmentKey) {
  const auto file = GgufFile::Open(Fixture("aligned.gguf"));
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*(*file)->Int("general.alignment", 1, 1024), 128);
  EXPECT_EQ(Values<float>(*(*file)->Find("a")), (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(Values<float>(*(*file)->Find("b")), (std::vector<float>{10, 11, 12}));
}

TEST(GgufTest, GettersSayWhatIsWrong) {
  const auto opened = GgufFile::Open(Fixture("all_types.gguf"));
  ASSERT_TRUE(opened.ok());
  const GgufFile& file = **opened;
  EXPECT_TRUE(Fails(file.Int("nowhere", 0, 1).status(), {"all_types.gguf", "lacks \"nowhere\""}));
  EXPECT_TRUE(Fails(file.Int("test.uint8", 0, 199).status(), {"\"test.uint8\" holds 200", "from 0 to 199"}));
  EXPECT_TRUE(Fails(file.Int("test.uint64", 0, INT64_MAX).status(), {"18446744073709551615"}));
  EXPECT_TRUE(Fails(file.Int("test.string", 0, 1).status(), {"must be an integer, it is a string"}));
  EXPECT_TRUE(Fails(file.Int("test.true", 0, 1).status(), {"it is a truth value"}));
  EXPECT_TRUE(Fails(file.Number("test.string").status(), {"must be a number"}));
  EXPECT_TRUE(Fails(file.Bool("test.uint8").status(), {"must be a truth value, it is an integer"}));
  EXPECT_TRUE(Fails(file.String("test.float32").status(), {"must be a string, it is a float"}));
  EXPECT_TRUE(Fails(file.IntList("test.array.int8", 0, 200).status(), {"\"test.array.int8\" holds -1"}));
  EXPECT_TRUE(Fails(file.IntList("test.array.float32", 0, 1).status(), {"it is an array of floats"}));
  EXPECT_TRUE(Fails(file.StringList("test.array.int8").status(), {"array of strings, it is an array of integers"}));
  EXPECT_TRUE(Fails(file.StringList("test.string").status(), {"it is a string"}));
  EXPECT_TRUE(Fails(file.NumberList("test.array.string").status(), {"array of floats, it is an array of strings"}));
  for (const char* key : {"Number", "Bool", "String"}) EXPECT_FALSE(file.FindValue(key));
  EXPECT_FALSE(file.Number("nowhere").ok());
  EXPECT_FALSE(file.Bool("nowhere").ok());
  EXPECT_FALSE(file.String("nowhere").ok());
}

TEST(GgufTest, GettersFallBackOnlyWhenTheKeyIsAbsent) {
  const auto opened = GgufFile::Open(Fixture("all_types.gguf"));
  ASSERT_TRUE(opened.ok());
  const GgufFile& file = **opened;
  EXPECT_EQ(*file.Int("nowhere", 0, 1, 9), 9);
  EXPECT_FALSE(file.Int("test.string", 0, 1, 9).ok());
  EXPECT_EQ(*file.Number("nowhere", 0.5), 0.5);
  EXPECT_TRUE(*file.Bool("nowhere", true));
  EXPECT_EQ(*file.String("nowhere", "x"), "x");
  EXPECT_EQ(*file.IntList("test.uint8", 0, 255), (std::vector<int64_t>{200}));
  EXPECT_TRUE(file.IntList("nowhere", 0, 1)->empty());
  EXPECT_EQ(*file.StringList("nowhere"), nullptr);
  EXPECT_EQ(*file.NumberList("nowhere"), nullptr);
}

TEST(GgufTest, RefusesUnknownBlockTypesByName) {
  const Status status = GgufFile::Open(Fixture("iq2_xxs.gguf")).status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_TRUE(Fails(status, {"iq2_xxs.gguf: tensor \"blk.0.ffn_up.weight\"", "type iq2_xxs", "q8_0, q6_k"}));
}

TEST(GgufSplitTest, OpensAllPartsFromAnyOfThem) {
  for (const char* name : {"split-00001-of-00003.gguf", "split-00002-of-00003.gguf", "split-00003-of-00003.gguf"}) {
    const auto file = GgufFile::Open(Fixture(name));
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ((*file)->description(), Fixture(name).string());
    EXPECT_EQ(*(*file)->String("test.string"), "from the first part");
    ASSERT_EQ((*file)->tensors().size(), 5u);
    for (size_t i = 0; i < 5; ++i) {
      const RawTensor& tensor = (*file)->tensors()[i];
      EXPECT_EQ(tensor.name, fmt::format("t{}", i));
      EXPECT_EQ(Values<float>(tensor).at(3), 3.0f + 10.0f * static_cast<float>(i));
    }
  }
}

TEST(GgufSplitTest, ListsMissingParts) {
  const TempFolder folder;
  const auto second = folder.path() / "m-00002-of-00003.gguf";
  std::filesystem::copy(Fixture("split-00002-of-00003.gguf"), second);
  const Status status = GgufFile::Open(second).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_TRUE(Fails(status, {"m-00002-of-00003.gguf: is part 2 of 3",
                             "missing beside it: m-00001-of-00003.gguf, "
                             "m-00003-of-00003.gguf"}));
}

TEST(GgufSplitTest, RefusesPartsThatDoNotBelongTogether) {
  const TempFolder folder;
  const auto part = [&](int i) { return folder.path() / fmt::format("m-0000{}-of-00003.gguf", i); };
  const auto fixture = [](int i) { return Fixture(fmt::format("split-0000{}-of-00003.gguf", i)); };
  std::filesystem::copy(fixture(1), part(1));
  std::filesystem::copy(fixture(2), part(2));
  std::filesystem::copy(fixture(2), part(3));
  EXPECT_TRUE(Fails(GgufFile::Open(part(1)).status(), {"m-00003-of-00003.gguf: is part 2 of 3", "named part 3 of 3"}));
  EXPECT_TRUE(Fails(GgufFile::Open(part(3)).status(), {"must end in -00002-of-00003.gguf"}));
  std::filesystem::copy(fixture(2), folder.path() / "renamed.gguf");
  EXPECT_TRUE(Fails(GgufFile::Open(folder.path() / "renamed.gguf").status(), {"renamed.gguf: is part 2 of 3"}));
  std::filesystem::remove(part(3));
  folder.Write(part(3).filename().string(), "GGUF");
  EXPECT_TRUE(Fails(GgufFile::Open(part(1)).status(), {"m-00003-of-00003.gguf: ends inside the header"}));
}

TEST(GgufSplitTest, RefusesTensorsOfTwoPartsAndWrongTotals) {
  const TempFolder folder;
  const auto name = [](int i) { return fmt::format("m-0000{}-of-00003.gguf", i); };
  std::string third = ReadAll(Fixture("split-00003-of-00003.gguf"));
  for (int i : {1, 2})
    std::filesystem::copy(Fixture(fmt::format("split-0000{}-of-00003.gguf", i)), folder.path() / name(i));
  third.replace(third.find("t4"), 2, "t0");
  folder.Write(name(3), third);
  EXPECT_TRUE(Fails(GgufFile::Open(folder.path() / name(1)).status(),
                    {"tensor \"t0\" stands both in m-00001-of-00003.gguf and in m-00003-of-00003.gguf"}));
  std::string first = ReadAll(Fixture("split-00001-of-00003.gguf"));
  const size_t total = first.find("split.tensors.count") + 19 + 4;
  ASSERT_EQ(first[total], 5);
  first[total] = 6;
  std::filesystem::copy(Fixture("split-00003-of-00003.gguf"), folder.path() / name(3),
                        std::filesystem::copy_options::overwrite_existing);
  folder.Write(name(1), first);
  EXPECT_TRUE(Fails(GgufFile::Open(folder.path() / name(2)).status(), {"5 tensors", "\"split.tensors.count\" says 6"}));
}

TEST(GgufTest, ReadsRealVocabularies) {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "KVASIR_TEST_DATA names no folder of test data";
  int read = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(data) / "tokenizers/ggml-vocab/models")) {
    if (entry.path().extension() != ".gguf") continue;
    const auto file = GgufFile::Open(entry.path());
    ASSERT_TRUE(file.ok()) << file.status().message();
    const auto tokens = (*file)->StringList("tokenizer.ggml.tokens");
    ASSERT_TRUE(tokens.ok() && *tokens != nullptr) << entry.path();
    EXPECT_GT((*tokens)->size(), 1000u);
    EXPECT_TRUE((*file)->NumberList("tokenizer.ggml.scores").ok()) << entry.path();
    const auto types = (*file)->IntList("tokenizer.ggml.token_type", 0, 10);
    ASSERT_TRUE(types.ok()) << types.status().message();
    ++read;
  }
  EXPECT_GE(read, 10);
}

}  // namespace
}  // namespace kvasir
