#include "io/atomic_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace kvasir {
namespace {

namespace fs = std::filesystem;

class AtomicFolders : public ::testing::Test {
 protected:
  AtomicFolders() {
    std::string name = (fs::temp_directory_path() / "kvasir-folder-XXXXXX").string();
    top_ = mkdtemp(name.data());
  }
  ~AtomicFolders() override { fs::remove_all(top_); }
  static void Write(const fs::path& file, const char* text) { std::ofstream(file) << text; }
  static std::string Read(const fs::path& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  int64_t Entries() const { return std::distance(fs::directory_iterator(top_), fs::directory_iterator()); }
  fs::path top_;
};

TEST_F(AtomicFolders, AppearWhole) {
  {
    auto folder = AtomicFolder::Create(top_ / "a" / "");
    ASSERT_TRUE(folder.ok()) << folder.status().message();
    Write((*folder)->temporary() / "x", "one");
    EXPECT_FALSE(fs::exists(top_ / "a"));
    ASSERT_TRUE((*folder)->Commit().ok());
  }
  EXPECT_EQ(Read(top_ / "a" / "x"), "one");
  EXPECT_EQ(Entries(), 1);
}

TEST_F(AtomicFolders, ReplaceOldOnesOrLeaveThem) {
  fs::create_directory(top_ / "a");
  Write(top_ / "a" / "old", "old");
  {
    auto folder = AtomicFolder::Create(top_ / "a");
    ASSERT_TRUE(folder.ok());
    Write((*folder)->temporary() / "x", "never seen");
  }
  EXPECT_EQ(Read(top_ / "a" / "old"), "old");
  EXPECT_EQ(Entries(), 1);
  {
    auto folder = AtomicFolder::Create(top_ / "a");
    ASSERT_TRUE(folder.ok());
    Write((*folder)->temporary() / "x", "new");
    ASSERT_TRUE((*folder)->Commit().ok());
  }
  EXPECT_FALSE(fs::exists(top_ / "a" / "old"));
  EXPECT_EQ(Read(top_ / "a" / "x"), "new");
  EXPECT_EQ(Entries(), 1);
}

TEST_F(AtomicFolders, AreRefusedWhereTheyCannotBe) {
  Write(top_ / "file", "x");
  EXPECT_EQ(AtomicFolder::Create(top_ / "file").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(AtomicFolder::Create(top_ / "none" / "a").status().code(), StatusCode::kIoError);
  EXPECT_EQ(AtomicFolder::Create("..").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(AtomicFolder::Create("").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvasir
