// kvasir inspect: what is in a model's files, and what it will take.
#include <boost/json/array.hpp>

#include "apps/model_flags.h"
#include "apps/report.h"
#include "apps/spec_json.h"
#include "apps/tensor_stats.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "base/limits.h"
#include "base/thread_pool.h"

namespace kvasir::apps {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

class InspectVerb final : public Verb {
 public:
  std::string_view name() const override { return "inspect"; }
  std::string_view summary() const override { return "Show what is in a model, without loading its weights."; }
  std::string_view description() const override {
    return "usage: kvasir inspect [-m] MODEL [--tensors] [--check-tensors] [--json]\n\n"
           "Shows the resolved architecture, the plan of memory, and the tensors of a Hugging Face folder, a\n"
           ".safetensors, .gguf or packed file. Of a config.json, or a folder with nothing else, it shows the\n"
           "architecture and the rule of weight memory: 4 bytes a parameter in fp32, 2 in 16 bits.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Model");
    model_.AddModel(flags);
    flags.Positional("--model");
    model_.AddDType(flags);
    model_.AddPrefillWeights(flags);
    model_.AddKvType(flags);
    model_.AddContext(flags);
    model_.AddBatch(flags);
    model_.AddCache(flags);
    model_.AddAttention(flags);
    model_.AddRope(flags);
    model_.AddThreads(flags);
    model_.AddMemoryLimit(flags);
    flags.Group("Output");
    flags.Switch("--tensors", &tensors_, "List the tensors (--json always does).");
    flags.Switch("--check-tensors", &check_,
                 "Read all tensors: minimum, maximum, mean, NaN and infinities. Any of the last two is an error.");
    flags.Switch("--json", &json_, "Print one object: format, spec, memory, tensors.");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    model_.ApplyVerbose();
    model_.ApplyMemoryLimit();
    ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
    if (const auto config = ConfigAlone(path)) {
      if (check_) return InvalidArgument("{}: has no tensors to check", path.string());
      ASSIGN_OR_RETURN(DecoderSpec spec, ReadConfig(*config));
      RETURN_IF_ERROR(ApplyRopeOverride(model_.rope, spec));
      return PrintConfig(path, spec);
    }
    ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(path));
    const EngineOptions options = model_.Options();
    const int threads = options.threads > 0 ? options.threads : AvailableProcessors();
    const LoadOptions load{.dtype = options.dtype, .weights = options.weights};
    ASSIGN_OR_RETURN(const WeightNeed weights, PlanWeightMemory(path, files, load, threads));
    RETURN_IF_ERROR(ApplyRopeOverride(model_.rope, files.spec));
    ASSIGN_OR_RETURN(const Plan plan, MakePlan(files.spec, weights, options, threads));
    const auto tensors = files.source->stored();
    std::vector<std::optional<TensorStats>> stats(tensors.size());
    if (check_) Check(tensors, stats);
    RETURN_IF_ERROR(json_ ? PrintJson(files, plan, stats) : PrintText(files, plan, stats));
    return CheckResult(tensors, stats);
  }

 private:
  void Check(std::span<const RawTensor> tensors, std::vector<std::optional<TensorStats>>& stats) const {
    ThreadPool pool(model_.threads.value_or(AvailableProcessors()));
    Progress progress("checking", !json_);
    for (size_t i = 0; i < tensors.size(); ++i) {
      stats[i] = ScanTensor(tensors[i], pool);
      progress.Update(static_cast<int64_t>(i + 1), static_cast<int64_t>(tensors.size()),
                      EscapeControls(tensors[i].name));
    }
  }

  static Status CheckResult(std::span<const RawTensor> tensors, const std::vector<std::optional<TensorStats>>& stats) {
    std::string bad;
    int count = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!stats[i] || stats[i]->clean()) continue;
      if (++count <= 20) {
        bad += fmt::format("{}{}: {} NaN, {} infinite of {}", count > 1 ? "; " : "", tensors[i].name, stats[i]->nans,
                           stats[i]->infinities, stats[i]->elements);
      }
    }
    if (count == 0) return OkStatus();
    if (count > 20) bad += fmt::format("; and {} more", count - 20);
    return InvalidData("{} tensor{} with values that are not finite: {}", count, count == 1 ? "" : "s", bad);
  }

  struct Plan {
    MemoryPlan plan;
    int64_t available = 0;
    std::string refusal;  // empty: it fits
  };

  static Result<Plan> MakePlan(const DecoderSpec& spec, const WeightNeed& weights, const EngineOptions& options,
                               int threads) {
    ASSIGN_OR_RETURN(const KernelSet* const kernels, SelectKernelSet());
    RunShape run = PlannedRun(options, weights, threads, *kernels);
    Plan result{.plan = {}, .available = AvailableMemory(), .refusal = {}};
    auto fitted = FitMemory(spec, weights, run, result.available);
    if (fitted.ok()) {
      result.plan = *std::move(fitted);
      return result;
    }
    if (fitted.status().code() != StatusCode::kResourceExhausted) return fitted.status();
    result.refusal = fitted.status().message();
    if (run.context == 0) run.context = 1;
    ASSIGN_OR_RETURN(result.plan, PlanMemory(spec, weights, run));
    return result;
  }

  Status PrintConfig(const std::filesystem::path& path, const DecoderSpec& spec) const {
    const int64_t parameters = ParameterCount(spec);
    if (json_) {
      return WriteStdout(JsonLine({{"path", path.string()},
                                   {"format", "config"},
                                   {"spec", SpecJson(spec)},
                                   {"memory",
                                    {{"parameters", parameters},
                                     {"fp32_rule_bytes", RuleBytesFp32(parameters)},
                                     {"bits16_rule_bytes", RuleBytes16Bit(parameters)}}},
                                   {"tensors", boost::json::array()}}));
    }
    return WriteText(fmt::format("model         {} (a config without weights)\n", path.string()) + SpecText(spec) +
                     RuleText(parameters));
  }

  static std::string RuleText(int64_t parameters) {
    return fmt::format("parameters    {:.2f} M: {} in fp32, {} in 16 bits\n", static_cast<double>(parameters) / 1e6,
                       GigabytesText(RuleBytesFp32(parameters)), GigabytesText(RuleBytes16Bit(parameters)));
  }

  Status PrintJson(const ModelFiles& files, const Plan& plan,
                   const std::vector<std::optional<TensorStats>>& stats) const {
    boost::json::array tensors;
    for (size_t i = 0; i < files.source->stored().size(); ++i) {
      const RawTensor& tensor = files.source->stored()[i];
      boost::json::object object{{"name", tensor.name},
                                 {"dtype", DTypeName(tensor.dtype)},
                                 {"shape", boost::json::array(tensor.shape.begin(), tensor.shape.end())},
                                 {"bytes", tensor.bytes}};
      if (stats[i]) {
        object["min"] = stats[i]->min;
        object["max"] = stats[i]->max;
        object["mean"] = stats[i]->mean;
        object["nan"] = stats[i]->nans;
        object["inf"] = stats[i]->infinities;
      }
      tensors.push_back(std::move(object));
    }
    boost::json::object memory = PlanJson(plan.plan);
    memory["available_bytes"] = plan.available;
    memory["fits"] = plan.refusal.empty();
    return WriteStdout(JsonLine({{"path", files.path.string()},
                                 {"format", files.format},
                                 {"spec", SpecJson(files.spec)},
                                 {"memory", std::move(memory)},
                                 {"tensors", std::move(tensors)}}));
  }

  Status PrintText(const ModelFiles& files, const Plan& plan,
                   const std::vector<std::optional<TensorStats>>& stats) const {
    const auto tensors = files.source->stored();
    int64_t stored = 0;
    for (const RawTensor& tensor : tensors) stored += tensor.bytes;
    std::string text = fmt::format("model         {} ({}, {} tensors, {})\n", files.path.string(), files.format,
                                   tensors.size(), HumanBytes(stored));
    text += SpecText(files.spec);
    text += RuleText(plan.plan.parameters);
    text += fmt::format("memory        {}; a token takes {} of KV cache as {}\n", plan.plan.Text(plan.available),
                        GigabytesText(plan.plan.kv_bytes_per_token), KvTypeName(plan.plan.kv_type));
    if (!plan.plan.note.empty()) text += fmt::format("              {}\n", plan.plan.note);
    if (!plan.refusal.empty()) text += fmt::format("does not fit  {}\n", plan.refusal);
    if (tensors_ || check_) {
      for (size_t i = 0; i < tensors.size(); ++i) {
        text += fmt::format("{:<52} {:<6} {:<20}", tensors[i].name, DTypeName(tensors[i].dtype),
                            ShapeText(tensors[i].shape));
        if (stats[i]) {
          text +=
              fmt::format(" min {:<11.5g} max {:<11.5g} mean {:<11.5g}", stats[i]->min, stats[i]->max, stats[i]->mean);
          if (!stats[i]->clean()) text += fmt::format(" NaN {} inf {}", stats[i]->nans, stats[i]->infinities);
        }
        text += '\n';
      }
    }
    return WriteText(text);
  }

  ModelFlags model_;
  bool tensors_ = false;
  bool check_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeInspectVerb() { return std::make_unique<InspectVerb>(); }

}  // namespace kvasir::apps
