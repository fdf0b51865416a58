#include "apps/terminal.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/utf8.h"

namespace kvasir::apps {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void OnInterrupt(int) {
  if (interrupted) _exit(130);
  interrupted = 1;
}

// Bytes written, or the errno.
int WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

std::string input_buffer;  // read from standard input, not yet returned as a line

}  // namespace

void PrepareStandardStreams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // Opened for the wrong direction, so that using it still fails. A failure here changes nothing.
    [[maybe_unused]] const int opened = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
  }
  std::signal(SIGPIPE, SIG_IGN);
}

bool StdoutIsTerminal() { return isatty(1) == 1; }
bool StderrIsTerminal() { return isatty(2) == 1; }
bool StdinIsTerminal() { return isatty(0) == 1; }

Status WriteStdout(std::string_view text) {
  const int error = WriteAll(1, text);
  if (error == EPIPE) return Status(StatusCode::kCancelled, "");
  if (error != 0) return IoError("cannot write to standard output: {}", std::strerror(error));
  return OkStatus();
}

std::string EscapeControls(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    const char32_t c = unit.code_point;
    if (c < 0x20 && c != '\n' && c != '\t') {
      out += '^';
      out += static_cast<char>(c + 0x40);
    } else if (c >= 0x7f && c < 0xa0) {
      out += fmt::format("<{:02X}>", static_cast<unsigned>(c));
    } else {
      out += text.substr(i, unit.length);
    }
    i += unit.length;
  }
  return out;
}

Status WriteText(std::string_view text) {
  static const bool terminal = StdoutIsTerminal();
  return terminal ? WriteStdout(EscapeControls(text)) : WriteStdout(text);
}

void WriteStderr(std::string_view line) { WriteAll(2, std::string(line) + "\n"); }

void Note(std::string_view message) { WriteStderr(fmt::format("kvasir: note: {}", EscapeControls(message))); }

void PrintError(const Status& status, bool json) {
  if (json) {
    const boost::json::object error{{"code", StatusCodeName(status.code())},
                                    {"message", ReplaceInvalidUtf8(status.message())}};
    WriteStderr(boost::json::serialize(boost::json::object{{"error", error}}));
  } else {
    WriteStderr(fmt::format("kvasir: error: {}", EscapeControls(status.message())));
  }
}

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;  // without SA_RESTART: reading a line ends too
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

bool Interrupted() { return interrupted != 0; }
void ClearInterrupt() { interrupted = 0; }

Result<std::optional<std::string>> ReadLine() {
  constexpr size_t kMaxLine = 16u << 20;
  size_t searched = 0;
  while (true) {
    const size_t newline = input_buffer.find('\n', searched);
    if (newline != std::string::npos) {
      std::string line = input_buffer.substr(0, newline);
      input_buffer.erase(0, newline + 1);
      return std::optional<std::string>(std::move(line));
    }
    searched = input_buffer.size();
    if (input_buffer.size() > kMaxLine) return InvalidArgument("a line of standard input is over 16 MiB long");
    char bytes[65536];
    const ssize_t n = read(0, bytes, sizeof(bytes));
    if (n < 0 && errno == EINTR) {
      if (!Interrupted()) continue;
      input_buffer.clear();
      return std::optional<std::string>(std::string());
    }
    if (n < 0) return IoError("cannot read standard input: {}", std::strerror(errno));
    if (n == 0) {
      if (input_buffer.empty()) return std::optional<std::string>();
      std::string line = std::move(input_buffer);
      input_buffer.clear();
      return std::optional<std::string>(std::move(line));
    }
    input_buffer.append(bytes, static_cast<size_t>(n));
  }
}

Result<std::string> ReadStdin(size_t max_bytes) {
  std::string text;
  while (true) {
    char bytes[65536];
    const ssize_t n = read(0, bytes, sizeof(bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("cannot read standard input: {}", std::strerror(errno));
    if (n == 0) return text;
    text.append(bytes, static_cast<size_t>(n));
    if (text.size() > max_bytes)
      return InvalidArgument("standard input is longer than {}", HumanBytes(static_cast<int64_t>(max_bytes)));
  }
}

Progress::Progress(std::string_view label, bool enabled) : label_(label), enabled_(enabled && StderrIsTerminal()) {}

Progress::~Progress() {
  if (drawn_) WriteAll(2, "\r\x1b[K");
}

void Progress::Update(int64_t done, int64_t total, std::string_view detail) {
  if (!enabled_ || total <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  const double fraction = static_cast<double>(done) / static_cast<double>(total);
  constexpr int kWidth = 30;
  const int full = std::min(kWidth, static_cast<int>(fraction * kWidth));
  WriteAll(2, fmt::format("\r{} [{}{}] {:3.0f} % {}\x1b[K", label_, std::string(static_cast<size_t>(full), '#'),
                          std::string(static_cast<size_t>(kWidth - full), '.'), 100 * fraction, detail));
}

std::string HumanBytes(int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  while (value >= 1024 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 10 ? 1 : 0, units[unit]);
}

}  // namespace kvasir::apps
