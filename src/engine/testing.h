// What the tests of the engine share.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "base/test_paths.h"
#include "engine/engine.h"

namespace kvasir::testing {

inline std::unique_ptr<Engine> LoadOrDie(const EngineOptions& options) {
  auto engine = Engine::Load(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return *std::move(engine);
}

/// The demonstration model for a few requests at once.
inline EngineOptions DemoOptions(CacheMode mode = CacheMode::kDynamic, int64_t pool_tokens = 0) {
  EngineOptions options;
  options.model = std::filesystem::path(kSourceTree) / "models/demo";
  options.cache.mode = mode;
  options.pool_tokens = pool_tokens;
  options.threads = 2;
  options.context = 200;
  options.max_sequences = 6;
  return options;
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
