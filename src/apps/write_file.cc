#include "apps/write_file.h"

#include <memory>
#include <span>

#include "io/atomic_file.h"

namespace kvasir::apps {

Status WriteFileAtomically(const std::filesystem::path& file, std::string_view content) {
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(content))));
  return out->Commit();
}

}  // namespace kvasir::apps
