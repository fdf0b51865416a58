#include "io/gguf_parse.h"

#include <algorithm>
#include <bit>
#include <new>

#include "base/checked.h"
#include "io/foreign.h"
#include "io/gguf_reader.h"
#include "io/gguf_types.h"

namespace kvasir {
namespace {

// Far above what models have, and small enough that a file made of holes costs neither memory nor time.
constexpr uint64_t kMaxKeys = 1u << 16;
constexpr uint64_t kMaxTensors = 1u << 20;
constexpr uint32_t kMaxDims = 4;                         // ggml's GGML_MAX_DIMS
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;         // length, a letter, type, the smallest value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 4 + 8;  // length, a letter, dimensions, type, offset
constexpr uint64_t kDefaultAlignment = 32;

/// Reads header, metadata and descriptions of tensors, then sees where the tensors lie.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, std::string_view what, const MappedFile* file)
      : bytes_(bytes), what_(what), file_(file), reader_(bytes, what) {}

  Result<GgufPart> Parse() {
    GgufPart part;
    uint64_t keys = 0;
    uint64_t tensors = 0;
    RETURN_IF_ERROR(ReadHeader(&tensors, &keys));
    for (uint64_t i = 0; i < keys; ++i) {
      reader_.SetPlace(fmt::format("metadata entry {}", i));
      RETURN_IF_ERROR(reader_.ReadEntry(&part.metadata));
    }
    RETURN_IF_ERROR(CheckKeys(part.metadata));
    ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(part.metadata));
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < tensors; ++i) {
      reader_.SetPlace(fmt::format("the description of tensor {}", i));
      RETURN_IF_ERROR(ReadTensor(alignment, &part.tensors, &offsets));
    }
    RETURN_IF_ERROR(PlaceTensors(alignment, offsets, &part.tensors));
    return part;
  }

 private:
  Status ReadHeader(uint64_t* tensors, uint64_t* keys) {
    const FileKind kind = GuessFileKind(bytes_);
    if (kind != FileKind::kGguf) {
      const std::string hint = ForeignHint(kind, std::filesystem::path(what_));
      return InvalidData("{}: is no GGUF file{}{}", what_, hint.empty() ? ", it does not begin with GGUF" : ": ", hint);
    }
    uint32_t magic = 0;
    uint32_t version = 0;
    RETURN_IF_ERROR(reader_.Read(&magic));
    RETURN_IF_ERROR(reader_.Read(&version));
    if (version != 0 && (version & 0xFFFFu) == 0) {
      return Unsupported("{}: is a big-endian GGUF file; convert the model again for little-endian machines", what_);
    }
    if (version != 2 && version != 3) {
      return Unsupported("{}: is GGUF version {}, kvasir reads versions 2 and 3; convert the model again", what_,
                         version);
    }
    RETURN_IF_ERROR(reader_.Read(tensors));
    RETURN_IF_ERROR(reader_.Read(keys));
    RETURN_IF_ERROR(CheckCount("metadata entries", *keys, kMinKeyBytes, kMaxKeys));
    return CheckCount("tensors", *tensors, kMinTensorBytes, kMaxTensors);
  }

  Status CheckCount(std::string_view things, uint64_t count, uint64_t min_bytes, uint64_t limit) const {
    if (count > reader_.left() / min_bytes) {
      return InvalidData("{}: claims {} {} where {} bytes are left; the file is truncated or damaged", what_, count,
                         things, reader_.left());
    }
    if (count > limit) return InvalidData("{}: has {} {}, the limit is {}", what_, count, things, limit);
    return OkStatus();
  }

  Status CheckKeys(const std::vector<std::pair<std::string, GgufValue>>& metadata) const {
    std::vector<std::string_view> keys;
    keys.reserve(metadata.size());
    for (const auto& [key, value] : metadata) keys.push_back(key);
    std::ranges::sort(keys);
    const auto twin = std::ranges::adjacent_find(keys);
    if (twin != keys.end()) return InvalidData("{}: the key \"{}\" stands twice in it", what_, *twin);
    return OkStatus();
  }

  Result<uint64_t> Alignment(const std::vector<std::pair<std::string, GgufValue>>& metadata) const {
    const GgufValue* value = FindGgufValue(metadata, "general.alignment");
    if (value == nullptr) return kDefaultAlignment;
    const std::optional<int64_t> alignment = GgufInteger(*value);
    if (!alignment || *alignment <= 0 || *alignment > (int64_t{1} << 30) ||
        !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
      return InvalidData("{}: \"general.alignment\" must be a power of two up to 2^30", what_);
    }
    return static_cast<uint64_t>(*alignment);
  }

  Status ReadTensor(uint64_t alignment, std::vector<RawTensor>* tensors, std::vector<uint64_t>* offsets) {
    RawTensor tensor;
    RETURN_IF_ERROR(reader_.ReadName(&tensor.name));
    reader_.SetPlace(fmt::format("the description of tensor \"{}\"", tensor.name));
    uint32_t dims = 0;
    RETURN_IF_ERROR(reader_.Read(&dims));
    if (dims > kMaxDims) {
      return InvalidData("{}: tensor \"{}\": has {} dimensions, the limit is {}", what_, tensor.name, dims, kMaxDims);
    }
    for (uint32_t i = 0; i < dims; ++i) {
      uint64_t dim = 0;
      RETURN_IF_ERROR(reader_.Read(&dim));
      if (dim > static_cast<uint64_t>(INT64_MAX)) return TooLarge(tensor);
      tensor.shape.push_back(static_cast<int64_t>(dim));
    }
    // GGUF lists the fastest dimension first.
    std::ranges::reverse(tensor.shape);
    uint32_t type = 0;
    uint64_t offset = 0;
    RETURN_IF_ERROR(reader_.Read(&type));
    RETURN_IF_ERROR(reader_.Read(&offset));
    RETURN_IF_ERROR(SetType(type, &tensor));
    if (offset % alignment != 0) {
      return InvalidData("{}: tensor \"{}\": its offset {} is no multiple of the alignment {}", what_, tensor.name,
                         offset, alignment);
    }
    tensors->push_back(std::move(tensor));
    offsets->push_back(offset);
    return OkStatus();
  }

  Status TooLarge(const RawTensor& tensor) const {
    return InvalidData("{}: tensor \"{}\": its dimensions are too large", what_, tensor.name);
  }

  /// Sets dtype and bytes from ggml's type number and the shape.
  Status SetType(uint32_t id, RawTensor* tensor) const {
    const GgmlType* type = FindGgmlType(id);
    if (type == nullptr) {
      return Unsupported("{}: tensor \"{}\": has the unknown type number {}; the file may be newer than kvasir", what_,
                         tensor->name, id);
    }
    if (!type->dtype) {
      return Unsupported("{}: tensor \"{}\": its type {} {}", what_, tensor->name, type->name, type->refusal);
    }
    tensor->dtype = *type->dtype;
    const std::optional<int64_t> elements = CheckedProduct(tensor->shape);
    if (!elements) return TooLarge(*tensor);
    const int64_t row = tensor->shape.empty() ? 1 : tensor->shape.back();
    if (row % DTypeBlockSize(tensor->dtype) != 0) {
      return InvalidData("{}: tensor \"{}\": rows of {} elements do not divide into blocks of {} ({})", what_,
                         tensor->name, row, DTypeBlockSize(tensor->dtype), type->name);
    }
    const std::optional<int64_t> bytes = DTypeBytes(tensor->dtype, *elements);
    if (!bytes) return TooLarge(*tensor);
    tensor->bytes = *bytes;
    return OkStatus();
  }

  /// Turns offsets into pointers; every tensor must lie in the file and on bytes of its own.
  Status PlaceTensors(uint64_t alignment, std::span<const uint64_t> offsets, std::vector<RawTensor>* tensors) const {
    if (tensors->empty()) return OkStatus();
    const uint64_t begin = (reader_.at() + alignment - 1) / alignment * alignment;
    const uint64_t available = bytes_.size() > begin ? bytes_.size() - begin : 0;
    for (size_t i = 0; i < tensors->size(); ++i) {
      RawTensor& tensor = (*tensors)[i];
      const uint64_t size = static_cast<uint64_t>(tensor.bytes);
      if (offsets[i] > available || size > available - offsets[i]) {
        return InvalidData(
            "{}: tensor \"{}\": {} bytes at offset {} by its type and shape, but the file has only {} "
            "bytes of tensors; it is truncated or damaged",
            what_, tensor.name, size, offsets[i], available);
      }
      tensor.data = bytes_.data() + begin + offsets[i];
      tensor.file = file_;
    }
    return CheckOverlap(*tensors);
  }

  Status CheckOverlap(const std::vector<RawTensor>& tensors) const {
    std::vector<const RawTensor*> order;
    order.reserve(tensors.size());
    for (const RawTensor& tensor : tensors) {
      if (tensor.bytes != 0) order.push_back(&tensor);
    }
    std::ranges::sort(order, {}, &RawTensor::data);
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->data - order[i - 1]->data < order[i - 1]->bytes) {
        return InvalidData("{}: tensor \"{}\": overlaps tensor \"{}\"", what_, order[i]->name, order[i - 1]->name);
      }
    }
    return OkStatus();
  }

  std::span<const std::byte> bytes_;
  std::string what_;
  const MappedFile* file_;
  GgufReader reader_;
};

}  // namespace

Result<GgufPart> ParseGgufPart(std::span<const std::byte> bytes, std::string_view what, const MappedFile* file) {
  try {
    return Parser(bytes, what, file).Parse();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to read its metadata", what);
  }
}

const GgufValue* FindGgufValue(std::span<const std::pair<std::string, GgufValue>> metadata, std::string_view key) {
  const auto at = std::ranges::find(metadata, key, [](const auto& entry) -> std::string_view { return entry.first; });
  return at == metadata.end() ? nullptr : &at->second;
}

std::optional<int64_t> GgufInteger(const GgufValue& value) {
  if (const int64_t* i = std::get_if<int64_t>(&value)) return *i;
  const uint64_t* u = std::get_if<uint64_t>(&value);
  if (u == nullptr || *u > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(*u);
}

}  // namespace kvasir
