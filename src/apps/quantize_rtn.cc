// --method rtn: one tensor after the other, in stripes of rows on all threads, straight into the output.
#include <algorithm>
#include <chrono>
#include <mutex>
#include <set>

#include "apps/imatrix.h"
#include "apps/prompt_input.h"
#include "apps/quantize.h"
#include "apps/quantize_equalize.h"
#include "apps/quantize_report.h"
#include "apps/quantize_source.h"
#include "apps/quantize_types.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "apps/write_file.h"
#include "base/limits.h"
#include "base/thread_pool.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "quant/gguf_blocks.h"
#include "quant/quantize.h"

namespace kvasir::apps {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kStripeBytes = int64_t{8} << 20;  // of fp32 values
constexpr uint32_t kQuantizationVersion = 2;        // of ggml's block layouts

/// Files of a checkpoint's folder that belong to the model and hold no weights.
bool BelongsToModel(const fs::path& file) {
  const std::string name = file.filename().string();
  const std::string ending = file.extension().string();
  if (name.ends_with(".safetensors.index.json")) return false;
  return ending == ".json" || ending == ".jinja" || name == "merges.txt" || name == "vocab.txt" ||
         name == "tokenizer.model" || name == "spiece.model" || ending == ".tiktoken";
}

class Run {
 public:
  explicit Run(const QuantizeOptions& options)
      : options_(options), pool_(options.threads.value_or(AvailableProcessors())) {}

  Status Quantize() {
    CatchInterrupts();
    RETURN_IF_ERROR(CheckPaths());
    ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(options_.source));
    if (files.format == "safetensors" && !to_gguf_) {
      ASSIGN_OR_RETURN(source_, CheckpointAsIs(std::move(files)));
    } else if (files.format == "safetensors") {
      ASSIGN_OR_RETURN(source_, CheckpointAsGguf(std::move(files), options_.pre_tokenizer));
    } else if (files.format == "gguf" && to_gguf_) {
      ASSIGN_OR_RETURN(source_, GgufAsGguf(std::move(files)));
      if (!options_.pre_tokenizer.empty()) {
        SetGgufEntry(GgufText("tokenizer.ggml.pre", options_.pre_tokenizer), &source_.entries);
      }
    } else {
      return Unsupported("{}: a {} model cannot be written as a safetensors folder; give -o FILE.gguf",
                         options_.source.string(), files.format);
    }
    RETURN_IF_ERROR(CheckQuantized());
    ASSIGN_OR_RETURN(plan_, Plan());
    for (const std::string& note : plan_.notes) Note(note);
    RETURN_IF_ERROR(LoadImportance());
    RETURN_IF_ERROR(Equalize());
    for (const SourceTensor& tensor : source_.tensors) total_ += RowCount(tensor) * ColumnCount(tensor);
    start_ = std::chrono::steady_clock::now();
    {
      Progress progress("quantizing", !options_.json);
      progress_ = &progress;
      RETURN_IF_ERROR(to_gguf_ ? WriteGguf() : WriteFolder());
    }
    return PrintReport();
  }

 private:
  Status CheckPaths() {
    std::error_code error;
    const fs::path& out = options_.output;
    if (out.empty()) return InvalidArgument("give -o: a .gguf file, or a folder for safetensors");
    if (!fs::exists(options_.source, error)) {
      return NotFound("{}: no such model; give a Hugging Face folder or a .gguf file", options_.source.string());
    }
    if (fs::equivalent(options_.source, out, error)) {
      return InvalidArgument("{}: is the source itself; give another -o", out.string());
    }
    to_gguf_ = out.extension() == ".gguf";
    if (!to_gguf_ && !PlainType(options_.type)) {
      return InvalidArgument("{}: -o is no .gguf file, and folders of safetensors hold f32, f16 or bf16, not {}",
                             out.string(), options_.type);
    }
    const fs::path file = to_gguf_ ? out : out / "model.safetensors";
    if (!options_.force && fs::exists(file, error)) {
      return InvalidArgument("{}: exists already; give --force to replace it, or another -o", file.string());
    }
    const bool uses_importance = !options_.imatrix.empty() || !options_.calibration.empty();
    if (!options_.imatrix.empty() && !options_.calibration.empty()) {
      return InvalidArgument("give --imatrix or --calibration, not both");
    }
    if (!options_.save_imatrix.empty() && options_.calibration.empty()) {
      return InvalidArgument("--save-imatrix needs --calibration, the text to make the matrix from");
    }
    if (!to_gguf_ && uses_importance) {
      return InvalidArgument("an importance matrix has no use for {}", options_.type);
    }
    return OkStatus();
  }

  Status CheckQuantized() const {
    if (!source_.quantized) return OkStatus();
    if (!options_.requantize) {
      return InvalidArgument(
          "{}: is quantised already, and what that lost is lost; bring the 16-bit original, or give --requantize",
          options_.source.string());
    }
    Note(fmt::format("{} is quantised already; both roundings' errors add up", options_.source.string()));
    return OkStatus();
  }

  Status Equalize() {
    if (!options_.equalize || !to_gguf_ || std::ranges::none_of(plan_.types, IsGgufBlockType)) return OkStatus();
    ASSIGN_OR_RETURN(const int64_t columns, EqualizeColumns(source_, pool_));
    if (columns > 0) {
      Note(
          fmt::format("{} columns of weights were far from the usual size; they are scaled, and their inputs the other "
                      "way (--no-equalize leaves them)",
                      columns));
    }
    return OkStatus();
  }

  Result<TypePlan> Plan() const {
    std::vector<TensorToType> tensors;
    tensors.reserve(source_.tensors.size());
    for (const SourceTensor& tensor : source_.tensors) {
      tensors.push_back({tensor.name, tensor.shape, tensor.dtype});
    }
    if (to_gguf_) return PlanTypes(options_.type, options_.keep, tensors);
    ASSIGN_OR_RETURN(TypePlan plan, PlanPlainTypes(*PlainType(options_.type), options_.keep, tensors));
    return plan;
  }

  Status LoadImportance() {
    if (!options_.imatrix.empty()) {
      ASSIGN_OR_RETURN(importance_, ReadImportance(options_.imatrix));
    } else if (!options_.calibration.empty()) {
      EngineOptions engine_options;
      engine_options.model = options_.source;
      engine_options.threads = pool_.size();
      engine_options.context = 0;
      engine_options.pre_tokenizer = source_.files.gguf != nullptr ? options_.pre_tokenizer : "";
      ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Load(engine_options));
      ASSIGN_OR_RETURN(const ImportanceMatrix measured,
                       MeasureImportance(*engine, options_.calibration, options_.calibration_chunk,
                                         options_.calibration_chunks, options_.json));
      importance_ = RenameImportance(measured, source_);
      if (!options_.save_imatrix.empty()) RETURN_IF_ERROR(WriteImportance(importance_, options_.save_imatrix));
    } else {
      return OkStatus();
    }
    return CheckImportance();
  }

  /// Entries that do not fit a tensor are errors; tensors without one are named once for each kind.
  Status CheckImportance() {
    std::set<std::string> missing;
    int64_t found = 0;
    for (size_t i = 0; i < source_.tensors.size(); ++i) {
      const SourceTensor& tensor = source_.tensors[i];
      const auto at = importance_.entries.find(tensor.name);
      if (at == importance_.entries.end()) {
        if (IsGgufBlockType(plan_.types[i])) missing.insert(KindOfTensor(tensor.name));
        continue;
      }
      ++found;
      ImportanceEntry& entry = at->second;
      const int64_t columns = ColumnCount(tensor);
      const int64_t matrices = MatricesOf(tensor);
      // The older form does not say how many matrices its values are of.
      if (entry.counts.size() == 1 && entry.columns == columns * matrices) {
        entry.counts.assign(static_cast<size_t>(matrices), entry.counts[0]);
        entry.columns = columns;
      }
      if (entry.columns != columns || entry.counts.size() != static_cast<size_t>(matrices)) {
        return InvalidData(
            "the importance matrix has {} × {} values for \"{}\", which has {} × {}; it is another model's",
            entry.counts.size(), entry.columns, tensor.name, matrices, columns);
      }
    }
    if (found == 0) return InvalidData("the importance matrix names no tensor of this model; it is another model's");
    for (const std::string& kind : missing) Note(kind + ": not in the importance matrix; all inputs count alike");
    return OkStatus();
  }

  static int64_t MatricesOf(const SourceTensor& tensor) {
    const int64_t rows = tensor.shape.size() < 2 ? 1 : tensor.shape[tensor.shape.size() - 2];
    return rows > 0 ? RowCount(tensor) / rows : 1;
  }

  Status WriteGguf() {
    std::vector<GgufTensor> tensors = source_.extra;
    for (size_t i = 0; i < source_.tensors.size(); ++i) {
      tensors.push_back({source_.tensors[i].name, plan_.types[i], source_.tensors[i].shape});
    }
    std::vector<GgufEntry> entries = source_.entries;
    SetGgufEntry(GgufUint32("general.file_type", plan_.file_type), &entries);
    SetGgufEntry(GgufUint32("general.quantization_version", kQuantizationVersion), &entries);
    ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer, GgufWriter::Create(options_.output, entries, tensors));
    for (const std::string& bytes : source_.extra_bytes) {
      RETURN_IF_ERROR(writer->Append(std::as_bytes(std::span(bytes))));
    }
    const AppendBytes append = [&](std::span<const std::byte> bytes) { return writer->Append(bytes); };
    for (size_t i = 0; i < source_.tensors.size(); ++i) RETURN_IF_ERROR(WriteTensor(i, append));
    RETURN_IF_ERROR(writer->Finish());
    written_ = writer->size();
    return OkStatus();
  }

  Status WriteFolder() {
    const fs::path& out = options_.output;
    std::error_code error;
    fs::create_directories(out, error);
    if (error) return IoError("{}: cannot be made: {}", out.string(), error.message());
    for (const auto& entry : fs::directory_iterator(source_.files.folder, error)) {
      if (!entry.is_regular_file() || !BelongsToModel(entry.path())) continue;
      ASSIGN_OR_RETURN(std::string content, ReadFile(entry.path(), size_t{256} << 20));
      const std::string name = entry.path().filename().string();
      if (name == "config.json") {
        ASSIGN_OR_RETURN(content, ConfigWithType(content, entry.path()));
      }
      RETURN_IF_ERROR(WriteFileAtomically(out / name, content));
    }
    std::vector<TensorToWrite> tensors;
    for (size_t i = 0; i < source_.tensors.size(); ++i) {
      const SourceTensor& tensor = source_.tensors[i];
      tensors.push_back({tensor.name, plan_.types[i], tensor.pieces[0].tensor->shape, {}});
    }
    const fs::path file = out / "model.safetensors";
    RETURN_IF_ERROR(StreamSafetensors(file, tensors, {{"format", "pt"}},
                                      [&](size_t i, const AppendBytes& append) { return WriteTensor(i, append); }));
    written_ = static_cast<int64_t>(fs::file_size(file, error));
    return OkStatus();
  }

  Result<std::string> ConfigWithType(const std::string& content, const fs::path& path) const {
    ASSIGN_OR_RETURN(json::value config, ParseJson(content, path.string()));
    if (!config.is_object()) return InvalidData("{}: is not a JSON object", path.string());
    const DType type = *PlainType(options_.type);
    const char* const name = type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
    const bool renamed = config.get_object().contains("dtype");
    config.get_object()[renamed ? "dtype" : "torch_dtype"] = name;
    return JsonLine(config);
  }

  Status WriteTensor(size_t index, const AppendBytes& append) {
    const SourceTensor& tensor = source_.tensors[index];
    const DType type = plan_.types[index];
    QuantizeFigures figures{.tensors = 1, .elements = RowCount(tensor) * ColumnCount(tensor)};
    figures.types[type] = 1;
    figures.bytes_after = *DTypeBytes(type, figures.elements);
    figures.bytes_before = DTypeBytes(tensor.dtype, figures.elements).value_or(0);
    if (!CanQuantizeTo(tensor.dtype)) {
      // Integers and truth values: as they are.
      const RawTensor& raw = *tensor.pieces[0].tensor;
      RETURN_IF_ERROR(append({raw.data, static_cast<size_t>(raw.bytes)}));
    } else {
      auto status = WriteRows(tensor, type, append, &figures);
      if (!status.ok()) return status;
    }
    done_ += figures.elements;
    report_.Add(KindOfTensor(tensor.name), figures);
    return OkStatus();
  }

  Status WriteRows(const SourceTensor& tensor, DType type, const AppendBytes& append, QuantizeFigures* figures) {
    const int64_t columns = ColumnCount(tensor);
    const int64_t rows = RowCount(tensor);
    if (columns == 0 || rows == 0) return OkStatus();
    ASSIGN_OR_RETURN(const RowReader reader, RowReader::Make(tensor));
    const std::vector<std::vector<float>> importance = ImportanceOf(tensor);
    const int64_t rows_per_matrix = rows / MatricesOf(tensor);
    const int64_t row_bytes = *DTypeBytes(type, columns);
    const int64_t stripe = std::clamp<int64_t>(kStripeBytes / (columns * 4), 1, rows);
    std::vector<std::byte> out(static_cast<size_t>(stripe * row_bytes));
    std::vector<double> errors(static_cast<size_t>(stripe));
    std::vector<double> powers(static_cast<size_t>(stripe));
    std::vector<std::vector<float>> values(static_cast<size_t>(pool_.size()),
                                           std::vector<float>(static_cast<size_t>(2 * columns)));
    for (int64_t first = 0; first < rows; first += stripe) {
      const int64_t count = std::min(stripe, rows - first);
      std::mutex mutex;
      int64_t bad_row = rows;
      Status bad;
      pool_.ParallelFor(count, 1, [&](int64_t begin, int64_t end, int worker) {
        float* const x = values[static_cast<size_t>(worker)].data();
        float* const y = x + columns;
        for (int64_t r = begin; r < end; ++r) {
          reader.Read(first + r, x);
          Status status = CheckQuantizable(type, x, columns);
          if (!status.ok()) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (first + r < bad_row) {
              bad_row = first + r;
              bad = std::move(status);
            }
            continue;
          }
          const auto matrix = static_cast<size_t>((first + r) / rows_per_matrix);
          const bool weighted = matrix < importance.size() && !importance[matrix].empty();
          std::byte* const encoded = out.data() + r * row_bytes;
          QuantizeRow(type, x, columns, weighted ? importance[matrix].data() : nullptr, encoded);
          DequantizeRow(type, encoded, columns, y);
          double error = 0.0;
          double power = 0.0;
          for (int64_t i = 0; i < columns; ++i) {
            const double difference = static_cast<double>(x[i]) - y[i];
            error += difference * difference;
            power += static_cast<double>(x[i]) * x[i];
          }
          errors[static_cast<size_t>(r)] = error;
          powers[static_cast<size_t>(r)] = power;
        }
      });
      if (!bad.ok()) return bad.WithContext(fmt::format("tensor \"{}\", row {}", tensor.name, bad_row));
      // In the order of rows, so that the report does not depend on threads.
      for (int64_t r = 0; r < count; ++r) {
        figures->error += errors[static_cast<size_t>(r)];
        figures->power += powers[static_cast<size_t>(r)];
      }
      RETURN_IF_ERROR(append(std::span(out).first(static_cast<size_t>(count * row_bytes))));
      reader.GiveBack(first, first + count);
      ShowProgress(done_ + (first + count) * columns);
      if (Interrupted()) return Status(StatusCode::kCancelled, "");
    }
    return OkStatus();
  }

  std::vector<std::vector<float>> ImportanceOf(const SourceTensor& tensor) const {
    std::vector<std::vector<float>> means;
    const auto at = importance_.entries.find(tensor.name);
    if (at == importance_.entries.end()) return means;
    for (size_t m = 0; m < at->second.counts.size(); ++m) {
      means.push_back(at->second.Mean(static_cast<int64_t>(m)));
      // Means of squares of inputs, which are scaled the other way.
      for (size_t k = 0; k < tensor.column_factors.size() && k < means.back().size(); ++k) {
        means.back()[k] /= tensor.column_factors[k] * tensor.column_factors[k];
      }
    }
    return means;
  }

  void ShowProgress(int64_t done) {
    const double seconds = Seconds();
    const double left = seconds * static_cast<double>(total_ - done) / static_cast<double>(std::max<int64_t>(done, 1));
    progress_->Update(done, total_,
                      fmt::format("{:.1f} M weights/s, {:.0f} s left",
                                  static_cast<double>(done) / 1e6 / std::max(seconds, 1e-3), left));
  }

  double Seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  Status PrintReport() const {
    if (options_.json) {
      json::object object = report_.Json();
      object["file"] = options_.output.string();
      object["bytes"] = written_;
      object["seconds"] = Seconds();
      return WriteStdout(JsonLine(object));
    }
    return WriteText(fmt::format("{}{}: {} in {:.1f} s\n", report_.Table(), options_.output.string(),
                                 HumanBytes(written_), Seconds()));
  }

  const QuantizeOptions& options_;
  ThreadPool pool_;
  bool to_gguf_ = true;
  QuantizeSource source_;
  TypePlan plan_;
  ImportanceMatrix importance_;
  QuantizeReport report_;
  Progress* progress_ = nullptr;
  std::chrono::steady_clock::time_point start_;
  int64_t total_ = 0;
  int64_t done_ = 0;
  int64_t written_ = 0;
};

}  // namespace

Status RunRtnQuantize(const QuantizeOptions& options) { return Run(options).Quantize(); }

}  // namespace kvasir::apps
