// Sessions saved to files and loaded again, whole and damaged.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/test_paths.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using testing::LoadOrDie;

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    std::string name = (std::filesystem::temp_directory_path() / "kvasir-session-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    folder_ = name;
    file_ = folder_ / "session";
  }
  ~SessionTest() override { std::filesystem::remove_all(folder_); }

  static EngineOptions Options() {
    EngineOptions options;
    options.model = std::filesystem::path(kSourceTree) / "models/demo";
    options.threads = 2;
    options.max_sequences = 1;
    return options;
  }
  static GenerationOutput Run(Engine& engine, std::vector<TokenId> prompt, int32_t count) {
    GenerationRequest request = testing::Request(std::move(prompt), count);
    request.keep = true;
    auto output = engine.Generate(request);
    EXPECT_TRUE(output.ok()) << output.status().message();
    return output.ok() ? *std::move(output) : GenerationOutput{};
  }
  static std::vector<TokenId> Prompt(int32_t count) {
    std::vector<TokenId> tokens(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + 11) % 4000;
    return tokens;
  }
  static std::vector<TokenId> Joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

  std::string Read() const {
    std::ifstream in(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void Write(const std::string& content) const { std::ofstream(file_, std::ios::binary | std::ios::trunc) << content; }
  /// With the checksum that its bytes have.
  void WriteSummed(std::string content) const {
    const uint64_t sum = XXH3_64bits(content.data(), content.size() - 8);
    std::memcpy(content.data() + content.size() - 8, &sum, 8);
    Write(content);
  }

  std::filesystem::path folder_;
  std::filesystem::path file_;
};

TEST_F(SessionTest, AnotherEngineGoesOnIdenticallyInEveryTypeAndCache) {
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4}) {
    for (const CachePolicy& cache : {CachePolicy{}, CachePolicy{CacheMode::kStatic}, CachePolicy{CacheMode::kPaged},
                                     CachePolicy{CacheMode::kPaged, {}, 48}}) {
      for (const int32_t length : {1, 20, 127, 128, 129, 170}) {
        EngineOptions options = Options();
        options.kv_type = type;
        options.cache = cache;
        const auto engine = LoadOrDie(options);
        const auto first = Run(*engine, Prompt(length), 9).samples[0].token_ids;
        ASSERT_TRUE(engine->SaveSession(file_, "a note").ok());
        const auto prompt = Joined(Joined(Prompt(length), first), {5, 6, 7});
        const auto expected = Run(*engine, prompt, 20);

        const auto other = LoadOrDie(options);
        Run(*other, {1, 2, 3}, 4);  // forgotten
        const auto note = other->LoadSession(file_);
        ASSERT_TRUE(note.ok()) << note.status().message();
        EXPECT_EQ(*note, "a note");
        const auto got = Run(*other, prompt, 20);
        EXPECT_EQ(got.samples[0].token_ids, expected.samples[0].token_ids) << KvTypeName(type) << " " << length;
        EXPECT_EQ(got.timings.cached_tokens, expected.timings.cached_tokens);
        EXPECT_EQ(got.timings.cached_tokens, length + 8);  // the newest token was not run
      }
    }
  }
}

TEST_F(SessionTest, DamageIsFoundAndChangesNothing) {
  const auto engine = LoadOrDie(Options());
  const auto first = Run(*engine, Prompt(30), 5).samples[0].token_ids;
  ASSERT_TRUE(engine->SaveSession(file_).ok());
  const std::string whole = Read();
  const auto refused = [&](const char* says, StatusCode code) {
    const auto loaded = engine->LoadSession(file_);
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.status().code(), code) << loaded.status().message();
    EXPECT_THAT(loaded.status().message(), HasSubstr(says));
    EXPECT_THAT(loaded.status().message(), HasSubstr(file_.string()));
  };
  for (size_t size = 0; size < whole.size(); size += size < 400 ? 1 : 4099) {
    Write(whole.substr(0, size));
    ASSERT_FALSE(engine->LoadSession(file_).ok()) << size;
  }
  for (size_t at = 0; at < whole.size(); at += at < 400 ? 1 : 997) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
    Write(flipped);
    ASSERT_FALSE(engine->LoadSession(file_).ok()) << at;
  }
  Write(whole + "x");
  refused("do not hold", StatusCode::kInvalidData);
  Write("");
  refused("no session file", StatusCode::kInvalidData);
  const auto with = [&](size_t at, uint64_t value, size_t bytes) {
    std::string changed = whole;
    std::memcpy(changed.data() + at, &value, bytes);
    WriteSummed(changed);
  };
  with(8, 2, 4);
  refused("of version 2; this program reads version 1", StatusCode::kInvalidArgument);
  for (const size_t at : {16, 24, 32, 40, 48, 56}) {
    for (const uint64_t huge : {uint64_t{1} << 31, uint64_t{1} << 40, ~uint64_t{0}, uint64_t{1} << 63}) {
      with(at, huge, 8);
      ASSERT_FALSE(engine->LoadSession(file_).ok()) << at << " " << huge;
    }
  }
  const size_t identity = 64;
  with(identity + 6, 'z', 1);
  refused("was saved with model z", StatusCode::kInvalidArgument);
  std::string other = whole;
  const size_t tokens = 64 + *reinterpret_cast<const uint64_t*>(whole.data() + 16);
  const int32_t beyond = 4096;
  std::memcpy(other.data() + tokens, &beyond, 4);
  WriteSummed(other);
  refused("token 4096", StatusCode::kInvalidData);
  // The kept sequence is still there.
  EXPECT_EQ(Run(*engine, Joined(Prompt(30), first), 1).timings.cached_tokens, 34);
}

TEST_F(SessionTest, ValuesBehindTheLastTokenAreNotTakenOver) {
  EngineOptions options = Options();
  options.kv_type = KvType::kF32;
  const auto engine = LoadOrDie(options);
  const auto first = Run(*engine, Prompt(20), 3).samples[0].token_ids;
  ASSERT_TRUE(engine->SaveSession(file_).ok());
  const auto prompt = Joined(Prompt(20), first);
  const auto expected = Run(*engine, prompt, 10).samples[0].token_ids;
  // NaN wherever the file has zeros, which are the values of slots that nothing was written to.
  std::string content = Read();
  const size_t begin = content.size() - 8 - 6 * 2 * 2 * 32 * 4 * 128;
  for (size_t at = begin; at + 4 <= content.size() - 8; at += 4) {
    uint32_t word;
    std::memcpy(&word, content.data() + at, 4);
    const uint32_t nan = 0x7fc00000;
    if (word == 0) std::memcpy(content.data() + at, &nan, 4);
  }
  WriteSummed(content);
  ASSERT_TRUE(engine->LoadSession(file_).ok());
  EXPECT_EQ(Run(*engine, prompt, 10).samples[0].token_ids, expected);
}

TEST_F(SessionTest, OtherSettingsLinksAndPipesAreRefused) {
  const auto engine = LoadOrDie(Options());
  ASSERT_TRUE(engine->SaveSession(file_, "no tokens").ok());
  EXPECT_EQ(*engine->LoadSession(file_), "no tokens");
  Run(*engine, Prompt(30), 5);
  ASSERT_TRUE(engine->SaveSession(file_).ok());
  EngineOptions options = Options();
  options.kv_type = KvType::kI8;
  EXPECT_THAT(LoadOrDie(options)->LoadSession(file_).status().message(), HasSubstr("KV cache bf16"));
  options = Options();
  options.weights = DType::kInt8;
  EXPECT_FALSE(LoadOrDie(options)->LoadSession(file_).ok());
  options = Options();
  options.attention = {.pattern = AttentionPattern::kLocal, .k = 7};
  EXPECT_FALSE(LoadOrDie(options)->LoadSession(file_).ok());
  options = Options();
  options.cache = {CacheMode::kPaged, {}, 16};
  const auto status = LoadOrDie(options)->LoadSession(file_).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("saved in blocks of 128 tokens, but those of this cache have 16"));
  options = Options();
  options.context = 20;
  EXPECT_THAT(LoadOrDie(options)->LoadSession(file_).status().message(), HasSubstr("larger -c"));
  for (const CachePolicy& policy : {CachePolicy{CacheMode::kNone}, CachePolicy{CacheMode::kWindow, {.tokens = 64}},
                                    CachePolicy{CacheMode::kSink, {.tokens = 64, .sinks = 4}},
                                    CachePolicy{CacheMode::kRecompute, {.tokens = 64}}}) {
    options = Options();
    options.cache = policy;
    const auto other = LoadOrDie(options);
    EXPECT_EQ(other->CheckSessions().code(), StatusCode::kUnsupported);
    EXPECT_EQ(other->LoadSession(file_).status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(other->SaveSession(file_).code(), StatusCode::kUnsupported);
  }
  const auto link = folder_ / "link";
  std::filesystem::create_symlink(file_, link);
  EXPECT_THAT(engine->LoadSession(link).status().message(), HasSubstr("symbolic link"));
  const auto pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(engine->LoadSession(pipe).status().message(), HasSubstr("no plain file"));
  EXPECT_THAT(engine->LoadSession(folder_).status().message(), HasSubstr("no plain file"));
  EXPECT_EQ(engine->LoadSession(folder_ / "nothing").status().code(), StatusCode::kIoError);
  EXPECT_FALSE(engine->SaveSession(folder_ / "no" / "folder").ok());
}

}  // namespace
}  // namespace kvasir
