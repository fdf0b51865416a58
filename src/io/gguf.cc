#include "io/gguf.h"

#include <algorithm>
#include <new>

#include "io/gguf_parse.h"
#include "io/tensor_list.h"

namespace kvasir {
namespace {

using Metadata = std::vector<std::pair<std::string, GgufValue>>;

/// Where a file stands in its split set.
struct Split {
  int64_t number = 0;  // from 0
  int64_t count = 1;
};

Result<Split> ReadSplit(const Metadata& metadata, const std::string& what) {
  Split split;
  if (const GgufValue* count = FindGgufValue(metadata, "split.count")) {
    const std::optional<int64_t> value = GgufInteger(*count);
    // llama.cpp writes 0 or 1 where nothing is split.
    if (!value || *value < 0 || *value > 65535) {
      return InvalidData("{}: \"split.count\" must be an integer from 0 to 65535", what);
    }
    split.count = std::max<int64_t>(*value, 1);
  }
  if (const GgufValue* number = FindGgufValue(metadata, "split.no")) {
    const std::optional<int64_t> value = GgufInteger(*number);
    if (!value || *value < 0 || *value >= split.count) {
      return InvalidData("{}: \"split.no\" must be an integer from 0 to {}", what, split.count - 1);
    }
    split.number = *value;
  }
  return split;
}

/// The name of a part; `number` counts from 0, names count from 1.
std::string PartName(std::string_view prefix, int64_t number, int64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, number + 1, count);
}

/// NAME of a file called as PartName calls part `number` of `count`, or nothing.
std::optional<std::string> SplitPrefix(const std::filesystem::path& file, const Split& split) {
  const std::string name = file.filename().string();
  const std::string ending = PartName("", split.number, split.count);
  if (name.size() <= ending.size() || !name.ends_with(ending)) return std::nullopt;
  return name.substr(0, name.size() - ending.size());
}

/// The paths of all parts, or an error listing those that are not there.
Result<std::vector<std::filesystem::path>> FindParts(const std::filesystem::path& file, const Split& split) {
  const std::optional<std::string> prefix = SplitPrefix(file, split);
  if (!prefix) {
    return InvalidData("{}: is part {} of {} by its metadata, so its name must end in {}", file.string(),
                       split.number + 1, split.count, PartName("", split.number, split.count));
  }
  std::vector<std::filesystem::path> parts;
  std::string missing;
  for (int64_t i = 0; i < split.count; ++i) {
    parts.push_back(file.parent_path() / PartName(*prefix, i, split.count));
    std::error_code error;
    if (std::filesystem::exists(parts.back(), error)) continue;
    missing += (missing.empty() ? "" : ", ") + parts.back().filename().string();
  }
  if (!missing.empty()) {
    return NotFound("{}: is part {} of {}; missing beside it: {}", file.string(), split.number + 1, split.count,
                    missing);
  }
  return parts;
}

}  // namespace

struct GgufFile::Impl {
  std::string description;
  Metadata metadata;
  TensorList tensors;
  std::vector<std::unique_ptr<MappedFile>> files;

  /// Reads the other parts of a split set whose part `opened` has been read as `part`.
  Result<std::vector<RawTensor>> JoinParts(const std::filesystem::path& file, const Split& opened, GgufPart part) {
    ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> paths, FindParts(file, opened));
    std::unique_ptr<MappedFile> opened_file = std::move(files.back());
    files.clear();
    std::vector<RawTensor> all;
    for (int64_t i = 0; i < opened.count; ++i) {
      GgufPart current;
      if (i == opened.number) {
        current = std::move(part);  // NOLINT(bugprone-use-after-move): one part only has this number
        files.push_back(std::move(opened_file));
      } else {
        const std::string name = paths[i].string();
        ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(paths[i]));
        ASSIGN_OR_RETURN(current, ParseGgufPart(mapped->bytes(), name, mapped.get()));
        ASSIGN_OR_RETURN(const Split split, ReadSplit(current.metadata, name));
        if (split.number != i || split.count != opened.count) {
          return InvalidData("{}: is part {} of {} by its metadata, but is named part {} of {}", name, split.number + 1,
                             split.count, i + 1, opened.count);
        }
        files.push_back(std::move(mapped));
      }
      if (i == 0) metadata = std::move(current.metadata);
      std::ranges::move(current.tensors, std::back_inserter(all));
    }
    return all;
  }

  /// The first part says how many tensors there are in all.
  Status CheckTensorCount(size_t found) const {
    const GgufValue* value = FindGgufValue(metadata, "split.tensors.count");
    if (value == nullptr) return OkStatus();
    const std::optional<int64_t> count = GgufInteger(*value);
    if (!count || *count < 0 || static_cast<uint64_t>(*count) != found) {
      return InvalidData(
          "{}: the parts hold {} tensors together, \"split.tensors.count\" says {}; the parts may come "
          "from different conversions",
          description, found, count ? fmt::format("{}", *count) : "no number");
    }
    return OkStatus();
  }
};

GgufFile::GgufFile() : impl_(std::make_unique<Impl>()) {}
GgufFile::~GgufFile() = default;

Result<std::unique_ptr<GgufFile>> GgufFile::Open(const std::filesystem::path& file) {
  try {
    std::unique_ptr<GgufFile> result(new GgufFile());
    Impl& impl = *result->impl_;
    impl.description = file.string();
    ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(file));
    ASSIGN_OR_RETURN(GgufPart part, ParseGgufPart(mapped->bytes(), impl.description, mapped.get()));
    ASSIGN_OR_RETURN(const Split split, ReadSplit(part.metadata, impl.description));
    impl.files.push_back(std::move(mapped));
    std::vector<RawTensor> tensors;
    if (split.count > 1) {
      ASSIGN_OR_RETURN(tensors, impl.JoinParts(file, split, std::move(part)));
      RETURN_IF_ERROR(impl.CheckTensorCount(tensors.size()));
    } else {
      impl.metadata = std::move(part.metadata);
      tensors = std::move(part.tensors);
    }
    ASSIGN_OR_RETURN(impl.tensors, TensorList::Make(std::move(tensors), impl.description));
    return result;
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to open it", file.string());
  }
}

Result<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> bytes, std::string_view what) {
  try {
    std::unique_ptr<GgufFile> result(new GgufFile());
    Impl& impl = *result->impl_;
    impl.description = std::string(what);
    ASSIGN_OR_RETURN(GgufPart part, ParseGgufPart(bytes, what, nullptr));
    ASSIGN_OR_RETURN(const Split split, ReadSplit(part.metadata, impl.description));
    if (split.count > 1) {
      return Unsupported("{}: is part {} of {}; split files can only be opened as files", what, split.number + 1,
                         split.count);
    }
    impl.metadata = std::move(part.metadata);
    ASSIGN_OR_RETURN(impl.tensors, TensorList::Make(std::move(part.tensors), what));
    return result;
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to read it", what);
  }
}

const RawTensor* GgufFile::Find(std::string_view name) const { return impl_->tensors.Find(name); }
std::span<const RawTensor> GgufFile::tensors() const { return impl_->tensors.tensors(); }
const std::string& GgufFile::description() const { return impl_->description; }
std::span<const std::pair<std::string, GgufValue>> GgufFile::metadata() const { return impl_->metadata; }
const GgufValue* GgufFile::FindValue(std::string_view key) const { return FindGgufValue(impl_->metadata, key); }

}  // namespace kvasir
