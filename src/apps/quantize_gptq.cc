#include "apps/quantize_gptq.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <span>

#include "apps/checkpoint_folder.h"
#include "apps/input_moments.h"
#include "apps/prompt_input.h"
#include "apps/quantize_gptq_tensors.h"
#include "apps/terminal.h"
#include "base/limits.h"
#include "io/json.h"
#include "model/layer_runner.h"
#include "text/tokenizer.h"

namespace kvasir::apps {
namespace {

constexpr const char* kMarker = "kvasir_quantize.json";
constexpr int64_t kMomentsBudget = int64_t{2} << 30;  // bytes of second moments at once, unless one is larger
constexpr LayerPart kParts[] = {LayerPart::kQkv, LayerPart::kOut, LayerPart::kUp, LayerPart::kDown};
constexpr int64_t kStepsPerLayer = 5;  // a run for each part, and one with all of them quantised

/// How far the work is, with the time that is left.
class GptqProgress {
 public:
  GptqProgress(int64_t layers, bool enabled) : layers_(layers), bar_("quantizing", enabled) {}

  /// `fraction` of step `step` of layer `layer` is done.
  void Update(int64_t layer, int64_t step, double fraction) {
    constexpr double kUnits = 10'000;
    const double done =
        (static_cast<double>(layer * kStepsPerLayer + step) + fraction) / static_cast<double>(layers_ * kStepsPerLayer);
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const std::string left = done > 0 ? ", " + Duration(elapsed * (1 - done) / done) + " left" : "";
    bar_.Update(static_cast<int64_t>(done * kUnits), static_cast<int64_t>(kUnits),
                fmt::format("layer {} of {}{}", layer + 1, layers_, left));
  }

 private:
  static std::string Duration(double seconds) {
    const auto whole = static_cast<int64_t>(seconds);
    if (whole >= 3600) return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
    return whole >= 60 ? fmt::format("{} min", whole / 60) : fmt::format("{} s", whole);
  }

  int64_t layers_;
  Progress bar_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Status CheckInterrupt() {
  return Interrupted() ? Status(StatusCode::kCancelled, "interrupted; nothing was written") : OkStatus();
}

/// Windows of `length` tokens, spread evenly over the text.
std::vector<std::vector<int32_t>> CutSamples(const std::vector<int32_t>& tokens, int64_t samples, int64_t length) {
  const auto total = static_cast<int64_t>(tokens.size());
  const int64_t count = std::min(samples, total / length);
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = count == 1 ? 0 : (total - length) * i / (count - 1);
    windows.emplace_back(tokens.begin() + begin, tokens.begin() + begin + length);
  }
  return windows;
}

class GptqRun {
 public:
  /// `original`: another runner of the same model, whose layers stay as they are; null unless it is aimed at.
  GptqRun(const GptqJob& job, ThreadPool& pool, const KernelSet& kernels, LayerRunner& runner, LayerRunner* original)
      : job_(job),
        flags_(job.flags),
        pool_(pool),
        runner_(runner),
        original_(original),
        moments_(pool, kernels),
        progress_(static_cast<int64_t>(runner.spec().layers.size()), !job.quiet) {
    ctx_.pool = &pool;
    ctx_.scratch = &arena_;
    ctx_.kernels = &kernels;
  }

  Result<GptqReport> Run() {
    const auto start = std::chrono::steady_clock::now();
    if (!flags_.nearest) RETURN_IF_ERROR(EmbedSamples());
    ASSIGN_OR_RETURN(folder_, CheckpointFolder::Create(job_.output, runner_.files()));
    for (size_t layer = 0; layer < runner_.spec().layers.size(); ++layer) {
      const Status status = RunLayer(static_cast<int64_t>(layer));
      if (!status.ok()) return status.WithContext(job_.source.string());
    }
    if (report_.matrices.empty()) {
      return Unsupported("{}: no matrix can be quantised: {}", job_.source.string(), fmt::join(report_.kept, ", "));
    }
    SayWhatIsKept();
    for (const RawTensor& tensor : runner_.files().source->tensors()) report_.bytes_before += tensor.bytes;
    report_.bytes_after = report_.bytes_before;
    for (const GptqEntry& entry : report_.matrices) report_.bytes_after += entry.bytes_after - entry.bytes_before;
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    RETURN_IF_ERROR(WriteFolder());
    return std::move(report_);
  }

 private:
  Result<std::vector<int32_t>> ReadTokens() const {
    if (!job_.calibration_tokens.empty()) return job_.calibration_tokens;
    constexpr size_t kLongestText = size_t{1} << 30;
    ASSIGN_OR_RETURN(const std::string text, ReadFile(job_.calibration, kLongestText));
    RETURN_IF_ERROR(CheckUtf8(text, job_.calibration.string()));
    ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, LoadTokenizer(runner_.files().folder));
    return tokenizer->Encode(text);
  }

  Status EmbedSamples() {
    ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadTokens());
    constexpr int64_t kLongest = 2048;
    const int64_t context = runner_.spec().context;
    length_ = flags_.sample_length.value_or(context > 0 ? std::min(context, kLongest) : kLongest);
    const auto samples = CutSamples(tokens, flags_.samples, length_);
    if (samples.empty()) {
      return InvalidArgument(
          "the calibration text {} has {} tokens, and one sample takes {}; give a longer text or a smaller "
          "--sample-length",
          job_.calibration.string(), tokens.size(), length_);
    }
    count_ = static_cast<int64_t>(samples.size());
    if (count_ < flags_.samples) {
      Note(fmt::format("the calibration text holds {} samples of {} tokens, not {}", count_, length_, flags_.samples));
    }
    report_.samples = count_;
    report_.sample_length = length_;
    const int64_t width = runner_.spec().width;
    ASSIGN_OR_RETURN(hidden_, Buffer::Allocate(count_ * length_ * width * 4, MemoryOwner::kActivations));
    ASSIGN_OR_RETURN(work_, Buffer::Allocate(length_ * width * 4, MemoryOwner::kActivations));
    RETURN_IF_ERROR(runner_.Embed(ctx_, samples, MatView<float>(hidden_.as<float>(), count_ * length_, width)));
    if (!original_) return OkStatus();
    ASSIGN_OR_RETURN(original_hidden_, Buffer::Allocate(hidden_.size(), MemoryOwner::kActivations));
    std::memcpy(original_hidden_.data(), hidden_.data(), static_cast<size_t>(hidden_.size()));
    return OkStatus();
  }

  MatView<float> Sample(Buffer& hidden, int64_t s) const {
    const int64_t width = runner_.spec().width;
    return MatView<float>(hidden.as<float>() + s * length_ * width, length_, width);
  }

  /// Runs a copy of the sample up to `part` under the observer's eyes.
  Status RunCopy(LayerRunner& runner, LayerPart part, MatView<const float> sample, MatMulObserver& observer) {
    const MatView<float> x(work_.as<float>(), length_, runner_.spec().width);
    std::memcpy(x.data, sample.data, static_cast<size_t>(work_.size()));
    ctx_.observer = &observer;
    const Status status = runner.Run(ctx_, part, x);
    ctx_.observer = nullptr;
    return status;
  }

  /// Whether the part's inputs can be compared: a mixture may send other tokens to its experts than the original does.
  bool HasDrift(LayerPart part, int64_t layer) const {
    const bool routed = runner_.spec().layers[static_cast<size_t>(layer)].ffn.moe.n_experts > 0;
    return original_ && (part <= LayerPart::kOut || !routed);
  }

  /// Each part's inputs are those that the quantised parts before it make, as in the paper.
  Status RunLayer(int64_t layer) {
    RETURN_IF_ERROR(runner_.LoadLayer(static_cast<int>(layer)));
    if (original_) RETURN_IF_ERROR(original_->LoadLayer(static_cast<int>(layer)));
    done_.clear();
    int64_t step = 0;
    for (const LayerPart part : kParts) {
      const std::vector<std::vector<const LayerMatrix*>> groups = GroupsOf(part);
      for (size_t g = 0; g < groups.size(); ++g) {
        const double before = static_cast<double>(g) / static_cast<double>(groups.size());
        RETURN_IF_ERROR(Observe(part, groups[g], layer, step, before, 1.0 / static_cast<double>(groups.size())));
        for (size_t m = 0; m < groups[g].size(); ++m) RETURN_IF_ERROR(QuantizeMatrix(*groups[g][m], m));
      }
      ++step;
    }
    if (flags_.nearest) {
      progress_.Update(layer, kStepsPerLayer, 0);
      return CheckInterrupt();
    }
    for (int64_t s = 0; s < count_; ++s) {
      RETURN_IF_ERROR(CheckInterrupt());
      RETURN_IF_ERROR(runner_.Run(ctx_, LayerPart::kDown, Sample(hidden_, s)));
      if (original_) RETURN_IF_ERROR(original_->Run(ctx_, LayerPart::kDown, Sample(original_hidden_, s)));
      progress_.Update(layer, step, static_cast<double>(s + 1) / static_cast<double>(count_));
    }
    return OkStatus();
  }

  /// The part's matrices with something to quantise, as many at once as the budget for second moments allows.
  std::vector<std::vector<const LayerMatrix*>> GroupsOf(LayerPart part) {
    std::vector<std::vector<const LayerMatrix*>> groups;
    int64_t bytes = 0;
    for (const LayerMatrix& matrix : runner_.matrices()) {
      if (matrix.part != part || matrix.router) continue;
      const bool wanted = std::ranges::any_of(
          matrix.sources, [&](const SourceMatrix& source) { return !IsDone(source) && CanBeQuantized(source); });
      if (!wanted) continue;
      const int64_t own = matrix.cols * matrix.cols * (original_ ? 8 : 4);
      if (groups.empty() || bytes + own > kMomentsBudget) {
        groups.emplace_back();
        bytes = 0;
      }
      groups.back().push_back(&matrix);
      bytes += own;
    }
    return groups;
  }

  Status Observe(LayerPart part, std::span<const LayerMatrix* const> matrices, int64_t layer, int64_t step,
                 double before, double share) {
    if (flags_.nearest) return OkStatus();
    const bool drift = HasDrift(part, layer);
    if (drift) keeper_.Watch(original_->matrices());
    RETURN_IF_ERROR(moments_.Watch(matrices, drift ? &keeper_ : nullptr));
    for (int64_t s = 0; s < count_; ++s) {
      RETURN_IF_ERROR(CheckInterrupt());
      if (drift) RETURN_IF_ERROR(RunCopy(*original_, part, Sample(original_hidden_, s), keeper_));
      const Status status = RunCopy(runner_, part, Sample(hidden_, s), moments_);
      RETURN_IF_ERROR(moments_.status());
      RETURN_IF_ERROR(status);
      progress_.Update(layer, step, before + share * static_cast<double>(s + 1) / static_cast<double>(count_));
    }
    return OkStatus();
  }

  bool IsDone(const SourceMatrix& source) const { return std::ranges::find(done_, source) != done_.end(); }

  /// Whether the output can hold the matrix; one that it cannot hold is noted as kept.
  bool CanBeQuantized(const SourceMatrix& source) {
    if (!WhyKept(source, flags_).empty()) {
      const std::string line = fmt::format("{} ({})", source.tensor->name, WhyKept(source, flags_));
      if (std::ranges::find(report_.kept, line) == report_.kept.end()) report_.kept.push_back(line);
      return false;
    }
    return true;
  }

  /// All tensors that the packed matrix is made of: they share its inputs, whose moments are the m-th observed ones.
  Status QuantizeMatrix(const LayerMatrix& matrix, size_t m) {
    std::optional<GptqFactor> factor;
    InputMoments::Moments* const observed = flags_.nearest ? nullptr : &moments_.moments()[m];
    if (observed) {
      InputMoments::Moments& moments = *observed;
      auto made = GptqFactor::Make(moments.sum.as<float>(), matrix.cols, flags_.gptq, pool_);
      if (!made.ok()) return made.status().WithContext(matrix.name);
      factor = *std::move(made);
      moments.sum = Buffer();
      if (moments.tokens == 0)
        Note(fmt::format("{}: no token of the calibration text came here; rounded to nearest", matrix.name));
      if (factor->damping() > flags_.gptq.damping) {
        Note(fmt::format("{}: the inputs' moments are nearly singular; damping raised from {} to {}", matrix.name,
                         flags_.gptq.damping, factor->damping()));
      }
    }
    for (const SourceMatrix& source : matrix.sources) {
      if (IsDone(source) || !CanBeQuantized(source)) continue;
      RETURN_IF_ERROR(CheckInterrupt());
      const Status status = QuantizeSource(source, factor ? &*factor : nullptr, observed);
      if (!status.ok()) return status.WithContext(source.tensor->name);
      done_.push_back(source);
    }
    return OkStatus();
  }

  /// factor and moments are both there or both null.
  Status QuantizeSource(const SourceMatrix& source, const GptqFactor* factor, const InputMoments::Moments* moments) {
    const int64_t rows = source.rows();
    const int64_t cols = source.cols();
    ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(rows * cols * 4, MemoryOwner::kOther));
    auto* const values = buffer.as<float>();
    RETURN_IF_ERROR(runner_.Read(source, values));
    GptqEntry entry{.tensor = source.tensor->name,
                    .rows = rows,
                    .cols = cols,
                    .tokens = moments ? moments->tokens : 0,
                    .bytes_before = source.tensor->bytes};
    GptqMatrix matrix;
    if (factor) {
      if (moments->drift.size() > 0 && EnoughTokens(*moments)) {
        RETURN_IF_ERROR(AimAtOriginals(*moments, *factor, rows, values, pool_, *ctx_.kernels));
      }
      ASSIGN_OR_RETURN(GptqResult result, QuantizeGptq(values, rows, *factor, flags_.gptq, pool_));
      matrix = std::move(result.matrix);
      const double whole = std::max(result.errors.weights, 1e-300);
      entry.error_before = std::sqrt(result.errors.nearest / whole);
      entry.error_after = std::sqrt(result.errors.gptq / whole);
      entry.damping = factor->damping();
      entry.dead = factor->dead();
    } else {
      ASSIGN_OR_RETURN(matrix, QuantizeToNearest(values, rows, cols, flags_.gptq, pool_));
    }
    pool_.ParallelFor(rows, 16, [&](int64_t from, int64_t to, int) {
      for (int64_t r = from; r < to; ++r) matrix.Dequantize(r, values + r * cols);
    });
    const GptqTensorSet tensors = MakeGptqTensors(source, matrix, values, flags_, pool_);
    RETURN_IF_ERROR(folder_->Replace(source.tensor->name, tensors.tensors()));
    for (const TensorToWrite& tensor : tensors.tensors()) entry.bytes_after += static_cast<int64_t>(tensor.data.size());
    runner_.Replace(source, values);
    report_.matrices.push_back(std::move(entry));
    return OkStatus();
  }

  /// With hardly more tokens than inputs, what the layers before have lost cannot be told from chance.
  bool EnoughTokens(const InputMoments::Moments& moments) {
    if (moments.tokens >= 2 * moments.cols()) return true;
    if (!said_few_) {
      Note(fmt::format("{}: {} tokens are too few for {} inputs to aim at the original outputs; give a longer text",
                       moments.matrix->name, moments.tokens, moments.cols()));
    }
    said_few_ = true;
    return false;
  }

  void SayWhatIsKept() const {
    if (report_.kept.empty()) return;
    constexpr size_t kShown = 8;
    const std::vector<std::string> shown(report_.kept.begin(),
                                         report_.kept.begin() + std::min<ptrdiff_t>(kShown, std::ssize(report_.kept)));
    Note(fmt::format("{} of {} matrices stay as they are: {}{}", report_.kept.size(),
                     report_.kept.size() + report_.matrices.size(), fmt::join(shown, ", "),
                     report_.kept.size() > kShown ? ", …" : ""));
  }

  Status WriteFolder() {
    RETURN_IF_ERROR(folder_->WriteText(kMarker, GptqJson(report_, job_.output)));
    std::string config;
    if (!flags_.dequantize) {
      config = GptqConfig(flags_);
      RETURN_IF_ERROR(folder_->WriteText("quantize_config.json", config + "\n"));
      config = "\"quantization_config\": " + config;
    }
    ASSIGN_OR_RETURN([[maybe_unused]] const int64_t bytes, folder_->Finish(config));
    return OkStatus();
  }

  const GptqJob& job_;
  const GptqFlags& flags_;
  ThreadPool& pool_;
  LayerRunner& runner_;
  LayerRunner* original_;
  Arena arena_;
  ExecContext ctx_;
  InputMoments moments_;
  InputKeeper keeper_;
  GptqProgress progress_;
  int64_t count_ = 0;               // samples
  int64_t length_ = 0;              // tokens of each
  Buffer hidden_;                   // [count, length, width]
  Buffer original_hidden_;          // … in the original model
  Buffer work_;                     // [length, width]: what a run may spoil
  std::vector<SourceMatrix> done_;  // of this layer
  bool said_few_ = false;
  std::unique_ptr<CheckpointFolder> folder_;
  GptqReport report_;
};

}  // namespace

Result<GptqReport> QuantizeByGptq(const GptqJob& job) {
  RETURN_IF_ERROR(job.flags.Validate());
  if (job.calibration.empty() && job.calibration_tokens.empty() && !job.flags.nearest) {
    return InvalidArgument("GPTQ learns from a text; give --calibration FILE");
  }
  ASSIGN_OR_RETURN(const KernelSet* const kernels, SelectKernelSet());
  ThreadPool pool(job.threads > 0 ? job.threads : AvailableProcessors());
  ASSIGN_OR_RETURN(const std::unique_ptr<LayerRunner> runner, LayerRunner::Open(job.source, pool));
  RETURN_IF_ERROR(CheckGptqSource(runner->files()));
  RETURN_IF_ERROR(CheckOutputFolder(job.output, runner->files().folder, kMarker, job.force));
  std::unique_ptr<LayerRunner> original;
  if (job.flags.aim_at_originals && !job.flags.nearest) {
    ASSIGN_OR_RETURN(original, LayerRunner::Open(job.source, pool));
  }
  return GptqRun(job, pool, *kernels, *runner, original.get()).Run();
}

Status RunGptq(const GptqJob& job, bool json) {
  CatchInterrupts();
  ASSIGN_OR_RETURN(const GptqReport report, QuantizeByGptq(job));
  return json ? WriteStdout(GptqJson(report, job.output)) : WriteText(GptqTable(report));
}

}  // namespace kvasir::apps
