// Ids and texts against Hugging Face's libraries, string by string.
#include <sstream>

#include "text/tokenizer_fixtures.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> FixtureNames() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(TokenizerFixtures())) {
    if (entry.path().extension() == ".expected") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class TokenizerParity : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerParity, SameIdsAndTexts) {
  fs::path path = TokenizerFixtures() / GetParam();
  if (!fs::exists(path)) path += ".gguf";
  auto tokenizer = LoadAny(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  ExpectParity(**tokenizer, TokenizerFixtures() / (GetParam() + ".expected"));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TokenizerParity, testing::ValuesIn(FixtureNames()),
                         [](const auto& instance) { return instance.param; });

TEST(RealVocabularies, SameIdsAndTexts) {
  if (TestData().empty()) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  std::ifstream list(TokenizerFixtures() / "real" / "list.tsv");
  int compared = 0;
  for (std::string line; std::getline(list, line); ++compared) {
    const size_t tab = line.find('\t');
    const std::string name = line.substr(0, tab);
    SCOPED_TRACE(name);
    auto tokenizer = LoadAny(TestData() / line.substr(tab + 1));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    ExpectParity(**tokenizer, TokenizerFixtures() / "real" / (name + ".expected"));
  }
  EXPECT_GE(compared, 14);
}

/// Inputs and ids as published with the vocabularies in GGUF.
TEST(RealVocabularies, PublishedGgufPairs) {
  if (TestData().empty()) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(TestData() / "tokenizers/ggml-vocab/models")) {
    const fs::path inputs = entry.path().string() + ".inp";
    if (entry.path().extension() != ".gguf" || !fs::exists(inputs)) continue;
    SCOPED_TRACE(entry.path().filename().string());
    auto tokenizer = LoadAny(entry.path());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const std::string text = Slurp(inputs);
    const std::string divider = "\n__ggml_vocab_test__\n";
    std::istringstream outputs(Slurp(entry.path().string() + ".out"));
    size_t begin = 0;
    int pairs = 0;
    for (size_t end = text.find(divider); end != std::string::npos; end = text.find(divider, begin)) {
      std::string line;
      ASSERT_TRUE(std::getline(outputs, line));
      std::istringstream numbers(line);
      std::vector<TokenId> expected{std::istream_iterator<TokenId>(numbers), {}};
      const auto ids = (*tokenizer)->Encode(text.substr(begin, end - begin), {.add_special = false});
      ASSERT_TRUE(ids.ok()) << ids.status().message();
      EXPECT_EQ(*ids, expected) << testing::PrintToString(text.substr(begin, end - begin));
      begin = end + divider.size();
      ++pairs;
    }
    EXPECT_GE(pairs, 40);
    ++compared;
  }
  EXPECT_GE(compared, 10);
}

}  // namespace
}  // namespace kvasir
