// kvasir bench serve: a load for an OpenAI-compatible server, and how it fared.
#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/report.h"
#include "apps/serve_load/compare.h"
#include "apps/serve_load/engine_run.h"
#include "apps/serve_load/load_report.h"
#include "apps/serve_load/prepare.h"
#include "apps/terminal.h"
#include "apps/trace.h"
#include "apps/verb.h"
#include "apps/write_file.h"
#include "io/atomic_file.h"

namespace kvasir::apps {
namespace {

constexpr Range kAboveZero = {.min = 0, .max = 1e9, .open_min = true};
constexpr Range kShare = {.min = 0, .max = 1};
// Of the seed: requests that warm up have other prompts.
constexpr uint64_t kWarmupSeed = uint64_t{1} << 40;

class BenchServeVerb final : public Verb {
 public:
  std::string_view name() const override { return "bench serve"; }
  std::string_view summary() const override { return "Load an OpenAI-compatible server and measure its latencies."; }
  std::string_view description() const override {
    return "usage: kvasir bench serve --url http://127.0.0.1:8080 [--rate R] [--concurrency C] [flags]\n\n"
           "Sends streaming requests to any server with /v1/completions or /v1/chat/completions. TTFT is the time to\n"
           "the first token, TPOT that per token behind it, inter-token that between two chunks. Requests that fail\n"
           "are counted by what went wrong, and never as served.\n\n"
           "  kvasir bench serve --requests 200 --rate 4 --goodput ttft:500,tpot:50\n"
           "  kvasir bench serve --trace conv.csv --trace-requests 500 --time-scale 2 --plot load.svg\n"
           "  kvasir bench serve --concurrency 16 --compare http://127.0.0.1:8081 --pairs 6\n";
  }

  void AddFlags(FlagTable& flags) override {
    AddServerFlags(flags);
    AddLoadFlags(flags);
    flags.Group("Comparison");
    flags.Parsed("--compare", "URL", "Load this server, too, in alternation, and print the ratios of both.",
                 UrlSetter(&other_), UrlShower(&other_));
    flags.Text("--compare-engine", "MODEL", &engine_model_,
               "Compare with an engine in this process that gets the same requests without a server: what HTTP costs.",
               "none");
    flags.Int("--engine-parallel", "N", &engine_parallel_, 1, 4096, "Sequences that this engine runs at once.");
    flags.Int("--pairs", "N", &pairs_, 1, 10000, "Runs of each of the two; intervals of 95 % take six.");
    flags.Group("Output");
    flags.Choice("-o,--output", &json_, {{"table", false}, {"json", true}}, "Form of the report.");
    flags.Switch("--json", &json_switch_, "The same as -o json.");
    flags.Switch("--per-request", &per_request_, "The times of every request and chunk, in the JSON.");
    flags.Text("--plot", "FILE", &plot_, "Write distributions and the load over time as an SVG picture.", "none");
  }

  Status Run() override {
    json_ = json_ || json_switch_;
    RETURN_IF_ERROR(Check());
    std::vector<TraceRequest> trace;
    RETURN_IF_ERROR(LoadTrace(&trace));
    CatchInterrupts();
    settings_.target.stuff.seed = settings_.workload.seed;
    settings_.target.stuff.shared_prefix = settings_.workload.shared_prefix;
    // A server takes a moment at most for questions about itself.
    const double question_s = std::min(settings_.limits.timeout_s, 60.0);
    if (!engine_model_.empty()) {
      RETURN_IF_ERROR(PrepareTarget(PromptForm::kIds, question_s, settings_.target));
      return CompareWithEngine();
    }
    if (other_) {
      LoadTarget other = settings_.target;
      other.url = *other_;
      RETURN_IF_ERROR(PrepareTarget(prompts_, question_s, other));
      RETURN_IF_ERROR(PrepareTarget(prompts_, question_s, settings_.target));
      return Compare(other);
    }
    RETURN_IF_ERROR(PrepareTarget(prompts_, question_s, settings_.target));
    RETURN_IF_ERROR(WarmUp(settings_.target));
    ASSIGN_OR_RETURN(const std::vector<RequestOutcome> outcomes, RunOnce(settings_.target, settings_.workload));
    return Report(outcomes);
  }

 private:
  using Setter = std::function<Status(std::string_view)>;
  using Shower = std::function<std::string()>;

  static Setter UrlSetter(std::optional<ServerUrl>* target) {
    return [target](std::string_view text) -> Status {
      ASSIGN_OR_RETURN(*target, ParseServerUrl(text));
      return OkStatus();
    };
  }
  static Shower UrlShower(const std::optional<ServerUrl>* target) {
    return [target] { return *target ? (*target)->Text() : std::string("none"); };
  }

  void AddServerFlags(FlagTable& flags) {
    AskSettings& ask = settings_.target.ask;
    flags.Group("Server");
    flags.Parsed("--url", "URL", "The server's address; a path behind it is what all paths begin with.",
                 UrlSetter(&url_), UrlShower(&url_));
    flags.Choice("--endpoint", &ask.endpoint,
                 {{"completions", ApiEndpoint::kCompletions}, {"chat", ApiEndpoint::kChat}}, "What is asked.");
    flags.Text("--model", "NAME", &ask.model, "The model's name there.", "the first of /v1/models");
    flags.Text("--api-key", "KEY", &settings_.target.api_key, "Sent as a bearer token.", "none");
    flags.Number("--timeout", "S", &settings_.limits.timeout_s, kAboveZero, "Seconds until a request has failed.");
    flags.Number("--temp", "T", &ask.temperature, {.min = 0, .max = 10}, "Temperature of the answers.");
    flags.Switch("--ignore-eos", &ask.ignore_eos, "Ask for answers that go on to their full length.",
                 "--no-ignore-eos");
    flags.Text("--extra-body", "JSON", &ask.extra, "An object whose members are added to every request.", "none");
  }

  void AddLoadFlags(FlagTable& flags) {
    WorkloadSettings& load = settings_.workload;
    flags.Group("Requests");
    flags.Int("--requests,--num-prompts", "N", &requests_, 1, 10'000'000, "How many.",
              "100; those of the trace; without an end with --duration");
    flags.Int("--prompt-tokens", "N", &load.prompt_tokens, 1, kMaxTraceTokens, "Tokens of a prompt.");
    flags.Int("--answer-tokens", "N", &load.answer_tokens, 1, kMaxTraceTokens, "Tokens of an answer.");
    flags.Number("--range-ratio", "R", &load.range_ratio, {.min = 0, .max = 1, .open_max = true},
                 "Lengths are uniform from (1 - R) to (1 + R) times these.");
    flags.Int("--shared-prefix", "N", &load.shared_prefix, 0, kMaxTraceTokens,
              "Tokens that all prompts begin with, on top of their own.");
    flags.Text("--trace", "FILE", &settings_.trace_file,
               "Lengths and times from a table of comma-separated values with columns TIMESTAMP, ContextTokens and "
               "GeneratedTokens, instead of random ones.",
               "none");
    flags.Int("--trace-requests", "N", &trace_requests_, 1, 10'000'000, "Of the trace only the first ones.", "all");
    flags.Int("--trace-longest", "N", &trace_longest_, 2, 2 * kMaxTraceTokens,
              "Leave requests of the trace with more tokens out.", "none is left out");
    flags.Number("--time-scale", "X", &load.time_scale, kAboveZero, "The trace's times take X times as long.");
    flags.Choice("--prompts", &prompts_,
                 {{"auto", PromptForm::kAuto}, {"ids", PromptForm::kIds}, {"text", PromptForm::kText}},
                 "Of token ids, which have the length asked for exactly, or of words; auto: ids where the server takes "
                 "them.");
    flags.Int("--vocab", "N", &settings_.target.stuff.vocabulary, 2, 1 << 24,
              "Random token ids are from N/4 up to below N.");
    flags.Int("--seed", "N", &load.seed, 0, std::numeric_limits<int32_t>::max(), "Of all that is random.");
    flags.Int("--warmup", "N", &settings_.warmup, 0, 100000, "Requests before the measurement, which do not count.");
    flags.Group("Arrivals");
    flags.Parsed(
        "--rate", "R", "Requests per second, or inf: all at once.",
        [this](std::string_view text) -> Status {
          if (text == "inf") {
            settings_.workload.rate = Arrivals::kAllAtOnce;
            return OkStatus();
          }
          const auto rate = internal::ParseNumber(text, kAboveZero);
          if (!rate.ok()) return InvalidArgument("\"{}\" is neither inf nor a number above 0", EscapeControls(text));
          settings_.workload.rate = *rate;
          return OkStatus();
        },
        [this] {
          const auto& rate = settings_.workload.rate;
          return !rate ? "inf; the trace's times" : std::isinf(*rate) ? "inf" : internal::ShowNumber(*rate);
        });
    flags.Number("--burstiness", "B", &load.burstiness, {.min = 1e-3, .max = 1e6},
                 "Intervals of a gamma distribution of this shape: 1 is a Poisson process, below 1 comes in clusters.");
    flags.Int("--concurrency,--max-concurrency", "C", &settings_.limits.concurrency, 0, 1'000'000,
              "At most so many requests at the same time; 0: any number.");
    flags.Number("--duration", "S", &settings_.limits.duration_s, kAboveZero, "No request begins later than that.",
                 "none");
    flags.Group("Clients");
    flags.Number("--disconnect", "P", &load.hang_ups, kShare, "Share of clients that hang up at a random moment.");
    flags.Number("--slow-readers", "P", &load.slow_readers, kShare, "Share of clients that read slowly.");
    flags.Parsed(
        "--goodput", "LIMITS", "Count the requests that are as fast as this: ttft:500,tpot:50,e2el:10000 (ms).",
        [this](std::string_view text) -> Status {
          ASSIGN_OR_RETURN(settings_.goodput, ParseGoodput(text));
          return OkStatus();
        },
        [] { return "none"; });
  }

  Status Check() {
    settings_.target.url = *url_;
    for (const auto& [flag, text] :
         {std::pair{"--api-key", &settings_.target.api_key}, {"--model", &settings_.target.ask.model}}) {
      const bool control = std::ranges::any_of(*text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
      if (control) return InvalidArgument("{}: control characters have no place in it", flag);
    }
    if (prompts_ == PromptForm::kIds && settings_.target.ask.endpoint == ApiEndpoint::kChat) {
      return InvalidArgument("--prompts ids: messages of a chat are texts; take --endpoint completions");
    }
    if (other_ && !plot_.empty()) return InvalidArgument("--plot shows one run, --compare makes many: leave one out");
    if (other_ && per_request_) return InvalidArgument("--per-request is for one run, --compare makes many");
    if (!engine_model_.empty()) {
      if (other_ || !plot_.empty() || per_request_) {
        return InvalidArgument("--compare-engine goes with neither --compare nor --plot nor --per-request");
      }
      if (settings_.target.ask.endpoint == ApiEndpoint::kChat || settings_.workload.hang_ups > 0 ||
          settings_.workload.slow_readers > 0) {
        return InvalidArgument("--compare-engine: completions of clients that stay and read, nothing else");
      }
    }
    if (per_request_ && !json_) return InvalidArgument("--per-request needs -o json");
    // What is wrong with these is told before minutes are spent on measuring.

    const auto body = RequestBody(settings_.target.ask, {.words = {"word"}}, {.prompt_tokens = 1, .answer_tokens = 1});
    RETURN_IF_ERROR(body.ok() ? OkStatus() : body.status());
    if (plot_.empty()) return OkStatus();
    const auto picture = AtomicFile::Create(plot_);
    return picture.ok() ? OkStatus() : picture.status().WithContext("--plot");
  }

  Status LoadTrace(std::vector<TraceRequest>* trace) {
    constexpr int64_t kRequests = 100;
    WorkloadSettings& load = settings_.workload;
    if (settings_.trace_file.empty()) {
      if (trace_requests_ || trace_longest_)
        return InvalidArgument("--trace-requests and --trace-longest need --trace");
      load.requests = requests_.value_or(settings_.limits.duration_s ? 0 : kRequests);
      if (load.requests == 0 && std::isinf(load.rate.value_or(Arrivals::kAllAtOnce)) &&
          settings_.limits.concurrency == 0) {
        return InvalidArgument(
            "--duration: requests without number all at once; give --rate, --concurrency or --requests");
      }
      return OkStatus();
    }
    load.requests = requests_.value_or(0);
    const TraceTimes times = load.rate ? TraceTimes::kLeftOut : TraceTimes::kNeeded;
    const auto read = ReadTrace(settings_.trace_file, times);
    if (!read.ok()) return read.status().WithContext("--trace");
    const auto most = static_cast<size_t>(trace_requests_.value_or(std::numeric_limits<int64_t>::max()));
    for (const TraceRequest& request : *read) {
      if (trace->size() >= most) break;
      if (!trace_longest_ || request.tokens() <= *trace_longest_) trace->push_back(request);
    }
    if (trace->empty())
      return InvalidArgument("--trace-longest {}: no request of the trace is that short", *trace_longest_);
    // The load begins with its first request.
    const double first = trace->front().at_s;
    for (TraceRequest& request : *trace) request.at_s -= first;
    load.trace = trace;
    return OkStatus();
  }

  Result<std::vector<RequestOutcome>> RunOnce(const LoadTarget& target, const WorkloadSettings& load) const {
    Progress progress("requests", !json_);
    const int64_t traced = load.trace != nullptr ? static_cast<int64_t>(load.trace->size()) : 0;
    const int64_t total =
        load.requests > 0 && traced > 0 ? std::min(load.requests, traced) : std::max(load.requests, traced);
    return RunLoad(target, Workload(load), settings_.limits, [&](int64_t over, int64_t running) {
      // Without an end there is nothing to show a part of.
      progress.Update(over, std::max(total, total > 0 ? total : over + running), fmt::format("{} running", running));
    });
  }

  /// A few requests of the same kind, whose failure is an error: nothing better would come behind them.
  Status WarmUp(const LoadTarget& target) const {
    if (settings_.warmup == 0) return OkStatus();
    WorkloadSettings load = settings_.workload;
    load.seed += kWarmupSeed;
    load.requests = settings_.warmup;
    load.rate = Arrivals::kAllAtOnce;
    load.hang_ups = load.slow_readers = 0;
    LoadTarget other_prompts = target;
    other_prompts.stuff.seed += kWarmupSeed;
    RunLimits limits = settings_.limits;
    limits.duration_s.reset();
    if (limits.concurrency == 0) limits.concurrency = 8;
    ASSIGN_OR_RETURN(const std::vector<RequestOutcome> outcomes, RunLoad(other_prompts, Workload(load), limits, {}));
    for (const RequestOutcome& outcome : outcomes) {
      if (outcome.Failed())
        return IoError("warming up: {}: {}: {}", target.url.Text(), FateName(outcome), outcome.detail);
    }
    return OkStatus();
  }

  Status Report(const std::vector<RequestOutcome>& outcomes) const {
    const LoadSummary summary = Summarize(outcomes, settings_.goodput);
    if (!plot_.empty())
      RETURN_IF_ERROR(WriteFileAtomically(plot_, LoadPlots(settings_, outcomes)).WithContext("--plot"));
    if (json_) {
      boost::json::object json{{"settings", SettingsJson(settings_)}, {"summary", SummaryJson(summary)}};
      if (per_request_) json["requests"] = RequestsJson(outcomes);
      RETURN_IF_ERROR(WriteStdout(JsonLine(json)));
    } else {
      RETURN_IF_ERROR(WriteText(LoadText(settings_, summary)));
    }
    if (summary.served > 0) return OkStatus();
    if (summary.failures.empty()) return IoError("{}: no request was served", settings_.target.url.Text());
    const auto& [kind, failure] = *summary.failures.begin();
    return IoError("{}: no request was served; {}: {}", settings_.target.url.Text(), kind, failure.second);
  }

  Status Compare(const LoadTarget& other) const {
    const LoadTarget* targets[2] = {&settings_.target, &other};
    for (const LoadTarget* target : targets) RETURN_IF_ERROR(WarmUp(*target));
    const auto run = [&](int server, int pair) -> Result<LoadSummary> {
      // Both servers get the same prompts, and every pair new ones, which no cache has yet.
      WorkloadSettings load = settings_.workload;
      load.seed += static_cast<uint64_t>(pair);
      LoadTarget target = *targets[server];
      target.stuff.seed = load.seed;
      ASSIGN_OR_RETURN(const std::vector<RequestOutcome> outcomes, RunOnce(target, load));
      return Summarize(outcomes, settings_.goodput);
    };
    ASSIGN_OR_RETURN(const Comparison comparison, CompareServers(pairs_, run));
    if (!json_)
      return WriteText(
          CompareText(settings_, fmt::format("{}, model {}", other.url.Text(), other.ask.model), comparison));
    boost::json::object json = ComparisonJson(comparison);
    json["settings"] = SettingsJson(settings_);
    json["compared_url"] = other.url.Text();
    json["compared_model"] = other.ask.model;
    return WriteStdout(JsonLine(json));
  }

  Status CompareWithEngine() {
    RETURN_IF_ERROR(WarmUp(settings_.target));
    ASSIGN_OR_RETURN(const std::unique_ptr<BareEngine> engine, BareEngine::Load(engine_model_, engine_parallel_));
    const auto run = [&](int server, int pair) -> Result<LoadSummary> {
      WorkloadSettings load = settings_.workload;
      load.seed += static_cast<uint64_t>(pair);
      LoadTarget target = settings_.target;
      target.stuff.seed = load.seed;
      auto outcomes = server == 0 ? RunOnce(target, load) : engine->Run(target.stuff, Workload(load), settings_.limits);
      if (!outcomes.ok()) return outcomes.status();
      return Summarize(*outcomes, settings_.goodput);
    };
    ASSIGN_OR_RETURN(const Comparison comparison, CompareServers(pairs_, run));
    if (!json_) return WriteText(CompareText(settings_, "the bare engine", comparison));
    boost::json::object json = ComparisonJson(comparison);
    json["settings"] = SettingsJson(settings_);
    json["compared_engine"] = engine_model_;
    return WriteStdout(JsonLine(json));
  }

  LoadSettings settings_;
  std::optional<ServerUrl> url_ = ServerUrl{.host = "127.0.0.1", .port = "8080", .base = ""};
  std::optional<ServerUrl> other_;
  std::optional<int64_t> requests_;
  std::optional<int64_t> trace_requests_;
  std::optional<int64_t> trace_longest_;
  PromptForm prompts_ = PromptForm::kAuto;
  int pairs_ = 6;
  std::string engine_model_;
  int64_t engine_parallel_ = 16;
  bool json_ = false;
  bool json_switch_ = false;
  bool per_request_ = false;
  std::string plot_;
};

}  // namespace

std::unique_ptr<Verb> MakeBenchServeVerb() { return std::make_unique<BenchServeVerb>(); }

}  // namespace kvasir::apps
