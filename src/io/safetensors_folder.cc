// Hugging Face folders: one file, or shards with an index.
#include <algorithm>
#include <map>
#include <new>
#include <set>

#include "io/foreign.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/safetensors_types.h"
#include "io/tensor_list.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";

/// Tensor name → shard file name, in the index's order.
using WeightMap = std::vector<std::pair<std::string, std::string>>;

class ShardedSafetensors final : public TensorSource {
 public:
  ShardedSafetensors(std::string description, std::vector<std::unique_ptr<MappedFile>> files, TensorList tensors)
      : description_(std::move(description)), files_(std::move(files)), tensors_(std::move(tensors)) {}
  const RawTensor* Find(std::string_view name) const override { return tensors_.Find(name); }
  std::span<const RawTensor> tensors() const override { return tensors_.tensors(); }
  const std::string& description() const override { return description_; }

 private:
  std::string description_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  TensorList tensors_;
};

/// A shard must be a plain file name. It may be a symbolic link, as in Hugging Face's cache, whose links point to its
/// blobs folder: who can make links in the folder can read the target anyhow, whereas the index comes from a stranger.
bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

Result<WeightMap> ReadIndex(const fs::path& index) {
  ASSIGN_OR_RETURN(const json::value document, ParseJsonFile(index));
  const std::string what = index.string();
  if (!document.is_object()) return InvalidData("{}: must be a JSON object", what);
  ASSIGN_OR_RETURN(const json::object* map, JsonReader(document.get_object(), what).Object({"weight_map"}));
  if (map == nullptr || map->empty()) return InvalidData("{}: \"weight_map\" is missing or empty", what);
  WeightMap weights;
  weights.reserve(map->size());
  for (const auto& member : *map) {
    const std::string_view tensor(member.key().data(), member.key().size());
    const json::string* shard = member.value().if_string();
    if (shard == nullptr) return InvalidData("{}: tensor \"{}\": its shard must be a file name", what, tensor);
    const std::string_view name(shard->data(), shard->size());
    if (!IsPlainFileName(name)) {
      return InvalidData("{}: tensor \"{}\": its shard \"{}\" is not a plain file name inside the folder", what, tensor,
                         name);
    }
    if (!name.ends_with(".safetensors")) {
      return Unsupported("{}: tensor \"{}\": its shard \"{}\" is no .safetensors file", what, tensor, name);
    }
    weights.emplace_back(tensor, name);
  }
  return weights;
}

std::string Join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

/// Every tensor of the index must be in the shard that it names.
Status CheckTensors(const WeightMap& weights, const TensorList& tensors, const std::string& what) {
  std::vector<std::string> missing;
  for (const auto& [name, shard] : weights) {
    const RawTensor* tensor = tensors.Find(name);
    if (tensor == nullptr) {
      missing.push_back(fmt::format("\"{}\" (not in {})", name, shard));
    } else if (tensor->file->path().filename() != shard) {
      missing.push_back(
          fmt::format("\"{}\" (in {}, not in {})", name, tensor->file->path().filename().string(), shard));
    }
  }
  if (missing.empty()) return OkStatus();
  return InvalidData("{}: {} tensors are not in the shards that the index names: {}", what, missing.size(),
                     Join(missing));
}

Result<std::unique_ptr<TensorSource>> OpenSharded(const fs::path& folder, const fs::path& index) {
  ASSIGN_OR_RETURN(const WeightMap weights, ReadIndex(index));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weights) shards.insert(shard);
  std::vector<std::string> missing;
  for (const std::string& shard : shards) {
    std::error_code error;
    if (!fs::exists(folder / shard, error)) missing.push_back(shard);
  }
  if (!missing.empty()) {
    return NotFound("{}: {} of {} shards are missing in its folder: {}", index.string(), missing.size(), shards.size(),
                    Join(missing));
  }
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<RawTensor> all;
  for (const std::string& shard : shards) {
    ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(folder / shard));
    ASSIGN_OR_RETURN(std::vector<RawTensor> tensors, ReadSafetensors(*file));
    std::ranges::move(tensors, std::back_inserter(all));
    files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(TensorList list, TensorList::Make(std::move(all), folder.string()));
  RETURN_IF_ERROR(CheckTensors(weights, list, index.string()));
  return std::make_unique<ShardedSafetensors>(folder.string(), std::move(files), std::move(list));
}

/// The weight files of a folder by kind, each sorted by name.
struct Listing {
  std::vector<std::string> safetensors;
  std::vector<std::string> gguf;
  std::vector<std::string> pytorch;
};

Result<Listing> List(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) continue;
    const std::string name = path.filename().string();
    // Trainers leave other pickles beside the weights.
    const bool beside = name == "training_args.bin" || name == "optimizer.pt" || name == "scheduler.pt" ||
                        name.starts_with("rng_state");
    if (path.extension() == ".safetensors") listing.safetensors.push_back(name);
    if (path.extension() == ".gguf") listing.gguf.push_back(name);
    if (HasPyTorchName(path) && !beside) listing.pytorch.push_back(name);
  }
  if (error) return IoError("{}: cannot be listed: {}", folder.string(), error.message());
  std::ranges::sort(listing.safetensors);
  std::ranges::sort(listing.gguf);
  std::ranges::sort(listing.pytorch);
  return listing;
}

Result<std::unique_ptr<TensorSource>> OpenFolder(const fs::path& folder) {
  const std::string what = folder.string();
  std::error_code error;
  if (!fs::exists(folder, error)) return NotFound("{}: no such folder", what);
  if (!fs::is_directory(folder, error)) return InvalidArgument("{}: is no folder", what);
  // The order in which Hugging Face looks for them.
  if (fs::exists(folder / kSingleName, error)) return OpenSafetensors(folder / kSingleName);
  if (fs::exists(folder / kIndexName, error)) return OpenSharded(folder, folder / kIndexName);
  ASSIGN_OR_RETURN(const Listing listing, List(folder));
  if (listing.safetensors.size() == 1) return OpenSafetensors(folder / listing.safetensors[0]);
  if (!listing.safetensors.empty()) {
    return InvalidArgument("{}: has neither {} nor {} but several others, name the one you mean: {}", what, kSingleName,
                           kIndexName, Join(listing.safetensors));
  }
  if (!listing.gguf.empty()) {
    return InvalidArgument("{}: has no safetensors but GGUF, name the file you mean: {}", what, Join(listing.gguf));
  }
  if (!listing.pytorch.empty()) {
    return Unsupported("{}: has only PyTorch weights ({}), which can run code when they are read; convert them: {}",
                       what, Join(listing.pytorch), ConvertCommand(folder));
  }
  return NotFound("{}: has no weights: neither {}, nor {}, nor another *.safetensors", what, kSingleName, kIndexName);
}

}  // namespace

Result<std::unique_ptr<TensorSource>> OpenSafetensorsFolder(const fs::path& folder) {
  try {
    return OpenFolder(folder);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to open it", folder.string());
  }
}

}  // namespace kvasir
