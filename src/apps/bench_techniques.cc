// kvasir bench techniques: each technique of attention and caches against its baseline, and a report.
#include <ctime>

#include <algorithm>
#include <optional>

#include "apps/bench_run.h"
#include "apps/model_flags.h"
#include "apps/techniques/report.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "apps/write_file.h"
#include "base/cpu.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "io/atomic_file.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

std::string Today() {
  const std::time_t now = std::time(nullptr);
  std::tm day{};
  gmtime_r(&now, &day);
  return fmt::format("{:04}-{:02}-{:02}", day.tm_year + 1900, day.tm_mon + 1, day.tm_mday);
}

class BenchTechniquesVerb final : public Verb {
 public:
  std::string_view name() const override { return "bench techniques"; }
  std::string_view summary() const override { return "Measure attention and caches against their baselines."; }
  std::string_view description() const override {
    return "usage: kvasir bench techniques [--only LIST] [--trace FILE] [--text FILE] [--html FILE] [-o "
           "table|json|md]\n\n"
           "Techniques of attention and of the KV cache are run against what they replace, in alternation, and "
           "compared\n"
           "with this machine's limits, measured in the same process. Sizes are counted by the engine itself. --html\n"
           "writes one page with tables and plots that needs nothing else.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Techniques");
    flags.Text("--only", "LIST", &only_, "Techniques by id or name, such as A2,A4,kv-types.", "all of them");
    flags.Text("--trace", "FILE", &trace_,
               "Requests for A4 and V2, a table of comma-separated values with columns ContextTokens and "
               "GeneratedTokens.",
               "none: without A4, and V2 with lengths of its own");
    flags.Text("--text", "FILE", &text_, "A text for A9 to A11, which read it as a stream.", "none: without A9 to A11");
    flags.Int("--stream-tokens", "N", &stream_tokens_, kLeastStreamTokens, 1 << 30,
              "Read no more of the text than this.", "50000; 320 with --quick");
    flags.Int("--longest", "N", &longest_, 1024, 32768,
              "Tokens of the longest prompt of which A2's speed is measured.");
    flags.Int("--at-once", "N", &at_once_, 2, 256, "Requests that V1 and V2 run together.", "8; 4 with --quick");
    flags.Int("-n,--n-gen", "N", &new_tokens_, 1, 1 << 20, "Tokens written with and without a KV cache (K1, K2).",
              "1000; 24 with --quick");
    flags.Int("-r,--repetitions", "N", &repetitions_, 1, 1000, "Runs of each measurement.");
    flags.Switch("--quick", &quick_, "Everything small: a try in seconds, whose times say nothing.");
    flags.Group("Model");
    model_.AddModel(flags);
    model_.AddThreads(flags);
    model_.AddMemoryLimit(flags);
    flags.Group("Output");
    flags.Choice("-o,--output", &format_,
                 {{"table", ReportForm::kTable}, {"json", ReportForm::kJson}, {"md", ReportForm::kMarkdown}},
                 "Form of the report.");
    flags.Switch("--json", &json_, "The same as -o json.");
    flags.Text("--html", "FILE", &html_, "Write the report as a page, too.", "none");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    model_.ApplyVerbose();
    model_.ApplyMemoryLimit();
    if (json_) format_ = ReportForm::kJson;
    auto chosen = ChooseTechniques(only_);
    if (!chosen.ok()) return chosen.status().WithContext("--only");
    // What is wrong with files is told before minutes are spent on measuring.
    std::vector<TraceRequest> trace;
    RETURN_IF_ERROR(CheckFiles(*chosen, &trace));
    std::vector<TokenId> stream;
    RETURN_IF_ERROR(ReadStream(*chosen, &stream));

    ThreadPool pool(model_.threads.value_or(AvailableProcessors()));
    ExecContext ctx{.pool = &pool};
    ASSIGN_OR_RETURN(ctx.kernels, SelectKernelSet());
    ASSIGN_OR_RETURN(CeilingMeter meter, CeilingMeter::Create(pool, *ctx.kernels, MeterOptions()));
    Ceilings limits = meter.Best();
    TechniqueBench bench{.ctx = ctx,
                         .meter = &meter,
                         .quick = quick_,
                         .repetitions = quick_ ? std::min(repetitions_, 2) : repetitions_,
                         .longest = longest_,
                         .at_once = at_once_.value_or(quick_ ? 4 : 8),
                         .new_tokens = new_tokens_.value_or(quick_ ? 24 : 1000),
                         .model = &model_,
                         .trace = trace_.empty() ? nullptr : &trace,
                         .stream = text_.empty() ? nullptr : &stream};
    TechniqueReport report{.date = Today(), .quick = quick_};
    RETURN_IF_ERROR(Measure(*chosen, bench, report));
    limits = Better(limits, meter.Best());
    Describe(limits, pool.size(), *ctx.kernels, report);
    if (!html_.empty()) RETURN_IF_ERROR(WriteFileAtomically(html_, ReportHtml(report)).WithContext("--html"));
    if (format_ == ReportForm::kJson) return WriteStdout(ReportJson(report));
    return WriteText(ReportText(report, format_ == ReportForm::kMarkdown));
  }

 private:
  Status CheckFiles(const std::vector<Technique>& chosen, std::vector<TraceRequest>* trace) const {
    const auto runs = [&](std::string_view id) {
      return std::ranges::any_of(chosen, [&](const Technique& t) { return HasId(t, id); });
    };
    if (!trace_.empty()) {
      if (!runs("A4") && !runs("V2")) {
        return InvalidArgument("--trace is for A4 and V2, which --only {} leaves out", only_);
      }
      ASSIGN_OR_RETURN(*trace, ReadTrace(trace_));
    } else if (runs("A4") && !only_.empty()) {
      return InvalidArgument("--only {}: A4 needs requests, give a trace with --trace FILE", only_);
    }
    if (runs("K2") || runs("K5") || runs("K7") || runs("A11")) {
      ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
      const auto files = OpenModelFiles(path);
      if (!files.ok()) return files.status();
    }
    if (html_.empty()) return OkStatus();
    const auto page = AtomicFile::Create(html_);
    return page.ok() ? OkStatus() : page.status().WithContext("--html");
  }

  /// The tokens of --text.
  Status ReadStream(const std::vector<Technique>& chosen, std::vector<TokenId>* stream) const {
    constexpr size_t kMostBytes = size_t{1} << 30;
    const bool runs = std::ranges::any_of(chosen, [&](const Technique& t) { return HasId(t, "A11"); });
    if (text_.empty()) {
      if (!runs || only_.empty()) return OkStatus();
      return InvalidArgument("--only {}: A9 to A11 need a text, give one with --text FILE", only_);
    }
    if (!runs) return InvalidArgument("--text is for A9 to A11, which --only {} leaves out", only_);
    constexpr int64_t kMostTokenBytes = 64;  // of tokens on average: a long text is not encoded for its beginning
    const int64_t most = stream_tokens_.value_or(quick_ ? 320 : 50'000);
    ASSIGN_OR_RETURN(std::string text, ReadFile(text_, kMostBytes));
    if (!IsValidUtf8(text)) return InvalidArgument("{}: is not valid UTF-8", text_);
    if (static_cast<int64_t>(text.size()) > most * kMostTokenBytes) {
      auto end = static_cast<size_t>(most * kMostTokenBytes);
      while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a character
      text.resize(end);
    }
    ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
    ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, LoadModelTokenizer(path, model_.pre_tokenizer));
    ASSIGN_OR_RETURN(*stream, tokenizer->Encode(text));
    if (static_cast<int64_t>(stream->size()) > most) stream->resize(static_cast<size_t>(most));
    if (static_cast<int64_t>(stream->size()) < kLeastStreamTokens) {
      return InvalidArgument("{}: has {} tokens; A9 to A11 need {} at least", text_, stream->size(),
                             kLeastStreamTokens);
    }
    return OkStatus();
  }

  CeilingOptions MeterOptions() const {
    if (quick_) return {.buffer_bytes = int64_t{16} << 20, .seconds_each = 0.01, .seconds_again = 0.002};
    return {.seconds_again = 0.02};
  }

  Status Measure(const std::vector<Technique>& chosen, TechniqueBench& bench, TechniqueReport& report) const {
    Progress progress("techniques", format_ != ReportForm::kJson);
    for (size_t i = 0; i < chosen.size(); ++i) {
      progress.Update(static_cast<int64_t>(i), static_cast<int64_t>(chosen.size()), chosen[i].name);
      // Scratch memory of its own, so that none holds what another needed.
      Arena arena;
      bench.ctx.scratch = &arena;
      auto section = chosen[i].run(bench);
      bench.ctx.scratch = nullptr;
      if (!section.ok()) return section.status().WithContext(chosen[i].name);
      report.parts.push_back({chosen[i], *std::move(section)});
    }
    return OkStatus();
  }

  static void Describe(const Ceilings& limits, int threads, const KernelSet& kernels, TechniqueReport& report) {
    const std::string& processor = GetCpuFeatures().name;
    report.machine = processor.empty() ? "processor unknown" : processor;
    report.limits = LimitsText(limits, threads, kernels);
    if (report.limits.ends_with('\n')) report.limits.pop_back();
    report.setting = {{"processor", processor},
                      {"threads", threads},
                      {"kernels", KernelSetName(kernels)},
                      {"limits",
                       {{"read_bytes_per_s", limits.read_bytes_per_s},
                        {"fp32_flops", limits.fp32_flops},
                        {"bf16_flops", limits.bf16_flops},
                        {"int8_ops", limits.int8_ops}}}};
  }

  ModelFlags model_;
  std::string only_;
  std::string trace_;
  std::string text_;
  std::string html_;
  std::optional<int64_t> stream_tokens_;
  int64_t longest_ = 8192;
  std::optional<int64_t> at_once_;
  std::optional<int64_t> new_tokens_;
  int32_t repetitions_ = 5;
  bool quick_ = false;
  bool json_ = false;
  ReportForm format_ = ReportForm::kTable;
};

}  // namespace

std::unique_ptr<Verb> MakeBenchTechniquesVerb() { return std::make_unique<BenchTechniquesVerb>(); }

}  // namespace kvasir::apps
