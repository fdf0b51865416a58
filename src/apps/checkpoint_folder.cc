#include "apps/checkpoint_folder.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>

#include "apps/terminal.h"
#include "apps/write_file.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostSmallFile = 256u << 20;

/// Whether a file of a checkpoint says something that goes with any weights: tokenizers, templates, licences.
bool IsSmallFile(const fs::path& file) {
  const std::string name = file.filename().string();
  const std::string extension = file.extension().string();
  if (name == "config.json" || name == "quantize_config.json" || name.ends_with(".index.json")) return false;
  constexpr std::string_view kExtensions[] = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".py"};
  return std::ranges::find(kExtensions, extension) != std::end(kExtensions) || name.starts_with("LICENSE");
}

/// The config's text with one more entry behind its last one.
Result<std::string> WithEntry(const fs::path& file, const std::string& entry) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(file, kMostSmallFile));
  ASSIGN_OR_RETURN(const json::value config, ParseJson(text, file.string()));
  if (entry.empty()) return text;
  if (!config.is_object()) return InvalidData("{}: is not a JSON object", file.string());
  const size_t end = text.find_last_of('}');
  const size_t last = text.find_last_not_of(" \t\r\n", end - 1);
  const std::string separator = config.get_object().empty() ? "\n  " : ",\n  ";
  return text.substr(0, last + 1) + separator + entry + "\n}\n";
}

}  // namespace

Status CheckOutputFolder(const fs::path& output, const fs::path& source, const std::string& marker, bool force) {
  std::error_code error;
  if (fs::equivalent(output, source, error)) {
    return InvalidArgument("{}: is the source itself; give another -o", output.string());
  }
  if (!fs::exists(output, error) || fs::is_empty(output, error)) return OkStatus();
  if (!fs::exists(output / marker, error)) {
    return InvalidArgument("{}: is not empty and no output of kvasir quantize; give another -o", output.string());
  }
  if (!force) {
    return InvalidArgument("{}: exists already; give --force to replace it, or another -o", output.string());
  }
  return OkStatus();
}

Result<std::unique_ptr<CheckpointFolder>> CheckpointFolder::Create(const fs::path& output, const ModelFiles& files) {
  ASSIGN_OR_RETURN(std::unique_ptr<AtomicFolder> folder, AtomicFolder::Create(output));
  return std::unique_ptr<CheckpointFolder>(new CheckpointFolder(files, std::move(folder)));
}

Status CheckpointFolder::Replace(const std::string& name, std::span<const TensorToWrite> tensors) {
  const fs::path file = folder_->temporary() / fmt::format("spool-{}.safetensors", spooled_.size());
  RETURN_IF_ERROR(WriteSafetensors(file, tensors, {}));
  spooled_[name] = file;
  return OkStatus();
}

Status CheckpointFolder::WriteText(const std::string& file, std::string_view content) {
  return WriteFileAtomically(folder_->temporary() / file, content);
}

Status CheckpointFolder::CopySmallFiles() const {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(files_.folder.empty() ? "." : files_.folder, error)) {
    if (!entry.is_regular_file(error) || !IsSmallFile(entry.path())) continue;
    const fs::path target = folder_->temporary() / entry.path().filename();
    if (fs::exists(target, error)) continue;
    ASSIGN_OR_RETURN(const std::string content, ReadFile(entry.path(), kMostSmallFile));
    RETURN_IF_ERROR(WriteFileAtomically(target, content));
  }
  if (error) return IoError("{}: cannot be read: {}", files_.folder.string(), error.message());
  return OkStatus();
}

Result<int64_t> CheckpointFolder::WriteShards(int64_t shard_bytes) {
  // In the source's order; the spooled files stay mapped while they are copied.
  std::vector<std::unique_ptr<TensorSource>> spools;
  std::vector<std::vector<TensorToWrite>> shards(1);
  int64_t total = 0;
  int64_t in_shard = 0;
  const auto add = [&](const RawTensor& tensor) {
    if (in_shard > 0 && in_shard + tensor.bytes > shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    in_shard += tensor.bytes;
    total += tensor.bytes;
    shards.back().push_back({.name = tensor.name,
                             .dtype = tensor.dtype,
                             .shape = tensor.shape,
                             .data = {tensor.data, static_cast<size_t>(tensor.bytes)}});
  };
  for (const RawTensor& tensor : files_.source->tensors()) {
    const auto spooled = spooled_.find(tensor.name);
    if (spooled == spooled_.end()) {
      add(tensor);
      continue;
    }
    ASSIGN_OR_RETURN(std::unique_ptr<TensorSource> spool, OpenSafetensors(spooled->second));
    for (const RawTensor& made : spool->tensors()) add(made);
    spools.push_back(std::move(spool));
  }
  json::object map;
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string file = shards.size() == 1 ? std::string("model.safetensors")
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    RETURN_IF_ERROR(WriteSafetensors(folder_->temporary() / file, shards[s], {{"format", "pt"}}));
    for (const TensorToWrite& tensor : shards[s]) map[tensor.name] = file;
  }
  if (shards.size() > 1) {
    const json::object index{{"metadata", json::object{{"total_size", total}}}, {"weight_map", std::move(map)}};
    RETURN_IF_ERROR(WriteText("model.safetensors.index.json", json::serialize(index)));
  }
  return total;
}

Result<int64_t> CheckpointFolder::Finish(const std::string& config_entry, int64_t shard_bytes) {
  ASSIGN_OR_RETURN(const std::string config, WithEntry(files_.folder / "config.json", config_entry));
  RETURN_IF_ERROR(WriteText("config.json", config));
  RETURN_IF_ERROR(CopySmallFiles());
  ASSIGN_OR_RETURN(const int64_t total, WriteShards(shard_bytes));
  std::error_code error;
  for (const auto& [name, file] : spooled_) {
    if (!fs::remove(file, error)) return IoError("{}: cannot be removed: {}", file.string(), error.message());
  }
  RETURN_IF_ERROR(folder_->Commit());
  return total;
}

}  // namespace kvasir::apps
