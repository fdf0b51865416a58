// What `kvasir bench techniques` measures. A technique is a file with one function, and a line in techniques.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/model_flags.h"
#include "apps/techniques/section.h"
#include "apps/trace.h"
#include "base/status.h"
#include "kernels/ceilings.h"
#include "kernels/exec.h"

namespace kvasir::apps {

/// The shortest text of which A9 to A11 show anything.
inline constexpr int64_t kLeastStreamTokens = 250;

/// What all measurements share.
struct TechniqueBench {
  ExecContext ctx;                // with threads, kernels and scratch memory, which is empty
  CeilingMeter* meter = nullptr;  // the machine's limits, over the same threads
  bool quick = false;             // small enough for tests; the figures then say nothing
  int32_t repetitions = 5;        // of each measurement, in alternation with its baseline
  int64_t longest = 8192;         // tokens of the longest prompt of which the speed is measured
  int64_t at_once = 8;            // requests that V1 and V2 run together
  int64_t new_tokens = 1000;      // written with and without a cache
  const ModelFlags* model = nullptr;
  const std::vector<TraceRequest>* trace = nullptr;  // null: none was given
  const std::vector<TokenId>* stream = nullptr;      // a text of kLeastStreamTokens and more; null: none was given
};

struct Technique {
  std::string_view name;   // "attention-memory"
  std::string_view ids;    // of techniques, separated by spaces: "A1 A2 N5"
  std::string_view title;  // what is compared
  Result<Section> (*run)(TechniqueBench& bench);
};

/// All of them, in the order of the report.
const std::vector<Technique>& AllTechniques();

/// The techniques that `list` names by id or name ("A2,A4,kv-types"), in the order of the report; empty: all.
/// InvalidArgument lists what there is.
Result<std::vector<Technique>> ChooseTechniques(std::string_view list);

/// Whether `technique` has this id.
bool HasId(const Technique& technique, std::string_view id);

// The functions, each in the file of its name.
Result<Section> MeasureAttentionMemory(TechniqueBench& bench);
Result<Section> MeasureAttentionSpeed(TechniqueBench& bench);
Result<Section> MeasureAttentionDecode(TechniqueBench& bench);
Result<Section> MeasureAttentionPatterns(TechniqueBench& bench);
Result<Section> MeasureCacheWaste(TechniqueBench& bench);
Result<Section> MeasureCacheRatio(TechniqueBench& bench);
Result<Section> MeasureStreaming(TechniqueBench& bench);
Result<Section> MeasureManyTurns(TechniqueBench& bench);
Result<Section> MeasureCacheTypes(TechniqueBench& bench);
Result<Section> MeasureBatching(TechniqueBench& bench);
Result<Section> MeasureChunkedPrefill(TechniqueBench& bench);  // in batching.cc

/// An engine of the flags' model for sequences of at most `context` tokens, with the bench's threads. Prompts are
/// computed exactly: else a K-quant's depend a little on how they are cut, and texts could differ.
Result<std::unique_ptr<Engine>> LoadTechniqueEngine(const TechniqueBench& bench, CacheMode cache, int64_t context,
                                                    int64_t sequences = 1);
Result<std::unique_ptr<Engine>> LoadTechniqueEngine(const TechniqueBench& bench, const CachePolicy& cache,
                                                    int64_t context, int64_t sequences = 1);

/// Seconds that `run` takes, or its error.
template <class Fn>
Result<double> TimeOf(const Fn& run) {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(run());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace kvasir::apps
