#include "apps/prompt_input.h"

#include "apps/terminal.h"
#include "base/utf8.h"
#include "io/json.h"

namespace kvasir::apps {

void PromptInput::Add(FlagTable& flags) {
  flags.Text("-p,--prompt", "TEXT", &text, "The text.", "read from standard input");
  flags.Text("-f,--file", "FILE", &file, "Read the text from this file.");
  flags.Switch("--replace-invalid", &replace_invalid,
               "Read invalid UTF-8 as U+FFFD, as Hugging Face does, instead of refusing it.");
}

Status CheckUtf8(std::string_view text, std::string_view what) {
  for (size_t i = 0; i < text.size();) {
    // Runs of ASCII, which most text is, are skipped quickly.
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Unit unit = DecodeUtf8(text, i);
    if (!unit.valid) {
      return InvalidArgument("{}: invalid UTF-8 at byte {} (0x{:02X}); convert it, or give --replace-invalid", what, i,
                             static_cast<unsigned char>(text[i]));
    }
    i += unit.length;
  }
  return OkStatus();
}

Result<std::string> PromptInput::Read(bool strip_newline) const {
  constexpr size_t kMaxBytes = size_t{1} << 30;
  if (text && file) return InvalidArgument("--prompt and --file: give one of them");
  std::string result;
  std::string what = "--prompt";
  if (text) {
    result = *text;
  } else {
    if (file && *file != "-") {
      what = *file;
      ASSIGN_OR_RETURN(result, ReadFile(*file, kMaxBytes));
    } else {
      what = "standard input";
      if (StdinIsTerminal()) Note("reading the text from the terminal; end it with Ctrl-D");
      ASSIGN_OR_RETURN(result, ReadStdin(kMaxBytes));
    }
    if (strip_newline && result.ends_with('\n')) result.pop_back();
    if (strip_newline && result.ends_with('\r')) result.pop_back();
  }
  if (replace_invalid) return ReplaceInvalidUtf8(result);
  RETURN_IF_ERROR(CheckUtf8(result, what));
  return result;
}

}  // namespace kvasir::apps
