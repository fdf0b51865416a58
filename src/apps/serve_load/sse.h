// Server-sent events, read as they come.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::apps {

/// Takes a stream of server-sent events apart, in pieces of any size (HTML standard, section 9.2.6). Thread-compatible.
class SseParser {
 public:
  /// The most bytes of one event's data and of one line.
  static constexpr size_t kMaxEvent = size_t{1} << 20;

  /// Of one event: its type ("" where it names none, as is usual), and its data, whose lines are joined by newlines.
  /// Both are valid during the call. An error ends the reading.
  using OnEvent = std::function<Status(std::string_view type, std::string_view data)>;

  explicit SseParser(OnEvent on_event) : on_event_(std::move(on_event)) {}

  /// Reads on. InvalidData: a NUL byte, an event or line over kMaxEvent; else what OnEvent returned. After an error
  /// the parser is not used again.
  Status Feed(std::string_view bytes);

  /// The stream is over. InvalidData where that is in the middle of an event.
  Status End() const;

 private:
  Status TakeLine(std::string_view line);

  OnEvent on_event_;
  std::string line_;
  std::string type_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // a newline now belongs to the line before
  bool first_line_ = true;
};

}  // namespace kvasir::apps
