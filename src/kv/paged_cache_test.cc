#include "kv/paged_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/checked.h"
#include "kv/prefix_tree.h"
#include "kv/testing.h"

namespace kvasir {
namespace {

using kv_testing::HoldsTag;
using kv_testing::kShapes;
using kv_testing::ValuesAreZero;
using kv_testing::WriteSlot;
using Tokens = std::vector<int32_t>;

uint64_t Constant(std::span<const int32_t>) { return 7; }

KvCacheConfig Config(int64_t max_tokens, int64_t sequences, PagedConfig paged, KvType type = KvType::kBF16) {
  return {.layers = kShapes, .type = type, .max_tokens = max_tokens, .max_sequences = sequences, .paged = paged};
}

std::unique_ptr<KvCache> Make(const KvCacheConfig& config) {
  auto cache = MakeKvCache(CacheKind::kPaged, config);
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return *std::move(cache);
}

/// What a model would write for the token at `position`: it depends on all before it and on the scope.
int Tag(std::string_view scope, const Tokens& tokens, size_t position) {
  uint32_t tag = 17;
  for (const char c : scope) tag = tag * 31 + static_cast<uint8_t>(c);
  for (size_t i = 0; i <= position; ++i) tag = tag * 131 + static_cast<uint32_t>(tokens[i]) + 1;
  return static_cast<int>(tag % 251);
}

/// Reserves and writes the tokens from the committed ones on. False: full.
bool Compute(KvCache& cache, SeqId seq, std::string_view scope, const Tokens& tokens, bool commit = true) {
  const int64_t length = cache.NextPosition(seq);
  const auto end = static_cast<int64_t>(tokens.size());
  if (!cache.Reserve(seq, end - length)) return false;
  for (int layer = 0; layer < 3; ++layer) {
    const KvView view = cache.View(seq, layer);
    EXPECT_EQ(view.length, end);
    for (int64_t slot = length; slot < end; ++slot) {
      WriteSlot(view, layer, slot, Tag(scope, tokens, static_cast<size_t>(slot)));
    }
  }
  if (commit) cache.Commit(seq, end - length);
  return true;
}

bool Holds(const KvCache& cache, SeqId seq, std::string_view scope, const Tokens& tokens) {
  if (cache.NextPosition(seq) != static_cast<int64_t>(tokens.size())) return false;
  for (int layer = 0; layer < 3; ++layer) {
    const KvView view = cache.View(seq, layer);
    for (size_t slot = 0; slot < tokens.size(); ++slot) {
      if (!HoldsTag(view, layer, static_cast<int64_t>(slot), Tag(scope, tokens, slot))) return false;
    }
  }
  return true;
}

/// A new sequence of these tokens, its prefix shared where it is known; nothing has to be.
SeqId Text(KvCache& cache, std::string_view scope, const Tokens& tokens, bool match = true) {
  const SeqId seq = *cache.Create();
  if (match) cache.MatchPrefix(seq, scope, tokens);
  EXPECT_TRUE(Compute(cache, seq, scope, tokens));
  return seq;
}

/// The same, known to the tree and then released.
void Remember(KvCache& cache, std::string_view scope, const Tokens& tokens) {
  const SeqId seq = Text(cache, scope, tokens);
  cache.InsertPrefix(seq, scope, tokens);
  cache.Release(seq);
}

Tokens Filled(int64_t count, int32_t token) { return Tokens(static_cast<size_t>(count), token); }
Tokens Joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// A cache beside plain vectors of the tokens that each sequence has.
class Shadowed {
 public:
  Shadowed(const KvCacheConfig& config, uint32_t seed) : config_(config), cache_(Make(config)), rng_(seed) {}

  void Step() {
    const auto what = rng_() % 24;
    if (texts_.empty() || what < 4) {
      Create();
    } else if (what < 13) {
      Append(Pick());
    } else if (what < 15) {
      Truncate(Pick());
    } else if (what < 18) {
      Fork(Pick());
    } else if (what < 21) {
      Insert(Pick());
    } else {
      Release(Pick());
    }
    if (rng_() % 200 == 0) {
      cache_->ClearPrefixes();
      known_.clear();
    }
    Verify();
  }

  void End() {
    while (!texts_.empty()) Release(Pick());
    EXPECT_EQ(cache_->BlockUse().used, 0);
    cache_->ClearPrefixes();
    const KvBlockUse use = cache_->BlockUse();
    EXPECT_EQ(use.cached, 0);
    EXPECT_EQ(use.free(), use.blocks);
    EXPECT_EQ(cache_->BytesInUse(), 0);
  }

  int64_t refused() const { return refused_; }
  int64_t found() const { return found_; }
  int64_t evicted() const { return evicted_; }

 private:
  struct Text {
    std::string scope;
    Tokens tokens;
  };
  int64_t slots() const { return cache_->BlockSlots(); }
  SeqId Pick() {
    auto at = texts_.begin();
    std::advance(at, rng_() % texts_.size());
    return at->first;
  }
  /// Two tokens, one of them rare: texts often begin alike.
  void Lengthen(Tokens& tokens, size_t count) {
    for (size_t i = 0; i < count; ++i) tokens.push_back(rng_() % 40 == 0);
  }

  void Create() {
    const auto seq = cache_->Create();
    if (static_cast<int64_t>(texts_.size()) == config_.max_sequences) {
      ASSERT_EQ(seq.status().code(), StatusCode::kResourceExhausted);
      return;
    }
    ASSERT_TRUE(seq.ok());
    ASSERT_EQ(texts_.count(*seq), 0u);
    Text& text = texts_[*seq];
    text.scope = rng_() % 3 == 0 ? "other" : "";
    if (rng_() % 4 == 0) return;
    Tokens prompt;
    Lengthen(prompt, rng_() % 120);
    // The longest prefix ever offered that leaves a token; the tree may have lost it since.
    int64_t most = 0;
    for (int64_t n = slots(); n < static_cast<int64_t>(prompt.size()) && n <= config_.max_tokens; n += slots()) {
      if (known_.count({text.scope, Tokens(prompt.begin(), prompt.begin() + n)})) most = n;
    }
    const int64_t said = cache_->KnownPrefix(text.scope, prompt);
    const int64_t got = cache_->MatchPrefix(*seq, text.scope, prompt);
    ASSERT_EQ(got, said);
    ASSERT_LE(got, most);
    ASSERT_EQ(got % slots(), 0);
    found_ += got > 0;
    evicted_ += got < most;
    if (roomy()) {
      ASSERT_EQ(got, most);
    }
    text.tokens.assign(prompt.begin(), prompt.begin() + got);
  }

  void Append(SeqId seq) {
    Text& text = texts_[seq];
    Tokens longer = text.tokens;
    Lengthen(longer, rng_() % 4 == 0 ? rng_() % 90 : rng_() % 12);
    const KvBlockUse before = cache_->BlockUse();
    const bool commit = rng_() % 5 != 0;
    if (Compute(*cache_, seq, text.scope, longer, commit)) {
      if (!commit) return;
      text.tokens = longer;
    } else {
      ++refused_;
      // Truly: with a copy of the block that it writes to next there is no room, or the text is too long.
      const auto blocks = [&](const Tokens& tokens) { return CeilDiv(static_cast<int64_t>(tokens.size()), slots()); };
      ASSERT_TRUE(static_cast<int64_t>(longer.size()) > config_.max_tokens ||
                  before.used + blocks(longer) - blocks(text.tokens) + 1 > before.blocks);
      const KvBlockUse after = cache_->BlockUse();
      ASSERT_EQ(after.used, before.used);
      ASSERT_EQ(after.cached, before.cached);
    }
  }

  void Truncate(SeqId seq) {
    Tokens& tokens = texts_[seq].tokens;
    tokens.resize(tokens.size() - rng_() % (tokens.size() + 1));
    ASSERT_TRUE(cache_->Truncate(seq, static_cast<int64_t>(tokens.size())));
  }

  void Fork(SeqId seq) {
    const auto fork = cache_->Fork(seq);
    if (static_cast<int64_t>(texts_.size()) == config_.max_sequences) {
      ASSERT_EQ(fork.status().code(), StatusCode::kResourceExhausted);
      return;
    }
    ASSERT_TRUE(fork.ok());
    texts_[*fork] = texts_[seq];
  }

  void Insert(SeqId seq) {
    const Text& text = texts_[seq];
    cache_->InsertPrefix(seq, text.scope, text.tokens);
    for (int64_t n = slots(); n <= static_cast<int64_t>(text.tokens.size()); n += slots()) {
      known_.insert({text.scope, Tokens(text.tokens.begin(), text.tokens.begin() + n)});
    }
  }

  void Release(SeqId seq) {
    if (rng_() % 3 != 0) Insert(seq);
    cache_->Release(seq);
    texts_.erase(seq);
  }

  void Verify() const {
    const KvBlockUse use = cache_->BlockUse();
    ASSERT_GE(use.free(), 0);
    ASSERT_LE(use.cached, config_.paged.most_prefix_blocks);
    ASSERT_EQ(use.blocks, PagedPoolSize(config_)->blocks);
    std::set<const std::byte*> blocks;
    for (const auto& [seq, text] : texts_) {
      ASSERT_TRUE(Holds(*cache_, seq, text.scope, text.tokens)) << "sequence " << seq;
      const KvView view = cache_->View(seq, 0);
      blocks.insert(view.blocks, view.blocks + CeilDiv(view.length, slots()));
    }
    ASSERT_GE(use.used, static_cast<int64_t>(blocks.size()));
  }

  bool roomy() const { return config_.paged.pool_tokens == 0 && config_.paged.most_prefix_blocks > 1'000'000; }

  KvCacheConfig config_;
  std::unique_ptr<KvCache> cache_;
  std::mt19937 rng_;
  std::map<SeqId, Text> texts_;
  std::set<std::pair<std::string, Tokens>> known_;  // prefixes of whole blocks that were offered
  int64_t refused_ = 0;
  int64_t found_ = 0;
  int64_t evicted_ = 0;
};

TEST(PagedCache, AgreesWithVectorsUnderRandomCalls) {
  const struct {
    int64_t block, pool, most_prefix_blocks, sequences;
    KvType type;
    PrefixTree::Hash hash;
    bool scarce;
  } cases[] = {{16, 16 * 12, kAllBlocks, 6, KvType::kBF16, nullptr, true},
               {16, 16 * 12, kAllBlocks, 6, KvType::kI4, Constant, true},
               {32, 32 * 9, 3, 5, KvType::kF32, nullptr, true},
               {16, 16 * 20, 0, 4, KvType::kI8, nullptr, true},
               {48, 0, kAllBlocks, 5, KvType::kF16, Constant, false},
               {16, 0, kAllBlocks, 900, KvType::kBF16, nullptr, false}};
  for (const auto& c : cases) {
    int64_t refused = 0;
    int64_t found = 0;
    int64_t evicted = 0;
    for (uint32_t seed = 0; seed < 8; ++seed) {
      const PagedConfig paged = {c.block, c.pool, c.most_prefix_blocks, c.hash};
      Shadowed shadowed(Config(seed % 2 ? 150 : 330, c.sequences, paged, c.type), seed);
      for (int step = 0; step < 250; ++step) {
        shadowed.Step();
        if (::testing::Test::HasFatalFailure()) return;
      }
      shadowed.End();
      refused += shadowed.refused();
      found += shadowed.found();
      evicted += shadowed.evicted();
    }
    // The cases reach what they are for.
    EXPECT_GT(refused, 0);
    EXPECT_EQ(found > 0, c.most_prefix_blocks > 0);
    EXPECT_EQ(evicted > 0, c.scarce);
  }
}

TEST(PagedCache, ThePoolIsAllocatedAtOnceAndNeverGrows) {
  for (const KvType type : kv_testing::kTypes) {
    const KvCacheConfig config = Config(100, 3, {.block_tokens = 48, .pool_tokens = 97}, type);
    const KvPoolSize size = *PagedPoolSize(config);
    EXPECT_EQ(size.blocks, 3);
    EXPECT_EQ(size.tokens, 144);
    const int64_t before = GetMemoryUse(MemoryOwner::kKvCache).current;
    const auto cache = Make(config);
    EXPECT_EQ(GetMemoryUse(MemoryOwner::kKvCache).current - before, size.bytes);
    EXPECT_EQ(cache->BytesFor(144), size.bytes);
    EXPECT_EQ(cache->BlockUse().blocks, 3);
    const SeqId a = *cache->Create();
    const SeqId b = *cache->Create();
    ASSERT_TRUE(cache->Reserve(a, 49));
    ASSERT_TRUE(cache->Reserve(b, 1));
    EXPECT_EQ(cache->BlockUse().free(), 0);
    EXPECT_FALSE(cache->Reserve(b, 49));
    EXPECT_FALSE(cache->Reserve(a, 97));
    EXPECT_TRUE(cache->Reserve(a, 96));  // which it has blocks for
    EXPECT_EQ(cache->View(b, 0).length, 1);
    cache->Release(a);
    EXPECT_TRUE(cache->Reserve(b, 100));
    EXPECT_EQ(GetMemoryUse(MemoryOwner::kKvCache).current - before, size.bytes);
  }
  EXPECT_EQ(PagedPoolSize(Config(100, 3, {}))->blocks, 12);  // 4 of 32 tokens for each
}

TEST(PagedCache, RefusesSizesThatCannotBe) {
  const auto code = [](int64_t tokens, int64_t sequences, PagedConfig paged) {
    return MakeKvCache(CacheKind::kPaged, Config(tokens, sequences, paged)).status().code();
  };
  EXPECT_EQ(code(100, 1, {.block_tokens = 16}), StatusCode::kOk);
  EXPECT_EQ(code(100, 1, {.block_tokens = 1024}), StatusCode::kOk);
  for (const int64_t block : {int64_t{-16}, int64_t{1}, int64_t{17}, int64_t{1040}, int64_t{1} << 60}) {
    EXPECT_EQ(code(100, 1, {.block_tokens = block}), StatusCode::kInvalidArgument) << block;
  }
  EXPECT_EQ(code(100, 1, {.pool_tokens = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(100, 1, {.most_prefix_blocks = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, 1, {}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(100, 0, {}), StatusCode::kInvalidArgument);
  for (const int64_t pool : {int64_t{1} << 45, std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(code(100, 1, {.pool_tokens = pool}), StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(code(kMostKvTokens, std::numeric_limits<int32_t>::max(), {}), StatusCode::kResourceExhausted);
}

TEST(PagedCache, AnySequenceTakesAnyFreeBlock) {
  const auto cache = Make(Config(64, 3, {.block_tokens = 16, .pool_tokens = 64}));
  const Tokens one = Filled(16, 1);
  const SeqId a = Text(*cache, "", one);
  const SeqId b = Text(*cache, "", one);
  const SeqId c = Text(*cache, "", one);
  cache->Release(b);
  const Tokens longer = Joined(one, Filled(32, 2));
  ASSERT_TRUE(Compute(*cache, a, "", longer));  // takes b's block and the last one
  EXPECT_EQ(cache->BlockUse().free(), 0);
  const KvView view = cache->View(a, 0);
  const int64_t distance = view.blocks[1] - view.blocks[0];
  EXPECT_NE(view.blocks[2] - view.blocks[1], distance);
  EXPECT_TRUE(Holds(*cache, a, "", longer));
  EXPECT_TRUE(Holds(*cache, c, "", one));
}

TEST(PagedCache, WhatAReservationDidNotUseIsThereForOthers) {
  const auto cache = Make(Config(64, 2, {.block_tokens = 16, .pool_tokens = 64}));
  const SeqId a = *cache->Create();
  const SeqId b = *cache->Create();
  ASSERT_TRUE(cache->Reserve(a, 64));
  EXPECT_FALSE(cache->Reserve(b, 1));
  ASSERT_TRUE(cache->Reserve(a, 10));  // its step was cut shorter
  ASSERT_TRUE(Compute(*cache, b, "", Filled(40, 1)));
  ASSERT_TRUE(Compute(*cache, a, "", Filled(10, 2)));
  EXPECT_TRUE(Holds(*cache, a, "", Filled(10, 2)));
  EXPECT_TRUE(Holds(*cache, b, "", Filled(40, 1)));
}

TEST(PagedCache, AMatchLeavesATokenToRun) {
  const auto cache = Make(Config(64, 4, {.block_tokens = 16}));
  const Tokens text = Joined(Filled(20, 1), Filled(12, 2));
  Remember(*cache, "", text);
  const auto match = [&](const Tokens& tokens) {
    const SeqId seq = *cache->Create();
    const int64_t known = cache->MatchPrefix(seq, "", tokens);
    EXPECT_TRUE(Holds(*cache, seq, "", Tokens(tokens.begin(), tokens.begin() + known)));
    cache->Release(seq);
    return known;
  };
  EXPECT_EQ(match(Joined(text, {5})), 32);
  EXPECT_EQ(match(text), 16);
  EXPECT_EQ(match(Filled(17, 1)), 16);
  EXPECT_EQ(match(Filled(16, 1)), 0);
  EXPECT_EQ(match({1}), 0);
  EXPECT_EQ(match({}), 0);
  EXPECT_EQ(match(Joined(Filled(19, 1), Filled(30, 2))), 16);
}

TEST(PagedCache, SequencesOfEqualPrefixesShareTheirBlocks) {
  const auto cache = Make(Config(64, 3, {.block_tokens = 16}));
  const Tokens text = Joined(Filled(16, 1), Filled(18, 2));
  const SeqId a = Text(*cache, "", text, false);
  cache->InsertPrefix(a, "", text);
  const SeqId b = Text(*cache, "", text);
  // Computed by itself, and only then found to be known.
  const SeqId c = Text(*cache, "", text, false);
  EXPECT_EQ(cache->BlockUse().used, 3 + 1 + 3);
  cache->InsertPrefix(c, "", text);
  const KvBlockUse use = cache->BlockUse();
  EXPECT_EQ(use.used, 2 + 3);
  EXPECT_EQ(use.cached, 0);
  EXPECT_EQ(use.wasted_slots, 3 * 14);
  for (const SeqId seq : {a, b, c}) {
    EXPECT_TRUE(Holds(*cache, seq, "", text));
    EXPECT_EQ(cache->View(seq, 1).blocks[1], cache->View(a, 1).blocks[1]);
    EXPECT_EQ(cache->View(seq, 1).blocks[2] == cache->View(a, 1).blocks[2], seq == a);
  }
  for (const SeqId seq : {a, b, c}) cache->Release(seq);
  EXPECT_EQ(cache->BlockUse().cached, 2);
  EXPECT_EQ(cache->BlockUse().used, 0);
}

TEST(PagedCache, SaltsAreNeverShared) {
  const auto cache = Make(Config(64, 4, {.block_tokens = 16}));
  const Tokens text = Filled(40, 1);
  Remember(*cache, "a", text);
  EXPECT_EQ(cache->KnownPrefix("b", text), 0);
  EXPECT_EQ(cache->KnownPrefix("", text), 0);
  EXPECT_EQ(cache->KnownPrefix("a", text), 32);
  Remember(*cache, "b", text);
  for (const char* scope : {"a", "b"}) {
    const SeqId seq = *cache->Create();
    EXPECT_EQ(cache->MatchPrefix(seq, scope, text), 32);
    EXPECT_TRUE(Holds(*cache, seq, scope, Filled(32, 1)));
  }
  // A sequence offered under another name does not put its blocks into the tree twice.
  const SeqId seq = *cache->Create();
  cache->MatchPrefix(seq, "a", text);
  cache->InsertPrefix(seq, "c", Filled(32, 1));
  EXPECT_EQ(cache->KnownPrefix("c", text), 0);
}

TEST(PagedCache, HashesThatCollideShareNothingWrong) {
  const auto cache = Make(Config(64, 9, {.block_tokens = 16, .prefix_hash = Constant}));
  for (int32_t token = 0; token < 6; ++token) Remember(*cache, "", Joined(Filled(16, token), Filled(16, token % 2)));
  for (int32_t token = 0; token < 7; ++token) {
    const Tokens text = Joined(Filled(16, token), Filled(20, 1));
    const SeqId seq = *cache->Create();
    EXPECT_EQ(cache->MatchPrefix(seq, "", text), token == 6 ? 0 : token % 2 ? 32 : 16);
    ASSERT_TRUE(Compute(*cache, seq, "", text));
    EXPECT_TRUE(Holds(*cache, seq, "", text));
    cache->Release(seq);
  }
}

TEST(PagedCache, GivesUpPrefixesUsedLongestAgoWhenItIsFull) {
  const auto cache = Make(Config(100, 4, {.block_tokens = 16, .pool_tokens = 16 * 5}));
  const auto known = [&](int32_t token) { return cache->KnownPrefix("", Filled(100, token)) / 16; };
  for (const int32_t token : {1, 2, 3}) Remember(*cache, "", Filled(16, token));
  Remember(*cache, "", Filled(32, 1));  // used again, and longer
  EXPECT_EQ(cache->BlockUse().cached, 4);
  const SeqId seq = Text(*cache, "", Filled(17, 9));
  EXPECT_EQ(known(2), 0);
  EXPECT_EQ(known(1) + known(3), 3);
  EXPECT_FALSE(cache->Reserve(seq, 100 - 17));
  EXPECT_EQ(known(1) + known(3), 3);  // for nothing, nothing is given up
  ASSERT_TRUE(Compute(*cache, seq, "", Filled(33, 9)));
  EXPECT_EQ(known(3), 0);
  EXPECT_EQ(known(1), 2);
  ASSERT_TRUE(Compute(*cache, seq, "", Filled(49, 9)));
  EXPECT_EQ(known(1), 1);  // the leaf
  // What a sequence shares is not given up.
  const SeqId sharing = *cache->Create();
  EXPECT_EQ(cache->MatchPrefix(sharing, "", Filled(20, 1)), 16);
  EXPECT_FALSE(Compute(*cache, seq, "", Filled(65, 9)));
  EXPECT_FALSE(Compute(*cache, sharing, "", Filled(17, 1)));
  EXPECT_EQ(known(1), 1);
  EXPECT_TRUE(Holds(*cache, seq, "", Filled(49, 9)));
}

TEST(PagedCache, TheTreeHoldsNoMoreThanItMay) {
  const auto cache = Make(Config(100, 4, {.block_tokens = 16, .most_prefix_blocks = 2}));
  Remember(*cache, "", Filled(64, 1));
  EXPECT_EQ(cache->BlockUse().cached, 2);
  EXPECT_EQ(cache->KnownPrefix("", Filled(100, 1)), 32);
  Remember(*cache, "", Filled(16, 2));
  EXPECT_EQ(cache->KnownPrefix("", Filled(100, 1)), 16);
  EXPECT_EQ(cache->KnownPrefix("", Filled(100, 2)), 16);
  const SeqId seq = Text(*cache, "", Filled(40, 1));
  cache->InsertPrefix(seq, "", Filled(40, 1));
  EXPECT_EQ(cache->KnownPrefix("", Filled(100, 1)), 32);
  EXPECT_EQ(cache->KnownPrefix("", Filled(100, 2)), 0);
  // All that it holds is in use.
  Remember(*cache, "", Filled(16, 3));
  EXPECT_EQ(cache->KnownPrefix("", Filled(100, 3)), 0);
}

TEST(PagedCache, ASequenceThatIsCutBackCopiesWhatTheTreeHolds) {
  const auto cache = Make(Config(64, 3, {.block_tokens = 16}));
  const Tokens text = Filled(32, 1);
  const SeqId seq = Text(*cache, "", text);
  cache->InsertPrefix(seq, "", text);
  ASSERT_TRUE(cache->Truncate(seq, 20));
  const Tokens other = Joined(Filled(20, 1), Filled(5, 2));
  ASSERT_TRUE(Compute(*cache, seq, "", other));
  EXPECT_TRUE(Holds(*cache, seq, "", other));
  EXPECT_TRUE(ValuesAreZero(cache->View(seq, 0), 25, 32));
  const SeqId again = *cache->Create();
  EXPECT_EQ(cache->MatchPrefix(again, "", Joined(text, {1})), 32);
  EXPECT_TRUE(Holds(*cache, again, "", text));
}

TEST(PagedCache, ASequenceAloneCanAlwaysUseItsOwnBlocks) {
  // The pool is just large enough for it, and the tree holds every block.
  const auto cache = Make(Config(64, 1, {.block_tokens = 16}));
  const SeqId seq = Text(*cache, "", Filled(64, 1));
  cache->InsertPrefix(seq, "", Filled(64, 1));
  for (int64_t length = 63; length > 0; length -= 9) {
    ASSERT_TRUE(cache->Truncate(seq, length));
    Tokens text = Joined(Filled(length, 1), Filled(64 - length, static_cast<int32_t>(length)));
    ASSERT_TRUE(Compute(*cache, seq, "", text)) << length;
    EXPECT_TRUE(Holds(*cache, seq, "", text));
    cache->InsertPrefix(seq, "", text);
    ASSERT_TRUE(cache->Truncate(seq, length));
  }
}

TEST(PagedCache, AForkMayOutliveThePrefixThatItsBlocksHangOn) {
  const auto cache = Make(Config(64, 3, {.block_tokens = 16, .pool_tokens = 64}));
  Remember(*cache, "", Filled(16, 1));
  const Tokens text = Filled(32, 1);
  const SeqId seq = Text(*cache, "", text, false);
  const SeqId fork = *cache->Fork(seq);
  // The tree has the second block below the first of the other sequence, not below this one's.
  cache->InsertPrefix(seq, "", text);
  cache->Release(seq);
  EXPECT_EQ(cache->BlockUse().used, 2);
  EXPECT_EQ(cache->BlockUse().cached, 1);
  const SeqId next = Text(*cache, "", Filled(32, 5));
  EXPECT_EQ(cache->KnownPrefix("", Filled(40, 1)), 0);
  EXPECT_TRUE(Holds(*cache, fork, "", text));
  EXPECT_TRUE(Holds(*cache, next, "", Filled(32, 5)));
}

}  // namespace
}  // namespace kvasir
