#include "io/gguf_write.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/checked.h"
#include "base/utf8.h"
#include "io/gguf_reader.h"
#include "io/gguf_types.h"

namespace kvasir {
namespace {

constexpr int64_t kAlignment = 32;
constexpr size_t kMaxTensorName = 63;  // ggml's GGML_MAX_NAME, with the zero behind it

// GGUF's numbers of metadata types.
constexpr uint32_t kUint8 = 0;
constexpr uint32_t kUint32 = 4;
constexpr uint32_t kInt32 = 5;
constexpr uint32_t kFloat32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;

template <typename T>
void Put(T value, std::string* out) {
  const size_t at = out->size();
  out->resize(at + sizeof(T));
  std::memcpy(out->data() + at, &value, sizeof(T));
}

void PutText(std::string_view text, std::string* out) {
  Put<uint64_t>(text.size(), out);
  out->append(text);
}

template <typename T>
GgufEntry Scalar(std::string key, uint32_t type, T value) {
  GgufEntry entry{std::move(key), {}};
  Put(type, &entry.value);
  Put(value, &entry.value);
  return entry;
}

GgufEntry Array(std::string key, uint32_t type, size_t count) {
  GgufEntry entry{std::move(key), {}};
  Put(kArray, &entry.value);
  Put(type, &entry.value);
  Put<uint64_t>(count, &entry.value);
  return entry;
}

template <typename T>
GgufEntry Numbers(std::string key, uint32_t type, std::span<const T> values) {
  GgufEntry entry = Array(std::move(key), type, values.size());
  entry.value.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return entry;
}

/// A file's head up to the first tensor, and where the tensors end.
struct Head {
  std::string bytes;
  std::vector<int64_t> sizes;
  int64_t file_bytes = 0;
};

/// Bytes of a tensor, or what is wrong with it.
Result<int64_t> SizeOf(const GgufTensor& tensor, std::set<std::string_view>* names) {
  if (tensor.name.empty() || !IsValidUtf8(tensor.name)) return InvalidArgument("a tensor's name is empty or no UTF-8");
  if (tensor.name.size() > kMaxTensorName) {
    return InvalidArgument("tensor \"{}\": its name is longer than {} bytes, which GGUF's readers refuse", tensor.name,
                           kMaxTensorName);
  }
  if (!names->insert(tensor.name).second) return InvalidArgument("tensor \"{}\": is given twice", tensor.name);
  if (!FindGgmlTypeId(tensor.dtype)) {
    return Unsupported("tensor \"{}\": GGUF has no type for {}", tensor.name, DTypeName(tensor.dtype));
  }
  if (tensor.shape.empty() || tensor.shape.size() > 4) {
    return InvalidArgument("tensor \"{}\": has {} dimensions; GGUF has 1 to 4", tensor.name, tensor.shape.size());
  }
  if (tensor.shape.back() % DTypeBlockSize(tensor.dtype) != 0) {
    return InvalidArgument("tensor \"{}\": rows of {} do not divide into blocks of {}", tensor.name,
                           tensor.shape.back(), DTypeName(tensor.dtype));
  }
  const std::optional<int64_t> elements = CheckedProduct(tensor.shape);
  const std::optional<int64_t> bytes = elements ? DTypeBytes(tensor.dtype, *elements) : std::nullopt;
  if (!bytes) return InvalidArgument("tensor \"{}\": is too large", tensor.name);
  return *bytes;
}

Result<Head> MakeHead(std::span<const GgufEntry> entries, std::span<const GgufTensor> tensors) {
  Head head;
  std::string& out = head.bytes;
  out = "GGUF";
  Put<uint32_t>(3, &out);
  Put<uint64_t>(tensors.size(), &out);
  Put<uint64_t>(entries.size(), &out);
  std::set<std::string_view> keys;
  for (const GgufEntry& entry : entries) {
    if (entry.key == "general.alignment") return InvalidArgument("general.alignment is the writer's own");
    if (entry.key.empty() || !keys.insert(entry.key).second) {
      return InvalidArgument("the key \"{}\" is empty or given twice", entry.key);
    }
    PutText(entry.key, &out);
    out += entry.value;
  }
  std::set<std::string_view> names;
  int64_t at = 0;
  for (const GgufTensor& tensor : tensors) {
    ASSIGN_OR_RETURN(const int64_t bytes, SizeOf(tensor, &names));
    PutText(tensor.name, &out);
    Put(static_cast<uint32_t>(tensor.shape.size()), &out);
    // GGUF lists the fastest dimension first.
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) Put<int64_t>(*dim, &out);
    Put(*FindGgmlTypeId(tensor.dtype), &out);
    Put<int64_t>(at, &out);
    head.sizes.push_back(bytes);
    const std::optional<int64_t> next = CheckedAdd(at, bytes);
    if (!next || *next > (int64_t{1} << 60)) return InvalidArgument("the tensors are too large together");
    at = RoundUp(*next, kAlignment);
  }
  out.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(out.size()), kAlignment)), '\0');
  head.file_bytes = static_cast<int64_t>(out.size()) + at;
  return head;
}

}  // namespace

GgufEntry GgufUint32(std::string key, uint32_t value) { return Scalar(std::move(key), kUint32, value); }
GgufEntry GgufFloat32(std::string key, float value) { return Scalar(std::move(key), kFloat32, value); }
GgufEntry GgufBool(std::string key, bool value) { return Scalar<uint8_t>(std::move(key), kBool, value ? 1 : 0); }

GgufEntry GgufText(std::string key, std::string_view value) {
  GgufEntry entry{std::move(key), {}};
  Put(kString, &entry.value);
  PutText(value, &entry.value);
  return entry;
}

GgufEntry GgufTexts(std::string key, std::span<const std::string> values) {
  GgufEntry entry = Array(std::move(key), kString, values.size());
  for (const std::string& value : values) PutText(value, &entry.value);
  return entry;
}

GgufEntry GgufInts32(std::string key, std::span<const int32_t> values) {
  return Numbers(std::move(key), kInt32, values);
}
GgufEntry GgufFloats32(std::string key, std::span<const float> values) {
  return Numbers(std::move(key), kFloat32, values);
}
GgufEntry GgufBytes(std::string key, std::string_view bytes) {
  return Numbers(std::move(key), kUint8, std::span<const char>(bytes));
}

Result<std::vector<GgufEntry>> ReadGgufEntries(const std::filesystem::path& file) {
  // The whole file is checked where it is opened; here it is only walked through.
  RETURN_IF_ERROR(GgufFile::Open(file).status());
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> mapped, MappedFile::Open(file));
  const std::span<const std::byte> bytes = mapped->bytes();
  GgufReader reader(bytes, file.string());
  reader.SetPlace("the header");
  uint64_t magic_and_version = 0;
  uint64_t tensors = 0;
  uint64_t keys = 0;
  RETURN_IF_ERROR(reader.Read(&magic_and_version));
  RETURN_IF_ERROR(reader.Read(&tensors));
  RETURN_IF_ERROR(reader.Read(&keys));
  std::vector<GgufEntry> entries;
  for (uint64_t i = 0; i < keys; ++i) {
    const uint64_t begin = reader.at();
    std::vector<std::pair<std::string, GgufValue>> value;
    RETURN_IF_ERROR(reader.ReadEntry(&value));
    const uint64_t at = begin + sizeof(uint64_t) + value[0].first.size();
    entries.push_back({value[0].first, std::string(reinterpret_cast<const char*>(bytes.data() + at),
                                                   static_cast<size_t>(reader.at() - at))});
  }
  return entries;
}

void SetGgufEntry(GgufEntry entry, std::vector<GgufEntry>* entries) {
  const auto at = std::ranges::find(*entries, entry.key, &GgufEntry::key);
  if (at == entries->end()) {
    entries->push_back(std::move(entry));
  } else {
    *at = std::move(entry);
  }
}

Result<std::unique_ptr<GgufWriter>> GgufWriter::Create(const std::filesystem::path& file,
                                                       std::span<const GgufEntry> entries,
                                                       std::span<const GgufTensor> tensors) {
  auto head = MakeHead(entries, tensors);
  if (!head.ok()) return head.status().WithContext(file.string());
  ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(head->bytes))));
  std::unique_ptr<GgufWriter> writer(new GgufWriter(std::move(out), std::move(head->sizes), head->file_bytes));
  RETURN_IF_ERROR(writer->NextTensor());
  return writer;
}

/// Pads tensors that are whole; those of no bytes are.
Status GgufWriter::NextTensor() {
  while (tensor_ < sizes_.size() && written_ == sizes_[tensor_]) {
    const std::array<std::byte, kAlignment> zeros{};
    const int64_t padding = RoundUp(written_, kAlignment) - written_;
    RETURN_IF_ERROR(file_->Write(std::span(zeros).first(static_cast<size_t>(padding))));
    ++tensor_;
    written_ = 0;
  }
  return OkStatus();
}

Status GgufWriter::Append(std::span<const std::byte> data) {
  if (data.empty()) return OkStatus();
  const auto bytes = static_cast<int64_t>(data.size());
  KVASIR_CHECK(tensor_ < sizes_.size() && bytes <= sizes_[tensor_] - written_);
  RETURN_IF_ERROR(file_->Write(data));
  written_ += bytes;
  return NextTensor();
}

Status GgufWriter::Finish() {
  KVASIR_CHECK(tensor_ == sizes_.size());
  return file_->Commit();
}

Result<std::unique_ptr<GgufDraft>> GgufDraft::Make(std::span<const GgufEntry> entries,
                                                   std::span<const GgufTensor> tensors,
                                                   std::span<const std::string> contents, std::string_view what) {
  ASSIGN_OR_RETURN(const Head head, MakeHead(entries, tensors));
  std::unique_ptr<GgufDraft> draft(new GgufDraft());
  const auto size = static_cast<size_t>(head.file_bytes);
  // Pages that nobody touches are addresses only, however large the model.
  void* const memory =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return ResourceExhausted("{}: no addresses left for {} bytes", what, size);
  draft->memory_ = memory;
  draft->size_ = size;
  auto* const bytes = static_cast<char*>(memory);
  std::copy_n(head.bytes.data(), head.bytes.size(), bytes);
  int64_t at = static_cast<int64_t>(head.bytes.size());
  for (size_t i = 0; i < contents.size(); ++i) {
    KVASIR_CHECK(i < head.sizes.size() && static_cast<int64_t>(contents[i].size()) == head.sizes[i]);
    std::copy_n(contents[i].data(), contents[i].size(), bytes + at);
    at += RoundUp(head.sizes[i], kAlignment);
  }
  ASSIGN_OR_RETURN(draft->file_, GgufFile::Parse({static_cast<const std::byte*>(memory), size}, what));
  return draft;
}

GgufDraft::~GgufDraft() {
  file_.reset();
  if (memory_ != nullptr) ::munmap(memory_, size_);
}

}  // namespace kvasir
