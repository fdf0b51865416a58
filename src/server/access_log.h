// A line of JSON for every request.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "server/http.h"

namespace kvasir::server {

struct AccessLogOptions {
  bool enabled = true;
  std::string file;      // empty: standard error
  bool prompts = false;  // requests' bodies too
};

/// Writes from a thread of its own. A log that nobody takes (a full disk, a pipe that is not read) costs lines, never
/// an answer: the oldest lines that wait are dropped. Thread-safe.
class AccessLog {
 public:
  /// IoError: the file cannot be opened.
  static Result<std::unique_ptr<AccessLog>> Open(const AccessLogOptions& options);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  void Write(const HttpRequest& request, const HttpOutcome& outcome, double milliseconds);

  /// The line, without its end. Whatever a client sent stands in it as JSON strings, without a
  /// character that a terminal would obey.
  static std::string Line(const HttpRequest& request, const HttpOutcome& outcome, double milliseconds, bool prompts);

 private:
  struct Impl;
  explicit AccessLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Whether standard error can be written to without waiting. Asked before the server's thread warns of something: a
/// pipe that nobody reads would keep everybody waiting.
bool StderrTakesALine();

}  // namespace kvasir::server
