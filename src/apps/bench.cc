// kvasir bench: tokens per second, and what share of this machine's measured limits that is.
#include <algorithm>
#include <optional>

#include <boost/json/array.hpp>

#include "apps/bench_kernels.h"
#include "apps/bench_ladder.h"
#include "apps/bench_run.h"
#include "apps/model_flags.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "base/limits.h"
#include "base/log.h"

namespace kvasir::apps {
namespace {

struct Row {
  BenchResult result;
  LimitShare share;
  MemoryPlan plan;
  MemoryReport memory;  // peaks of this test alone
};

Result<std::vector<int64_t>> ParseCounts(std::string_view text, int64_t min, int64_t max) {
  std::vector<int64_t> values;
  while (true) {
    const size_t comma = std::min(text.find(','), text.size());
    ASSIGN_OR_RETURN(const int64_t value, internal::ParseInt(text.substr(0, comma), min, max));
    if (value > 0) values.push_back(value);
    if (comma == text.size()) return values;
    text.remove_prefix(comma + 1);
  }
}

class BenchVerb final : public Verb {
 public:
  std::string_view name() const override { return "bench"; }
  std::string_view summary() const override { return "Measure tokens per second and percent of the machine's limit."; }
  std::string_view description() const override {
    return "usage: kvasir bench [-m MODEL] [-p LIST] [-n LIST] [-b LIST] [-r N] [-o table|json|md]\n"
           "       kvasir bench --kernels [--formats LIST] [--tokens LIST] [-t N] [-r N]\n"
           "       kvasir bench --ladder auto,int8,nf4 [-m MODEL] [--tests LIST] [-r N]\n\n"
           "pp512 runs a prompt of 512 tokens, tg128 generates 128 one after another, tg32@b16 takes 32 steps of 16\n"
           "sequences. The limits are measured in this process, before and after every run: reading memory, and\n"
           "multiply-adds. Percent of the limit counts the bytes really read and the operations really done, each run\n"
           "against its own limit; the median is printed, and the same against the best limit seen.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Tests");
    flags.Text("-p,--n-prompt", "LIST", &prompts_, "Prompt lengths, separated by commas; 0: none.");
    flags.Text("-n,--n-gen", "LIST", &steps_, "Numbers of generated tokens; 0: none.");
    flags.Text("-b,--batches", "LIST", &batches_, "Sequences at once while generating.");
    flags.Int("-d,--depth,--n-depth", "N", &depth_, 0, 1 << 20, "Tokens in the cache before a test begins.");
    flags.Text("--tests", "LIST", &tests_, "Tests by name, such as pp512,tg32@b16; instead of -p, -n, -b and -d.");
    flags.Int("-r,--repetitions", "N", &repetitions_, 1, 10000, "Runs of each test.");
    flags.Switch("--kernels", &kernels_, "Time every matrix kernel by itself, without a model.");
    flags.Text("--formats", "LIST", &formats_, "With --kernels: weight formats such as q4_0,bf16.");
    flags.Text("--tokens", "LIST", &tokens_, "With --kernels: tokens of each product.");
    flags.Text("--ladder", "LIST", &ladder_,
               "Precisions that take turns step by step: auto, int8, nf4, fp4 (as --weights), or other files of the "
               "model; their ratios hold however the machine's speed drifts.");
    flags.Switch("--limits", &limits_, "Measure the machine's limits.", "--no-limits");
    flags.Group("Model");
    model_.AddModel(flags);
    flags.Positional("--model");
    model_.AddThreads(flags);
    model_.AddDType(flags);
    model_.AddPrefillWeights(flags);
    model_.AddKvType(flags);
    model_.AddAttention(flags);
    model_.AddRope(flags);
    model_.AddMemoryLimit(flags);
    model_.AddCache(flags);
    flags.Int("--prefill-chunk,--ubatch-size", "N", &chunk_, 1, 65536, "Tokens of a prompt run at once.");
    flags.Group("Output");
    flags.Choice("-o,--output", &format_,
                 {{"table", ReportForm::kTable}, {"json", ReportForm::kJson}, {"md", ReportForm::kMarkdown}},
                 "Form of the report.");
    flags.Switch("--json", &json_, "The same as -o json.");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    model_.ApplyVerbose();
    model_.ApplyMemoryLimit();
    if (json_) format_ = ReportForm::kJson;
    if (kernels_) {
      if (!ladder_.empty()) return InvalidArgument("--ladder goes with a model, not with --kernels");
      auto tokens = ParseCounts(tokens_, 1, 4096);
      if (!tokens.ok()) return tokens.status().WithContext("--tokens");
      return RunKernelBench({.formats = formats_,
                             .tokens = *std::move(tokens),
                             .threads = model_.Options().threads,
                             .repetitions = repetitions_,
                             .round_weights = !model_.exact_prefill,
                             .form = format_});
    }
    if (model_.cache.Recomputes()) {
      return InvalidArgument("--cache {}: bench times steps that go on from a cache", model_.cache.Text());
    }
    ASSIGN_OR_RETURN(const std::vector<BenchTest> tests, Tests());
    ASSIGN_OR_RETURN(path_, FindModel(model_.model));
    if (!ladder_.empty()) {
      if (model_.weights || !limits_) return InvalidArgument("--ladder goes neither with --weights nor --no-limits");
      return RunLadderBench({.rungs = ladder_,
                             .model = path_,
                             .engine = model_.Options(),
                             .chunk = chunk_,
                             .tests = tests,
                             .repetitions = repetitions_,
                             .form = format_});
    }
    const EngineOptions options = model_.Options();
    ThreadPool pool(options.threads > 0 ? options.threads : AvailableProcessors());
    ExecContext ctx{.pool = &pool, .round_weights = !model_.exact_prefill};
    ASSIGN_OR_RETURN(ctx.kernels, SelectKernelSet());
    // Wrong files are told of before seconds are spent on measuring.
    RETURN_IF_ERROR(CheckFiles());

    std::optional<CeilingMeter> meter;
    Ceilings ceilings;
    if (limits_) {
      ASSIGN_OR_RETURN(meter, CeilingMeter::Create(pool, *ctx.kernels));
      ceilings = meter->Best();
    }
    std::vector<Row> rows(tests.size());
    ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(tests, options, ctx, rows));
    RETURN_IF_ERROR(RunAll(tests, *model, ctx, meter ? &*meter : nullptr, rows));
    if (meter) ceilings = Better(ceilings, meter->Best());
    for (const Row& row : rows) {
      for (const Ceilings& seen : row.result.limits) ceilings = Better(ceilings, seen);
    }
    for (Row& row : rows) row.share = ShareOfLimit(row.result, ceilings, model->dtype());
    return format_ == ReportForm::kJson ? PrintJson(rows, *model, ctx) : PrintTable(rows, *model, ctx, ceilings);
  }

 private:
  Result<std::vector<BenchTest>> Tests() const {
    std::vector<BenchTest> tests;
    if (!tests_.empty()) {
      std::string_view rest = tests_;
      while (true) {
        const size_t comma = std::min(rest.find(','), rest.size());
        auto test = ParseBenchTest(rest.substr(0, comma));
        if (!test.ok()) return test.status().WithContext("--tests");
        tests.push_back(*test);
        if (comma == rest.size()) return tests;
        rest.remove_prefix(comma + 1);
      }
    }
    const auto counts = [](std::string_view flag, const std::string& text, int64_t min,
                           int64_t max) -> Result<std::vector<int64_t>> {
      auto values = ParseCounts(text, min, max);
      if (!values.ok()) return values.status().WithContext(flag);
      return values;
    };
    ASSIGN_OR_RETURN(const auto prompts, counts("-p", prompts_, 0, 1 << 20));
    ASSIGN_OR_RETURN(const auto steps, counts("-n", steps_, 0, 1 << 20));
    ASSIGN_OR_RETURN(const auto batches, counts("-b", batches_, 1, 4096));
    for (int64_t n : prompts) tests.push_back({.prefill = true, .tokens = n, .batch = 1, .depth = depth_});
    for (int64_t n : steps) {
      for (int64_t b : batches) tests.push_back({.prefill = false, .tokens = n, .batch = b, .depth = depth_});
    }
    if (tests.empty()) return InvalidArgument("no tests: -p and -n are both 0");
    return tests;
  }

  Status CheckFiles() const {
    const auto files = OpenModelFiles(path_);
    return files.ok() ? OkStatus() : files.status();
  }

  Result<std::unique_ptr<Model>> LoadModel(const std::vector<BenchTest>& tests, const EngineOptions& options,
                                           ExecContext& ctx, std::vector<Row>& rows) const {
    Progress progress("loading", format_ != ReportForm::kJson);
    LoadOptions load;
    load.dtype = options.dtype;
    load.weights = options.weights;
    load.rope = options.rope;
    load.progress = [&](int64_t done, int64_t total) { progress.Update(done, total, HumanBytes(total)); };
    load.planned = [&](const DecoderSpec& spec, const WeightNeed& weights) {
      return Plan(tests, spec, weights, ctx, rows);
    };
    return Model::Load(path_, load, *ctx.pool);
  }

  /// The plan of each test, before anything is loaded; shows that of the one that needs most.
  Status Plan(const std::vector<BenchTest>& tests, const DecoderSpec& spec, const WeightNeed& weights,
              const ExecContext& ctx, std::vector<Row>& rows) const {
    const int64_t available = AvailableMemory();
    for (size_t i = 0; i < tests.size(); ++i) {
      const BenchTest& test = tests[i];
      const RunShape run = Shape(test, weights, ctx);
      ASSIGN_OR_RETURN(rows[i].plan, PlanMemory(spec, weights, run));
      RETURN_IF_ERROR(CheckFits(rows[i].plan, spec, weights, run, available).WithContext(test.Name()));
    }
    const auto most = std::ranges::max_element(rows, {}, [](const Row& row) { return row.plan.Needed(); });
    if (format_ != ReportForm::kJson) ShowPlan(most->plan, available);
    return OkStatus();
  }

  RunShape Shape(const BenchTest& test, const WeightNeed& weights, const ExecContext& ctx) const {
    return BenchShape(test, model_.Options(), chunk_, weights, ctx.pool->size(), *ctx.kernels);
  }

  Status RunAll(const std::vector<BenchTest>& tests, const Model& model, ExecContext& ctx, CeilingMeter* meter,
                std::vector<Row>& rows) const {
    Progress progress("bench", format_ != ReportForm::kJson);
    for (size_t i = 0; i < tests.size(); ++i) {
      const BenchTest& test = tests[i];
      progress.Update(static_cast<int64_t>(i), static_cast<int64_t>(tests.size()), test.Name());
      // A cache and scratch memory of its own for each test, as a program that does only this would have.
      Arena arena;
      ctx.scratch = &arena;
      ResetMemoryPeaks();
      if (!ResetPeakResidentMemory()) LogInfo("the process's peak of memory cannot begin anew here");
      const RunShape run = Shape(test, {.dtypes = {model.dtype()}}, ctx);
      ASSIGN_OR_RETURN(const std::unique_ptr<KvCache> cache,
                       MakeKvCache(run.cache, CacheConfig(model.spec(), model.kv_shapes(), run)));
      StepRunner runner(model, *cache, ctx, run.chunk, model_.attention);
      ASSIGN_OR_RETURN(rows[i].result, RunBenchTest(test, repetitions_, model, *cache, runner, meter));
      rows[i].memory = ReportMemory(model);
    }
    ctx.scratch = nullptr;
    return OkStatus();
  }

  std::string ModelName() const {
    const std::filesystem::path path = path_.has_filename() ? path_ : path_.parent_path();
    return path.filename().string();
  }

  // The caches could hold a good part of such a model, so that percent of bandwidth says little.
  static bool CacheSized(const Model& model) { return model.weight_bytes() < 10 * LastLevelCacheBytes(); }

  static std::string MemoryText(const Row& row) {
    const MemoryReport& m = row.memory;
    return fmt::format("peaks of {}: weights {}, KV cache {}, activations {}, process {}\n", row.result.test.Name(),
                       GigabytesText(m.weights), GigabytesText(m.kv_cache), GigabytesText(m.activation_peak),
                       GigabytesText(m.process_peak));
  }

  static std::string LimitText(const LimitShare& share) {
    if (share.limit == "bandwidth") return fmt::format("{:.1f} GB/s", share.value / 1e9);
    return fmt::format("{:.0f} {} {}", share.value / 1e9, share.limit == "int8" ? "GOP/s" : "GFLOP/s", share.limit);
  }

  Status PrintJson(const std::vector<Row>& rows, const Model& model, const ExecContext& ctx) const {
    boost::json::array array;
    for (const Row& row : rows) {
      const BenchResult& result = row.result;
      boost::json::object object{{"model", ModelName()},
                                 {"type", DTypeName(model.dtype())},
                                 {"threads", ctx.pool->size()},
                                 {"kernels", KernelSetName(*ctx.kernels)},
                                 {"cache", model_.cache.Text()},
                                 {"attention", AttentionText(model_.attention)},
                                 {"test", result.test.Name()},
                                 {"tok_s_mean", result.Mean()},
                                 {"tok_s_sd", result.StandardDeviation()},
                                 {"tok_s_median", result.Median()},
                                 {"tok_s", boost::json::array(result.tok_s.begin(), result.tok_s.end())},
                                 {"bytes_per_token", row.share.bytes_per_token},
                                 {"flops_per_token", row.share.flops_per_token},
                                 {"cache_sized", CacheSized(model)},
                                 {"memory", MemoryJson(row.memory)},
                                 {"memory_plan", PlanJson(row.plan)}};
      if (limits_) {
        object["limit"] = row.share.limit;
        object["limit_value"] = row.share.value;
        object["limit_best"] = row.share.best;
        object["pct_of_limit"] = row.share.percent;
        object["pct_of_best"] = row.share.percent_best;
      }
      array.push_back(std::move(object));
    }
    return WriteStdout(JsonLine(array));
  }

  Status PrintTable(const std::vector<Row>& rows, const Model& model, const ExecContext& ctx,
                    const Ceilings& ceilings) const {
    const bool md = format_ == ReportForm::kMarkdown;
    const bool flagged = CacheSized(model);
    std::string text;
    const auto line = [&](auto... cells) {
      text += md ? fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", cells...)
                 : fmt::format("{:<28} {:>5} {:>7} {:>12} {:>20} {:>10}   {}\n", cells...);
    };
    line("model", "type", "threads", "test", "tok/s (mean ± sd)", "median", "of the limit");
    if (md) line("---", "---", "--:", "---", "--:", "--:", "---");
    for (const Row& row : rows) {
      const BenchResult& result = row.result;
      const std::string share =
          limits_ ? fmt::format("{:.1f} % of {} ({:.1f} % of the best){}", row.share.percent, LimitText(row.share),
                                row.share.percent_best, flagged && row.share.limit == "bandwidth" ? " *" : "")
                  : std::string("not measured");
      line(ModelName(), DTypeName(model.dtype()), ctx.pool->size(), result.test.Name(),
           fmt::format("{:.2f} ± {:.2f}", result.Mean(), result.StandardDeviation()),
           fmt::format("{:.2f}", result.Median()), share);
    }
    text += md ? "\n" : "";
    for (const Row& row : rows) text += MemoryText(row);
    if (limits_) {
      text += (md ? "\n" : "") + LimitsText(ceilings, ctx.pool->size(), *ctx.kernels);
    }
    if (flagged) {
      text += fmt::format(
          "{}* the weights ({}) are under ten times the last-level cache ({}): percent of bandwidth says little\n",
          md ? "\n" : "", HumanBytes(model.weight_bytes()), HumanBytes(LastLevelCacheBytes()));
    }
    return WriteText(text);
  }

  ModelFlags model_;
  std::filesystem::path path_;
  std::string prompts_ = "512";
  std::string steps_ = "128";
  std::string batches_ = "1";
  std::string tests_;
  int64_t depth_ = 0;
  int64_t chunk_ = 512;
  int32_t repetitions_ = 5;
  ReportForm format_ = ReportForm::kTable;
  std::string formats_;
  std::string tokens_ = "1,4,16,512";
  std::string ladder_;
  bool kernels_ = false;
  bool limits_ = true;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeBenchVerb() { return std::make_unique<BenchVerb>(); }

}  // namespace kvasir::apps
