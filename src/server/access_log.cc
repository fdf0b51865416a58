#include "server/access_log.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cmath>
#include <cstring>
#include <ctime>
#include <exception>
#include <limits>
#include <utility>

#include "base/utf8.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

using Clock = std::chrono::steady_clock;

constexpr size_t kMostWaitingLines = 8192;
constexpr int kLookMs = 50;
// For who reads the last lines when the log is closed.
constexpr auto kLastWords = std::chrono::seconds(1);

std::string TimeText() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  return fmt::format("{}.{:03}Z", std::string_view(text, length), ms);
}

/// Whether a terminal may obey the character instead of showing it: the upper control characters, those that turn the
/// direction of text, and separators of lines. JSON leaves them as they are.
bool IsUnruly(char32_t c) {
  return c == 0x7F || (c >= 0x80 && c <= 0x9F) || c == 0x061C || c == 0x200E || c == 0x200F ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

/// JSON with such characters, which can only stand in strings, as \uXXXX.
std::string EscapeUnruly(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    if (IsUnruly(unit.code_point)) {
      fmt::format_to(std::back_inserter(escaped), "\\u{:04x}", static_cast<uint32_t>(unit.code_point));
    } else {
      escaped += text.substr(i, unit.length);
    }
    i += unit.length;
  }
  return escaped;
}

/// Writes to a descriptor that may stop taking anything, as a pipe does that nobody reads, without waiting for it any
/// longer than until the log is closed. Of the log's thread, but for Close.
class PatientSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  /// Takes the descriptor over where `owned`.
  PatientSink(int file, bool owned) : file_(file), owned_(owned) {}
  ~PatientSink() override {
    if (owned_) close(file_);
  }
  PatientSink(const PatientSink&) = delete;
  PatientSink& operator=(const PatientSink&) = delete;

  /// From now on it waits no longer than for last words. From any thread.
  void Close() { end_.store((Clock::now() + kLastWords).time_since_epoch().count()); }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::string_view rest(line.data(), line.size());
    while (!rest.empty() && WaitUntilWritable()) {
      // So few bytes a pipe that can be written to takes without waiting.
      const ssize_t written = write(file_, rest.data(), std::min<size_t>(rest.size(), PIPE_BUF));
      if (written < 0 && errno != EINTR && errno != EAGAIN) return;
      rest.remove_prefix(written < 0 ? 0 : static_cast<size_t>(written));
    }
  }
  void flush_() override {}

 private:
  bool WaitUntilWritable() const {
    while (true) {
      const bool over = Clock::now().time_since_epoch().count() > end_.load();
      pollfd entry{.fd = file_, .events = POLLOUT, .revents = 0};
      if (poll(&entry, 1, over ? 0 : kLookMs) > 0) return (entry.revents & POLLOUT) != 0;
      if (over) return false;
    }
  }

  const int file_;
  const bool owned_;
  std::atomic<Clock::rep> end_ = std::numeric_limits<Clock::rep>::max();
};

}  // namespace

struct AccessLog::Impl {
  ~Impl() {
    if (sink) sink->Close();
  }

  bool prompts = false;
  std::shared_ptr<PatientSink> sink;
  std::shared_ptr<spdlog::details::thread_pool> pool;
  std::shared_ptr<spdlog::async_logger> logger;  // null: nothing is written
};

AccessLog::AccessLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AccessLog::~AccessLog() = default;

Result<std::unique_ptr<AccessLog>> AccessLog::Open(const AccessLogOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->prompts = options.prompts;
  if (options.enabled) {
    int file = STDERR_FILENO;
    if (!options.file.empty()) {
      file = open(options.file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
      if (file < 0) return IoError("--log-file {}: {}", options.file, std::strerror(errno));
    }
    try {
      impl->sink = std::make_shared<PatientSink>(file, !options.file.empty());
      impl->pool = std::make_shared<spdlog::details::thread_pool>(kMostWaitingLines, 1);
      impl->logger = std::make_shared<spdlog::async_logger>("access", impl->sink, impl->pool,
                                                            spdlog::async_overflow_policy::overrun_oldest);
      impl->logger->set_pattern("%v");
      // Somebody will see on the disk itself that it is full; a message for each line would help nobody.
      impl->logger->set_error_handler([](const std::string&) {});
    } catch (const std::exception& error) {
      return IoError("the log {}: {}", options.file, error.what());
    }
  }
  return std::unique_ptr<AccessLog>(new AccessLog(std::move(impl)));
}

std::string AccessLog::Line(const HttpRequest& request, const HttpOutcome& outcome, double milliseconds, bool prompts) {
  json::object line = {{"time", TimeText()},
                       {"id", request.id},
                       {"remote", request.remote},
                       {"method", ReplaceInvalidUtf8(request.method)},
                       {"path", ReplaceInvalidUtf8(request.path)},
                       {"status", outcome.status},
                       {"bytes", outcome.bytes},
                       {"ms", std::round(milliseconds * 1000) / 1000}};
  if (!request.key_name.empty()) line["key"] = request.key_name;
  if (!request.traceparent.empty()) line["trace"] = request.traceparent.substr(3, 32);
  if (const std::string* const agent = request.Header("User-Agent")) {
    line["agent"] = ReplaceInvalidUtf8(agent->substr(0, 256));
  }
  if (prompts) line["body"] = ReplaceInvalidUtf8(request.body);
  return EscapeUnruly(json::serialize(line));
}

bool StderrTakesALine() {
  pollfd entry{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & POLLOUT) != 0;
}

void AccessLog::Write(const HttpRequest& request, const HttpOutcome& outcome, double milliseconds) {
  if (impl_->logger) impl_->logger->info("{}", Line(request, outcome, milliseconds, impl_->prompts));
}

}  // namespace kvasir::server
