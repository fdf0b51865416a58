#include "model/packed_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "base/checked.h"
#include "io/atomic_file.h"

namespace kvasir {
namespace {

constexpr std::array<char, 8> kMagic = {'K', 'V', 'P', 'A', 'C', 'K', '\r', '\n'};
constexpr int64_t kDataAlignment = 4096;

/// The front of the file, little-endian as all of kvasir's platforms are. The slot table (one line of text per slot)
/// and the model's name follow it; the data begins at data_begin.
struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t layout_id = kPackedLayoutId;
  uint32_t name_bytes = 0;
  uint64_t table_bytes = 0;
  uint64_t data_begin = 0;
  uint64_t data_bytes = 0;
  std::array<char, 32> hash = {};
};
static_assert(sizeof(Header) == 72);

/// What a packed file must agree on: one line per slot.
std::string SlotTable(const WeightPlan& plan) {
  std::string table;
  for (const WeightSlot& slot : plan.slots) {
    table += fmt::format("{} {} {}x{} {} {} {}{}{}\n", slot.name, slot.matrix ? static_cast<int>(slot.format) : -1,
                         slot.rows, slot.cols, slot.offset, slot.bytes, slot.gated ? "g" : "",
                         slot.normalize_rows ? "n" : "",
                         slot.quantized ? fmt::format(" {}", DTypeName(*slot.quantized)) : "");
  }
  return table;
}

Result<Header> ReadHeader(std::span<const std::byte> bytes, const std::string& name) {
  Header header;
  if (bytes.size() < sizeof(Header)) return InvalidData("{}: too short for a packed model", name);
  std::memcpy(&header, bytes.data(), sizeof(Header));
  if (header.magic != kMagic) return InvalidData("{}: is no packed model", name);
  if (header.layout_id != kPackedLayoutId) {
    return InvalidData("{}: packed with layout {}, this program has {}", name, header.layout_id, kPackedLayoutId);
  }
  const uint64_t size = bytes.size();
  if (header.table_bytes > size || header.data_begin > size || header.data_bytes > size - header.data_begin ||
      header.data_begin % kDataAlignment != 0 ||
      sizeof(Header) + header.table_bytes + header.name_bytes > header.data_begin) {
    return InvalidData("{}: the packed file is truncated or damaged", name);
  }
  return header;
}

std::string_view TextAt(std::span<const std::byte> bytes, size_t begin, size_t size) {
  return {reinterpret_cast<const char*>(bytes.data()) + begin, size};
}

}  // namespace

std::filesystem::path PackedFileFor(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return path / "model.kvpack";
  return path.string() + ".kvpack";
}

bool IsPackedFile(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::array<char, 8> magic = {};
  stream.read(magic.data(), magic.size());
  return stream.gcount() == static_cast<std::streamsize>(magic.size()) && magic == kMagic;
}

Status WritePackedFile(const std::filesystem::path& file, const WeightPlan& plan, const std::byte* data,
                       const std::string& hash, const std::string& model_name) {
  const std::string table = SlotTable(plan);
  Header header;
  header.name_bytes = static_cast<uint32_t>(model_name.size());
  header.table_bytes = table.size();
  header.data_begin = static_cast<uint64_t>(
      RoundUp(static_cast<int64_t>(sizeof(Header) + table.size() + model_name.size()), kDataAlignment));
  header.data_bytes = static_cast<uint64_t>(plan.bytes);
  KVASIR_CHECK(hash.size() == header.hash.size());
  std::copy(hash.begin(), hash.end(), header.hash.begin());

  std::string front(reinterpret_cast<const char*>(&header), sizeof(Header));
  front += table;
  front += model_name;
  front.resize(header.data_begin, '\0');
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(front))));
  RETURN_IF_ERROR(out->Write({data, static_cast<size_t>(plan.bytes)}));
  return out->Commit();
}

Result<PackedFile> OpenPackedFile(const std::filesystem::path& file, const WeightPlan& plan, const std::string& hash) {
  PackedFile packed;
  ASSIGN_OR_RETURN(packed.file, MappedFile::Open(file));
  const std::span<const std::byte> bytes = packed.file->bytes();
  ASSIGN_OR_RETURN(const Header header, ReadHeader(bytes, file.string()));
  if (std::string_view(header.hash.data(), header.hash.size()) != hash) {
    return InvalidData("{}: packed from other weights than the model has now", file.string());
  }
  if (TextAt(bytes, sizeof(Header), header.table_bytes) != SlotTable(plan) ||
      header.data_bytes != static_cast<uint64_t>(plan.bytes)) {
    return InvalidData("{}: packed for other types or shapes than are asked for", file.string());
  }
  packed.data = bytes.data() + header.data_begin;
  return packed;
}

Result<std::string> PackedModelName(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> mapped, MappedFile::Open(file));
  ASSIGN_OR_RETURN(const Header header, ReadHeader(mapped->bytes(), file.string()));
  const std::string_view name = TextAt(mapped->bytes(), sizeof(Header) + header.table_bytes, header.name_bytes);
  if (name.empty() || name.find('/') != std::string_view::npos || name == "..") {
    return InvalidData("{}: names no model beside it", file.string());
  }
  return std::string(name);
}

}  // namespace kvasir
