// The GGUF writer: what it writes is read back, and a full disk leaves the old file whole.
#include "io/gguf_write.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include "io/test_files.h"

namespace kvasir {
namespace {

using testing::Fails;
using testing::ReadAll;
using testing::TempFolder;

std::vector<GgufEntry> Entries() {
  const std::vector<std::string> texts = {"a", "", "\xff\xfe", "long enough to need no small buffer"};
  const std::vector<int32_t> ints = {-1, 0, 7};
  const std::vector<float> floats = {0.5f, -1e30f};
  return {GgufText("general.architecture", "none"),
          GgufUint32("n", 4000000000u),
          GgufFloat32("f", 1e-5f),
          GgufBool("yes", true),
          GgufTexts("texts", texts),
          GgufInts32("ints", ints),
          GgufFloats32("floats", floats),
          GgufBytes("bytes", "\x01\x80")};
}

std::vector<GgufTensor> Tensors() {
  return {{"vector", DType::kF32, {3}},
          {"matrix", DType::kQ4_0, {2, 64}},
          {"none", DType::kF16, {0, 5}},
          {"stack", DType::kBF16, {2, 2, 5}},
          {"last", DType::kI8, {1}}};
}

std::string Data(size_t size, char first) {
  std::string data(size, '\0');
  for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(first + static_cast<char>(i % 50));
  return data;
}

TEST(GgufWrite, IsReadBack) {
  const TempFolder folder;
  const auto file = folder.path() / "out.gguf";
  auto writer = GgufWriter::Create(file, Entries(), Tensors());
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  const std::string data[] = {Data(12, 'a'), Data(72, 'b'), "", Data(40, 'c'), Data(1, 'd')};
  for (const std::string& bytes : data) {
    // In two pieces.
    ASSERT_TRUE((*writer)->Append(testing::Bytes(bytes).first(bytes.size() / 2)).ok());
    ASSERT_TRUE((*writer)->Append(testing::Bytes(bytes).subspan(bytes.size() / 2)).ok());
  }
  EXPECT_FALSE(std::filesystem::exists(file));
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(std::filesystem::file_size(file), static_cast<uintmax_t>((*writer)->size()));
  const auto read = GgufFile::Open(file);
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ((*read)->tensors().size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const RawTensor& tensor = (*read)->tensors()[i];
    const GgufTensor wanted = Tensors()[i];
    EXPECT_EQ(tensor.name, wanted.name);
    EXPECT_EQ(tensor.dtype, wanted.dtype);
    EXPECT_EQ(tensor.shape, wanted.shape);
    ASSERT_EQ(tensor.bytes, static_cast<int64_t>(data[i].size()));
    EXPECT_EQ(std::memcmp(tensor.data, data[i].data(), data[i].size()), 0);
  }
  EXPECT_EQ(*(*read)->Int("n", 0, INT64_MAX), 4000000000);
  EXPECT_EQ(static_cast<float>(*(*read)->Number("f")), 1e-5f);
  EXPECT_TRUE(*(*read)->Bool("yes"));
  EXPECT_EQ((**(*read)->StringList("texts"))[2], "\xff\xfe");
  EXPECT_EQ(*(*read)->IntList("ints", -9, 9), (std::vector<int64_t>{-1, 0, 7}));
  EXPECT_EQ((**(*read)->NumberList("floats"))[1], static_cast<double>(-1e30f));
  EXPECT_EQ(*(*read)->IntList("bytes", 0, 255), (std::vector<int64_t>{1, 128}));
  const auto entries = ReadGgufEntries(file);
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), Entries().size());
  for (size_t i = 0; i < entries->size(); ++i) {
    EXPECT_EQ((*entries)[i].key, Entries()[i].key);
    EXPECT_EQ((*entries)[i].value, Entries()[i].value) << "types and bytes stay";
  }
}

TEST(GgufWrite, EntriesAreReplaced) {
  std::vector<GgufEntry> entries = Entries();
  SetGgufEntry(GgufUint32("n", 5), &entries);
  SetGgufEntry(GgufUint32("new", 6), &entries);
  EXPECT_EQ(entries.size(), Entries().size() + 1);
  EXPECT_EQ(entries[1].value, GgufUint32("n", 5).value);
}

TEST(GgufWrite, RefusesWhatReadersWouldRefuse) {
  const TempFolder folder;
  const auto file = folder.path() / "out.gguf";
  const auto refused = [&](std::vector<GgufEntry> entries, std::vector<GgufTensor> tensors) {
    return GgufWriter::Create(file, entries, tensors).status();
  };
  EXPECT_TRUE(Fails(refused({GgufBool("a", true), GgufBool("a", false)}, {}), {"\"a\"", "twice", "out.gguf"}));
  EXPECT_TRUE(Fails(refused({}, {{"t", DType::kF32, {1}}, {"t", DType::kF32, {1}}}), {"\"t\"", "twice"}));
  EXPECT_TRUE(Fails(refused({}, {{std::string(64, 'x'), DType::kF32, {1}}}), {"longer than 63"}));
  EXPECT_TRUE(Fails(refused({}, {{"t", DType::kQ4_K, {2, 128}}}), {"rows of 128", "q4_k"}));
  EXPECT_TRUE(Fails(refused({}, {{"t", DType::kNF4, {64}}}), {"GGUF has no type", "nf4"}));
  EXPECT_TRUE(Fails(refused({}, {{"t", DType::kF32, {INT64_MAX, 9}}}), {"too large"}));
  EXPECT_TRUE(Fails(refused({}, {{"t", DType::kF32, {}}}), {"0 dimensions"}));
  EXPECT_TRUE(Fails(GgufWriter::Create(folder.path() / "no" / "out.gguf", {}, {}).status(), {"No such file"}));
  EXPECT_EQ(folder.CountFiles(), 0u);
}

TEST(GgufWrite, AFullDiskLeavesTheOldFile) {
  const TempFolder folder;
  const auto file = folder.Write("out.gguf", "old");
  const std::vector<GgufTensor> tensors = {{"t", DType::kF32, {1 << 16}}};
  // A limit on the size of files fails as a full disk does, once its signal is ignored.
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    auto writer = GgufWriter::Create(file, Entries(), tensors);
    ASSERT_TRUE(writer.ok());
    const std::string data(4 << 16, 'x');
    const Status status = (*writer)->Append(testing::Bytes(data));
    EXPECT_TRUE(Fails(status, {"out.gguf", "cannot be written", "left as it was"}));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(ReadAll(file), "old");
  EXPECT_EQ(folder.CountFiles(), 1u);
}

TEST(GgufDraft, IsReadWithoutBeingWritten) {
  // Far more than there is memory.
  const std::vector<GgufTensor> tensors = {{"small", DType::kF32, {2}}, {"huge", DType::kF32, {1 << 20, 1 << 18}}};
  const float values[] = {1.5f, -2.0f};
  const std::vector<std::string> contents = {std::string(reinterpret_cast<const char*>(values), sizeof(values))};
  const auto draft = GgufDraft::Make(Entries(), tensors, contents, "a draft");
  ASSERT_TRUE(draft.ok()) << draft.status().message();
  const GgufFile& file = (*draft)->file();
  EXPECT_EQ(*file.String("general.architecture"), "none");
  EXPECT_EQ(std::memcmp(file.Find("small")->data, values, sizeof(values)), 0);
  EXPECT_EQ(file.Find("huge")->bytes, int64_t{1} << 40);
}

}  // namespace
}  // namespace kvasir
