// Flags that say which model to run and how, and loading it with progress and notes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "apps/flags.h"
#include "base/status.h"
#include "engine/engine.h"

namespace kvasir::apps {

/// The values of the flags; verbs add those that make sense for them.
struct ModelFlags {
  std::string model;  // empty: the demonstration model
  std::optional<DType> dtype;
  std::optional<DType> weights;
  std::optional<KvType> kv_type;
  std::optional<int32_t> threads;
  std::optional<int64_t> context;
  int64_t batch = 512;
  CachePolicy cache;
  std::optional<int64_t> pool_tokens;
  AttentionMode attention;
  RopeOverride rope;
  bool exact_prefill = false;
  std::string pre_tokenizer;
  int64_t memory_limit = 0;  // bytes; 0: what is free
  bool verbose = false;

  void AddModel(FlagTable& flags);
  void AddThreads(FlagTable& flags);
  void AddDType(FlagTable& flags);
  void AddPrefillWeights(FlagTable& flags);
  void AddKvType(FlagTable& flags);
  void AddContext(FlagTable& flags);
  void AddBatch(FlagTable& flags);
  void AddCache(FlagTable& flags);  // and its pool's size
  void AddAttention(FlagTable& flags);
  void AddRope(FlagTable& flags);
  void AddPreTokenizer(FlagTable& flags);
  void AddMemoryLimit(FlagTable& flags);
  void AddVerbose(FlagTable& flags);
  /// All of them, under the title "Model".
  void AddAll(FlagTable& flags);

  EngineOptions Options() const;
  /// Raises the log level when --verbose was given.
  void ApplyVerbose() const;
  /// Sets the process's memory limit to --memory-limit.
  void ApplyMemoryLimit() const;
};

/// "flash", "plain", "local:K", "atrous:K", "sparse:K" or "sparse:K,alternate".
Result<AttentionMode> ParseAttention(std::string_view text);
/// The same text from a mode.
std::string AttentionText(const AttentionMode& mode);

/// `model`, or when it is empty the demonstration model: $KVASIR_DEMO_MODEL, else models/demo two levels above the
/// program (a build folder inside the source tree), else share/kvasir/models/demo beside an installed program's bin.
Result<std::filesystem::path> FindModel(const std::string& model);

/// The config.json that `path` is, or that lies in a folder without any weights.
std::optional<std::filesystem::path> ConfigAlone(const std::filesystem::path& path);

/// Loads the model (an empty path is the demonstration model) with progress on a terminal. Says before that what it
/// needs and what is free, and how the context was chosen, unless `quiet`.
Result<std::unique_ptr<Engine>> LoadEngine(const ModelFlags& flags, EngineOptions options, bool quiet);

/// Whether there is something at `path` to load as a session, be it a broken link.
bool SessionExists(const std::string& path);

/// A policy as --cache has it: "dynamic", "paged:64", "window:256", "sink:4,256". InvalidArgument says what is wrong
/// with it.
Result<CachePolicy> ParseCachePolicy(std::string_view text);

/// Says on standard error what `plan` needs, what is free, and what is odd about it.
void ShowPlan(const MemoryPlan& plan, int64_t available);

/// The tokenizer of a model folder, a file in one, or a GGUF file, without its weights. `pre` is for GGUF only.
Result<std::unique_ptr<Tokenizer>> LoadModelTokenizer(const std::filesystem::path& path, const std::string& pre);

}  // namespace kvasir::apps
