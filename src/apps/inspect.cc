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
           ".safetensors, .gguf or packed file.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Model");
    model_.AddModel(flags);
    flags.Positional("--model");
    model_.AddDType(flags);
    model_.AddKvType(flags);
    model_.AddContext(flags);
    model_.AddThreads(flags);
    flags.Group("Output");
    flags.Switch("--tensors", &tensors_, "List the tensors (--json always does).");
    flags.Switch("--check-tensors", &check_,
                 "Read all tensors: minimum, maximum, mean, NaN and infinities. Any of the last two is an error.");
    flags.Switch("--json", &json_, "Print one object: format, spec, memory, tensors.");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    model_.ApplyVerbose();
    ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
    ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(path));
    const auto tensors = files.source->tensors();
    std::vector<std::optional<TensorStats>> stats(tensors.size());
    if (check_) Check(tensors, stats);
    RETURN_IF_ERROR(json_ ? PrintJson(files, stats) : PrintText(files, stats));
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
    DType dtype;
    KvType kv_type;
    int64_t context;
  };

  Plan MakePlan(const DecoderSpec& spec) const {
    Plan result;
    result.dtype = model_.dtype.value_or(spec.dtype);
    result.kv_type = model_.kv_type.value_or(result.dtype == DType::kF32 ? KvType::kF32 : KvType::kBF16);
    result.context = model_.context.value_or(spec.context);
    result.plan = PlanMemory(spec, result.dtype, result.kv_type);
    return result;
  }

  Status PrintJson(const ModelFiles& files, const std::vector<std::optional<TensorStats>>& stats) const {
    const Plan plan = MakePlan(files.spec);
    boost::json::array tensors;
    for (size_t i = 0; i < files.source->tensors().size(); ++i) {
      const RawTensor& tensor = files.source->tensors()[i];
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
    return WriteStdout(JsonLine({{"path", files.path.string()},
                                 {"format", files.format},
                                 {"spec", SpecJson(files.spec)},
                                 {"memory",
                                  {{"parameters", plan.plan.parameters},
                                   {"dtype", DTypeName(plan.dtype)},
                                   {"weights_bytes", plan.plan.weight_bytes},
                                   {"kv_type", KvTypeName(plan.kv_type)},
                                   {"kv_bytes_per_token", plan.plan.kv_bytes_per_token},
                                   {"context", plan.context},
                                   {"kv_cache_bytes", plan.plan.kv_bytes_per_token * plan.context}}},
                                 {"tensors", std::move(tensors)}}));
  }

  Status PrintText(const ModelFiles& files, const std::vector<std::optional<TensorStats>>& stats) const {
    const Plan plan = MakePlan(files.spec);
    const auto tensors = files.source->tensors();
    int64_t stored = 0;
    for (const RawTensor& tensor : tensors) stored += tensor.bytes;
    std::string text = fmt::format("model         {} ({}, {} tensors, {})\n", files.path.string(), files.format,
                                   tensors.size(), HumanBytes(stored));
    text += SpecText(files.spec);
    text += fmt::format("parameters    {:.2f} M\n", static_cast<double>(plan.plan.parameters) / 1e6);
    text +=
        fmt::format("memory        weights {} as {}; KV cache {} per token as {}, {} for {} tokens\n",
                    HumanBytes(plan.plan.weight_bytes), DTypeName(plan.dtype), HumanBytes(plan.plan.kv_bytes_per_token),
                    KvTypeName(plan.kv_type), HumanBytes(plan.plan.kv_bytes_per_token * plan.context), plan.context);
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
