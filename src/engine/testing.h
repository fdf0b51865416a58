// What the tests of the engine share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/engine.h"

namespace kvasir::testing {

inline std::unique_ptr<Engine> LoadOrDie(const EngineOptions& options) {
  auto engine = Engine::Load(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return *std::move(engine);
}

/// Greedy, `n_tokens` whatever they are.
inline GenerationRequest Request(std::vector<TokenId> prompt, int32_t n_tokens) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = n_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

inline std::vector<TokenId> Ids(Engine& engine, const GenerationRequest& request) {
  auto output = engine.Generate(request);
  EXPECT_TRUE(output.ok()) << output.status().message();
  return output.ok() ? output->samples[0].token_ids : std::vector<TokenId>();
}

}  // namespace kvasir::testing
