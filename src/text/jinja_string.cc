#include "text/jinja_string.h"

#include <algorithm>

#include "base/utf8.h"

namespace kvasir::jinja {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

size_t CountChars(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

}  // namespace

Str::Str(std::string text, std::vector<ByteRange> taint) {
  if (text.empty()) return;
  const size_t chars = CountChars(text);
  rep_ = std::make_shared<Rep>(Rep{std::move(text), std::move(taint), chars});
}

Str Str::Trusted(std::string text) { return Str(std::move(text), {}); }

Str Str::Outside(std::string text) {
  const size_t size = text.size();
  return Str(std::move(text), {{0, size}});
}

size_t Str::ByteOfChar(size_t index) const {
  if (index >= chars()) return size();
  if (ascii()) return index;
  const std::string_view text = view();
  size_t offset = 0;
  for (size_t seen = 0; offset < text.size(); ++offset) {
    if (IsContinuation(text[offset])) continue;
    if (seen++ == index) break;
  }
  return offset;
}

size_t Str::CharOfByte(size_t offset) const {
  if (ascii()) return offset;
  return CountChars(view().substr(0, offset));
}

Str Str::Slice(size_t begin, size_t end) const {
  if (begin == 0 && end == size()) return *this;
  std::vector<ByteRange> taint;
  const auto ranges = this->taint();
  auto it = std::partition_point(ranges.begin(), ranges.end(), [&](const ByteRange& r) { return r.end <= begin; });
  for (; it != ranges.end() && it->begin < end; ++it) {
    taint.push_back({std::max(it->begin, begin) - begin, std::min(it->end, end) - begin});
  }
  Str result(std::string(view().substr(begin, end - begin)), std::move(taint));
  result.markup_ = markup_;
  return result;
}

Str Str::WithMarkup(bool markup) const {
  Str result = *this;
  result.markup_ = markup;
  return result;
}

bool StrBuilder::Reserve(size_t bytes) {
  if (failed_) return false;
  if (bytes > limit_ - text_.size()) {
    failed_ = too_long_ = true;
  } else if (!budget_->Spend(bytes)) {
    failed_ = true;
  }
  return !failed_;
}

void StrBuilder::Taint(size_t begin, size_t end) {
  if (begin == end) return;
  if (!taint_.empty() && taint_.back().end == begin) {
    taint_.back().end = end;
  } else {
    taint_.push_back({begin, end});
  }
}

void StrBuilder::Append(std::string_view text, bool tainted) {
  if (!Reserve(text.size())) return;
  if (tainted) Taint(text_.size(), text_.size() + text.size());
  text_ += text;
}

void StrBuilder::AppendSlice(const Str& text, size_t begin, size_t end) {
  if (!Reserve(end - begin)) return;
  const size_t base = text_.size();
  const auto ranges = text.taint();
  auto it = std::partition_point(ranges.begin(), ranges.end(), [&](const ByteRange& r) { return r.end <= begin; });
  for (; it != ranges.end() && it->begin < end; ++it) {
    Taint(base + std::max(it->begin, begin) - begin, base + std::min(it->end, end) - begin);
  }
  text_ += text.view().substr(begin, end - begin);
}

void StrBuilder::AppendCodePoint(char32_t code_point, bool tainted) {
  std::string utf8;
  AppendUtf8(utf8, code_point);
  Append(utf8, tainted);
}

Status StrBuilder::status() const {
  if (!failed_) return OkStatus();
  if (too_long_) {
    return ResourceExhausted("the template makes a text longer than TemplateLimits::max_output_bytes ({} bytes)",
                             limit_);
  }
  return budget_->Exhausted();
}

Result<Str> StrBuilder::Finish() && {
  RETURN_IF_ERROR(status());
  return Str(std::move(text_), std::move(taint_));
}

}  // namespace kvasir::jinja
