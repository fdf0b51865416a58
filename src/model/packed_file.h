// Already packed weights in a file of their own: mapped and used at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/mapped_file.h"
#include "base/status.h"
#include "model/weights.h"

namespace kvasir {

/// Changes whenever the layout of packed weights or of this file changes.
inline constexpr uint32_t kPackedLayoutId = 2;

/// The file that holds the packed form of a model: beside `path`, or inside it when it is a folder.
std::filesystem::path PackedFileFor(const std::filesystem::path& path);

/// Whether the file begins with the packed format's magic.
bool IsPackedFile(const std::filesystem::path& file);

/// Writes `data` (laid out as the plan says) with a table of its slots, beside `file`, synced, then renamed over it.
/// `model_name` is the model's file name (or "." for its folder), by which a packed file finds its model again.
Status WritePackedFile(const std::filesystem::path& file, const WeightPlan& plan, const std::byte* data,
                       const std::string& hash, const std::string& model_name);

struct PackedFile {
  std::unique_ptr<MappedFile> file;
  const std::byte* data = nullptr;  // of plan.bytes bytes, 64-byte aligned
};

/// Maps a packed file and checks that it is the packed form of just this plan and model: layout id, hash, every
/// slot's name, format, shape and place. InvalidData with the reason when not: the caller packs again.
Result<PackedFile> OpenPackedFile(const std::filesystem::path& file, const WeightPlan& plan, const std::string& hash);

/// The model's file name that a packed file records.
Result<std::string> PackedModelName(const std::filesystem::path& file);

}  // namespace kvasir
