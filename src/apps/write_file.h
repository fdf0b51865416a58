// Writing a whole file from a text.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/status.h"

namespace kvasir::apps {

/// The file appears whole or, on any error, stays as it was (see io/atomic_file.h).
Status WriteFileAtomically(const std::filesystem::path& file, std::string_view content);

}  // namespace kvasir::apps
