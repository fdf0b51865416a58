#include "io/safetensors.h"
#include "io/test_files.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;
using testing::Fails;
using testing::Fixture;
using testing::Raw;
using testing::TempFolder;

constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::string OneByte(std::string_view name) {
  const std::string header = fmt::format(R"({{"{}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}})", name);
  return Raw<uint64_t>(header.size()) + header + "x";
}

/// A copy of the sharded fixture that tests may damage.
class ShardedFolderTest : public ::testing::Test {
 protected:
  ShardedFolderTest() {
    for (const auto& entry : fs::directory_iterator(Fixture("sharded"))) {
      fs::copy_file(entry.path(), folder_.path() / entry.path().filename());
    }
  }
  Status Error() const { return OpenSafetensorsFolder(folder_.path()).status(); }
  void WriteIndex(std::string_view weight_map) const {
    folder_.Write(kIndex, fmt::format(R"({{"metadata":{{}},"weight_map":{}}})", weight_map));
  }
  TempFolder folder_;
};

TEST_F(ShardedFolderTest, OpensAllShards) {
  const auto source = OpenSafetensorsFolder(folder_.path());
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ((*source)->tensors().size(), 3u);
  EXPECT_EQ((*source)->description(), folder_.path().string());
  float value = 0;
  std::memcpy(&value, (*source)->Find("b")->data + 8, 4);
  EXPECT_EQ(value, 12.0f);
  std::memcpy(&value, (*source)->Find("c")->data, 4);
  EXPECT_EQ(value, 20.0f);
  EXPECT_EQ((*source)->Find("c")->file->path().filename(), kSecond);
}

TEST_F(ShardedFolderTest, FollowsLinksLikeThoseOfTheHubCache) {
  const TempFolder elsewhere;
  fs::rename(folder_.path() / kSecond, elsewhere.path() / "0123abcd");
  fs::create_symlink(elsewhere.path() / "0123abcd", folder_.path() / kSecond);
  EXPECT_TRUE(OpenSafetensorsFolder(folder_.path()).ok());
  fs::remove(elsewhere.path() / "0123abcd");
  EXPECT_TRUE(Fails(Error(), {kIndex, "1 of 2 shards are missing", kSecond}));
}

TEST_F(ShardedFolderTest, ListsAllMissingShards) {
  fs::remove(folder_.path() / kFirst);
  fs::remove(folder_.path() / kSecond);
  EXPECT_EQ(Error().code(), StatusCode::kNotFound);
  EXPECT_TRUE(Fails(Error(), {kIndex, "2 of 2 shards are missing", fmt::format("{}, {}", kFirst, kSecond)}));
}

TEST_F(ShardedFolderTest, RefusesShardsOutsideTheFolder) {
  for (const char* name : {"../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", "",
                           "a\\\\b.safetensors", "a\\u0000.safetensors"}) {
    WriteIndex(fmt::format(R"({{"a":"{}"}})", name));
    EXPECT_TRUE(Fails(Error(), {kIndex, "tensor \"a\"", "not a plain file name inside the folder"})) << name;
  }
  WriteIndex(R"({"a":"pytorch_model.bin"})");
  EXPECT_TRUE(Fails(Error(), {"tensor \"a\"", "\"pytorch_model.bin\" is no .safetensors file"}));
}

TEST_F(ShardedFolderTest, RefusesBadIndexes) {
  folder_.Write(kIndex, "");
  EXPECT_TRUE(Fails(Error(), {kIndex, "empty"}));
  folder_.Write(kIndex, "[]");
  EXPECT_TRUE(Fails(Error(), {kIndex, "JSON object"}));
  folder_.Write(kIndex, "{}");
  EXPECT_TRUE(Fails(Error(), {kIndex, "\"weight_map\" is missing or empty"}));
  WriteIndex("{}");
  EXPECT_TRUE(Fails(Error(), {"missing or empty"}));
  WriteIndex("7");
  EXPECT_TRUE(Fails(Error(), {"\"weight_map\" must be an object"}));
  WriteIndex(R"({"a":7})");
  EXPECT_TRUE(Fails(Error(), {"tensor \"a\"", "a file name"}));
  WriteIndex(fmt::format(R"({{"a":"{}","a":"{}"}})", kFirst, kSecond));
  EXPECT_TRUE(Fails(Error(), {kIndex, "\"a\" stands twice"}));
}

TEST_F(ShardedFolderTest, ListsTensorsThatAreNotWhereTheIndexSays) {
  WriteIndex(fmt::format(R"({{"a":"{0}","b":"{1}","c":"{1}","d":"{0}","e":"{1}"}})", kFirst, kSecond));
  EXPECT_EQ(Error().code(), StatusCode::kInvalidData);
  EXPECT_TRUE(Fails(Error(), {kIndex, "3 tensors", fmt::format("\"b\" (in {}, not in {})", kFirst, kSecond),
                              fmt::format("\"d\" (not in {})", kFirst), fmt::format("\"e\" (not in {})", kSecond)}));
}

TEST_F(ShardedFolderTest, RefusesATensorInTwoShards) {
  folder_.Write(kSecond, OneByte("a"));
  EXPECT_TRUE(Fails(Error(), {fmt::format("tensor \"a\" stands both in {} and in {}", kFirst, kSecond)}));
}

TEST_F(ShardedFolderTest, DamagedShardsAreNamed) {
  folder_.Write(kSecond, "12345678{");
  EXPECT_TRUE(Fails(Error(), {kSecond, "header of"}));
}

TEST_F(ShardedFolderTest, OneFileGoesBeforeTheIndexAsWithHuggingFace) {
  folder_.Write("model.safetensors", OneByte("only"));
  const auto source = OpenSafetensorsFolder(folder_.path());
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_NE((*source)->Find("only"), nullptr);
  EXPECT_EQ((*source)->tensors().size(), 1u);
}

TEST(SafetensorsFolderTest, TakesTheOnlyFileWhateverItsName) {
  const TempFolder folder;
  folder.Write("weights.safetensors", OneByte("w"));
  folder.Write("config.json", "{}");
  ASSERT_TRUE(OpenSafetensorsFolder(folder.path()).ok());
  folder.Write("other.safetensors", OneByte("w"));
  EXPECT_TRUE(Fails(OpenSafetensorsFolder(folder.path()).status(),
                    {"name the one you mean: other.safetensors, weights.safetensors"}));
}

TEST(SafetensorsFolderTest, RefusesPyTorchWeightsWithTheCommandThatConverts) {
  const TempFolder folder;
  folder.Write("training_args.bin", "x");
  EXPECT_EQ(OpenSafetensorsFolder(folder.path()).status().code(), StatusCode::kNotFound);
  folder.Write("pytorch_model-00001-of-00002.bin", "x");
  folder.Write("pytorch_model-00002-of-00002.bin", "x");
  const Status status = OpenSafetensorsFolder(folder.path()).status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_TRUE(
      Fails(status, {"only PyTorch weights", "pytorch_model-00001-of-00002.bin, pytorch_model-00002-of-00002.bin",
                     "python3 -c", fmt::format("'{0}' '{0}-safetensors'", folder.path().string())}));
  // The command survives odd names of folders.
  const fs::path odd = folder.path() / "it's $HOME";
  fs::create_directory(odd);
  folder.Write("it's $HOME/model.pth", "x");
  EXPECT_TRUE(Fails(OpenSafetensorsFolder(odd).status(), {"/it'\\''s $HOME' '"}));
}

TEST(SafetensorsFolderTest, SaysWhatElseIsThere) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(OpenSafetensorsFolder(folder.path()).status(), {"has no weights", "model.safetensors"}));
  EXPECT_TRUE(Fails(OpenSafetensorsFolder(folder.path() / "no").status(), {"no such folder"}));
  EXPECT_TRUE(Fails(OpenSafetensorsFolder(folder.Write("file", "x")).status(), {"is no folder"}));
  folder.Write("m-q8_0.gguf", "x");
  EXPECT_TRUE(Fails(OpenSafetensorsFolder(folder.path()).status(), {"GGUF", "m-q8_0.gguf"}));
}

}  // namespace
}  // namespace kvasir
