#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>

#include "io/atomic_file.h"
#include "io/safetensors.h"
#include "io/test_files.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;
using testing::Bytes;
using testing::Fails;
using testing::Fixture;
using testing::ReadAll;
using testing::TempFolder;

/// A limit on the size of written files stands in for a full disk while it lives.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

TEST(WriteSafetensorsTest, WhatIsWrittenReadsBackTheSame) {
  const auto original = OpenSafetensors(Fixture("all_types.safetensors"));
  ASSERT_TRUE(original.ok());
  std::vector<TensorToWrite> tensors;
  for (const RawTensor& tensor : (*original)->tensors()) {
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, {tensor.data, static_cast<size_t>(tensor.bytes)}});
  }
  std::ranges::reverse(tensors);
  const TempFolder folder;
  const fs::path path = folder.path() / "out.safetensors";
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"odd \"\\\n", "é\x01"}};
  const Status status = WriteSafetensors(path, tensors, metadata);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(folder.CountFiles(), 1u);
  const auto copy = OpenSafetensors(path);
  ASSERT_TRUE(copy.ok()) << copy.status().message();
  ASSERT_EQ((*copy)->tensors().size(), tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    const RawTensor* read = (*copy)->Find(tensor.name);
    ASSERT_NE(read, nullptr) << tensor.name;
    EXPECT_EQ(read->dtype, tensor.dtype);
    EXPECT_EQ(read->shape, tensor.shape);
    ASSERT_EQ(read->bytes, static_cast<int64_t>(tensor.data.size()));
    EXPECT_EQ(std::memcmp(read->data, tensor.data.data(), tensor.data.size()), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read->data) % static_cast<uintptr_t>(DTypeBlockBytes(read->dtype)), 0u);
  }
  const std::string bytes = ReadAll(path);
  EXPECT_EQ(ParseSafetensorsHeader(Bytes(bytes), "m")->metadata, metadata);
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  EXPECT_EQ(info.st_mode & 0777, 0666 & ~mask);
}

TEST(WriteSafetensorsTest, WritesNoTensorsToo) {
  const TempFolder folder;
  ASSERT_TRUE(WriteSafetensors(folder.path() / "a.safetensors", {}, {}).ok());
  EXPECT_TRUE((*OpenSafetensors(folder.path() / "a.safetensors"))->tensors().empty());
}

TEST(WriteSafetensorsTest, RefusesWhatCouldNotBeReadBack) {
  const TempFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  const std::vector<std::byte> data(8);
  const auto error = [&](std::vector<TensorToWrite> tensors) { return WriteSafetensors(path, tensors, {}); };
  EXPECT_TRUE(Fails(error({{"w", DType::kF32, {3}, data}}), {"a.safetensors", "tensor \"w\": 8 bytes", "say 12"}));
  EXPECT_TRUE(Fails(error({{"w", DType::kF32, {INT64_MAX, 2}, data}}), {"more than fits"}));
  EXPECT_TRUE(Fails(error({{"w", DType::kF32, {-2}, data}}), {"tensor \"w\""}));
  EXPECT_TRUE(Fails(error({{"w", DType::kU8, {8}, data}, {"w", DType::kU8, {8}, data}}), {"\"w\": is given twice"}));
  EXPECT_TRUE(Fails(error({{"__metadata__", DType::kU8, {8}, data}}), {"__metadata__"}));
  EXPECT_TRUE(Fails(error({{"\xff", DType::kU8, {8}, data}}), {"not valid UTF-8"}));
  EXPECT_TRUE(Fails(error({{"w", DType::kQ8_0, {32}, data}}), {"tensor \"w\"", "no dtype for q8_0"}));
  EXPECT_TRUE(Fails(WriteSafetensors(path, {}, {{"k", "\xff"}}), {"\"k\" is not valid UTF-8"}));
  EXPECT_EQ(folder.CountFiles(), 0u);
}

TEST(WriteSafetensorsTest, AFullDiskLeavesTheOldFileWhole) {
  const TempFolder folder;
  const fs::path path = folder.Write("a.safetensors", "old");
  const std::vector<std::byte> data(1 << 20);
  {
    const SmallDisk disk(64 << 10);
    const Status status = WriteSafetensors(path, std::vector<TensorToWrite>{{"w", DType::kU8, {1 << 20}, data}}, {});
    EXPECT_EQ(status.code(), StatusCode::kIoError);
    EXPECT_TRUE(Fails(status, {"a.safetensors: cannot be written: File too large", "left as it was"}));
  }
  EXPECT_EQ(ReadAll(path), "old");
  EXPECT_EQ(folder.CountFiles(), 1u);
}

TEST(AtomicFileTest, AppearsOnlyWhenCommitted) {
  const TempFolder folder;
  const fs::path path = folder.Write("a", "old");
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->Write(Bytes("new")).ok());
    EXPECT_EQ((*file)->size(), 3);
    EXPECT_EQ(folder.CountFiles(), 2u);
  }
  EXPECT_EQ(ReadAll(path), "old");
  EXPECT_EQ(folder.CountFiles(), 1u);
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Write(Bytes("ne")).ok());
  ASSERT_TRUE((*file)->Write(Bytes("w")).ok());
  EXPECT_EQ(ReadAll(path), "old");
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(ReadAll(path), "new");
  EXPECT_EQ(folder.CountFiles(), 1u);
}

TEST(AtomicFileTest, RefusesPlacesWhereNoFileCanBe) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(AtomicFile::Create(folder.path()).status(), {"is a directory"}));
  EXPECT_TRUE(Fails(AtomicFile::Create(folder.path() / "").status(), {"names no file"}));
  EXPECT_TRUE(
      Fails(AtomicFile::Create(folder.path() / "no" / "a").status(), {"/no/a: cannot be written", "No such file"}));
  EXPECT_TRUE(Fails(AtomicFile::Create("").status(), {"names no file"}));
  // A folder that comes into being meanwhile cannot be renamed over; the temporary file goes.
  auto file = AtomicFile::Create(folder.path() / "a");
  ASSERT_TRUE(file.ok());
  fs::create_directory(folder.path() / "a");
  EXPECT_TRUE(Fails((*file)->Commit(), {"cannot be renamed into place", "left as it was"}));
  file->reset();
  EXPECT_EQ(folder.CountFiles(), 1u);
}

}  // namespace
}  // namespace kvasir
