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

  static EngineOptions Options(const CachePolicy& cache = {}) {
    EngineOptions options;
    options.model = std::filesystem::path(kSourceTree) / "models/demo";
    options.threads = 2;
    options.max_sequences = 1;
    options.cache = cache;
    return options;
  }
  static EngineOptions FixtureOptions(const std::string& model, const CachePolicy& cache) {
    EngineOptions options = Options(cache);
    options.model = std::filesystem::path(kFixtures) / "models" / model;
    options.load_tokenizer = false;
    return options;
  }
  static GenerationOutput Run(Engine& engine, std::vector<TokenId> prompt, int32_t count) {
    GenerationRequest request = testing::Request(std::move(prompt), count);
    request.keep = true;
    auto output = engine.Generate(request);
    EXPECT_TRUE(output.ok()) << output.status().message();
    return output.ok() ? *std::move(output) : GenerationOutput{};
  }
  static std::vector<TokenId> Prompt(int32_t count, int32_t vocab = 4000) {
    std::vector<TokenId> tokens(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + 11) % vocab;
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
  uint32_t VersionOfFile() const {
    uint32_t version = 0;
    std::memcpy(&version, Read().data() + 8, 4);
    return version;
  }
  void Write(const std::string& content) const { std::ofstream(file_, std::ios::binary | std::ios::trunc) << content; }
  /// With the checksum that its bytes have.
  void WriteSummed(std::string content) const {
    const uint64_t sum = XXH3_64bits(content.data(), content.size() - 8);
    std::memcpy(content.data() + content.size() - 8, &sum, 8);
    Write(content);
  }

  /// What an engine writes after a text of `length` tokens and nine of its own is the same to the bit whether it goes
  /// on itself or another one takes its session over.
  void ExpectTheSameFromAnother(Engine& engine, Engine& other, int32_t length) const {
    const std::string what =
        fmt::format("{} {} {}", engine.options().model.filename().string(), engine.options().cache.Text(), length);
    const int32_t vocab = std::min<int32_t>(engine.model().spec().vocab_size - 1, 4000);
    engine.DropKept();
    const auto first = Run(engine, Prompt(length, vocab), 9).samples[0].token_ids;
    ASSERT_TRUE(engine.SaveSession(file_, "a note").ok()) << what;
    const auto prompt = Joined(Joined(Prompt(length, vocab), first), {5, 6, 7});
    const auto expected = Run(engine, prompt, 20);
    Run(other, {1, 2, 3}, 4);  // forgotten
    const auto note = other.LoadSession(file_);
    ASSERT_TRUE(note.ok()) << what << ": " << note.status().message();
    EXPECT_EQ(*note, "a note");
    const auto got = Run(other, prompt, 20);
    EXPECT_EQ(got.samples[0].token_ids, expected.samples[0].token_ids) << what;
    EXPECT_EQ(got.samples[0].logprobs, expected.samples[0].logprobs) << what;
    EXPECT_EQ(got.timings.cached_tokens, expected.timings.cached_tokens) << what;
    // The newest token was not run.
    EXPECT_EQ(got.timings.cached_tokens, engine.options().cache.Recomputes() ? 0 : length + 8) << what;
  }

  std::filesystem::path folder_;
  std::filesystem::path file_;
};

const CachePolicy kWindow = {CacheMode::kWindow, {.tokens = 40}};
const CachePolicy kSink = {CacheMode::kSink, {.tokens = 40, .sinks = 4}};
const CachePolicy kRecompute = {CacheMode::kRecompute, {.tokens = 40}};

TEST_F(SessionTest, AnotherEngineGoesOnIdenticallyInEveryTypeAndCache) {
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4}) {
    for (const CachePolicy& cache : {CachePolicy{}, CachePolicy{CacheMode::kStatic}, CachePolicy{CacheMode::kPaged},
                                     CachePolicy{CacheMode::kPaged, {}, 48}}) {
      EngineOptions options = Options(cache);
      options.kv_type = type;
      for (const int32_t length : {1, 20, 127, 128, 129, 170}) {
        ExpectTheSameFromAnother(*LoadOrDie(options), *LoadOrDie(options), length);
        if (HasFatalFailure()) FAIL() << KvTypeName(type);
      }
      EXPECT_EQ(VersionOfFile(), 1u);  // which other programs of this kind read
    }
  }
}

TEST_F(SessionTest, CachesThatForgetGoOnIdentically) {
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4}) {
    for (const CachePolicy& cache : {kWindow, kSink, CachePolicy{CacheMode::kSink, {.tokens = 300, .sinks = 130}}}) {
      EngineOptions options = Options(cache);
      options.kv_type = type;
      const auto engine = LoadOrDie(options);
      const auto other = LoadOrDie(options);
      // With the answer's eight tokens: sinks not all there, nothing dropped, full to the last slot, one dropped, many.
      const auto full = static_cast<int32_t>(cache.bound.tokens) - 8;
      for (const int32_t length : {1, 20, full - 1, full, full + 1, 5 * full}) {
        ExpectTheSameFromAnother(*engine, *other, length);
        if (HasFatalFailure()) FAIL() << KvTypeName(type);
      }
      EXPECT_EQ(VersionOfFile(), 2u);
    }
  }
  // Positions that nothing is rotated by, and a table of them.
  for (const auto& [model, cache] : {std::pair("bloom", kSink), std::pair("gpt2", kWindow), std::pair("llama", kSink),
                                     std::pair("llama", kRecompute)}) {
    const auto engine = LoadOrDie(FixtureOptions(model, cache));
    const auto other = LoadOrDie(FixtureOptions(model, cache));
    for (const int32_t length : {1, 20, 45}) ExpectTheSameFromAnother(*engine, *other, length);
  }
}

TEST_F(SessionTest, SessionsOfSessionsGoOn) {
  // A conversation whose every turn another process has.
  for (const CachePolicy& cache : {kWindow, kSink}) {
    const auto whole = LoadOrDie(Options(cache));
    std::vector<TokenId> text = Prompt(25);
    for (int turn = 0; turn < 4; ++turn) {
      const auto expected = Run(*whole, text, 11).samples[0];
      const auto engine = LoadOrDie(Options(cache));
      if (turn > 0) {
        const auto loaded = engine->LoadSession(file_);
        ASSERT_TRUE(loaded.ok()) << loaded.status().message();
      }
      const auto got = Run(*engine, text, 11).samples[0];
      EXPECT_EQ(got.token_ids, expected.token_ids) << turn;
      EXPECT_EQ(got.logprobs, expected.logprobs) << turn;
      ASSERT_TRUE(engine->SaveSession(file_).ok());
      text = Joined(Joined(text, got.token_ids), {9, 8, 7});
    }
  }
}

TEST_F(SessionTest, WhatIsComputedAgainKeepsNothingButItsTokens) {
  const auto engine = LoadOrDie(Options(kRecompute));
  for (const int32_t length : {12, 100}) {
    Run(*engine, Prompt(length), 9);
    ASSERT_TRUE(engine->SaveSession(file_, "note").ok());
    const std::string content = Read();
    const size_t identity = *reinterpret_cast<const uint64_t*>(content.data() + 16);
    EXPECT_EQ(content.size(), 64 + 24 + identity + 4 * std::min<size_t>(static_cast<size_t>(length) + 9, 40) + 4 + 8);
    // They outlive a process that only loads them.
    const auto other = LoadOrDie(Options(kRecompute));
    ASSERT_TRUE(other->LoadSession(file_).ok());
    ASSERT_TRUE(other->SaveSession(file_, "note").ok());
    EXPECT_EQ(Read(), content);
  }
}

TEST_F(SessionTest, DamageIsFoundAndChangesNothing) {
  for (const CachePolicy& cache : {CachePolicy{}, kWindow, kSink, kRecompute}) {
    // Before and after tokens were dropped.
    for (const int32_t length : {30, 50}) {
      if (cache.bound.tokens == 0 && length > 30) continue;
      SCOPED_TRACE(fmt::format("{} {}", cache.Text(), length));
      const auto engine = LoadOrDie(Options(cache));
      const auto first = Run(*engine, Prompt(length), 5).samples[0].token_ids;
      ASSERT_TRUE(engine->SaveSession(file_).ok());
      const std::string whole = Read();
      const bool bounded = cache.bound.tokens > 0;
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
      for (size_t at = 0; at < whole.size(); at += at < 400 ? 1 : bounded ? 8009 : 997) {
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
      with(8, 3, 4);
      refused("of version 3; this program reads versions 1 and 2", StatusCode::kInvalidArgument);
      with(8, 0, 4);
      refused("of version 0", StatusCode::kInvalidArgument);
      std::vector<size_t> counts = {16, 24, 32, 40, 48, 56};
      if (bounded) counts.insert(counts.end(), {64, 72, 80});
      for (const size_t at : counts) {
        for (const uint64_t huge : {uint64_t{1} << 31, uint64_t{1} << 40, ~uint64_t{0}, uint64_t{1} << 63}) {
          with(at, huge, 8);
          ASSERT_FALSE(engine->LoadSession(file_).ok()) << at << " " << huge;
        }
      }
      const size_t identity = bounded ? 88 : 64;
      with(identity + 6, 'z', 1);
      refused("was saved with model z", StatusCode::kInvalidArgument);
      std::string other = whole;
      const size_t tokens = identity + *reinterpret_cast<const uint64_t*>(whole.data() + 16);
      const int32_t beyond = 4096;
      std::memcpy(other.data() + tokens, &beyond, 4);
      WriteSummed(other);
      refused("token 4096", StatusCode::kInvalidData);
      // The kept sequence is still there.
      const auto cached = Run(*engine, Joined(Prompt(length), first), 1).timings.cached_tokens;
      EXPECT_EQ(cached, cache.Recomputes() ? 0 : length + 4);
    }
  }
}

TEST_F(SessionTest, StatesThatNoCacheIsInAreRefused) {
  for (const CachePolicy& cache : {kWindow, kSink, kRecompute}) {
    const auto engine = LoadOrDie(Options(cache));
    // Of 34 tokens with keys none is dropped, of 54 14 are; four more are sinks.
    for (const int32_t length : {30, 50}) {
      Run(*engine, Prompt(length), 5);
      ASSERT_TRUE(engine->SaveSession(file_).ok());
      const std::string whole = Read();
      const auto state = [&](uint64_t next, uint64_t dropped, uint64_t in_place) {
        std::string changed = whole;
        const uint64_t place[] = {next, dropped, in_place};
        std::memcpy(changed.data() + 64, place, sizeof(place));
        WriteSummed(changed);
        return engine->LoadSession(file_).status();
      };
      const uint64_t next = cache.Recomputes() ? 0 : static_cast<uint64_t>(length) + 4;
      const uint64_t dropped = next > 40 ? next - 40 : 0;
      const auto sinks = static_cast<uint64_t>(cache.bound.sinks);
      ASSERT_TRUE(state(next, dropped, 1).ok()) << cache.Text();
      for (const auto& [n, d, in_place] :
           std::initializer_list<std::tuple<uint64_t, uint64_t, uint64_t>>{{next + 1, dropped, 1},
                                                                           {next - 1, dropped, 1},
                                                                           {next, next - sinks + 1, 1},
                                                                           {next, dropped - 1, 1},
                                                                           {next, next + 1, 1},
                                                                           {next, dropped, 2}}) {
        const Status status = state(n, d, in_place);
        EXPECT_EQ(status.code(), StatusCode::kInvalidData) << cache.Text() << " " << n << " " << d << " " << in_place;
        EXPECT_THAT(status.message(), HasSubstr("is damaged"));
      }
      EXPECT_EQ(state(next, dropped, 0).ok(), sinks > 0 && dropped > 0);
    }
  }
}

TEST_F(SessionTest, ValuesBehindTheLastTokenAreNotTakenOver) {
  for (const CachePolicy& cache : {CachePolicy{}, kWindow, kSink}) {
    EngineOptions options = Options(cache);
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
    EXPECT_EQ(Run(*engine, prompt, 10).samples[0].token_ids, expected) << cache.Text();
  }
}

TEST_F(SessionTest, SessionsAreOfOneKindOfCacheAndItsBounds) {
  const CachePolicy policies[] = {{},
                                  kWindow,
                                  kSink,
                                  kRecompute,
                                  {CacheMode::kWindow, {.tokens = 41}},
                                  {CacheMode::kSink, {.tokens = 41, .sinks = 4}},
                                  {CacheMode::kSink, {.tokens = 40, .sinks = 5}}};
  for (const CachePolicy& saved : policies) {
    const auto engine = LoadOrDie(Options(saved));
    Run(*engine, Prompt(20), 5);
    ASSERT_TRUE(engine->SaveSession(file_).ok());
    for (const CachePolicy& policy : policies) {
      const auto other = LoadOrDie(Options(policy));
      const Status status = other->LoadSession(file_).status();
      if (policy.Text() == saved.Text()) {
        EXPECT_TRUE(status.ok()) << status.message();
        continue;
      }
      EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
      for (const CachePolicy& named : {saved, policy}) {
        if (named.bound.tokens == 0) continue;
        EXPECT_THAT(status.message(), HasSubstr("cache " + named.Text()));
      }
    }
  }
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
  const auto none = LoadOrDie(Options({CacheMode::kNone}));
  EXPECT_EQ(none->CheckSessions().code(), StatusCode::kUnsupported);
  EXPECT_EQ(none->LoadSession(file_).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(none->SaveSession(file_).code(), StatusCode::kUnsupported);
  const auto link = folder_ / "link";
  std::filesystem::create_symlink(file_, link);
  EXPECT_THAT(engine->LoadSession(link).status().message(), HasSubstr("symbolic link"));
  EXPECT_THAT(LoadOrDie(Options(kSink))->LoadSession(link).status().message(), HasSubstr("symbolic link"));
  const auto pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(engine->LoadSession(pipe).status().message(), HasSubstr("no plain file"));
  EXPECT_THAT(engine->LoadSession(folder_).status().message(), HasSubstr("no plain file"));
  EXPECT_EQ(engine->LoadSession(folder_ / "nothing").status().code(), StatusCode::kIoError);
  EXPECT_FALSE(engine->SaveSession(folder_ / "no" / "folder").ok());
}

}  // namespace
}  // namespace kvasir
