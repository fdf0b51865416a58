#include "apps/imatrix.h"

#include <cmath>
#include <cstring>
#include <set>

#include "apps/terminal.h"
#include "base/checked.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kLeastTokens = 512;
constexpr size_t kMaxText = size_t{1} << 30;
constexpr size_t kMaxOldFile = size_t{1} << 30;
constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";

/// Sums over every matrix of a model.
class Collector final : public MatMulObserver {
 public:
  explicit Collector(std::span<const MatrixInfo> matrices) {
    for (const MatrixInfo& info : matrices) {
      Sums& sums = sums_[info.weight.data];
      sums.info = &info;
      sums.squares.resize(static_cast<size_t>(info.weight.cols));
    }
  }

  void OnMatMul(const PackedWeight& w, MatView<const float> x) override {
    const auto found = sums_.find(w.data);
    if (found == sums_.end() || x.cols != static_cast<int64_t>(found->second.squares.size())) return;
    std::vector<double>& squares = found->second.squares;
    for (int64_t r = 0; r < x.rows; ++r) {
      const float* const row = x.row(r);
      for (size_t i = 0; i < squares.size(); ++i) squares[i] += static_cast<double>(row[i]) * row[i];
    }
    found->second.rows += x.rows;
  }

  Result<ImportanceMatrix> Finish() const {
    ImportanceMatrix matrix;
    for (const auto& [data, sums] : sums_) {
      if (sums.rows == 0) continue;
      std::set<std::pair<std::string_view, int64_t>> done;
      for (const MatrixInfo::Part& part : sums.info->parts) {
        if (!done.insert({part.tensor, part.matrix}).second) continue;
        ImportanceEntry& entry = matrix.entries[part.tensor];
        const auto at = static_cast<size_t>(std::max<int64_t>(part.matrix, 0));
        entry.columns = static_cast<int64_t>(sums.squares.size());
        if (entry.counts.size() <= at) {
          entry.counts.resize(at + 1);
          entry.sums.resize((at + 1) * sums.squares.size());
        }
        if (entry.counts[at] > 0.0f) continue;  // in two packed matrices, which see the same input
        entry.counts[at] = static_cast<float>(sums.rows);
        for (size_t i = 0; i < sums.squares.size(); ++i) {
          const auto sum = static_cast<float>(sums.squares[i]);
          if (!std::isfinite(sum)) {
            return InvalidData("tensor \"{}\": its inputs are not finite on this text", part.tensor);
          }
          entry.sums[at * sums.squares.size() + i] = sum;
        }
      }
    }
    return matrix;
  }

 private:
  struct Sums {
    const MatrixInfo* info = nullptr;
    std::vector<double> squares;
    int64_t rows = 0;
  };
  std::map<const std::byte*, Sums> sums_;
};

/// Takes the observer off again, whatever happens.
struct Observing {
  Observing(ExecContext& context, MatMulObserver* observer) : ctx(context) { ctx.observer = observer; }
  ~Observing() { ctx.observer = nullptr; }
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;
  ExecContext& ctx;
};

Status CheckEntry(const std::string& name, const ImportanceEntry& entry) {
  const auto bad = [](float x) { return !(x >= 0.0f) || !std::isfinite(x); };
  for (const auto* list : {&entry.sums, &entry.counts}) {
    for (const float x : *list) {
      if (bad(x)) return InvalidData("the entry of \"{}\" holds {}; it must be finite and not negative", name, x);
    }
  }
  return OkStatus();
}

std::vector<float> Floats(const RawTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  std::memcpy(values.data(), tensor.data, static_cast<size_t>(tensor.bytes));
  return values;
}

Result<ImportanceMatrix> ReadGgufForm(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  ImportanceMatrix matrix;
  for (const RawTensor& sums : file->tensors()) {
    if (!sums.name.ends_with(kSums)) continue;
    const std::string name = sums.name.substr(0, sums.name.size() - kSums.size());
    const RawTensor* counts = file->Find(name + std::string(kCounts));
    if (counts == nullptr) return InvalidData("{}: \"{}\" has no counts", path.string(), name);
    if (sums.dtype != DType::kF32 || counts->dtype != DType::kF32 || sums.shape.empty()) {
      return InvalidData("{}: \"{}\" is not in fp32", path.string(), name);
    }
    ImportanceEntry entry{.columns = sums.shape.back(), .sums = Floats(sums), .counts = Floats(*counts)};
    if (entry.columns < 1 || sums.elements() / entry.columns != counts->elements()) {
      return InvalidData("{}: \"{}\" has {} sums of {} columns but {} counts", path.string(), name, sums.elements(),
                         entry.columns, counts->elements());
    }
    const Status status = CheckEntry(name, entry);
    if (!status.ok()) return status.WithContext(path.string());
    matrix.entries.emplace(name, std::move(entry));
  }
  if (matrix.entries.empty()) {
    return InvalidData("{}: holds no importance matrix, that is no tensor NAME.in_sum2", path.string());
  }
  ASSIGN_OR_RETURN(matrix.chunks, file->Int("imatrix.chunk_count", 0, INT64_MAX, 0));
  ASSIGN_OR_RETURN(matrix.chunk_tokens, file->Int("imatrix.chunk_size", 0, INT64_MAX, 0));
  return matrix;
}

/// The older form: a count of entries, each a name, a number of calls and as many means · calls as there are columns.
Result<ImportanceMatrix> ReadOldForm(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxOldFile));
  size_t at = 0;
  const auto damaged = [&] {
    return InvalidData("{}: is no importance matrix of llama.cpp, or damaged at byte {}", path.string(), at);
  };
  const auto number = [&](int64_t most) -> std::optional<int32_t> {
    int32_t value = 0;
    if (bytes.size() - at < sizeof(value)) return std::nullopt;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    at += sizeof(value);
    return value < 0 || value > most ? std::nullopt : std::optional(value);
  };
  const std::optional<int32_t> count = number(1 << 20);
  if (!count || *count == 0) return damaged();
  ImportanceMatrix matrix;
  for (int32_t i = 0; i < *count; ++i) {
    const std::optional<int32_t> length = number(4096);
    if (!length || static_cast<size_t>(*length) > bytes.size() - at) return damaged();
    const std::string name = bytes.substr(at, static_cast<size_t>(*length));
    at += static_cast<size_t>(*length);
    const std::optional<int32_t> calls = number(INT32_MAX);
    const std::optional<int32_t> values = calls ? number(1 << 28) : std::nullopt;
    if (!values || *values < 1 || static_cast<size_t>(*values) > (bytes.size() - at) / sizeof(float)) return damaged();
    // How many matrices the values are of is not said; the tensor will tell.
    ImportanceEntry entry{.columns = *values, .sums = std::vector<float>(static_cast<size_t>(*values))};
    entry.counts = {static_cast<float>(std::max(*calls, 1))};
    std::memcpy(entry.sums.data(), bytes.data() + at, entry.sums.size() * sizeof(float));
    at += entry.sums.size() * sizeof(float);
    const Status status = CheckEntry(name, entry);
    if (!status.ok()) return status.WithContext(path.string());
    matrix.entries.emplace(name, std::move(entry));
  }
  return matrix;
}

}  // namespace

std::vector<float> ImportanceEntry::Mean(int64_t matrix) const {
  const float count = counts[static_cast<size_t>(matrix)];
  if (!(count > 0.0f)) return {};
  const float* const begin = sums.data() + matrix * columns;
  std::vector<float> mean(begin, begin + columns);
  for (float& x : mean) x /= count;
  return mean;
}

Result<ImportanceMatrix> ReadImportance(const std::filesystem::path& file) {
  char magic[4] = {};
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> mapped, MappedFile::Open(file));
    std::memcpy(magic, mapped->bytes().data(), std::min<size_t>(4, mapped->bytes().size()));
  }
  return std::string_view(magic, 4) == "GGUF" ? ReadGgufForm(file) : ReadOldForm(file);
}

Status WriteImportance(const ImportanceMatrix& matrix, const std::filesystem::path& file) {
  const std::vector<std::string> datasets = {matrix.dataset};
  const std::vector<GgufEntry> entries = {GgufText("general.type", "imatrix"), GgufTexts("imatrix.datasets", datasets),
                                          GgufUint32("imatrix.chunk_count", static_cast<uint32_t>(matrix.chunks)),
                                          GgufUint32("imatrix.chunk_size", static_cast<uint32_t>(matrix.chunk_tokens))};
  std::vector<GgufTensor> tensors;
  for (const auto& [name, entry] : matrix.entries) {
    const auto matrices = static_cast<int64_t>(entry.counts.size());
    tensors.push_back({name + std::string(kSums), DType::kF32, {matrices, entry.columns}});
    tensors.push_back({name + std::string(kCounts), DType::kF32, {matrices, 1}});
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer, GgufWriter::Create(file, entries, tensors));
  for (const auto& [name, entry] : matrix.entries) {
    RETURN_IF_ERROR(writer->Append(std::as_bytes(std::span(entry.sums))));
    RETURN_IF_ERROR(writer->Append(std::as_bytes(std::span(entry.counts))));
  }
  return writer->Finish();
}

Result<ImportanceMatrix> MeasureImportance(Engine& engine, const std::filesystem::path& text, int64_t chunk,
                                           int64_t chunks, bool quiet) {
  if (engine.tokenizer() == nullptr) return NotFound("this model has no tokenizer, so it cannot read a text");
  ASSIGN_OR_RETURN(const std::string content, ReadFile(text, kMaxText));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, engine.tokenizer()->Encode(content));
  chunk = std::min(chunk, engine.context());
  const int64_t least = std::max(chunk, kLeastTokens);
  const auto count = static_cast<int64_t>(tokens.size());
  if (count < least) {
    return InvalidArgument("{}: the calibration text has {} tokens; it needs {} at least, better a hundred thousand",
                           text.string(), count, least);
  }
  const int64_t whole = count / chunk;
  chunks = chunks > 0 ? std::min(chunks, whole) : whole;
  Collector collector(engine.model().matrices());
  const Observing observing(engine.exec(), &collector);
  Progress progress("calibrating", !quiet);
  const std::optional<TokenId> bos = engine.tokenizer()->vocab().bos;
  const auto ignore = [](int64_t, MatView<const float>) { return OkStatus(); };
  for (int64_t i = 0; i < chunks; ++i) {
    std::vector<TokenId> input(tokens.begin() + i * chunk, tokens.begin() + (i + 1) * chunk);
    if (bos) input.front() = *bos;
    RETURN_IF_ERROR(engine.ForEachLogits(input, 0, ignore));
    progress.Update(i + 1, chunks, fmt::format("{} tokens", (i + 1) * chunk));
    if (Interrupted()) return Status(StatusCode::kCancelled, "");
  }
  ASSIGN_OR_RETURN(ImportanceMatrix matrix, collector.Finish());
  matrix.dataset = text.filename().string();
  matrix.chunks = chunks;
  matrix.chunk_tokens = chunk;
  return matrix;
}

ImportanceMatrix RenameImportance(const ImportanceMatrix& matrix, const QuantizeSource& source) {
  ImportanceMatrix renamed{.dataset = matrix.dataset, .chunks = matrix.chunks, .chunk_tokens = matrix.chunk_tokens};
  for (const SourceTensor& tensor : source.tensors) {
    if (tensor.shape.size() < 2) continue;
    const int64_t rows = tensor.shape[tensor.shape.size() - 2];
    const auto matrices = static_cast<size_t>(RowCount(tensor) / std::max<int64_t>(rows, 1));
    ImportanceEntry entry{.columns = ColumnCount(tensor), .counts = std::vector<float>(matrices)};
    entry.sums.resize(matrices * static_cast<size_t>(entry.columns));
    const auto take = [&](const RawTensor& raw, int64_t from, size_t to) {
      const auto found = matrix.entries.find(raw.name);
      if (found == matrix.entries.end() || found->second.columns != entry.columns) return;
      const auto at = static_cast<size_t>(from);
      if (at >= found->second.counts.size() || entry.counts[to] > 0.0f) return;
      entry.counts[to] = found->second.counts[at];
      std::copy_n(found->second.sums.data() + from * entry.columns, entry.columns,
                  entry.sums.data() + static_cast<int64_t>(to) * entry.columns);
    };
    for (const RowPiece& piece : tensor.pieces) {
      const std::vector<int64_t>& shape = piece.tensor->shape;
      const int64_t from = shape.size() == 3 ? piece.slice_offset / (shape[1] * shape[2]) : 0;
      if (piece.count == RowCount(tensor) && matrices > 1) {  // the stack as it is
        for (size_t m = 0; m < matrices; ++m) take(*piece.tensor, static_cast<int64_t>(m), m);
      } else {
        take(*piece.tensor, from, static_cast<size_t>(piece.target / rows));
      }
    }
    const bool used = std::ranges::any_of(entry.counts, [](float count) { return count > 0.0f; });
    if (used) renamed.entries.emplace(tensor.name, std::move(entry));
  }
  return renamed;
}

}  // namespace kvasir::apps
