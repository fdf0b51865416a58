// What the tests of the batch loop share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "engine/batch_loop.h"
#include "engine/testing.h"

namespace kvasir::testing {

inline std::vector<TokenId> Prompt(int32_t count, int32_t first) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + first) % 4000;
  return tokens;
}

struct Answers {
  std::vector<Result<BatchOutput>> outputs;
  int ended = 0;

  explicit Answers(size_t count) {
    for (size_t i = 0; i < count; ++i) outputs.emplace_back(Internal("no answer"));
  }
  std::function<void(Result<BatchOutput>)> At(size_t i) {
    return [this, i](Result<BatchOutput> output) {
      outputs[i] = std::move(output);
      ++ended;
    };
  }
};

inline void RunAll(BatchLoop& loop) {
  for (int steps = 0; steps < 10'000; ++steps) {
    const auto more = loop.Step();
    ASSERT_TRUE(more.ok()) << more.status().message();
    if (!*more) return;
  }
  FAIL() << "no end";
}

}  // namespace kvasir::testing
