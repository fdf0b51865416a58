#include "apps/serve_load/sse.h"

#include <algorithm>

namespace kvasir::apps {

Status SseParser::Feed(std::string_view bytes) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  while (!bytes.empty()) {
    if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    if (line_.size() + end > kMaxEvent) return InvalidData("a line of the stream is over {} bytes long", kMaxEvent);
    line_ += bytes.substr(0, end);
    if (end == bytes.size()) return OkStatus();
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    std::string_view line = line_;
    if (first_line_ && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    first_line_ = false;
    RETURN_IF_ERROR(TakeLine(line));
    line_.clear();
  }
  return OkStatus();
}

Status SseParser::TakeLine(std::string_view line) {
  if (line.find('\0') != line.npos) return InvalidData("a NUL byte in the stream of events");
  if (line.empty()) {
    const Status status = has_data_ ? on_event_(type_, data_) : OkStatus();
    type_.clear();
    data_.clear();
    has_data_ = false;
    return status;
  }
  const size_t colon = std::min(line.find(':'), line.size());
  const std::string_view field = line.substr(0, colon);
  std::string_view value = line.substr(std::min(colon + 1, line.size()));
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (data_.size() + 1 + value.size() > kMaxEvent) return InvalidData("an event is over {} bytes long", kMaxEvent);
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  } else if (field == "event") {
    type_ = value;
  }
  // Comments (an empty field), id, retry and what is unknown change nothing, as the standard says.
  return OkStatus();
}

Status SseParser::End() const {
  if (line_.empty() && !has_data_) return OkStatus();
  return InvalidData("the stream ended in the middle of an event");
}

}  // namespace kvasir::apps
