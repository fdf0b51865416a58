// Reading of safetensors files, single and sharded. Format: https://huggingface.co/docs/safetensors
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/tensor_source.h"

namespace kvasir {

/// What a safetensors header says, checked: offsets in range, in order, not overlapping, sizes equal to shape × dtype,
/// no duplicate names. Offsets are relative to `data_begin`, itself relative to the file's start.
struct SafetensorsHeader {
  struct Entry {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    int64_t begin = 0;
    int64_t end = 0;
  };
  std::vector<Entry> entries;  // sorted by begin
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;
};

/// Parses the header at the front of `bytes`, the whole file. As the official parser does, it demands that the tensors
/// lie one after another and fill the file to its end. Refused with the tensor's name: dtypes that kvasir does not
/// read (F8_E8M0, sub-byte and complex ones). `what` begins error messages.
Result<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> bytes, std::string_view what);

/// Opens one .safetensors file, memory-mapped. Other kinds of file (PyTorch, GGUF, Git LFS pointers) are refused by
/// what they are.
Result<std::unique_ptr<TensorSource>> OpenSafetensors(const std::filesystem::path& file);

/// Opens a Hugging Face folder, looking in Hugging Face's order: model.safetensors, else model.safetensors.index.json
/// with its shards, else the only *.safetensors. The index may name shards only by plain file names, which may be
/// symbolic links, as in Hugging Face's cache. All missing shards, or all missing tensors, are listed. A folder that
/// holds only PyTorch .bin files is refused, naming the command that converts them.
Result<std::unique_ptr<TensorSource>> OpenSafetensorsFolder(const std::filesystem::path& folder);

/// A tensor to be written.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

/// Writes a safetensors file beside `file`, syncs it and renames it over; on any error the old file stays whole. The
/// tensors are laid out by falling element size, so that each is aligned for its type.
Status WriteSafetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata);

/// The same with data that is made while writing: `produce(index, append)` hands over all bytes of tensors[index], in
/// pieces of any size. What `data` says is ignored.
using AppendBytes = std::function<Status(std::span<const std::byte>)>;
Status StreamSafetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata,
                         const std::function<Status(size_t index, const AppendBytes& append)>& produce);

}  // namespace kvasir
