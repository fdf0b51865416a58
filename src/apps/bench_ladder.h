// kvasir bench --ladder: one model in several precisions, taking turns step by step (P6).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/bench_run.h"
#include "base/status.h"
#include "engine/engine.h"

namespace kvasir::apps {

struct LadderOptions {
  /// Separated by commas: auto, int8, nf4 or fp4, which round `model` on loading as --weights does, or the path of
  /// another file of the model.
  std::string rungs;
  std::filesystem::path model;
  EngineOptions engine;  // model, weights and context are not looked at
  int64_t chunk = 512;
  std::vector<BenchTest> tests;
  int32_t repetitions = 5;
  ReportForm form = ReportForm::kTable;
};

/// Loads all rungs at once and lets them take turns: after every step of decoding or prompt the next one makes its
/// step, and memory is read in between. So all meet the same machine, and the ratio of two neighbouring steps says how
/// much faster one is, however much the machine's speed changes with time. Prints medians and quartiles over the steps.
Status RunLadderBench(const LadderOptions& options);

}  // namespace kvasir::apps
