// Standard output and error, the terminal, and Ctrl-C.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::apps {

/// Keeps descriptors 0 to 2 from being given to files when the caller closed them, and ignores SIGPIPE.
void PrepareStandardStreams();

bool StdoutIsTerminal();
bool StderrIsTerminal();
bool StdinIsTerminal();

/// Writes all of `text` to standard output, unbuffered. A reader that went away is Cancelled without a message, so
/// that the program ends without noise; other failures (a full disk, a closed descriptor) are IoError.
Status WriteStdout(std::string_view text);

/// The same for text from a model or file: on a terminal, control characters other than tab and newline are shown in
/// caret notation, so that nobody's text can drive the terminal.
Status WriteText(std::string_view text);

/// `text` with control characters (but tab and newline) in caret notation.
std::string EscapeControls(std::string_view text);

/// One line to standard error; failures are ignored.
void WriteStderr(std::string_view line);

/// "kvasir: note: …" on standard error.
void Note(std::string_view message);

/// "kvasir: error: …", or with `json` one object {"error": {"code", "message"}}, on standard error.
void PrintError(const Status& status, bool json);

/// From now on the first Ctrl-C only sets a flag; a second one before ClearInterrupt ends the program.
void CatchInterrupts();
bool Interrupted();
void ClearInterrupt();

/// The next line of standard input without its newline; nothing at the end of input. Interrupted() may be set when an
/// empty line is returned. Lines over 16 MiB are an error.
Result<std::optional<std::string>> ReadLine();

/// Everything on standard input, at most `max_bytes`.
Result<std::string> ReadStdin(size_t max_bytes);

/// A progress line on standard error, only on a terminal, redrawn at most ten times a second and wiped at the end.
class Progress {
 public:
  Progress(std::string_view label, bool enabled);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// `detail` stands behind the percentage.
  void Update(int64_t done, int64_t total, std::string_view detail = {});

 private:
  std::string label_;
  bool enabled_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

/// "1.5 GiB", "12 KiB", "7 B".
std::string HumanBytes(int64_t bytes);

}  // namespace kvasir::apps
