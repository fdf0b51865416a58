// Logits and greedy tokens of every fixture: with and without a cache, the prompt in one piece and in pieces, alone and
// in a ragged batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "fixture.h"

namespace kvasir::parity {
namespace {

class Parity : public ::testing::TestWithParam<Fixture> {
 protected:
  void SetUp() override {
    auto expected = LoadExpected(GetParam().folder);
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    expected_ = *std::move(expected);
    auto model = Model::Load(GetParam().model, {}, runtime_.pool());
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = *std::move(model);
    planned_length_ = static_cast<int64_t>(expected_.prompt.size() + expected_.greedy.size());
  }

  std::unique_ptr<KvCache> NewCache(CacheKind kind = CacheKind::kDynamic, int64_t sequences = 1, int64_t more = 0) {
    auto cache = MakeKvCache(kind, {.layers = model_->kv_shapes(),
                                    .type = KvType::kF32,
                                    .max_tokens = planned_length_ + more,
                                    .max_sequences = sequences});
    KVASIR_CHECK(cache.ok());
    return *std::move(cache);
  }

  /// Runs `tokens` after what the sequence holds, commits them and returns the logits of `rows`.
  std::vector<float> Run(KvCache& cache, SeqId seq, std::span<const int32_t> tokens, const std::vector<int32_t>& rows) {
    ForwardBatch batch;
    batch.tokens.assign(tokens.begin(), tokens.end());
    batch.sequences.push_back(
        {.seq = seq, .count = static_cast<int32_t>(tokens.size()), .planned_length = planned_length_});
    auto logits = Step(*model_, runtime_, cache, batch, rows);
    EXPECT_TRUE(logits.ok()) << logits.status().message();
    if (!logits.ok()) return {};
    cache.Commit(seq, static_cast<int64_t>(tokens.size()));
    return *std::move(logits);
  }

  std::vector<float> ExpectedRow(int32_t position) const {
    const auto row = std::find(expected_.rows.begin(), expected_.rows.end(), position) - expected_.rows.begin();
    const auto begin = expected_.logits.begin() + row * expected_.vocabulary;
    return {begin, begin + expected_.vocabulary};
  }

  void ExpectLogits(std::span<const float> got, std::span<const float> want, const char* what) {
    const float error = RelativeError(got, want, expected_.LargestLogit());
    RecordProperty(what, std::to_string(error));
    EXPECT_LE(error, Tolerance(*model_)) << what;
  }

  static int32_t ArgMax(std::span<const float> logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }

  /// The greedy continuation of the prompt, fed in pieces of these sizes (the rest in one), then token by token.
  std::vector<int32_t> Generate(CacheKind kind, std::vector<size_t> pieces) {
    auto cache = NewCache(kind);
    const SeqId seq = *cache->Create();
    std::span<const int32_t> left = expected_.prompt;
    std::vector<float> logits;
    pieces.push_back(left.size());
    for (size_t piece : pieces) {
      piece = std::min(piece, left.size());
      if (piece == 0) continue;
      logits = Run(*cache, seq, left.first(piece), {static_cast<int32_t>(piece) - 1});
      left = left.subspan(piece);
    }
    std::vector<int32_t> generated = {ArgMax(logits)};
    while (generated.size() < expected_.greedy.size()) {
      logits = Run(*cache, seq, std::span(generated).last(1), {0});
      generated.push_back(ArgMax(logits));
    }
    return generated;
  }

  Runtime runtime_;
  Expected expected_;
  std::unique_ptr<Model> model_;
  int64_t planned_length_ = 0;
};

TEST_P(Parity, LogitsInOnePiece) {
  auto cache = NewCache();
  ExpectLogits(Run(*cache, *cache->Create(), expected_.AllTokens(), expected_.rows), expected_.logits, "one piece");
}

TEST_P(Parity, LogitsOfBlockTypesInFp32) {
  if (!HasBlockTypes(*model_)) return;
  auto model = Model::Load(GetParam().model, {.dtype = DType::kF32}, runtime_.pool());
  ASSERT_TRUE(model.ok()) << model.status().message();
  model_ = *std::move(model);
  auto cache = NewCache();
  ExpectLogits(Run(*cache, *cache->Create(), expected_.AllTokens(), expected_.rows), expected_.logits, "in fp32");
}

TEST_P(Parity, LogitsInPieces) {
  auto cache = NewCache();
  const SeqId seq = *cache->Create();
  const std::vector<int32_t> tokens = expected_.AllTokens();
  std::span<const int32_t> left = tokens;
  std::vector<float> got;
  // Piece sizes around the tile of 16 tokens, and single tokens.
  for (size_t piece : {size_t{1}, size_t{2}, size_t{13}, size_t{1}, size_t{16}, size_t{7}, tokens.size()}) {
    piece = std::min(piece, left.size());
    const int32_t first = static_cast<int32_t>(tokens.size() - left.size());
    std::vector<int32_t> rows;
    for (int32_t row : expected_.rows) {
      if (row >= first && row < first + static_cast<int32_t>(piece)) rows.push_back(row - first);
    }
    const std::vector<float> logits = Run(*cache, seq, left.first(piece), rows);
    got.insert(got.end(), logits.begin(), logits.end());
    left = left.subspan(piece);
  }
  ExpectLogits(got, expected_.logits, "pieces");
}

TEST_P(Parity, LogitsInARaggedBatch) {
  // Prefixes that end at rows whose logits are known, in one step, and again behind prefixes of different lengths.
  const std::vector<int32_t> tokens = expected_.AllTokens();
  const std::vector<int32_t> last_rows = {16, 5, 47, 27};
  const std::vector<int32_t> cached = {11, 0, 1, 26};
  auto cache = NewCache(CacheKind::kDynamic, 4);
  ForwardBatch batch;
  std::vector<int32_t> rows;
  for (size_t i = 0; i < last_rows.size(); ++i) {
    const SeqId seq = *cache->Create();
    if (cached[i] > 0) Run(*cache, seq, std::span(tokens).first(static_cast<size_t>(cached[i])), {});
    const int32_t count = last_rows[i] + 1 - cached[i];
    batch.sequences.push_back({.seq = seq,
                               .first_token = static_cast<int32_t>(batch.tokens.size()),
                               .count = count,
                               .planned_length = planned_length_});
    batch.tokens.insert(batch.tokens.end(), tokens.begin() + cached[i], tokens.begin() + last_rows[i] + 1);
    rows.push_back(static_cast<int32_t>(batch.tokens.size()) - 1);
  }
  auto logits = Step(*model_, runtime_, *cache, batch, rows);
  ASSERT_TRUE(logits.ok()) << logits.status().message();
  for (size_t i = 0; i < last_rows.size(); ++i) {
    const size_t vocabulary = static_cast<size_t>(expected_.vocabulary);
    ExpectLogits(std::span(*logits).subspan(i * vocabulary, vocabulary), ExpectedRow(last_rows[i]), "ragged");
  }
}

TEST_P(Parity, LogitsInATree) {
  // The text from some token on, each of its tokens beside a wrong one with a child of its own; then the right path is
  // kept and the rest follows.
  constexpr int32_t kText = 21;
  constexpr int32_t kGuessed = 12;
  const std::vector<int32_t> tokens = expected_.AllTokens();
  auto cache = NewCache(CacheKind::kDynamic, 1, 3 * kGuessed);
  const SeqId seq = *cache->Create();
  Run(*cache, seq, std::span(tokens).first(kText), {});
  ForwardBatch batch;
  std::vector<int32_t> path;
  for (int32_t i = 0; i < kGuessed; ++i) {
    const int32_t parent = path.empty() ? -1 : path.back();
    const int32_t right = tokens[kText + i];
    const auto first = static_cast<int32_t>(batch.tokens.size());
    for (const int32_t id : {right + 1, right, right + 2}) {
      batch.tokens.push_back(id % static_cast<int32_t>(expected_.vocabulary));
    }
    batch.parents.insert(batch.parents.end(), {parent, parent, first});
    path.push_back(first + 1);
  }
  const auto count = static_cast<int32_t>(batch.tokens.size());
  batch.sequences.push_back({.seq = seq, .count = count, .planned_length = planned_length_});
  const auto logits = Step(*model_, runtime_, *cache, batch, path);
  ASSERT_TRUE(logits.ok()) << logits.status().message();
  const auto vocabulary = static_cast<size_t>(expected_.vocabulary);
  for (const int32_t row : expected_.rows) {
    if (row < kText || row >= kText + kGuessed) continue;
    const auto at = static_cast<size_t>(row - kText) * vocabulary;
    ExpectLogits(std::span(*logits).subspan(at, vocabulary), ExpectedRow(row), "tree");
  }
  cache->CommitSlots(seq, path);
  EXPECT_EQ(cache->NextPosition(seq), kText + kGuessed);
  const auto rest = std::span(tokens).subspan(kText + kGuessed);
  const int32_t last = expected_.rows.back();
  ASSERT_GE(last, kText + kGuessed);
  ExpectLogits(Run(*cache, seq, rest, {last - kText - kGuessed}), ExpectedRow(last), "behind the tree");
}

TEST_P(Parity, TreesThatAreNoneAreRefused) {
  auto cache = NewCache();
  const SeqId seq = *cache->Create();
  for (const std::vector<int32_t>& parents :
       {std::vector<int32_t>{-1, 1}, {0, 0}, {-2, 0}, {-1}, {-1, 0, 1}, {-1, 1 << 30}}) {
    const ForwardBatch batch{
        .tokens = {1, 2}, .sequences = {{.seq = seq, .count = 2}}, .parents = parents, .output_rows = {}};
    EXPECT_EQ(Step(*model_, runtime_, *cache, batch, {1}).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST_P(Parity, GreedyTokensWithDynamicCache) { EXPECT_EQ(Generate(CacheKind::kDynamic, {}), expected_.greedy); }

TEST_P(Parity, GreedyTokensWithStaticCachePromptInPieces) {
  EXPECT_EQ(Generate(CacheKind::kStatic, {1, 5, 16}), expected_.greedy);
}

TEST_P(Parity, GreedyTokensWithoutCache) {
  std::vector<int32_t> tokens = expected_.prompt;
  std::vector<int32_t> generated;
  while (generated.size() < expected_.greedy.size()) {
    auto cache = NewCache();
    const std::vector<float> logits = Run(*cache, *cache->Create(), tokens, {static_cast<int32_t>(tokens.size()) - 1});
    generated.push_back(ArgMax(logits));
    tokens.push_back(generated.back());
  }
  EXPECT_EQ(generated, expected_.greedy);
}

TEST_P(Parity, PlainAttentionAgrees) {
  auto cache = NewCache();
  ForwardBatch batch{.tokens = expected_.AllTokens(), .attention = {.plain = true}};
  batch.sequences.push_back(
      {.seq = *cache->Create(), .count = static_cast<int32_t>(batch.tokens.size()), .planned_length = planned_length_});
  auto logits = Step(*model_, runtime_, *cache, batch, expected_.rows);
  ASSERT_TRUE(logits.ok()) << logits.status().message();
  ExpectLogits(*logits, expected_.logits, "plain attention");
}

INSTANTIATE_TEST_SUITE_P(Models, Parity, ::testing::ValuesIn(AllFixtures()),
                         [](const ::testing::TestParamInfo<Fixture>& fixture) { return fixture.param.name; });

INSTANTIATE_TEST_SUITE_P(Quantised, Parity, ::testing::ValuesIn(QuantisedFixtures()),
                         [](const ::testing::TestParamInfo<Fixture>& fixture) { return fixture.param.name; });

}  // namespace
}  // namespace kvasir::parity
