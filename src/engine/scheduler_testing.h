// What the tests of the scheduler share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/scheduler.h"
#include "kv/testing.h"

namespace kvasir::testing {

inline constexpr KvLayerShape kLayer[] = {{.kv_heads = 1, .head_dim = 2}};

inline std::unique_ptr<KvCache> Cache(int64_t pool_tokens, int64_t sequences = 8) {
  auto cache = MakeKvCache(CacheKind::kPaged, {.layers = kLayer,
                                               .max_tokens = 1024,
                                               .max_sequences = sequences,
                                               .paged = {.block_tokens = 16, .pool_tokens = pool_tokens}});
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return *std::move(cache);
}

/// Texts, and a scheduler whose steps are run by committing them.
class Driver {
 public:
  Driver(KvCache& cache, const SchedulerOptions& options) : cache_(cache), scheduler_(cache, 1, options) {}

  LaneId Add(int32_t tokens, int32_t first = 1, int32_t priority = 0, uint64_t client = 0) {
    std::vector<TokenId>& text = texts_.emplace_back(static_cast<size_t>(tokens));
    std::iota(text.begin(), text.end(), first);
    const auto lane =
        scheduler_.Add({.tokens = &text, .planned_length = 1024, .scope = "s", .priority = priority, .client = client});
    EXPECT_TRUE(lane.ok()) << lane.status().message();
    text_of_[*lane] = &text;
    return *lane;
  }

  /// Runs a step, which leaves a mark of each token in its slot; every complete text gets a token.
  Scheduler::Step Step(double milliseconds = 1, double for_prompt_token = 0) {
    Scheduler::Step step = scheduler_.Next();
    for (const ScheduledInput& input : step.inputs) {
      const std::vector<TokenId>& text = *text_of_[input.lane];
      const auto at = static_cast<size_t>(cache_.NextPosition(input.seq));
      EXPECT_LE(at + input.tokens.size(), text.size());
      EXPECT_EQ(input.last, at + input.tokens.size() == text.size());
      EXPECT_TRUE(std::equal(input.tokens.begin(), input.tokens.end(), text.begin() + static_cast<ptrdiff_t>(at)));
      const KvView view = cache_.View(input.seq, 0);
      for (size_t i = 0; i < input.tokens.size(); ++i) {
        kv_testing::WriteSlot(view, 0, static_cast<int64_t>(at + i), input.tokens[i]);
      }
      for (size_t i = 0; i < at; ++i) EXPECT_TRUE(kv_testing::HoldsTag(view, 0, static_cast<int64_t>(i), text[i]));
      EXPECT_TRUE(kv_testing::ValuesAreZero(view, view.length, RoundUp(view.length, 16)));
      cache_.Commit(input.seq, static_cast<int64_t>(input.tokens.size()));
      run_tokens_ += static_cast<int64_t>(input.tokens.size());
    }
    for (const ScheduledInput& input : step.inputs) {
      if (!input.answer) milliseconds += for_prompt_token * static_cast<double>(input.tokens.size());
    }
    scheduler_.Ran(step, milliseconds);
    for (const ScheduledInput& input : step.inputs) {
      if (input.last) text_of_[input.lane]->push_back(7000 + static_cast<int32_t>(input.lane));
    }
    return step;
  }

  Scheduler& scheduler() { return scheduler_; }
  size_t Length(LaneId lane) { return text_of_[lane]->size(); }
  int64_t run_tokens() const { return run_tokens_; }

 private:
  KvCache& cache_;
  Scheduler scheduler_;
  std::deque<std::vector<TokenId>> texts_;
  std::map<LaneId, std::vector<TokenId>*> text_of_;
  int64_t run_tokens_ = 0;
};

inline std::vector<std::pair<LaneId, size_t>> Sizes(const Scheduler::Step& step) {
  std::vector<std::pair<LaneId, size_t>> sizes;
  for (const ScheduledInput& input : step.inputs) sizes.emplace_back(input.lane, input.tokens.size());
  return sizes;
}
using P = std::pair<LaneId, size_t>;

}  // namespace kvasir::testing
