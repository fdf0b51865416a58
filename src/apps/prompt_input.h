// Text from the command line, a file or standard input.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "apps/flags.h"
#include "base/status.h"

namespace kvasir::apps {

/// -p TEXT, -f FILE, or standard input when neither is given.
struct PromptInput {
  std::optional<std::string> text;
  std::optional<std::string> file;
  bool replace_invalid = false;

  void Add(FlagTable& flags);
  /// The text. At most 1 GiB; one newline at the end of a file or of standard input is left out with
  /// `strip_newline`. Invalid UTF-8 is an error naming the byte, or U+FFFD with --replace-invalid.
  Result<std::string> Read(bool strip_newline) const;
};

/// An error naming the first byte that is not UTF-8; `what` says where.
Status CheckUtf8(std::string_view text, std::string_view what);

}  // namespace kvasir::apps
