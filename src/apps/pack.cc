// kvasir pack: the kernels' layout made ahead of time.
#include <chrono>

#include "apps/model_flags.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "base/limits.h"
#include "base/thread_pool.h"
#include "model/packed_file.h"

namespace kvasir::apps {
namespace {

class PackVerb final : public Verb {
 public:
  std::string_view name() const override { return "pack"; }
  std::string_view summary() const override { return "Write a model in the kernels' layout, which is mapped at once."; }
  std::string_view description() const override {
    return "usage: kvasir pack [-m] MODEL [-o FILE] [flags]\n\n"
           "The packed file holds the weights only and belongs beside the model's other files, where kvasir looks for\n"
           "the tokenizer. Run it with -m FILE.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Model");
    model_.AddModel(flags);
    flags.Positional("--model");
    model_.AddDType(flags);
    model_.AddThreads(flags);
    flags.Group("Output");
    flags.Text("-o,--output", "FILE", &output_, "The packed file.",
               "MODEL/model.kvpack, or MODEL.kvpack of a file: where loading MODEL finds it");
    flags.Switch("--force", &force_, "Replace the file if it exists.");
    flags.Switch("--json", &json_, "Print {\"file\", \"bytes\", \"hash\", \"load_ms\", \"write_ms\"}.");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    namespace fs = std::filesystem;
    model_.ApplyVerbose();
    ASSIGN_OR_RETURN(const fs::path path, FindModel(model_.model));
    std::error_code error;
    const fs::path file = !output_.empty() ? fs::path(output_) : IsPackedFile(path) ? path : PackedFileFor(path);
    if (!force_ && fs::exists(file, error)) {
      return InvalidArgument("{}: exists already; give --force to replace it, or another -o", file.string());
    }
    if (fs::equivalent(path, file, error))
      return InvalidArgument("{}: is the model itself; give another -o", file.string());
    const auto start = std::chrono::steady_clock::now();
    EngineOptions options = model_.Options();
    ThreadPool pool(options.threads > 0 ? options.threads : AvailableProcessors());
    LoadOptions load;
    load.dtype = options.dtype;
    load.weights = options.weights;
    std::unique_ptr<Model> model;
    {
      Progress progress("packing", !json_);
      load.progress = [&](int64_t done, int64_t total) { progress.Update(done, total, HumanBytes(total)); };
      ASSIGN_OR_RETURN(model, Model::Load(path, load, pool));
    }
    const auto loaded = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(model->WritePacked(file));
    const auto done = std::chrono::steady_clock::now();
    const fs::path home = fs::is_directory(path, error) ? path : path.parent_path();
    const fs::path folder = file.parent_path();
    if (!fs::equivalent(home.empty() ? "." : home, folder.empty() ? "." : folder, error)) {
      Note(fmt::format("{} is of use only beside the model's other files, in {}", file.string(), home.string()));
    }
    return Print(*model, file, Milliseconds(start, loaded), Milliseconds(loaded, done));
  }

 private:
  static double Milliseconds(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
  }

  Status Print(const Model& model, const std::filesystem::path& file, double load_ms, double write_ms) const {
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    const auto bytes = error ? int64_t{0} : static_cast<int64_t>(size);
    if (json_) {
      return WriteStdout(JsonLine({{"file", file.string()},
                                   {"bytes", bytes},
                                   {"hash", model.hash()},
                                   {"load_ms", load_ms},
                                   {"write_ms", write_ms}}));
    }
    return WriteText(fmt::format("{}: {} of {} weights, packed in {:.0f} ms, written in {:.0f} ms\n", file.string(),
                                 HumanBytes(bytes), DTypeName(model.dtype()), load_ms, write_ms));
  }

  ModelFlags model_;
  std::string output_;
  bool force_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakePackVerb() { return std::make_unique<PackVerb>(); }

}  // namespace kvasir::apps
