#include "apps/npy_writer.h"

#include <bit>
#include <string>

namespace kvasir::apps {

static_assert(std::endian::native == std::endian::little, "'<f4' below says little-endian");

Result<NpyWriter> NpyWriter::Create(const std::filesystem::path& file, int64_t rows, int64_t cols) {
  ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  // Magic, version and length take 10 bytes; the whole is padded to 64 and ends in a newline.
  const size_t padded = (10 + header.size() + 1 + 63) / 64 * 64 - 10;
  header.resize(padded - 1, ' ');
  header += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += static_cast<char>(padded & 0xff);
  start += static_cast<char>(padded >> 8);
  const std::string front = start + header;
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(front))));
  return NpyWriter(std::move(out));
}

Status NpyWriter::Write(std::span<const float> row) { return file_->Write(std::as_bytes(row)); }

Status NpyWriter::Finish() { return file_->Commit(); }

}  // namespace kvasir::apps
