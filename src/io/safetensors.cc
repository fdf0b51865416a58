#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <tuple>

#include "base/checked.h"
#include "io/foreign.h"
#include "io/json.h"
#include "io/safetensors_types.h"
#include "io/tensor_list.h"

namespace kvasir {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the official parser's limit
constexpr size_t kLengthBytes = 8;

using Entry = SafetensorsHeader::Entry;

/// Why the bytes cannot be a safetensors file's; OK when its header begins as it must.
Status CheckStart(std::span<const std::byte> bytes, uint64_t length, std::string_view what) {
  if (bytes.size() < kLengthBytes) {
    return InvalidData("{}: {} bytes long, too short for a safetensors file; it is truncated", what, bytes.size());
  }
  if (length > kMaxHeaderBytes) {
    return InvalidData("{}: claims a header of {} bytes, the limit is {}; it is no safetensors file or damaged", what,
                       length, kMaxHeaderBytes);
  }
  if (length > bytes.size() - kLengthBytes) {
    return InvalidData("{}: claims a header of {} bytes where {} are left; the file is truncated or damaged", what,
                       length, bytes.size() - kLengthBytes);
  }
  if (length == 0 || bytes[kLengthBytes] != std::byte{'{'}) {
    return InvalidData("{}: its header is no JSON object; it is no safetensors file or damaged", what);
  }
  return OkStatus();
}

/// The JSON text in front of the data.
Result<std::string_view> HeaderText(std::span<const std::byte> bytes, std::string_view what) {
  uint64_t length = 0;
  // Little-endian, as every machine kvasir runs on.
  if (bytes.size() >= kLengthBytes) std::memcpy(&length, bytes.data(), kLengthBytes);
  const Status status = CheckStart(bytes, length, what);
  // Only now is it asked what else it may be: 640, a possible header length, looks like the start of a pickle.
  const FileKind kind = status.ok() ? FileKind::kUnknown : GuessFileKind(bytes);
  if (kind != FileKind::kUnknown) {
    return Unsupported("{}: is no safetensors file: {}", what, ForeignHint(kind, std::filesystem::path(what)));
  }
  RETURN_IF_ERROR(status);
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, static_cast<size_t>(length));
}

Status ReadMetadata(const json::value& value, std::string_view what, std::map<std::string, std::string>* metadata) {
  const json::object* object = value.if_object();
  if (object == nullptr) return InvalidData("{}: \"__metadata__\" must be an object of strings", what);
  for (const auto& member : *object) {
    const json::string* text = member.value().if_string();
    if (text == nullptr) {
      return InvalidData("{}: \"__metadata__\": the value of \"{}\" must be a string", what,
                         std::string_view(member.key().data(), member.key().size()));
    }
    metadata->emplace(std::string(member.key().data(), member.key().size()), std::string(text->data(), text->size()));
  }
  return OkStatus();
}

Status ReadShape(const JsonReader& reader, std::vector<int64_t>* shape) {
  const json::value* value = reader.Find({"shape"});
  if (value == nullptr || !value->is_array()) return InvalidData("{}: \"shape\" must be an array", reader.what());
  ASSIGN_OR_RETURN(*shape, reader.IntList({"shape"}, 0, INT64_MAX));
  return OkStatus();
}

/// One tensor of the header: dtype, shape and offsets that agree with each other.
Result<Entry> ReadEntry(std::string_view name, const json::value& value, std::string_view what) {
  const std::string where = fmt::format("{}: tensor \"{}\"", what, name);
  const json::object* object = value.if_object();
  if (object == nullptr) return InvalidData("{}: must be described by an object", where);
  const JsonReader reader(*object, where);
  ASSIGN_OR_RETURN(const std::string dtype_name, reader.String({"dtype"}));
  const std::optional<DType> dtype = ParseSafetensorsDType(dtype_name);
  if (!dtype) {
    return Unsupported("{}: its dtype {} is not supported; convert the model to BF16, F16 or F32", where, dtype_name);
  }
  Entry entry;
  entry.name = std::string(name);
  entry.dtype = *dtype;
  RETURN_IF_ERROR(ReadShape(reader, &entry.shape));
  ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, reader.IntList({"data_offsets"}, 0, INT64_MAX));
  if (offsets.size() != 2) return InvalidData("{}: \"data_offsets\" must be two numbers", where);
  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.end < entry.begin) {
    return InvalidData("{}: ends at {} before it begins at {}", where, entry.end, entry.begin);
  }
  const std::optional<int64_t> elements = CheckedProduct(entry.shape);
  const std::optional<int64_t> size = elements ? DTypeBytes(entry.dtype, *elements) : std::nullopt;
  if (!size) return InvalidData("{}: its dimensions are too large", where);
  if (*size != entry.end - entry.begin) {
    return InvalidData("{}: {} bytes by its shape and dtype {}, {} bytes by its offsets; its dtype or shape is wrong",
                       where, *size, dtype_name, entry.end - entry.begin);
  }
  return entry;
}

/// Like the official parser: tensors lie one after another without holes and fill the file to its end.
Status CheckLayout(const std::vector<Entry>& entries, int64_t data_bytes, std::string_view what) {
  int64_t at = 0;
  const Entry* previous = nullptr;
  for (const Entry& entry : entries) {
    if (entry.begin < at) {
      return InvalidData("{}: tensor \"{}\": begins at {}, inside tensor \"{}\", which ends at {}", what, entry.name,
                         entry.begin, previous->name, at);
    }
    if (entry.begin > at) {
      return InvalidData("{}: tensor \"{}\": begins at {}, but the tensor before it ends at {}; holes are not allowed",
                         what, entry.name, entry.begin, at);
    }
    if (entry.end > data_bytes) {
      return InvalidData("{}: tensor \"{}\": ends at byte {} of the data, the file has {}; it is truncated", what,
                         entry.name, entry.end, data_bytes);
    }
    at = entry.end;
    previous = &entry;
  }
  if (at != data_bytes) {
    return InvalidData("{}: {} bytes follow after the last tensor; the file is damaged", what, data_bytes - at);
  }
  return OkStatus();
}

Result<SafetensorsHeader> ParseHeader(std::span<const std::byte> bytes, std::string_view what) {
  ASSIGN_OR_RETURN(const std::string_view text, HeaderText(bytes, what));
  JsonLimits limits;
  limits.max_bytes = kMaxHeaderBytes;
  limits.max_depth = 8;
  ASSIGN_OR_RETURN(const json::value document, ParseJson(text, fmt::format("{}: header", what), limits));
  SafetensorsHeader header;
  for (const auto& member : document.get_object()) {
    const std::string_view name(member.key().data(), member.key().size());
    if (name == "__metadata__") {
      RETURN_IF_ERROR(ReadMetadata(member.value(), what, &header.metadata));
      continue;
    }
    ASSIGN_OR_RETURN(Entry entry, ReadEntry(name, member.value(), what));
    header.entries.push_back(std::move(entry));
  }
  // Empty tensors sort before the one that begins where they do; names settle the rest.
  std::ranges::sort(header.entries, {}, [](const Entry& entry) {
    return std::tuple(entry.begin, entry.end, std::string_view(entry.name));
  });
  header.data_begin = static_cast<int64_t>(kLengthBytes + text.size());
  RETURN_IF_ERROR(CheckLayout(header.entries, static_cast<int64_t>(bytes.size()) - header.data_begin, what));
  return header;
}

class SafetensorsFile final : public TensorSource {
 public:
  SafetensorsFile(std::string description, std::unique_ptr<MappedFile> file, TensorList tensors)
      : description_(std::move(description)), file_(std::move(file)), tensors_(std::move(tensors)) {}
  const RawTensor* Find(std::string_view name) const override { return tensors_.Find(name); }
  std::span<const RawTensor> tensors() const override { return tensors_.tensors(); }
  const std::string& description() const override { return description_; }

 private:
  std::string description_;
  std::unique_ptr<MappedFile> file_;
  TensorList tensors_;
};

}  // namespace

Result<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> bytes, std::string_view what) {
  try {
    return ParseHeader(bytes, what);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to read its header", what);
  }
}

Result<std::vector<RawTensor>> ReadSafetensors(const MappedFile& file) {
  ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(file.bytes(), file.path().string()));
  std::vector<RawTensor> tensors;
  tensors.reserve(header.entries.size());
  for (Entry& entry : header.entries) {
    RawTensor tensor;
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype;
    tensor.shape = std::move(entry.shape);
    tensor.data = file.bytes().data() + header.data_begin + entry.begin;
    tensor.bytes = entry.end - entry.begin;
    tensor.file = &file;
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Result<std::unique_ptr<TensorSource>> OpenSafetensors(const std::filesystem::path& file) {
  std::string description = file.string();
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(file));
  ASSIGN_OR_RETURN(std::vector<RawTensor> tensors, ReadSafetensors(*mapped));
  ASSIGN_OR_RETURN(TensorList list, TensorList::Make(std::move(tensors), description));
  return std::make_unique<SafetensorsFile>(std::move(description), std::move(mapped), std::move(list));
}

}  // namespace kvasir
