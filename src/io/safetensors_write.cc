#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <set>
#include <utility>

#include "base/checked.h"
#include "base/utf8.h"
#include "io/atomic_file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/safetensors_types.h"

namespace kvasir {
namespace {

std::string Quoted(std::string_view text) { return json::serialize(json::value(json::string_view(text))); }

/// What shape and dtype demand; nothing where that overflows.
std::optional<uint64_t> BytesOf(const TensorToWrite& tensor) {
  const std::optional<int64_t> elements = CheckedProduct(tensor.shape);
  const std::optional<int64_t> bytes = elements ? DTypeBytes(tensor.dtype, *elements) : std::nullopt;
  return bytes ? std::optional(static_cast<uint64_t>(*bytes)) : std::nullopt;
}

/// Refuses what a reader would refuse, before anything is written.
Status Check(const TensorToWrite& tensor, std::set<std::string_view>* names) {
  if (!IsValidUtf8(tensor.name)) return InvalidArgument("tensor \"{}\": its name is not valid UTF-8", tensor.name);
  if (tensor.name == "__metadata__") return InvalidArgument("a tensor cannot be named \"__metadata__\"");
  if (!names->insert(tensor.name).second) return InvalidArgument("tensor \"{}\": is given twice", tensor.name);
  if (SafetensorsDTypeName(tensor.dtype).empty()) {
    return Unsupported("tensor \"{}\": safetensors has no dtype for {}", tensor.name, DTypeName(tensor.dtype));
  }
  if (!BytesOf(tensor)) return InvalidArgument("tensor \"{}\": is larger than fits a file", tensor.name);
  return OkStatus();
}

/// The length field and the JSON, padded with spaces so that the data begins at a multiple of 8.
std::string Header(std::span<const TensorToWrite* const> order, const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (text.back() != '{') text += ',';
      text += Quoted(key) + ":" + Quoted(value);
    }
    text += "}";
  }
  uint64_t at = 0;
  for (const TensorToWrite* tensor : order) {
    if (text.size() > 1) text += ',';
    const uint64_t end = at + *BytesOf(*tensor);
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[", Quoted(tensor->name), SafetensorsDTypeName(tensor->dtype));
    for (size_t i = 0; i < tensor->shape.size(); ++i) text += fmt::format("{}{}", i == 0 ? "" : ",", tensor->shape[i]);
    text += fmt::format("],\"data_offsets\":[{},{}]}}", at, end);
    at = end;
  }
  text += "}";
  text.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(text.size()), 8)), ' ');
  const uint64_t length = text.size();
  std::string header(sizeof(length), '\0');
  std::memcpy(header.data(), &length, sizeof(length));
  return header + text;
}

}  // namespace

Status StreamSafetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata,
                         const std::function<Status(size_t index, const AppendBytes& append)>& produce) {
  std::set<std::string_view> names;
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& tensor : tensors) {
    Status status = Check(tensor, &names);
    if (!status.ok()) return status.WithContext(file.string());
    order.push_back(&tensor);
  }
  for (const auto& [key, value] : metadata) {
    if (!IsValidUtf8(key) || !IsValidUtf8(value)) {
      return InvalidArgument("{}: the metadata under \"{}\" is not valid UTF-8", file.string(),
                             ReplaceInvalidUtf8(key));
    }
  }
  // Wide elements first, so that every tensor is aligned for its type.
  // Equal ones stay in the caller's order, which is that of their addresses.
  std::ranges::sort(order, {}, [](const TensorToWrite* t) { return std::pair(-DTypeBlockBytes(t->dtype), t); });
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  const std::string header = Header(order, metadata);
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(header))));
  for (const TensorToWrite* tensor : order) {
    const int64_t begin = out->size();
    const AppendBytes append = [&](std::span<const std::byte> bytes) { return out->Write(bytes); };
    RETURN_IF_ERROR(produce(static_cast<size_t>(tensor - tensors.data()), append));
    KVASIR_CHECK(static_cast<uint64_t>(out->size() - begin) == *BytesOf(*tensor));
  }
  return out->Commit();
}

Status WriteSafetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata) {
  for (const TensorToWrite& tensor : tensors) {
    if (SafetensorsDTypeName(tensor.dtype).empty()) continue;  // refused below
    const std::optional<uint64_t> bytes = BytesOf(tensor);
    if (bytes == tensor.data.size()) continue;
    return InvalidArgument("{}: tensor \"{}\": {} bytes of data, its shape and dtype say {}", file.string(),
                           tensor.name, tensor.data.size(),
                           bytes ? fmt::format("{}", *bytes) : "more than fits a file");
  }
  return StreamSafetensors(file, tensors, metadata,
                           [&](size_t index, const AppendBytes& append) { return append(tensors[index].data); });
}

}  // namespace kvasir
