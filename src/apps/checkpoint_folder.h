// A Hugging Face folder made from another one, some of whose tensors are replaced as they come.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/atomic_folder.h"
#include "io/safetensors.h"
#include "model/model.h"

namespace kvasir::apps {

/// Refuses an output that is the source itself, or a folder with something in it: unless `force` is given and the
/// folder holds `marker`, the file by which an earlier output is known.
Status CheckOutputFolder(const std::filesystem::path& output, const std::filesystem::path& source,
                         const std::string& marker, bool force);

/// Replaced tensors are spooled to files, so that memory does not grow with the model. Not thread-safe.
class CheckpointFolder {
 public:
  /// `files` outlives the folder. Nothing appears at `output` before Finish.
  static Result<std::unique_ptr<CheckpointFolder>> Create(const std::filesystem::path& output, const ModelFiles& files);

  /// Writes `tensors` in the place of the source's tensor `name`.
  Status Replace(const std::string& name, std::span<const TensorToWrite> tensors);
  /// A small text file.
  Status WriteText(const std::string& file, std::string_view content);

  /// Writes all tensors, replaced ones and those left as they are, into shards of at most `shard_bytes` (one tensor at
  /// least), config.json with `config_entry` added ("\"key\": value"; empty: as it is), the source's tokenizer and
  /// other small files, and gives the folder its name. Returns the bytes of all tensors.
  Result<int64_t> Finish(const std::string& config_entry, int64_t shard_bytes = int64_t{5} << 30);

 private:
  CheckpointFolder(const ModelFiles& files, std::unique_ptr<AtomicFolder> folder)
      : files_(files), folder_(std::move(folder)) {}
  Status CopySmallFiles() const;
  Result<int64_t> WriteShards(int64_t shard_bytes);

  const ModelFiles& files_;
  std::unique_ptr<AtomicFolder> folder_;
  std::map<std::string, std::filesystem::path> spooled_;  // by the replaced tensor's name
};

}  // namespace kvasir::apps
