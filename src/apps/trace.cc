#include "apps/trace.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "apps/flags.h"
#include "apps/terminal.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

constexpr std::string_view kContext = "ContextTokens";
constexpr std::string_view kGenerated = "GeneratedTokens";
constexpr std::string_view kTime = "TIMESTAMP";
constexpr size_t kMaxBytes = size_t{64} << 20;
constexpr size_t kMaxLine = 4096;

/// Takes text up to `separator` (and it) off the front of `rest`.
std::string_view Take(std::string_view& rest, char separator) {
  const size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

std::vector<std::string_view> Fields(std::string_view line) {
  std::vector<std::string_view> fields;
  size_t begin = 0;
  for (size_t comma = line.find(','); comma != line.npos; comma = line.find(',', begin)) {
    fields.push_back(line.substr(begin, comma - begin));
    begin = comma + 1;
  }
  fields.push_back(line.substr(begin));
  return fields;
}

/// Of a field in messages: short, and without what could drive a terminal.
std::string Shown(std::string_view field) {
  constexpr size_t kMost = 40;
  return EscapeControls(field.substr(0, kMost)) + (field.size() > kMost ? "…" : "");
}

/// The number that `count` digits at the front of `text` are, which are taken off; -1 where they are none.
int TakeDigits(std::string_view& text, size_t count) {
  if (text.size() < count) return -1;
  int number = 0;
  for (const char c : text.substr(0, count)) {
    if (c < '0' || c > '9') return -1;
    number = 10 * number + (c - '0');
  }
  text.remove_prefix(count);
  return number;
}

/// Takes one of `any` off the front.
bool TakeOneOf(std::string_view& text, std::string_view any) {
  if (text.empty() || any.find(text.front()) == any.npos) return false;
  text.remove_prefix(1);
  return true;
}

/// ".6805900" as nanoseconds, taken off the front; 0 where there is no point.
std::optional<int64_t> TakeFraction(std::string_view& text) {
  if (!TakeOneOf(text, ".")) return 0;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits == 0 || digits > 9) return std::nullopt;
  int64_t fraction = TakeDigits(text, digits);
  for (size_t i = digits; i < 9; ++i) fraction *= 10;
  return fraction;
}

/// A date and a time of day as nanoseconds since 1970, in UTC.
std::optional<int64_t> DateNanoseconds(std::string_view text) {
  namespace chrono = std::chrono;
  const int year = TakeDigits(text, 4);
  if (!TakeOneOf(text, "-")) return std::nullopt;
  const int month = TakeDigits(text, 2);
  if (!TakeOneOf(text, "-")) return std::nullopt;
  const int day = TakeDigits(text, 2);
  if (!TakeOneOf(text, " T")) return std::nullopt;
  const int hour = TakeDigits(text, 2);
  if (!TakeOneOf(text, ":")) return std::nullopt;
  const int minute = TakeDigits(text, 2);
  if (!TakeOneOf(text, ":")) return std::nullopt;
  const int second = TakeDigits(text, 2);
  const auto fraction = TakeFraction(text);
  const bool ends = text.empty() || text == "Z" || text == "+00:00";
  const chrono::year_month_day date{chrono::year(year), chrono::month(static_cast<unsigned>(month)),
                                    chrono::day(static_cast<unsigned>(day))};
  // 64 bits of nanoseconds reach to the year 2262.
  if (!fraction || !ends || year < 1970 || year > 2200 || !date.ok()) return std::nullopt;
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return std::nullopt;
  const int64_t days = chrono::sys_days(date).time_since_epoch().count();
  return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1'000'000'000 + *fraction;
}

/// A trace's time in nanoseconds since some moment.
std::optional<int64_t> Nanoseconds(std::string_view text) {
  constexpr double kMostSeconds = 8e9;
  const auto seconds = internal::ParseNumber(text, {.min = 0, .max = kMostSeconds});
  if (seconds.ok()) return static_cast<int64_t>(*seconds * 1e9);
  return DateNanoseconds(text);
}

}  // namespace

Result<std::vector<TraceRequest>> ParseTrace(std::string_view text, std::string_view what, TraceTimes times) {
  int64_t number = 0;
  const auto next_line = [&] {
    ++number;
    std::string_view line = Take(text, '\n');
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
  };
  const auto too_long = [&](std::string_view line) {
    return line.size() > kMaxLine
               ? InvalidData("{}: line {} is over {} bytes long; this is no trace", what, number, kMaxLine)
               : OkStatus();
  };
  const std::string_view names = next_line();
  RETURN_IF_ERROR(too_long(names));
  const std::vector<std::string_view> header = Fields(names);
  const auto context = static_cast<size_t>(std::ranges::find(header, kContext) - header.begin());
  const auto generated = static_cast<size_t>(std::ranges::find(header, kGenerated) - header.begin());
  if (context == header.size() || generated == header.size()) {
    return InvalidData("{}: line 1 names no columns {} and {}; is this a trace such as TIMESTAMP,{},{}?", what,
                       kContext, kGenerated, kContext, kGenerated);
  }
  const bool timed = times == TraceTimes::kNeeded;
  const auto time = static_cast<size_t>(std::ranges::find(header, kTime) - header.begin());
  if (timed && time == header.size()) {
    return InvalidData("{}: line 1 names no column {}, and the requests' times are needed", what, kTime);
  }
  int64_t first = 0;
  int64_t last = 0;
  std::vector<TraceRequest> requests;
  while (!text.empty()) {
    const std::string_view line = next_line();
    RETURN_IF_ERROR(too_long(line));
    const std::vector<std::string_view> fields = Fields(line);
    if (fields.size() != header.size()) {
      return InvalidData("{}: line {} has {} field{}, line 1 names {} columns", what, number, fields.size(),
                         fields.size() == 1 ? "" : "s", header.size());
    }
    TraceRequest request;
    for (const auto& [column, target] :
         {std::pair{context, &request.context_tokens}, {generated, &request.generated_tokens}}) {
      const auto value = internal::ParseInt(fields[column], 0, kMaxTraceTokens);
      if (!value.ok()) {
        return InvalidData("{}: line {}: {} is \"{}\", not a whole number from 0 to {}", what, number, header[column],
                           Shown(fields[column]), kMaxTraceTokens);
      }
      *target = *value;
    }
    if (request.tokens() == 0) return InvalidData("{}: line {}: a request without any tokens", what, number);
    if (timed) {
      const auto at = Nanoseconds(fields[time]);
      if (!at) {
        return InvalidData(
            "{}: line {}: {} is \"{}\", neither of the form 2023-11-16 18:15:46.68 nor a number of seconds", what,
            number, kTime, Shown(fields[time]));
      }
      if (requests.empty()) first = last = *at;
      if (*at < last) return InvalidData("{}: line {}: its time is before that of the line above", what, number);
      last = *at;
      request.at_s = static_cast<double>(last - first) * 1e-9;
    }
    requests.push_back(request);
  }
  if (requests.empty()) return InvalidData("{}: no requests behind the line of column names", what);
  return requests;
}

Result<std::vector<TraceRequest>> ReadTrace(const std::filesystem::path& file, TraceTimes times) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxBytes));
  if (text.empty()) return InvalidData("{}: the file is empty", file.string());
  return ParseTrace(text, file.string(), times);
}

}  // namespace kvasir::apps
