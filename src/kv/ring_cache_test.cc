#include "kv/ring_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>

#include "base/checked.h"
#include "kv/testing.h"

namespace kvasir {
namespace {

using kv_testing::Content;
using kv_testing::HoldsTag;
using kv_testing::kShapes;
using kv_testing::ValuesAreZero;
using kv_testing::WriteSlot;
using ::testing::HasSubstr;

KvCacheConfig Config(KvBound bound, KvType type = KvType::kF32, int64_t max_tokens = 100'000, int64_t sequences = 1) {
  return {.layers = kShapes,
          .type = type,
          .max_tokens = max_tokens,
          .max_sequences = sequences,
          .bound = bound,
          .rotated_keys = true};
}

std::unique_ptr<KvCache> Make(const KvCacheConfig& config) {
  auto cache = MakeKvCache(config.bound.sinks > 0 ? CacheKind::kSink : CacheKind::kWindow, config);
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return *std::move(cache);
}

/// A bounded cache beside maps of what it should hold: tokens by their position in the text.
class Shadowed {
 public:
  Shadowed(KvBound bound, KvType type, int64_t max_tokens, int64_t max_sequences)
      : bound_(bound),
        max_tokens_(max_tokens),
        max_sequences_(max_sequences),
        cache_(Make(Config(bound, type, max_tokens, max_sequences))) {}

  KvCache& cache() { return *cache_; }
  size_t alive() const { return texts_.size(); }
  int64_t next(SeqId seq) const { return texts_.at(seq).next; }
  SeqId Pick(std::mt19937& rng) const {
    auto at = texts_.begin();
    std::advance(at, rng() % texts_.size());
    return at->first;
  }

  void Create() {
    const auto seq = cache_->Create();
    if (static_cast<int64_t>(alive()) == max_sequences_) {
      ASSERT_EQ(seq.status().code(), StatusCode::kResourceExhausted);
      return;
    }
    ASSERT_TRUE(seq.ok());
    ASSERT_EQ(texts_.count(*seq), 0u);
    texts_[*seq] = {};
  }

  /// Reserves and writes, then commits `accepted` (offsets); a reservation stays open without `commit`.
  void Append(SeqId seq, int64_t tokens, const std::vector<int32_t>& accepted, bool prefix, bool commit) {
    Text& text = texts_[seq];
    const int64_t room = std::min(bound_.tokens - std::min(text.next, bound_.sinks), max_tokens_ - text.next);
    ASSERT_EQ(cache_->Reserve(seq, tokens), tokens <= room);
    if (tokens > room) return;
    text.Drop(bound_, text.next + tokens - bound_.tokens);
    std::vector<int> tags(static_cast<size_t>(tokens));
    for (int& tag : tags) tag = next_tag_++;
    const KvSinks moved = cache_->MovedSinks(seq);
    if (moved.count > 0) {
      ASSERT_EQ(moved.count, bound_.sinks);
      ASSERT_EQ(moved.first_position, text.dropped);
      ASSERT_NE(moved.first_position, text.sinks_at);
    } else if (bound_.sinks > 0) {
      ASSERT_EQ(text.sinks_at, text.dropped);
    }
    for (int layer = 0; layer < 3; ++layer) {
      const KvView view = cache_->View(seq, layer);
      const MatView<float> sinks = cache_->SinkKeys(seq, layer);
      ASSERT_EQ(sinks.rows, bound_.sinks);
      for (int64_t i = 0; i < tokens; ++i) {
        const int64_t position = text.next + i;
        const KvRun run = cache_->RunAt(seq, position);
        ASSERT_GT(run.count, 0);
        WriteSlot(view, layer, run.slot, tags[static_cast<size_t>(i)]);
        if (position < sinks.rows) sinks.row(position)[0] = Content(tags[static_cast<size_t>(i)], layer, 0, 0, false);
      }
    }
    std::map<int64_t, int> reserved = text.tags;
    for (int64_t i = 0; i < tokens; ++i) reserved[text.next + i] = tags[static_cast<size_t>(i)];
    if (tokens > 0) VerifyView(seq, text, reserved, text.next + tokens);
    if (::testing::Test::HasFatalFailure()) return;
    if (!commit) {
      // What it dropped stays dropped, and where its sinks are nobody knows.
      if (moved.count > 0) text.sinks_at = -1;
      return;
    }
    if (prefix) {
      cache_->Commit(seq, static_cast<int64_t>(accepted.size()));
    } else {
      cache_->CommitSlots(seq, accepted);
    }
    for (const int32_t i : accepted) text.tags[text.next++] = tags[static_cast<size_t>(i)];
    if (!accepted.empty()) {
      text.sinks_at = text.dropped;
    } else if (moved.count > 0) {
      text.sinks_at = -1;
    }
  }

  void Truncate(SeqId seq, int64_t length) {
    Text& text = texts_[seq];
    const bool possible = length == 0 || length == text.next || text.dropped == 0;
    ASSERT_EQ(cache_->Truncate(seq, length), possible);
    if (!possible) return;
    if (length == 0) {
      text = {};
      return;
    }
    text.next = length;
    text.tags.erase(text.tags.lower_bound(length), text.tags.end());
  }
  void Fork(SeqId seq) {
    const auto fork = cache_->Fork(seq);
    if (static_cast<int64_t>(alive()) == max_sequences_) {
      ASSERT_EQ(fork.status().code(), StatusCode::kResourceExhausted);
      return;
    }
    ASSERT_TRUE(fork.ok());
    ASSERT_EQ(texts_.count(*fork), 0u);
    texts_[*fork] = texts_[seq];
  }
  void Release(SeqId seq) {
    cache_->Release(seq);
    texts_.erase(seq);
  }
  /// Replaces a sequence by one that was made of its state, its blocks and its sinks' keys. Values of slots without a
  /// token come as something else than zeros, as from a file.
  void Restore(SeqId seq) {
    cache_->Commit(seq, 0);
    const Text text = texts_[seq];
    const KvSequenceState state = cache_->State(seq);
    ASSERT_EQ(state.next, text.next);
    ASSERT_EQ(state.dropped, text.dropped);
    ASSERT_TRUE(cache_->IsPossible(state));
    std::set<int64_t> used;
    for (const auto& [position, tag] : text.tags) used.insert(cache_->RunAt(seq, position).slot);
    const int64_t slots = bound_.Reach(text.next);
    const int64_t blocks = CeilDiv(slots, cache_->BlockSlots());
    std::vector<std::vector<std::byte>> saved;
    std::vector<std::vector<float>> keys;
    for (int layer = 0; layer < 3; ++layer) {
      for (int64_t block = 0; block < blocks; ++block) {
        const auto bytes = cache_->Block(seq, layer, block);
        saved.emplace_back(bytes.begin(), bytes.end());
      }
      const MatView<float> sinks = cache_->SinkKeys(seq, layer);
      for (int64_t row = 0; row < std::min(sinks.rows, text.next); ++row) {
        keys.emplace_back(sinks.row(row), sinks.row(row) + sinks.cols);
      }
    }
    Release(seq);
    const auto made = cache_->Create();
    ASSERT_TRUE(made.ok());
    ASSERT_TRUE(cache_->Restore(*made, state));
    auto next_block = saved.begin();
    auto next_key = keys.begin();
    for (int layer = 0; layer < 3; ++layer) {
      for (int64_t block = 0; block < blocks; ++block)
        std::ranges::copy(*next_block++, cache_->Block(*made, layer, block).begin());
      const MatView<float> sinks = cache_->SinkKeys(*made, layer);
      for (int64_t row = 0; row < std::min(sinks.rows, text.next); ++row)
        std::ranges::copy(*next_key++, sinks.row(row));
      for (int64_t slot = 0; slot < blocks * cache_->BlockSlots(); ++slot) {
        if (!used.contains(slot)) WriteSlot(cache_->View(*made, layer), layer, slot, 77);
      }
    }
    cache_->ClearUnused(*made);
    texts_[*made] = text;
    const KvView view = cache_->View(*made, 0);
    for (int64_t slot = 0; slot < blocks * cache_->BlockSlots(); ++slot) {
      ASSERT_TRUE(used.contains(slot) || ValuesAreZero(view, slot, slot + 1)) << slot;
    }
    ASSERT_EQ(cache_->State(*made).sinks_in_place, state.sinks_in_place);
  }
  void Verify() {
    for (const auto& [seq, text] : texts_) {
      ASSERT_EQ(cache_->NextPosition(seq), text.next);
      ASSERT_EQ(cache_->KeptTokens(seq), static_cast<int64_t>(text.tags.size()));
      for (const auto& [position, tag] : text.tags) {
        const KvRun run = cache_->RunAt(seq, position);
        for (int layer = 0; layer < 3; ++layer) {
          ASSERT_TRUE(HoldsTag(cache_->View(seq, layer), layer, run.slot, tag)) << seq << " position " << position;
          const MatView<float> sinks = cache_->SinkKeys(seq, layer);
          if (position < sinks.rows) {
            ASSERT_EQ(sinks.row(position)[0], Content(tag, layer, 0, 0, false));
          }
        }
      }
    }
  }

 private:
  struct Text {
    int64_t next = 0;
    int64_t dropped = 0;
    int64_t sinks_at = 0;
    std::map<int64_t, int> tags;  // of the tokens that are kept

    void Drop(KvBound bound, int64_t count) {
      if (count <= dropped) return;
      dropped = count;
      tags.erase(tags.lower_bound(bound.sinks), tags.lower_bound(bound.sinks + dropped));
    }
  };

  /// Slots hold the tokens that are kept at the right positions, and nothing else.
  void VerifyView(SeqId seq, const Text& text, const std::map<int64_t, int>& tags, int64_t end) {
    const KvView view = cache_->View(seq, 0);
    ASSERT_EQ(view.length, std::min(end, bound_.tokens));
    ASSERT_EQ(view.positions == nullptr, text.dropped == 0);
    std::set<int64_t> used;
    int64_t number = 0;
    for (const auto& [position, tag] : tags) {
      const int64_t slot = cache_->RunAt(seq, position).slot;
      ASSERT_LT(slot, view.length);
      ASSERT_TRUE(used.insert(slot).second);
      if (text.dropped == 0) {
        ASSERT_EQ(slot, position);
      } else {
        // With sinks the token kept as number i is at i; a window keeps the text's positions.
        ASSERT_EQ(view.positions[slot], bound_.sinks > 0 ? number : position);
      }
      ++number;
    }
    for (int64_t slot = 0; slot < RoundUp(view.length, kTileTokens); ++slot) {
      if (used.count(slot)) continue;
      if (view.positions && slot < view.length) {
        ASSERT_LT(view.positions[slot], 0);
      }
      ASSERT_TRUE(ValuesAreZero(view, slot, slot + 1)) << slot;
    }
  }

  KvBound bound_;
  int64_t max_tokens_, max_sequences_;
  std::unique_ptr<KvCache> cache_;
  std::map<SeqId, Text> texts_;
  int next_tag_ = 0;
};

class RingCacheTest : public ::testing::TestWithParam<KvType> {};

TEST_P(RingCacheTest, AgreesWithMapsUnderRandomCalls) {
  for (uint32_t seed = 0; seed < 16; ++seed) {
    std::mt19937 rng(seed);
    constexpr KvBound kBounds[] = {{1, 0}, {7, 0}, {40, 0}, {150, 0}, {2, 1}, {9, 4}, {140, 3}, {300, 130}};
    const KvBound bound = kBounds[seed % 8];
    Shadowed shadowed(bound, GetParam(), seed == 5 ? 60 : 5000, 4);
    for (int step = 0; step < 150; ++step) {
      const uint32_t what = rng() % 16;
      if (shadowed.alive() == 0 || what == 0) {
        shadowed.Create();
      } else if (what < 11) {
        const SeqId seq = shadowed.Pick(rng);
        const auto tokens = static_cast<int64_t>(rng() % 3 == 0 ? rng() % 50 : rng() % 6);
        // While sinks are being filled, only a prefix can be accepted.
        const bool prefix = rng() % 2 == 0 || shadowed.next(seq) < bound.sinks;
        const bool all = rng() % 3 != 0;
        std::vector<int32_t> accepted;
        for (int32_t i = 0; i < tokens; ++i) {
          if (all || prefix || rng() % 3 != 0) accepted.push_back(i);
        }
        if (prefix && !all) accepted.resize(accepted.size() / 2);
        shadowed.Append(seq, tokens, accepted, prefix, rng() % 6 != 0);
        if (rng() % 8 == 0) shadowed.cache().Commit(seq, 0);
      } else if (what < 12) {
        const SeqId seq = shadowed.Pick(rng);
        const int64_t next = shadowed.next(seq);
        shadowed.Truncate(seq, rng() % 3 == 0 ? 0 : static_cast<int64_t>(rng()) % (next + 1));
      } else if (what < 14) {
        shadowed.Fork(shadowed.Pick(rng));
      } else if (what < 15) {
        shadowed.Release(shadowed.Pick(rng));
      } else {
        shadowed.Restore(shadowed.Pick(rng));
      }
      if (HasFatalFailure()) return;
      shadowed.Verify();
      if (HasFatalFailure()) FAIL() << "seed " << seed << " step " << step;
    }
    while (shadowed.alive() > 0) shadowed.Release(shadowed.Pick(rng));
    EXPECT_EQ(shadowed.cache().BytesInUse(), 0);
  }
}

TEST_P(RingCacheTest, HoldsNoMoreThanItsBoundHoweverLongTheText) {
  for (const KvBound bound : {KvBound{200, 0}, KvBound{200, 4}}) {
    const auto cache = Make(Config(bound, GetParam()));
    const SeqId seq = *cache->Create();
    int64_t most = 0;
    for (int64_t position = 0; position < 3000; ++position) {
      ASSERT_TRUE(cache->Reserve(seq, 1));
      cache->Commit(seq, 1);
      most = std::max(most, cache->BytesInUse());
    }
    EXPECT_EQ(cache->NextPosition(seq), 3000);
    EXPECT_EQ(cache->KeptTokens(seq), 200);
    EXPECT_EQ(most, cache->BytesFor(100'000));
    EXPECT_EQ(cache->BytesFor(200), cache->BytesFor(100'000));
    EXPECT_LT(cache->BytesFor(100), cache->BytesFor(200));
    cache->Release(seq);
    EXPECT_EQ(cache->BytesInUse(), 0);
  }
}

TEST_P(RingCacheTest, ForksCopyWhatTheyWriteAndNoMoreThanTheirBound) {
  const auto cache = Make(Config({300, 4}, GetParam(), 5000, 2));
  const SeqId seq = *cache->Create();
  const auto run = [&](SeqId which, int64_t tokens) {
    for (int64_t i = 0; i < tokens; ++i) {
      ASSERT_TRUE(cache->Reserve(which, 1));
      cache->Commit(which, 1);
    }
  };
  run(seq, 310);
  const int64_t one = cache->BytesInUse();
  const SeqId fork = *cache->Fork(seq);
  EXPECT_EQ(cache->BytesInUse(), one);
  run(fork, 1);  // its own token and its sinks are in the same block
  EXPECT_LT(cache->BytesInUse(), one + one / 2);
  run(fork, 400);
  run(seq, 400);
  EXPECT_LE(cache->BytesInUse(), 2 * one);
}

INSTANTIATE_TEST_SUITE_P(Types, RingCacheTest, ::testing::ValuesIn(kv_testing::kTypes),
                         [](const ::testing::TestParamInfo<KvType>& test) {
                           return std::string(KvTypeName(test.param));
                         });

TEST(RingCache, KeysOfSinksAreKeptOnlyWhereKeysAreRotated) {
  KvCacheConfig config = Config({10, 4});
  const auto rotated = Make(config);
  config.rotated_keys = false;
  const auto plain = Make(config);
  for (const auto* cache : {&rotated, &plain}) {
    const bool keeps = cache == &rotated;
    const SeqId seq = *(*cache)->Create();
    EXPECT_EQ((*cache)->SinkKeys(seq, 0).rows, keeps ? 4 : 0);
    ASSERT_TRUE((*cache)->Reserve(seq, 10));
    EXPECT_EQ((*cache)->MovedSinks(seq).count, 0);
    (*cache)->Commit(seq, 10);
    ASSERT_TRUE((*cache)->Reserve(seq, 2));
    EXPECT_EQ((*cache)->MovedSinks(seq).count, keeps ? 4 : 0);
    EXPECT_EQ((*cache)->MovedSinks(seq).first_position, keeps ? 2 : 0);
    // Positions inside the cache are needed either way.
    const KvView view = (*cache)->View(seq, 0);
    EXPECT_THAT(std::vector<int32_t>(view.positions, view.positions + 10),
                ::testing::ElementsAre(0, 1, 2, 3, 8, 9, 4, 5, 6, 7));
  }
  EXPECT_GT(rotated->BytesFor(1), plain->BytesFor(1));
}

TEST(RingCache, RefusesBoundsThatHoldNothing) {
  const auto message = [](CacheKind kind, KvBound bound) {
    const auto cache = MakeKvCache(kind, Config(bound));
    EXPECT_EQ(cache.status().code(), StatusCode::kInvalidArgument);
    return std::string(cache.status().message());
  };
  EXPECT_THAT(message(CacheKind::kWindow, {0, 0}), HasSubstr("at least 1 token"));
  EXPECT_THAT(message(CacheKind::kWindow, {10, 1}), HasSubstr("no sinks"));
  EXPECT_THAT(message(CacheKind::kSink, {10, 0}), HasSubstr("at least 1 sink"));
  EXPECT_THAT(message(CacheKind::kSink, {4, 4}), HasSubstr("4 sinks in 4 tokens"));
  EXPECT_THAT(message(CacheKind::kWindow, {int64_t{1} << 40, 0}), HasSubstr("tokens per sequence"));
  EXPECT_TRUE(MakeKvCache(CacheKind::kSink, Config({5, 4})).ok());
}

TEST(RingCache, KeepsNoBlockThatOnlyAReservationNeeded) {
  for (const KvBound bound : {KvBound{300, 0}, KvBound{300, 4}}) {
    const auto cache = Make(Config(bound, KvType::kBF16, 5000, 2));
    const SeqId seq = *cache->Create();
    ASSERT_TRUE(cache->Reserve(seq, 300));
    ASSERT_TRUE(cache->Reserve(seq, 20));
    EXPECT_EQ(cache->BytesInUse(), cache->BytesFor(20));
    ASSERT_TRUE(cache->Reserve(seq, 300));
    cache->Commit(seq, 3);
    EXPECT_EQ(cache->BytesInUse(), cache->BytesFor(3));
    // A fork that writes nothing copies nothing.
    const SeqId fork = *cache->Fork(seq);
    const int64_t both = cache->BytesInUse();
    ASSERT_TRUE(cache->Reserve(fork, 0));
    EXPECT_EQ(cache->BytesInUse(), both);
  }
}

TEST(RingCache, StatesThatCannotBeAreKnown) {
  const auto cache = Make(Config({10, 4}, KvType::kF32, 100, 1));
  const auto possible = [&](int64_t next, int64_t dropped, bool in_place) {
    return cache->IsPossible({.next = next, .dropped = dropped, .sinks_in_place = in_place});
  };
  EXPECT_TRUE(possible(0, 0, true));
  EXPECT_TRUE(possible(10, 0, true));
  EXPECT_FALSE(possible(11, 0, true));
  EXPECT_TRUE(possible(11, 1, true));
  EXPECT_TRUE(possible(11, 7, false));  // all but the sinks, as a pass that was given up leaves it
  EXPECT_FALSE(possible(11, 8, true));
  EXPECT_FALSE(possible(3, 0, false));
  EXPECT_FALSE(possible(3, 1, true));
  EXPECT_FALSE(possible(100, 89, true));
  EXPECT_TRUE(possible(100, 90, true));
  EXPECT_FALSE(possible(101, 91, true));
  EXPECT_FALSE(possible(-1, 0, true));
  EXPECT_FALSE(possible(20, -1, true));
}

TEST(RingCache, APassIsBoundedAndSoIsTheText) {
  const auto cache = Make(Config({10, 4}, KvType::kF32, 30, 1));
  const SeqId seq = *cache->Create();
  EXPECT_FALSE(cache->Reserve(seq, 11));
  ASSERT_TRUE(cache->Reserve(seq, 10));  // nothing has to go
  cache->Commit(seq, 10);
  EXPECT_FALSE(cache->Reserve(seq, 7));
  ASSERT_TRUE(cache->Reserve(seq, 6));  // everything but the sinks goes
  EXPECT_EQ(cache->KeptTokens(seq), 4);
  cache->Commit(seq, 6);
  for (int i = 0; i < 14; ++i) {
    ASSERT_TRUE(cache->Reserve(seq, 1));
    cache->Commit(seq, 1);
  }
  EXPECT_EQ(cache->NextPosition(seq), 30);
  EXPECT_FALSE(cache->Reserve(seq, 1));
}

}  // namespace
}  // namespace kvasir
