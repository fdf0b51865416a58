// The bytes that tokens add, against what decoding shows.
#include <set>

#include "base/utf8.h"
#include "text/tokenizer_fixtures.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

/// Every committed tokenizer.
std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(TokenizerFixtures())) {
    if (entry.path().extension() != ".expected") continue;
    const fs::path path = TokenizerFixtures() / entry.path().stem();
    names.push_back(fs::exists(path) ? path.filename().string() : path.filename().string() + ".gguf");
  }
  return names;
}

/// A token of letters, behind which and before which nothing is cleaned up.
TokenId Letters(const Tokenizer& tokenizer) {
  for (TokenId id = 0; id < tokenizer.vocab().size; ++id) {
    const std::string bytes = *tokenizer.TokenBytes(id);
    const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
    if (!bytes.empty() && std::all_of(bytes.begin() + (bytes[0] == ' '), bytes.end(), letter) && bytes.back() != ' ') {
      return id;
    }
  }
  return -1;
}

TEST(TokenBytes, AreWhatATokenAddsToTheText) {
  std::set<std::string> kinds;
  for (const std::string& name : Names()) {
    SCOPED_TRACE(name);
    const auto tokenizer = LoadAny(TokenizerFixtures() / name);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const TokenId around = Letters(**tokenizer);
    ASSERT_GE(around, 0);
    const std::string before = *(*tokenizer)->Decode(std::vector<TokenId>{around});
    const std::string after = *(*tokenizer)->TokenBytes(around);
    int compared = 0;
    for (TokenId id = 0; id < (*tokenizer)->vocab().size; ++id) {
      const auto bytes = (*tokenizer)->TokenBytes(id);
      ASSERT_TRUE(bytes.ok()) << bytes.status().message();
      if (!IsValidUtf8(*bytes) || (*tokenizer)->IdToPiece(id).empty()) continue;
      const auto text = (*tokenizer)->Decode(std::vector<TokenId>{around, id, around});
      ASSERT_TRUE(text.ok()) << text.status().message();
      // A suffix that marks a word's end leaves no space at the end of the text.
      if (*text + " " == before + *bytes + after || *text + " " == before + " " + *bytes + after) continue;
      EXPECT_EQ(*text, before + *bytes + after) << id << " " << (*tokenizer)->IdToPiece(id);
      ++compared;
    }
    EXPECT_GT(compared, 100);
    kinds.emplace((*tokenizer)->kind());
  }
  EXPECT_GE(kinds.size(), 5u);
}

TEST(TokenBytes, PartsOfCharactersAreBytes) {
  for (const char* name : {"byte_level", "byte_fallback", "ranks", "bpe.gguf", "spm_bpe"}) {
    SCOPED_TRACE(name);
    const auto tokenizer = LoadAny(TokenizerFixtures() / name);
    ASSERT_TRUE(tokenizer.ok());
    const std::string text = "𐀀 x\n";
    const std::vector<TokenId> ids = *(*tokenizer)->Encode(text, {.add_special = false});
    std::string bytes;
    for (const TokenId id : ids) bytes += *(*tokenizer)->TokenBytes(id);
    EXPECT_TRUE(bytes == text || bytes == " " + text) << bytes;
  }
}

TEST(TokenBytes, SpecialTokensAndHolesHaveNone) {
  const auto tokenizer = LoadAny(TokenizerFixtures() / "split_by_three");
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*(*tokenizer)->TokenBytes(*(*tokenizer)->PieceToId("<|eot_id|>")), "");
  EXPECT_EQ(*(*tokenizer)->TokenBytes(-1), "");
  EXPECT_EQ(*(*tokenizer)->TokenBytes(1 << 30), "");
}

}  // namespace
}  // namespace kvasir
