#include "apps/bench_ladder.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include <boost/json/array.hpp>

#include "apps/report.h"
#include "apps/terminal.h"
#include "base/limits.h"

namespace kvasir::apps {
namespace {

using Rounding = std::pair<std::string_view, std::optional<DType>>;
constexpr Rounding kRoundings[] = {
    {"auto", std::nullopt}, {"int8", DType::kInt8}, {"nf4", DType::kNF4}, {"fp4", DType::kFP4}};

/// The rounding on loading that `name` stands for; null: it is a file's.
const Rounding* RoundingOf(std::string_view name) {
  const auto* const found = std::ranges::find(kRoundings, name, &Rounding::first);
  return found == std::end(kRoundings) ? nullptr : found;
}

/// A model in one precision, and for one test what it runs with and how long its steps took.
struct Rung {
  std::string name;
  std::unique_ptr<Model> model;
  ExecContext ctx;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<KvCache> cache;
  std::unique_ptr<StepRunner> runner;
  std::unique_ptr<BenchSteps> steps;
  std::vector<double> seconds;  // of every step
  std::vector<double> shares;   // of the rate of reading just before and after it
  double bytes_per_token = 0;
};

class Ladder {
 public:
  Ladder(const LadderOptions& options, ThreadPool& pool, const KernelSet& kernels)
      : options_(options), pool_(pool), kernels_(kernels) {}

  /// What is wrong with names and files is told before anything is loaded or measured.
  Status CheckNames() {
    std::string_view rest = options_.rungs;
    while (true) {
      const size_t comma = std::min(rest.find(','), rest.size());
      if (comma == 0) return InvalidArgument("--ladder \"{}\": an empty name", options_.rungs);
      names_.emplace_back(rest.substr(0, comma));
      if (comma == rest.size()) break;
      rest.remove_prefix(comma + 1);
    }
    for (const std::string& name : names_) {
      if (RoundingOf(name) != nullptr) continue;
      const auto files = OpenModelFiles(name);
      if (!files.ok()) return files.status().WithContext("--ladder");
    }
    return OkStatus();
  }

  Status Load() {
    for (const std::string& name : names_) RETURN_IF_ERROR(LoadRung(name));
    return OkStatus();
  }

  Status Run(const BenchTest& test, CeilingMeter& meter) {
    for (Rung& rung : rungs_) RETURN_IF_ERROR(Prepare(test, rung));
    for (int32_t i = -1; i < options_.repetitions; ++i) {  // the first for warming up
      RETURN_IF_ERROR(RunOnce(test, meter, i < 0).WithContext(test.Name()));
    }
    return OkStatus();
  }

  const std::vector<Rung>& rungs() const { return rungs_; }
  static int64_t StepTokens(const BenchTest& test) { return test.batch * (test.prefill ? test.tokens : 1); }

 private:
  Status LoadRung(std::string name) {
    const Rounding* const rounding = RoundingOf(name);
    LoadOptions load;
    load.dtype = options_.engine.dtype;
    load.rope = options_.engine.rope;
    std::filesystem::path path = options_.model;
    if (rounding != nullptr) {
      load.weights = rounding->second;
    } else {
      path = name;
      name = path.filename().string();
    }
    load.planned = [&](const DecoderSpec& spec, const WeightNeed& weights) -> Status {
      for (const BenchTest& test : options_.tests) {
        const RunShape run = Shape(test, weights);
        ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(spec, weights, run));
        RETURN_IF_ERROR(CheckFits(plan, spec, weights, run, AvailableMemory()).WithContext(name));
      }
      return OkStatus();
    };
    Progress progress("loading " + name, options_.form != ReportForm::kJson);
    load.progress = [&](int64_t done, int64_t total) { progress.Update(done, total, HumanBytes(total)); };
    ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Model::Load(path, load, pool_));
    rungs_.push_back({.name = std::move(name), .model = std::move(model)});
    return OkStatus();
  }

  RunShape Shape(const BenchTest& test, const WeightNeed& weights) const {
    return BenchShape(test, options_.engine, options_.chunk, weights, pool_.size(), kernels_);
  }

  Status Prepare(const BenchTest& test, Rung& rung) {
    rung.steps.reset();
    rung.runner.reset();
    rung.cache.reset();
    rung.arena = std::make_unique<Arena>();
    rung.ctx = {.pool = &pool_, .round_weights = !options_.engine.exact_prefill};
    rung.ctx.kernels = &kernels_;
    rung.ctx.scratch = rung.arena.get();
    rung.seconds.clear();
    rung.shares.clear();
    const Model& model = *rung.model;
    const RunShape run = Shape(test, {.dtypes = {model.dtype()}});
    ASSIGN_OR_RETURN(rung.cache, MakeKvCache(run.cache, CacheConfig(model.spec(), model.kv_shapes(), run)));
    rung.runner = std::make_unique<StepRunner>(model, *rung.cache, rung.ctx, run.chunk, options_.engine.attention);
    return OkStatus();
  }

  Status RunOnce(const BenchTest& test, CeilingMeter& meter, bool warm_up) {
    for (Rung& rung : rungs_) {
      rung.steps = std::make_unique<BenchSteps>(test, *rung.model, *rung.cache, *rung.runner);
      RETURN_IF_ERROR(rung.steps->Start());
    }
    constexpr int64_t kWarmSteps = 4;
    const int64_t steps = test.prefill ? 1 : warm_up ? std::min(test.tokens, kWarmSteps) : test.tokens;
    double before = meter.ReadSome(kBenchReadBytes);
    for (int64_t i = 0; i < steps; ++i) {
      for (size_t turn = 0; turn < rungs_.size(); ++turn) {
        // Each comes first as often.
        Rung& rung = rungs_[(turn + static_cast<size_t>(turns_)) % rungs_.size()];
        ASSIGN_OR_RETURN(const double seconds, rung.steps->Step());
        const double after = meter.ReadSome(kBenchReadBytes);
        const double rate = 2 / (1 / before + 1 / after);
        before = after;
        const auto tokens = static_cast<double>(test.batch * (test.prefill ? test.tokens : i + 1));
        const OpCounters& done = rung.ctx.counters;
        rung.bytes_per_token = static_cast<double>(done.weight_bytes + done.kv_bytes) / tokens;
        if (warm_up) continue;
        rung.seconds.push_back(seconds);
        rung.shares.push_back(100 * rung.bytes_per_token * static_cast<double>(StepTokens(test)) / seconds / rate);
      }
      ++turns_;
    }
    for (Rung& rung : rungs_) rung.steps.reset();
    return OkStatus();
  }

  const LadderOptions& options_;
  ThreadPool& pool_;
  const KernelSet& kernels_;
  std::vector<std::string> names_;
  std::vector<Rung> rungs_;
  int64_t turns_ = 0;
};

/// The times of `base`'s steps over those of `rung`'s beside them: how many times as fast rung is.
std::vector<double> Ratios(const Rung& rung, const Rung& base) {
  std::vector<double> ratios;
  ratios.reserve(rung.seconds.size());
  for (size_t i = 0; i < rung.seconds.size(); ++i) ratios.push_back(base.seconds[i] / rung.seconds[i]);
  return ratios;
}

std::string RatioText(const std::vector<double>& ratios) {
  return fmt::format("{:.3f} ({:.2f} – {:.2f})", Quantile(ratios, 0.5), Quantile(ratios, 0.25), Quantile(ratios, 0.75));
}

boost::json::object RatioJson(const std::vector<double>& ratios) {
  return {{"median", Quantile(ratios, 0.5)},
          {"lower_quartile", Quantile(ratios, 0.25)},
          {"upper_quartile", Quantile(ratios, 0.75)}};
}

void AddTable(const BenchTest& test, const std::vector<Rung>& rungs, bool md, std::string& text) {
  const auto line = [&](auto... cells) {
    text += md ? fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", cells...)
               : fmt::format("{:<22} {:>5} {:>9} {:>9} {:>22} {:>22} {:>22}\n", cells...);
  };
  text += fmt::format("{}, {} steps of each in turn: medians (quartiles)\n{}", test.Name(), rungs[0].seconds.size(),
                      md ? "\n" : "");
  line("weights", "type", "MB/token", "tok/s", "times the first", "times the one above", "of reading, %");
  if (md) line("---", "---", "--:", "--:", "--:", "--:", "--:");
  for (size_t i = 0; i < rungs.size(); ++i) {
    const Rung& rung = rungs[i];
    const double tok_s = static_cast<double>(Ladder::StepTokens(test)) / Median(rung.seconds);
    line(rung.name, DTypeName(rung.model->dtype()), fmt::format("{:.1f}", rung.bytes_per_token / 1e6),
         fmt::format("{:.2f}", tok_s), i == 0 ? "" : RatioText(Ratios(rung, rungs[0])),
         i == 0 ? "" : RatioText(Ratios(rung, rungs[i - 1])),
         test.prefill ? std::string()
                      : fmt::format("{:.1f} ({:.0f} – {:.0f})", Median(rung.shares), Quantile(rung.shares, 0.25),
                                    Quantile(rung.shares, 0.75)));
  }
  text += "\n";
}

void AddJson(const BenchTest& test, const std::vector<Rung>& rungs, boost::json::array& array) {
  for (size_t i = 0; i < rungs.size(); ++i) {
    const Rung& rung = rungs[i];
    boost::json::object row{{"test", test.Name()},
                            {"weights", rung.name},
                            {"type", DTypeName(rung.model->dtype())},
                            {"steps", rung.seconds.size()},
                            {"bytes_per_token", rung.bytes_per_token},
                            {"tok_s_median", static_cast<double>(Ladder::StepTokens(test)) / Median(rung.seconds)}};
    if (!test.prefill) row["pct_of_reading"] = RatioJson(rung.shares);
    if (i > 0) {
      row["over_first"] = RatioJson(Ratios(rung, rungs[0]));
      row["over_previous"] = RatioJson(Ratios(rung, rungs[i - 1]));
    }
    array.push_back(std::move(row));
  }
}

}  // namespace

Status RunLadderBench(const LadderOptions& options) {
  ThreadPool pool(options.engine.threads > 0 ? options.engine.threads : AvailableProcessors());
  ASSIGN_OR_RETURN(const KernelSet* const kernels, SelectKernelSet());
  Ladder ladder(options, pool, *kernels);
  RETURN_IF_ERROR(ladder.CheckNames());
  // Before the models, so that their plans count its memory.
  ASSIGN_OR_RETURN(CeilingMeter meter, CeilingMeter::Create(pool, *kernels));
  RETURN_IF_ERROR(ladder.Load());
  std::string text;
  boost::json::array array;
  for (const BenchTest& test : options.tests) {
    RETURN_IF_ERROR(ladder.Run(test, meter));
    if (options.form == ReportForm::kJson) {
      AddJson(test, ladder.rungs(), array);
    } else {
      AddTable(test, ladder.rungs(), options.form == ReportForm::kMarkdown, text);
    }
  }
  return options.form == ReportForm::kJson ? WriteStdout(JsonLine(array)) : WriteText(text);
}

}  // namespace kvasir::apps
