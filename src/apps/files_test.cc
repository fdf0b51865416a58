#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "apps/npy_writer.h"
#include "apps/prompt_input.h"
#include "apps/terminal.h"
#include "apps/token_list.h"
#include "apps/write_file.h"

namespace kvasir::apps {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  Files() {
    std::string name = (fs::temp_directory_path() / "kvasir-apps-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~Files() override { fs::remove_all(folder_); }
  static std::string Content(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  size_t Entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

TEST_F(Files, ReplaceOldOnesAndLeaveNothingBeside) {
  const fs::path file = folder_ / "a.txt";
  EXPECT_EQ(Entries(), 0u);
  ASSERT_TRUE(WriteFileAtomically(file, "one").ok());
  ASSERT_TRUE(WriteFileAtomically(file, "two").ok());
  EXPECT_EQ(Content(file), "two");
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(Files, AreRefusedWhereTheyCannotBe) {
  EXPECT_EQ(WriteFileAtomically(folder_ / "none" / "a", "x").code(), StatusCode::kIoError);
  EXPECT_EQ(WriteFileAtomically(folder_, "x").code(), StatusCode::kInvalidArgument);
}

TEST_F(Files, NpyHasThePublishedLayout) {
  const fs::path file = folder_ / "a.npy";
  auto writer = NpyWriter::Create(file, 2, 3);
  ASSERT_TRUE(writer.ok());
  const float rows[6] = {0, 1, 2, 3, 4, 5};
  ASSERT_TRUE(writer->Write({rows, 3}).ok());
  ASSERT_TRUE(writer->Write({rows + 3, 3}).ok());
  ASSERT_TRUE(writer->Finish().ok());
  const std::string content = Content(file);
  ASSERT_EQ(content.size() % 64, 24u);  // a padded header and 24 bytes
  EXPECT_EQ(content.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t header = static_cast<unsigned char>(content[8]) + 256u * static_cast<unsigned char>(content[9]);
  EXPECT_EQ(content.size(), 10 + header + 24);
  EXPECT_NE(content.find("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"), std::string::npos);
  EXPECT_EQ(content[10 + header - 1], '\n');
  EXPECT_EQ(content.substr(10 + header), std::string(reinterpret_cast<const char*>(rows), 24));
}

TEST(CheckUtf8, NamesTheFirstWrongByte) {
  EXPECT_TRUE(CheckUtf8("größer 🙂", "x").ok());
  const Status status = CheckUtf8("ab\xff", "--prompt");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--prompt: invalid UTF-8 at byte 2 (0xFF)"), std::string::npos);
  EXPECT_FALSE(CheckUtf8("\xe2\x82", "x").ok());      // cut off
  EXPECT_FALSE(CheckUtf8("\xed\xa0\x80", "x").ok());  // surrogate
  EXPECT_FALSE(CheckUtf8("\xc0\x80", "x").ok());      // overlong
  EXPECT_TRUE(CheckUtf8(std::string("a\0b", 3), "x").ok());
}

TEST(ParseTokenList, TakesCommasSpacesAndBrackets) {
  EXPECT_EQ(*ParseTokenList("1,2, 3", "--tokens"), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(*ParseTokenList("[1 2\n3]", "--tokens"), (std::vector<TokenId>{1, 2, 3}));
  for (const char* text : {"", "[]", "1,x", "-1", "2147483648", "1.0", "1;2"}) {
    EXPECT_FALSE(ParseTokenList(text, "--tokens").ok()) << text;
  }
}

TEST(EscapeControls, LetsNoTextDriveTheTerminal) {
  EXPECT_EQ(EscapeControls("a\tb\nä"), "a\tb\nä");
  EXPECT_EQ(EscapeControls("\x1b[2J\r"), "^[[2J^M");
  EXPECT_EQ(EscapeControls("\x7f\xc2\x9b"), "<7F><9B>");
}

TEST(HumanBytes, Rounds) {
  EXPECT_EQ(HumanBytes(7), "7 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(int64_t{300} << 20), "300 MiB");
}

}  // namespace
}  // namespace kvasir::apps
