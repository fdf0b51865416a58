#include "io/gguf_reader.h"

#include <algorithm>

#include "base/utf8.h"

namespace kvasir {
namespace {

// Far above what models have, and small enough that a file made of holes costs neither memory nor time.
constexpr uint64_t kMaxArrayElements = 1u << 23;    // of all arrays together
constexpr uint64_t kMaxHeaderBytes = 128ull << 20;  // up to the last text before the tensors
constexpr uint64_t kMaxNameBytes = 65535;           // the format's own limit for keys

// GGUF's numbers of metadata types.
enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

/// Bytes of one value, of a string's length field for strings; 0 for types that do not exist or do not nest.
uint64_t ValueBytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool: return 1;
    case kUint16:
    case kInt16: return 2;
    case kUint32:
    case kInt32:
    case kFloat32: return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
    case kString: return 8;
    case kArray: break;
  }
  return 0;
}

}  // namespace

Status GgufReader::Truncated() const {
  return InvalidData("{}: ends inside {}, at byte {}; the file is truncated or damaged", what_, place_, bytes_.size());
}

Status GgufReader::ReadText(uint64_t max_bytes, std::string_view* text) {
  uint64_t length = 0;
  RETURN_IF_ERROR(Read(&length));
  if (length > left()) {
    return InvalidData("{}: {}: a text of {} bytes is claimed where {} are left; the file is truncated or damaged",
                       what_, place_, length, left());
  }
  if (length > max_bytes) {
    return InvalidData("{}: {}: a text of {} bytes, the limit is {}", what_, place_, length, max_bytes);
  }
  if (length > kMaxHeaderBytes - std::min(at_, kMaxHeaderBytes)) {
    return InvalidData("{}: {}: metadata and names take more than {} bytes", what_, place_, kMaxHeaderBytes);
  }
  *text = {reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<size_t>(length)};
  at_ += length;
  return OkStatus();
}

Status GgufReader::ReadName(std::string* name) {
  std::string_view text;
  RETURN_IF_ERROR(ReadText(kMaxNameBytes, &text));
  if (text.empty()) return InvalidData("{}: {}: its name is empty", what_, place_);
  if (!IsValidUtf8(text)) return InvalidData("{}: {}: its name is not valid UTF-8", what_, place_);
  *name = std::string(text);
  return OkStatus();
}

Status GgufReader::ReadEntry(std::vector<std::pair<std::string, GgufValue>>* metadata) {
  std::string key;
  RETURN_IF_ERROR(ReadName(&key));
  place_ = fmt::format("the value of \"{}\"", key);
  uint32_t type = 0;
  RETURN_IF_ERROR(Read(&type));
  GgufValue value;
  RETURN_IF_ERROR(ReadValue(type, &value));
  metadata->emplace_back(std::move(key), std::move(value));
  return OkStatus();
}

/// Reads a `File` number as a `Value`, which is wide enough for it.
template <typename File, typename Value>
Status GgufReader::ReadNumber(Value* value) {
  File number{};
  RETURN_IF_ERROR(Read(&number));
  *value = static_cast<Value>(number);
  return OkStatus();
}

Status GgufReader::ReadBool(bool* value) {
  uint8_t byte = 0;
  RETURN_IF_ERROR(Read(&byte));
  if (byte > 1) return InvalidData("{}: {}: {} is no truth value", what_, place_, byte);
  *value = byte == 1;
  return OkStatus();
}

/// Reads one element into `Value`, which must be the kind that `type` widens to.
template <typename Value>
Status GgufReader::ReadElement(uint32_t type, Value* value) {
  if constexpr (std::is_same_v<Value, bool>) {
    return ReadBool(value);
  } else if constexpr (std::is_same_v<Value, std::string>) {
    std::string_view text;
    RETURN_IF_ERROR(ReadText(kMaxHeaderBytes, &text));
    *value = std::string(text);
    return OkStatus();
  } else {
    switch (type) {
      case kUint8: return ReadNumber<uint8_t>(value);
      case kInt8: return ReadNumber<int8_t>(value);
      case kUint16: return ReadNumber<uint16_t>(value);
      case kInt16: return ReadNumber<int16_t>(value);
      case kUint32: return ReadNumber<uint32_t>(value);
      case kInt32: return ReadNumber<int32_t>(value);
      case kUint64: return ReadNumber<uint64_t>(value);
      case kInt64: return ReadNumber<int64_t>(value);
      case kFloat32: return ReadNumber<float>(value);
      default: return ReadNumber<double>(value);
    }
  }
}

template <typename Value>
Status GgufReader::ReadScalar(uint32_t type, GgufValue* value) {
  Value scalar{};
  RETURN_IF_ERROR(ReadElement(type, &scalar));
  *value = std::move(scalar);
  return OkStatus();
}

template <typename Value>
Status GgufReader::ReadElements(uint32_t type, uint64_t count, GgufValue* value) {
  std::vector<Value> elements;
  elements.reserve(count);  // CheckArray bounded it
  for (uint64_t i = 0; i < count; ++i) {
    Value element{};
    RETURN_IF_ERROR(ReadElement(type, &element));
    elements.push_back(std::move(element));
  }
  *value = GgufArray(std::move(elements));
  return OkStatus();
}

Status GgufReader::CheckArray(uint32_t type, uint64_t count) {
  if (type == kArray) return Unsupported("{}: {}: arrays of arrays are not supported", what_, place_);
  const uint64_t element_bytes = ValueBytes(type);
  if (element_bytes == 0) {
    return InvalidData("{}: {}: elements of the unknown type {}", what_, place_, type);
  }
  if (count > left() / element_bytes) {
    return InvalidData(
        "{}: {}: an array of {} elements is claimed where {} bytes are left; the file is truncated "
        "or damaged",
        what_, place_, count, left());
  }
  if (count > kMaxArrayElements - array_elements_) {
    return InvalidData("{}: {}: the arrays of the metadata hold more than {} elements", what_, place_,
                       kMaxArrayElements);
  }
  array_elements_ += count;
  return OkStatus();
}

Status GgufReader::ReadArray(GgufValue* value) {
  uint32_t type = 0;
  uint64_t count = 0;
  RETURN_IF_ERROR(Read(&type));
  RETURN_IF_ERROR(Read(&count));
  RETURN_IF_ERROR(CheckArray(type, count));
  switch (type) {
    case kInt8:
    case kInt16:
    case kInt32:
    case kInt64: return ReadElements<int64_t>(type, count, value);
    case kFloat32:
    case kFloat64: return ReadElements<double>(type, count, value);
    case kBool: return ReadElements<bool>(type, count, value);
    case kString: return ReadElements<std::string>(type, count, value);
    default: return ReadElements<uint64_t>(type, count, value);
  }
}

Status GgufReader::ReadValue(uint32_t type, GgufValue* value) {
  switch (type) {
    case kUint8:
    case kUint16:
    case kUint32:
    case kUint64: return ReadScalar<uint64_t>(type, value);
    case kInt8:
    case kInt16:
    case kInt32:
    case kInt64: return ReadScalar<int64_t>(type, value);
    case kFloat32:
    case kFloat64: return ReadScalar<double>(type, value);
    case kBool: return ReadScalar<bool>(type, value);
    case kString: return ReadScalar<std::string>(type, value);
    case kArray: return ReadArray(value);
  }
  return InvalidData("{}: {}: is of the unknown type {}", what_, place_, type);
}

}  // namespace kvasir
