#include "kv/cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/checked.h"
#include "base/limits.h"
#include "kv/block_pool.h"
#include "kv/testing.h"

namespace kvasir {
namespace {

using kv_testing::HoldsTag;
using kv_testing::kShapes;
using kv_testing::StoreElement;
using kv_testing::StoreValueScale;
using kv_testing::ValuesAreZero;
using kv_testing::WriteSlot;

/// A cache beside plain vectors of what it should hold.
class Shadowed {
 public:
  Shadowed(CacheKind kind, KvType type, int64_t max_tokens, int64_t max_sequences)
      : max_tokens_(max_tokens), max_sequences_(max_sequences) {
    auto cache = MakeKvCache(kind, {kShapes, type, max_tokens, max_sequences});
    EXPECT_TRUE(cache.ok());
    cache_ = *std::move(cache);
  }

  KvCache& cache() { return *cache_; }
  size_t alive() const { return content_.size(); }
  SeqId Pick(std::mt19937& rng) const {
    auto at = content_.begin();
    std::advance(at, rng() % content_.size());
    return at->first;
  }

  void Create() {
    const auto seq = cache_->Create();
    if (static_cast<int64_t>(alive()) == max_sequences_) {
      ASSERT_EQ(seq.status().code(), StatusCode::kResourceExhausted);
      return;
    }
    ASSERT_TRUE(seq.ok());
    ASSERT_EQ(content_.count(*seq), 0u);
    content_[*seq] = {};
    ASSERT_EQ(cache_->NextPosition(*seq), 0);
  }

  /// Reserves and writes; commits the chosen offsets, or leaves the reservation standing when `commit` is false.
  void Append(SeqId seq, int64_t tokens, const std::vector<int32_t>& accepted, bool prefix, bool commit) {
    std::vector<int>& content = content_[seq];
    const auto length = static_cast<int64_t>(content.size());
    const bool fits = length + tokens <= max_tokens_;
    ASSERT_EQ(cache_->Reserve(seq, tokens), fits);
    if (!fits) return;
    // What an earlier reservation has room for may have been written and stays.
    const int64_t fresh = length + std::min(tokens, open_[seq]);
    open_[seq] = tokens;
    std::vector<int> tags;
    for (int64_t i = 0; i < tokens; ++i) tags.push_back(next_tag_++);
    for (int layer = 0; layer < 3; ++layer) {
      const KvView view = cache_->View(seq, layer);
      ASSERT_EQ(view.length, length + tokens);
      if (tokens > 0) {
        ASSERT_TRUE(ValuesAreZero(view, fresh, RoundUp(length + tokens, kTileTokens)));
      }
      for (int64_t i = 0; i < tokens; ++i) WriteSlot(view, layer, length + i, tags[static_cast<size_t>(i)]);
    }
    if (!commit) return;
    open_[seq] = 0;
    if (prefix) {
      cache_->Commit(seq, static_cast<int64_t>(accepted.size()));
      for (size_t i = 0; i < accepted.size(); ++i) content.push_back(tags[i]);
    } else {
      cache_->CommitSlots(seq, accepted);
      for (const int32_t i : accepted) content.push_back(tags[static_cast<size_t>(i)]);
    }
  }

  void Truncate(SeqId seq, int64_t length) {
    ASSERT_TRUE(cache_->Truncate(seq, length));
    open_[seq] = 0;
    content_[seq].resize(static_cast<size_t>(length));
  }
  void Fork(SeqId seq) {
    const auto fork = cache_->Fork(seq);
    if (static_cast<int64_t>(alive()) == max_sequences_) {
      ASSERT_EQ(fork.status().code(), StatusCode::kResourceExhausted);
      return;
    }
    ASSERT_TRUE(fork.ok());
    open_[seq] = 0;
    ASSERT_EQ(content_.count(*fork), 0u);
    content_[*fork] = content_[seq];
  }
  void Release(SeqId seq) {
    cache_->Release(seq);
    open_.erase(seq);
    content_.erase(seq);
  }

  void Verify() const {
    for (const auto& [seq, content] : content_) {
      ASSERT_EQ(cache_->NextPosition(seq), static_cast<int64_t>(content.size()));
      for (int layer = 0; layer < 3; ++layer) {
        const KvView view = cache_->View(seq, layer);
        ASSERT_GE(view.length, static_cast<int64_t>(content.size()));
        for (size_t slot = 0; slot < content.size(); ++slot) {
          ASSERT_TRUE(HoldsTag(view, layer, static_cast<int64_t>(slot), content[slot]))
              << "sequence " << seq << " layer " << layer << " slot " << slot;
        }
      }
    }
  }

 private:
  std::unique_ptr<KvCache> cache_;
  int64_t max_tokens_, max_sequences_;
  std::map<SeqId, std::vector<int>> content_;
  std::map<SeqId, int64_t> open_;  // reserved, not committed
  int next_tag_ = 0;
};

class KvCacheTest : public ::testing::TestWithParam<std::tuple<CacheKind, KvType>> {
 protected:
  CacheKind kind() const { return std::get<0>(GetParam()); }
  KvType type() const { return std::get<1>(GetParam()); }
};

TEST_P(KvCacheTest, AgreesWithVectorsUnderRandomCalls) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    std::mt19937 rng(seed);
    const int64_t max_tokens = seed % 3 == 0 ? 100 : 420;
    Shadowed shadowed(kind(), type(), max_tokens, 5);
    for (int step = 0; step < 150; ++step) {
      const uint32_t what = rng() % 16;
      if (shadowed.alive() == 0 || what == 0) {
        shadowed.Create();
      } else if (what < 9) {
        const auto tokens = static_cast<int64_t>(rng() % 4 == 0 ? rng() % 200 : rng() % 12);
        const bool prefix = rng() % 2 == 0;
        std::vector<int32_t> accepted;
        for (int32_t i = 0; i < tokens; ++i) {
          if (prefix || rng() % 3 != 0) accepted.push_back(i);
        }
        if (prefix && rng() % 2 == 0) accepted.resize(accepted.size() / 2);
        shadowed.Append(shadowed.Pick(rng), tokens, accepted, prefix, rng() % 5 != 0);
      } else if (what < 11) {
        const SeqId seq = shadowed.Pick(rng);
        const int64_t length = shadowed.cache().NextPosition(seq);
        shadowed.Truncate(seq,
                          length == 0 ? 0 : length - static_cast<int64_t>(rng()) % std::min<int64_t>(length + 1, 150));
      } else if (what < 14) {
        shadowed.Fork(shadowed.Pick(rng));
      } else {
        shadowed.Release(shadowed.Pick(rng));
      }
      if (HasFatalFailure()) return;
      shadowed.Verify();
      if (HasFatalFailure()) return;
    }
    while (shadowed.alive() > 0) shadowed.Release(shadowed.Pick(rng));
    EXPECT_EQ(shadowed.cache().BytesInUse(), 0);
  }
}

TEST_P(KvCacheTest, CountsBytes) {
  auto made = MakeKvCache(kind(), {kShapes, type(), 300, 3});
  ASSERT_TRUE(made.ok());
  KvCache& cache = **made;
  // Bytes of one head of 8 and of 5 values: a token's, and a tile's, which pads odd heads.
  struct Sizes {
    int64_t token8, token5, tile8, tile5;
  };
  const auto sizes = [](KvType type) -> Sizes {
    switch (type) {
      case KvType::kF32: return {64, 40, 512, 320};
      case KvType::kBF16:
      case KvType::kF16: return {32, 20, 256, 192};
      case KvType::kI8: return {20, 14, 160, 128};
      case KvType::kI4: break;
    }
    return {16, 14, 128, 128};
  }(type());
  const int64_t slots = kind() == CacheKind::kPaged ? 32 : 128;
  ASSERT_EQ(cache.BlockSlots(), slots);
  const int64_t block = slots / 16 * 2 * (2 * sizes.tile8 + sizes.tile5 + 2 * sizes.tile8);
  const int64_t all = kind() == CacheKind::kStatic ? 3 : CeilDiv(int64_t{129}, slots);
  EXPECT_EQ(KvBytesPerToken(kShapes, type()), 4 * sizes.token8 + sizes.token5);
  EXPECT_EQ(cache.BytesFor(129), all * block);
  EXPECT_EQ(cache.BytesInUse(), 0);
  const SeqId seq = *cache.Create();
  if (kind() == CacheKind::kStatic) {
    EXPECT_EQ(cache.BytesInUse(), 3 * block);
  }
  ASSERT_TRUE(cache.Reserve(seq, 129));
  EXPECT_EQ(cache.BytesInUse(), cache.BytesFor(129));
  cache.Commit(seq, 129);
  const SeqId fork = *cache.Fork(seq);
  EXPECT_EQ(cache.BytesInUse(), kind() == CacheKind::kStatic ? 6 * block : all * block);  // shared
  ASSERT_TRUE(cache.Reserve(fork, 1));
  // Its half-filled block is copied.
  EXPECT_EQ(cache.BytesInUse(), kind() == CacheKind::kStatic ? 6 * block : (all + 1) * block);
  const KvBlockUse use = cache.BlockUse();
  EXPECT_EQ(use.used * block, cache.BytesInUse());
  EXPECT_EQ(use.slots, use.used * slots);
  // The half-filled blocks' tokens count once for each copy.
  const int64_t copied = kind() == CacheKind::kStatic ? 129 : 129 % slots;
  EXPECT_EQ(use.wasted_slots, use.slots - 129 - copied);
  EXPECT_EQ(use.cached, 0);
  EXPECT_GE(use.free(), 0);
  EXPECT_GE(GetMemoryUse(MemoryOwner::kKvCache).current, cache.BytesInUse());
  cache.Release(seq);
  cache.Release(fork);
  EXPECT_EQ(cache.BytesInUse(), 0);
}

TEST_P(KvCacheTest, KeepsNoBlockThatOnlyAReservationNeeded) {
  if (kind() == CacheKind::kStatic) return;  // has all its blocks for ever
  auto made = MakeKvCache(kind(), {kShapes, type(), 600, 2});
  ASSERT_TRUE(made.ok());
  KvCache& cache = **made;
  const SeqId seq = *cache.Create();
  ASSERT_TRUE(cache.Reserve(seq, 500));
  ASSERT_TRUE(cache.Reserve(seq, 20));  // instead of the 500
  EXPECT_EQ(cache.BytesInUse(), cache.BytesFor(20));
  ASSERT_TRUE(cache.Reserve(seq, 500));
  cache.Commit(seq, 129);
  EXPECT_EQ(cache.BytesInUse(), cache.BytesFor(129));
  EXPECT_EQ(cache.BlockUse().wasted_slots, cache.BlockUse().slots - 129);
  ASSERT_TRUE(cache.Reserve(seq, 300));
  const int32_t accepted[] = {0, 5};
  cache.CommitSlots(seq, accepted);
  EXPECT_EQ(cache.BytesInUse(), cache.BytesFor(131));
  cache.Commit(seq, 0);
  EXPECT_EQ(cache.BytesInUse(), cache.BytesFor(131));
}

TEST_P(KvCacheTest, CopiesNothingThatIsNotWritten) {
  if (kind() == CacheKind::kStatic) return;  // copies at once
  auto made = MakeKvCache(kind(), {kShapes, type(), 300, 2});
  ASSERT_TRUE(made.ok());
  KvCache& cache = **made;
  const SeqId seq = *cache.Create();
  ASSERT_TRUE(cache.Reserve(seq, 130));
  cache.Commit(seq, 130);
  const SeqId fork = *cache.Fork(seq);
  ASSERT_TRUE(cache.Reserve(fork, 0));
  EXPECT_EQ(cache.BytesInUse(), cache.BytesFor(130));
}

TEST_P(KvCacheTest, CountsMoreTokensThanThereCanBe) {
  auto made = MakeKvCache(kind(), {kShapes, type(), 300, 2});
  ASSERT_TRUE(made.ok());
  const int64_t many = (*made)->BytesFor(std::numeric_limits<int64_t>::max());
  EXPECT_GE(many, (*made)->BytesFor(300));
  EXPECT_EQ((*made)->BytesFor(-1), (*made)->BytesFor(0));
}

TEST_P(KvCacheTest, RestoresWhatWasSaved) {
  auto made = MakeKvCache(kind(), {kShapes, type(), 300, 2});
  ASSERT_TRUE(made.ok());
  KvCache& cache = **made;
  const SeqId seq = *cache.Create();
  ASSERT_TRUE(cache.Reserve(seq, 133));
  for (int layer = 0; layer < 3; ++layer) {
    for (int64_t slot = 0; slot < 133; ++slot) WriteSlot(cache.View(seq, layer), layer, slot, static_cast<int>(slot));
  }
  cache.Commit(seq, 133);
  const KvSequenceState state = cache.State(seq);
  EXPECT_EQ(state.next, 133);
  EXPECT_EQ(state.dropped, 0);
  const SeqId copy = *cache.Create();
  ASSERT_TRUE(cache.Restore(copy, state));
  for (int layer = 0; layer < 3; ++layer) {
    for (int64_t block = 0; block < CeilDiv(int64_t{133}, cache.BlockSlots()); ++block) {
      std::ranges::copy(cache.Block(seq, layer, block), cache.Block(copy, layer, block).begin());
    }
    // Behind the last token, as a file may have it.
    WriteSlot(cache.View(copy, layer), layer, 133, 7);
  }
  cache.ClearUnused(copy);
  for (int layer = 0; layer < 3; ++layer) {
    const KvView view = cache.View(copy, layer);
    for (int64_t slot = 0; slot < 133; ++slot) ASSERT_TRUE(HoldsTag(view, layer, slot, static_cast<int>(slot)));
    EXPECT_TRUE(ValuesAreZero(view, 133, 144));
  }
  for (const KvSequenceState& wrong :
       {KvSequenceState{.next = -1}, KvSequenceState{.next = 301}, KvSequenceState{.next = 133, .dropped = 1},
        KvSequenceState{.next = 133, .sinks_in_place = false}}) {
    EXPECT_FALSE(cache.IsPossible(wrong));
  }
}

TEST_P(KvCacheTest, SaysWhenFull) {
  auto made = MakeKvCache(kind(), {kShapes, type(), 50, 1});
  ASSERT_TRUE(made.ok());
  KvCache& cache = **made;
  const SeqId seq = *cache.Create();
  EXPECT_EQ(cache.Create().status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cache.Fork(seq).status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(cache.Reserve(seq, 51));
  EXPECT_TRUE(cache.Reserve(seq, 50));
  EXPECT_FALSE(cache.Reserve(seq, 51));
  EXPECT_EQ(cache.View(seq, 0).length, 50);  // the failure changed nothing
  EXPECT_TRUE(cache.Reserve(seq, 20));       // instead of the 50, not in addition
  EXPECT_EQ(cache.View(seq, 2).length, 20);
  cache.Commit(seq, 20);
  EXPECT_FALSE(cache.Reserve(seq, 31));
  EXPECT_FALSE(cache.Reserve(seq, std::numeric_limits<int64_t>::max()));
  EXPECT_TRUE(cache.Reserve(seq, 30));
}

TEST_P(KvCacheTest, OldNanDoesNotOutliveItsSequence) {
  auto made = MakeKvCache(kind(), {kShapes, type(), 300, 2});
  ASSERT_TRUE(made.ok());
  KvCache& cache = **made;
  const auto poison = [&](SeqId seq, int64_t begin, int64_t end) {
    for (int layer = 0; layer < 3; ++layer) {
      const KvView view = cache.View(seq, layer);
      for (int64_t slot = begin; slot < end; ++slot) {
        for (int64_t h = 0; h < view.kv_heads; ++h) {
          if (HasCodes(type())) StoreValueScale(view, h, slot, {0x7fc0, 0x7fc0});
          for (int64_t i = 0; i < view.head_dim && !HasCodes(type()); ++i) {
            StoreElement(type(), view.v_tile(h, slot / 16) + ref::ValueOffset(type(), view.head_dim, slot % 16, i),
                         NAN);
          }
        }
      }
    }
  };
  const auto expect_clean = [&](SeqId seq, int64_t begin) {
    for (int layer = 0; layer < 3; ++layer) {
      const KvView view = cache.View(seq, layer);
      EXPECT_TRUE(ValuesAreZero(view, begin, RoundUp(view.length, kTileTokens)));
    }
  };
  SeqId seq = *cache.Create();
  ASSERT_TRUE(cache.Reserve(seq, 200));
  poison(seq, 100, 200);
  cache.Commit(seq, 150);
  ASSERT_TRUE(cache.Truncate(seq, 100));
  ASSERT_TRUE(cache.Reserve(seq, 60));
  expect_clean(seq, 100);
  poison(seq, 100, 160);
  // Shared with a fork that goes on from before the poison while its owner ends.
  cache.Commit(seq, 60);
  const SeqId fork = *cache.Fork(seq);
  ASSERT_TRUE(cache.Truncate(fork, 90));
  cache.Release(seq);
  ASSERT_TRUE(cache.Reserve(fork, 5));
  expect_clean(fork, 90);
  cache.Release(fork);
  seq = *cache.Create();
  ASSERT_TRUE(cache.Reserve(seq, 300));
  expect_clean(seq, 0);
}

TEST(KvCacheConfigTest, RefusesImpossibleShapes) {
  const auto code = [](KvLayerShape shape, int64_t tokens, int64_t sequences) {
    return MakeKvCache(CacheKind::kDynamic, {{&shape, 1}, KvType::kBF16, tokens, sequences}).status().code();
  };
  EXPECT_EQ(code({1, 8}, 10, 1), StatusCode::kOk);
  EXPECT_EQ(code({0, 8}, 10, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 0}, 10, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 513}, 10, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, -8}, 10, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 8}, 0, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 8}, int64_t{1} << 40, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 8}, 10, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeKvCache(CacheKind::kStatic, {{}, KvType::kF32, 10, 1}).status().code(), StatusCode::kInvalidArgument);
}

TEST(KvCacheConfigTest, MoreThanTheMachineHasIsAnError) {
  const KvLayerShape shape = {1024, 512};  // 4 MiB a token: 8 EiB
  auto cache = MakeKvCache(CacheKind::kStatic, {{&shape, 1}, KvType::kF32, int64_t{1} << 30, 1});
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ((*cache)->Create().status().code(), StatusCode::kResourceExhausted);
  auto dynamic = MakeKvCache(CacheKind::kDynamic, {{&shape, 1}, KvType::kF32, int64_t{1} << 30, 1});
  ASSERT_TRUE(dynamic.ok());
  const SeqId seq = *(*dynamic)->Create();
  EXPECT_FALSE((*dynamic)->Reserve(seq, int64_t{1} << 30));
  EXPECT_EQ((*dynamic)->BytesInUse(), 0);
  EXPECT_TRUE((*dynamic)->Reserve(seq, 1));
}

TEST(KvCacheFailureTest, AReservationThatFindsMemoryForHalfOfItChangesNothing) {
  // The second layers' blocks are larger than the first one's.
  constexpr KvLayerShape kUneven[] = {{1, 5}, {8, 64}, {8, 64}};
  struct Unlimited {
    ~Unlimited() { SetMemoryLimit(0); }
  } unlimited;
  for (const CacheKind kind : {CacheKind::kDynamic, CacheKind::kWindow, CacheKind::kSink}) {
    SetMemoryLimit(0);
    KvCacheConfig config{.layers = kUneven, .type = KvType::kF32, .max_tokens = 100'000, .max_sequences = 3};
    if (kind != CacheKind::kDynamic) config.bound = {.tokens = 50'000, .sinks = kind == CacheKind::kSink ? 4 : 0};
    config.rotated_keys = true;
    auto made = MakeKvCache(kind, config);
    ASSERT_TRUE(made.ok());
    KvCache& cache = **made;
    const SeqId seq = *cache.Create();
    ASSERT_TRUE(cache.Reserve(seq, 130));
    for (int layer = 0; layer < 3; ++layer) {
      for (int64_t slot = 0; slot < 130; ++slot) WriteSlot(cache.View(seq, layer), layer, slot, static_cast<int>(slot));
    }
    cache.Commit(seq, 130);
    const SeqId fork = *cache.Fork(seq);
    ASSERT_TRUE(cache.Reserve(fork, 2));  // with a copy of the last block
    const int64_t used = cache.BytesInUse();
    const auto unchanged = [&] {
      for (const SeqId each : {seq, fork}) {
        EXPECT_EQ(cache.NextPosition(each), 130);
        for (int layer = 0; layer < 3; ++layer) {
          const KvView view = cache.View(each, layer);
          EXPECT_EQ(view.length, each == fork ? 132 : 130);
          for (const int64_t slot : {0, 129}) EXPECT_TRUE(HoldsTag(view, layer, slot, static_cast<int>(slot)));
        }
      }
      EXPECT_EQ(cache.BytesInUse(), used);
    };
    bool half = false;
    int64_t limit = int64_t{1} << 20;
    const int64_t before = GetMemoryUse(MemoryOwner::kKvCache).current;
    // Above what the process, with a sanitizer perhaps, takes already.
    for (SetMemoryLimit(limit); AvailableMemory() == 0; SetMemoryLimit(limit)) limit += int64_t{1} << 20;
    for (int i = 0; i < 1000; ++i, limit += int64_t{1} << 18) {
      SetMemoryLimit(limit);
      if (cache.Reserve(fork, 6000)) break;
      half = half || GetMemoryUse(MemoryOwner::kKvCache).current > before;
      unchanged();
      if (HasFailure()) return;
    }
    EXPECT_TRUE(half) << "no attempt failed between the two pools";
    EXPECT_EQ(cache.View(fork, 1).length, 6130);
    EXPECT_EQ(cache.View(seq, 1).length, 130);
    cache.Release(seq);
    cache.Release(fork);
    EXPECT_EQ(cache.BytesInUse(), 0);
  }
}

TEST(BlockPoolTest, GrowsWithoutMovingAndZeroesWhatComesBack) {
  BlockPool pool(4096, 3);
  std::vector<BlockId> ids;
  std::vector<std::byte*> data;
  for (int i = 0; i < 200; ++i) {
    ids.push_back(*pool.Allocate());
    data.push_back(pool.data(ids.back()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data.back()) % 64, 0u);
    std::memset(data.back(), i, 4096);
  }
  EXPECT_EQ(pool.in_use(), 200);
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(pool.data(ids[static_cast<size_t>(i)]), data[static_cast<size_t>(i)]);
    EXPECT_EQ(static_cast<int>(data[static_cast<size_t>(i)][4095]), i);
  }
  pool.AddReference(ids[7]);
  pool.Release(ids[7]);
  EXPECT_EQ(pool.in_use(), 200);
  pool.Release(ids[7]);
  EXPECT_EQ(pool.in_use(), 199);
  const BlockId again = *pool.Allocate();
  EXPECT_EQ(again, ids[7]);
  for (int i = 0; i < 4096; ++i) EXPECT_EQ(pool.data(again)[i], std::byte{0});
}

std::string KindAndType(const ::testing::TestParamInfo<KvCacheTest::ParamType>& test) {
  constexpr const char* kTypes[] = {"F32", "BF16", "F16", "I8", "I4"};
  constexpr std::pair<CacheKind, const char*> kKinds[] = {
      {CacheKind::kDynamic, "dynamic"}, {CacheKind::kStatic, "static"}, {CacheKind::kPaged, "paged"}};
  const auto* const kind =
      std::ranges::find(kKinds, std::get<0>(test.param), &std::pair<CacheKind, const char*>::first);
  return std::string(kind->second) + kTypes[static_cast<int>(std::get<1>(test.param))];
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, KvCacheTest,
    ::testing::Combine(::testing::Values(CacheKind::kDynamic, CacheKind::kStatic, CacheKind::kPaged),
                       ::testing::Values(KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4)),
    KindAndType);

}  // namespace
}  // namespace kvasir
