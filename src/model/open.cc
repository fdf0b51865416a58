// From a path to a spec and raw tensors, whatever the format.
#include <algorithm>

#include "io/safetensors.h"
#include "model/model.h"
#include "model/packed_file.h"
#include "model/quantized_source.h"
#include "model/weight_rules.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

template <typename Names>
bool Contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string KnownNames(bool gguf) {
  std::vector<std::string_view> names;
  for (const ModelFamily& family : ModelFamilies()) {
    const auto& own = gguf ? family.gguf_architectures : family.model_types;
    names.insert(names.end(), own.begin(), own.end());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return fmt::format("{}", fmt::join(names, ", "));
}

/// The error with the file's name, once.
Status Naming(const fs::path& file, const Status& status) {
  return status.message().starts_with(file.string()) ? status : status.WithContext(file.string());
}

Result<ModelFiles> OpenGgufModel(const fs::path& path) {
  ModelFiles files{.path = path, .format = "gguf", .folder = path.parent_path()};
  ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open(path));
  ASSIGN_OR_RETURN(const std::string architecture, gguf->String("general.architecture"));
  for (const ModelFamily& family : ModelFamilies()) {
    if (!Contains(family.gguf_architectures, architecture)) continue;
    auto spec = family.parse_gguf(*gguf);
    if (!spec.ok()) return Naming(path, spec.status());
    files.spec = *std::move(spec);
    files.gguf = gguf.get();
    files.source = std::move(gguf);
    return files;
  }
  return Unsupported("{}: architecture \"{}\" is not known; known are: {}", path.string(), architecture,
                     KnownNames(true));
}

Result<ModelFiles> OpenSafetensorsModel(const fs::path& path, const fs::path& folder, bool single_file) {
  ModelFiles files{.path = path, .format = "safetensors", .folder = folder};
  // The weights first: a folder without any deserves that error, not one about its config.
  if (single_file) {
    ASSIGN_OR_RETURN(files.source, OpenSafetensors(path));
  } else {
    ASSIGN_OR_RETURN(files.source, OpenSafetensorsFolder(path));
  }
  const fs::path config_path = folder / "config.json";
  ASSIGN_OR_RETURN(const json::value config, ParseJsonFile(config_path));
  if (!config.is_object()) return InvalidData("{}: is not a JSON object", config_path.string());
  ASSIGN_OR_RETURN(const auto quantization,
                   FindQuantization(JsonReader(config.get_object(), config_path.string()), folder));
  ASSIGN_OR_RETURN(files.source, OpenQuantized(std::move(files.source), quantization));
  ASSIGN_OR_RETURN(files.spec, ReadConfig(config_path));
  return files;
}

bool IsGguf(const fs::path& file) {
  auto mapped = MappedFile::Open(file);
  if (!mapped.ok()) return false;
  const auto bytes = (*mapped)->bytes();
  return bytes.size() >= 4 && std::string_view(reinterpret_cast<const char*>(bytes.data()), 4) == "GGUF";
}

}  // namespace

Result<DecoderSpec> ReadConfig(const fs::path& config_path) {
  ASSIGN_OR_RETURN(const json::value config, ParseJsonFile(config_path));
  if (!config.is_object()) return InvalidData("{}: is not a JSON object", config_path.string());
  // Families see the model as it was before it was quantised.
  json::object plain = config.get_object();
  for (const char* key : {"quantization_config", "compression_config"}) plain.erase(key);
  const JsonReader reader(plain, config_path.string());
  ASSIGN_OR_RETURN(const std::string model_type, reader.String({"model_type"}));
  for (const ModelFamily& family : ModelFamilies()) {
    if (!Contains(family.model_types, model_type)) continue;
    auto spec = family.parse(reader);
    if (!spec.ok()) return Naming(config_path, spec.status());
    return spec;
  }
  return Unsupported("{}: model_type \"{}\" is not known; known are: {}", config_path.string(), model_type,
                     KnownNames(false));
}

Result<ModelFiles> OpenModelFiles(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    return NotFound("{}: no such model; give a Hugging Face folder, a .safetensors or a .gguf file", path.string());
  }
  if (status.type() == fs::file_type::directory) {
    // A folder of one GGUF model and no config is most likely meant.
    if (!fs::exists(path / "config.json", error)) {
      std::vector<fs::path> ggufs;
      for (const auto& entry : fs::directory_iterator(path, error)) {
        if (entry.path().extension() == ".gguf") ggufs.push_back(entry.path());
      }
      if (ggufs.size() == 1) return OpenGgufModel(ggufs[0]);
      if (ggufs.size() > 1) {
        return InvalidArgument("{}: holds {} .gguf files; name one of them", path.string(), ggufs.size());
      }
    }
    return OpenSafetensorsModel(path, path, false);
  }
  const std::string extension = path.extension().string();
  if (IsPackedFile(path)) {
    ASSIGN_OR_RETURN(const std::string name, PackedModelName(path));
    auto files = OpenModelFiles(name == "." ? path.parent_path() : path.parent_path() / name);
    if (files.ok()) return files;
    return files.status().WithContext(path.string() + ": a packed file belongs beside the model it was made from");
  }
  if (extension == ".json") {
    return InvalidArgument("{}: is no model; give the folder that it lies in", path.string());
  }
  if (extension == ".gguf" || IsGguf(path)) return OpenGgufModel(path);
  return OpenSafetensorsModel(path, path.parent_path(), true);
}

}  // namespace kvasir
