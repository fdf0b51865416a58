// What the tokenizers promise beyond parity: options, streaming, errors, time.
#include <chrono>
#include <thread>

#include "base/utf8.h"
#include "io/test_files.h"
#include "text/regex.h"
#include "text/tokenizer_fixtures.h"

namespace kvasir {
namespace {

std::unique_ptr<Tokenizer> Load(const std::string& name) {
  auto tokenizer = LoadAny(TokenizerFixtures() / name);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *std::move(tokenizer);
}

Status LoadError(std::string_view bytes) {
  const auto tokenizer = LoadTokenizerFromBytes(bytes, "file");
  EXPECT_FALSE(tokenizer.ok());
  return tokenizer.status();
}

std::string Json(std::string_view vocab, std::string_view merges, std::string_view more = "") {
  return "{\"model\":{\"type\":\"BPE\",\"vocab\":" + std::string(vocab) + ",\"merges\":" + std::string(merges) + "}" +
         std::string(more) + "}";
}

TEST(Tokenizer, SpecialTokensInLiteralRangesAreText) {
  const auto tokenizer = Load("split_by_three");
  const TokenId eot = *tokenizer->PieceToId("<|eot_id|>");
  const std::string text = "a<|eot_id|>b<|eot_id|>c";
  const auto count = [&](std::vector<ByteRange> literal, bool parse = true) {
    const auto ids = tokenizer->Encode(text, {.add_special = false, .parse_special = parse, .literal = literal});
    EXPECT_TRUE(ids.ok());
    EXPECT_EQ(*tokenizer->Decode(*ids, {.skip_special = false}), text);
    return std::count(ids->begin(), ids->end(), eot);
  };
  EXPECT_EQ(count({}), 2);
  EXPECT_EQ(count({}, false), 0);
  EXPECT_EQ(count({{0, text.size()}}), 0);
  EXPECT_EQ(count({{0, 2}}), 1);    // one byte of the first
  EXPECT_EQ(count({{11, 13}}), 1);  // one byte of the second
  EXPECT_EQ(count({{11, 12}}), 2);  // between them
  EXPECT_EQ(count({{0, 2}, {20, 23}}), 0);
  EXPECT_FALSE(tokenizer->Encode(text, {.literal = std::vector<ByteRange>{{5, 3}}}).ok());
  EXPECT_FALSE(tokenizer->Encode(text, {.literal = std::vector<ByteRange>{{0, 100}}}).ok());
  EXPECT_FALSE(tokenizer->Encode(text, {.literal = std::vector<ByteRange>{{3, 6}, {5, 7}}}).ok());
}

TEST(Tokenizer, LiteralRangesMoveWithReplacedBytes) {
  const auto tokenizer = Load("split_by_three");
  const TokenId eot = *tokenizer->PieceToId("<|eot_id|>");
  const std::string text = "\xff\xff\xff<|eot_id|>";  // each byte becomes three
  const auto literal = tokenizer->Encode(text, {.literal = std::vector<ByteRange>{{0, 3}}});
  EXPECT_EQ(std::count(literal->begin(), literal->end(), eot), 1);
  const auto overlapping = tokenizer->Encode(text, {.literal = std::vector<ByteRange>{{0, 4}}});
  EXPECT_EQ(std::count(overlapping->begin(), overlapping->end(), eot), 0);
}

TEST(Tokenizer, LiteralRangesReachNormalizedSpecialTokens) {
  const std::string file =
      R"({"normalizer":{"type":"Prepend","prepend":"__"},"added_tokens":[{"id":0,"content":"<x>","normalized":true,)"
      R"("special":true}],"model":{"type":"WordLevel","vocab":{"<x>":0,"__<x>":1,"__<x>y<x>":2,"u":3},"unk_token":"u"}})";
  // The normaliser puts its prefix before the token's text too, so that only "__<x>" is looked for.
  const auto tokenizer = LoadTokenizerFromBytes(file, "file");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(*(*tokenizer)->Encode("<x>"), std::vector<TokenId>({0}));
  EXPECT_EQ(*(*tokenizer)->Encode("<x>", {.literal = std::vector<ByteRange>{{2, 3}}}), std::vector<TokenId>({1}));
}

TEST(Tokenizer, RoundTripsText) {
  for (const char* name : {"byte_level", "split_cased", "vocab_merges_one", "ranks", "bpe.gguf", "spm_bpe_no_prefix"}) {
    const auto tokenizer = Load(name);
    for (const std::string text : {"Grüße, 世界! 👩‍🚀\n\tx  y", "", " ", "\n\n"}) {
      const auto ids = tokenizer->Encode(text, {.add_special = false});
      ASSERT_TRUE(ids.ok());
      EXPECT_EQ(*tokenizer->Decode(*ids), text) << name;
    }
  }
}

TEST(Tokenizer, StreamNeverSplitsCharacters) {
  for (const char* name : {"byte_level", "byte_fallback", "unigram", "wordpiece", "spm_bpe"}) {
    const auto tokenizer = Load(name);
    const auto ids = tokenizer->Encode("a 👩‍🚀🫠 é 世界 \u1e9e", {.add_special = false});
    StreamDecoder decoder(*tokenizer);
    for (const TokenId id : *ids) EXPECT_TRUE(IsValidUtf8(*decoder.Push(id))) << name;
    EXPECT_TRUE(IsValidUtf8(decoder.Flush())) << name;
  }
}

TEST(Tokenizer, IncompleteCharactersBecomeReplacements) {
  const auto tokenizer = Load("byte_level");
  auto ids = *tokenizer->Encode("𐀀", {.add_special = false});  // one token per byte
  ASSERT_EQ(ids.size(), 4u);
  ids.pop_back();
  EXPECT_EQ(*tokenizer->Decode(ids), "\uFFFD");
  StreamDecoder decoder(*tokenizer);
  for (const TokenId id : ids) EXPECT_EQ(*decoder.Push(id), "");
  EXPECT_EQ(decoder.Flush(), "\uFFFD");
}

TEST(Tokenizer, UnknownIdsAreErrors) {
  const auto tokenizer = Load("byte_level");
  EXPECT_FALSE(tokenizer->Decode(std::vector<TokenId>{-1}).ok());
  EXPECT_FALSE(tokenizer->Decode(std::vector<TokenId>{tokenizer->vocab().size}).ok());
  EXPECT_EQ(tokenizer->IdToPiece(1 << 30), "");
  EXPECT_EQ(tokenizer->PieceToId("no such piece"), std::nullopt);
}

TEST(Tokenizer, NamesItsSpecialTokens) {
  const auto spm = Load("spm_bpe");
  EXPECT_EQ(spm->vocab().bos, 1);
  EXPECT_EQ(spm->vocab().eos, std::vector<TokenId>({2}));
  EXPECT_EQ(spm->vocab().unk, 0);
  EXPECT_EQ(spm->kind(), "SentencePiece BPE");
  const auto gguf = Load("bpe.gguf");
  EXPECT_EQ(gguf->chat_template(), "{{ bos_token }}");
  EXPECT_EQ(gguf->IdToPiece(gguf->vocab().eos.at(0)), "<|eot_id|>");
  EXPECT_TRUE(gguf->IsSpecial(*gguf->vocab().bos));
  EXPECT_EQ(gguf->kind(), "byte-level BPE");
}

TEST(Tokenizer, TimeIsNearLinear) {
  const std::vector<std::string> names = {"byte_level",  "split_by_three", "split_sequence", "byte_fallback_first",
                                          "unigram",     "wordpiece",      "word_suffix",    "spm_bpe",
                                          "split_cased", "ranks",          "split_threes",   "wordlevel"};
  for (const std::string& name : names) {
    const auto tokenizer = Load(name);
    for (const std::string unit : {"a", "A", " ", "\n", " \t", "😀", "\u0301\u0323", "5", "ab ", "'"}) {
      std::string text;
      const bool long_run = unit == "a" || unit == " " || unit == "😀";
      while (text.size() < (long_run ? 1u << 20 : 1u << 18)) text += unit;
      text += "5";
      const auto start = std::chrono::steady_clock::now();
      const auto ids = tokenizer->Encode(text);
      EXPECT_TRUE(ids.ok()) << ids.status().message();
      // A quadratic step would take minutes; the bound leaves room for sanitizers on a busy machine.
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << name << " " << unit;
    }
  }
}

TEST(Tokenizer, IsThreadSafe) {
  const auto tokenizer = Load("byte_level");
  const auto expected = *tokenizer->Encode("the quick brown fox, 世界 and the others");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) {
        EXPECT_EQ(*tokenizer->Encode("the quick brown fox, 世界 and the others"), expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerErrors, SayWhatIsWrong) {
  EXPECT_FALSE(LoadTokenizer(TokenizerFixtures() / "nowhere").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes("", "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes("{}", "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(std::string(100000, '['), "file").ok());
  EXPECT_NE(LoadError(Json(R"({"a":0,"b":0})", "[]")).message().find("id 0 is given to both"), std::string::npos);
  EXPECT_NE(LoadError(Json(R"({"a":0,"b":1000000000})", "[]")).message().find("1000000000"), std::string::npos);
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0,"b":4000000})", "[]"), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":-1})", "[]"), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0.5})", "[]"), "file").ok());
  EXPECT_NE(LoadError(Json(R"({"a":0})", R"(["a"])")).message().find("merge 0"), std::string::npos);
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0})", R"(["a a"])"), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0})", R"(["a b c"])"), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0})", R"([["a"]])"), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0})", R"([1])"), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(
                   Json(R"({"a":0})", "[]", R"(,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("}})"), "file")
                   .ok());
  EXPECT_FALSE(LoadTokenizerFromBytes(Json(R"({"a":0})", "[]", R"(,"normalizer":{"type":"Nonsense"})"), "file").ok());
  EXPECT_FALSE(
      LoadTokenizerFromBytes(
          Json(R"({"a":0})", "[]", R"(,"normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="})"), "file")
          .ok());
  EXPECT_FALSE(
      LoadTokenizerFromBytes(
          Json(R"({"a":0})", "[]", R"(,"post_processor":{"type":"BertProcessing","cls":["x",9],"sep":["y",9]})"),
          "file")
          .ok());
}

TEST(TokenizerErrors, AGgufFileThatNamesAnUnknownDivisionIsRefusedUnlessAnotherIsGiven) {
  const testing::TempFolder folder;
  const auto ids = [&](std::string_view name, std::string_view pre) -> Result<std::vector<TokenId>> {
    std::string bytes = Slurp(TokenizerFixtures() / "bpe.gguf");
    bytes.replace(bytes.find("llama-bpe"), 9, name);  // of the same length
    ASSIGN_OR_RETURN(const auto file, GgufFile::Open(folder.Write("model.gguf", bytes)));
    ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(*file, pre));
    return tokenizer->Encode("In 12345 they've come");
  };
  const auto original = ids("llama-bpe", "");
  ASSERT_TRUE(original.ok()) << original.status().message();
  const std::string unknown = ids("llama-xyz", "").status().message();
  for (const char* part :
       {"model.gguf", "tokenizer.ggml.pre", "\"llama-xyz\"", "--pre", "llama-bpe, llama-v3", "qwen2"}) {
    EXPECT_NE(unknown.find(part), std::string::npos) << unknown;
  }
  EXPECT_EQ(*ids("llama-xyz", "llama-bpe"), *original);
  EXPECT_NE(*ids("llama-bpe", "gpt-2"), *original);  // what is given comes before what the file says
  EXPECT_NE(ids("llama-bpe", "nonsense").status().message().find("--pre \"nonsense\""), std::string::npos);
  const auto spm = GgufFile::Open(TokenizerFixtures() / "spm.gguf");
  ASSERT_TRUE(spm.ok());
  EXPECT_FALSE(LoadTokenizer(**spm, "llama-bpe").ok());
}

TEST(TokenizerErrors, AGgufFileWithoutADivisionGetsTheDefault) {
  const testing::TempFolder folder;
  std::string bytes = Slurp(TokenizerFixtures() / "bpe.gguf");
  bytes.replace(bytes.find("tokenizer.ggml.pre"), 18, "tokenizer.ggml.xyz");
  const auto file = GgufFile::Open(folder.Write("old.gguf", bytes));
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto tokenizer = LoadTokenizer(**file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const auto given = LoadTokenizer(**file, "default");
  ASSERT_TRUE(given.ok()) << given.status().message();
  const std::string text = "In 12345 they've come";
  EXPECT_EQ(*(*tokenizer)->Encode(text), *(*given)->Encode(text));
}

TEST(TokenizerErrors, TruncatedModelsAreRefusedOrSmaller) {
  const std::string whole = Slurp(TokenizerFixtures() / "spm_bpe" / "tokenizer.model");
  for (size_t size = 0; size < whole.size(); size += 97) {
    const auto tokenizer = LoadTokenizerFromBytes(std::string_view(whole).substr(0, size), "file");
    if (tokenizer.ok()) (void)(*tokenizer)->Encode("some text");  // cut between two pieces
  }
  EXPECT_FALSE(LoadTokenizerFromBytes(std::string_view(whole).substr(0, 1001), "file").ok());
  EXPECT_FALSE(
      LoadTokenizerFromBytes(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12), "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes("YQ== 0\nYQ== 1\n", "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes("YQ== 0\nYg== 99999999999\n", "file").ok());
  EXPECT_FALSE(LoadTokenizerFromBytes("YQ== 0\nYg= 1\n", "file").ok());
}

TEST(RubyRegex, TranslatesTheDialect) {
  const auto matches = [](std::string_view pattern, std::string_view text) {
    const auto regex = Regex::Compile(pattern);
    EXPECT_TRUE(regex.ok()) << regex.status().message();
    std::vector<Span> found;
    EXPECT_TRUE(regex->FindAll(text, &found).ok());
    std::string all;
    for (const Span span : found) all += "[" + std::string(text.substr(span.begin, span.end - span.begin)) + "]";
    return all;
  };
  EXPECT_EQ(matches(R"(\s)", "\u180e \u0085"), "[ ][\u0085]");
  EXPECT_EQ(matches(R"(\h+)", "xafg"), "[af]");
  EXPECT_EQ(matches(R"([^(\s|[.,])]+)", "a.b(c) d"), "[a][b][c][d]");
  EXPECT_EQ(matches(R"([\w&&[^\d]]+)", "ab1c"), "[ab][c]");
  EXPECT_EQ(matches(R"(a{,2}b)", "aaab"), "[aab]");
  EXPECT_EQ(matches(R"(a{1,2}+)", "aaaaa"), "[aaaaa]");  // not possessive: two quantifiers
  EXPECT_EQ(matches(R"((?m:.)+)", "a\nb"), "[a\nb]");
  EXPECT_EQ(matches(R"(.+)", "a\nb"), "[a][b]");
  EXPECT_EQ(matches(R"(^.)", "a\nb"), "[a][b]");
  EXPECT_EQ(matches(R"([\W_]+)", "a_-b"), "[_-]");
  EXPECT_EQ(matches(R"(\s+$)", "a  b  "), "[  ]");
  EXPECT_EQ(matches(R"(\p{Han}+)", "漢、字"), "[漢][字]");
  for (const char* bad : {"(", "[a", "\\", "(*ACCEPT)", "(?R)", "\\1", "[b-a]", "\\p{Nonsense}", "(?<n>a)\\k<n>"}) {
    EXPECT_FALSE(Regex::Compile(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace kvasir
