#include "apps/techniques/trace.h"

#include <algorithm>

#include "apps/flags.h"
#include "apps/terminal.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

constexpr std::string_view kContext = "ContextTokens";
constexpr std::string_view kGenerated = "GeneratedTokens";
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

}  // namespace

Result<std::vector<TraceRequest>> ParseTrace(std::string_view text, std::string_view what) {
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
    requests.push_back(request);
  }
  if (requests.empty()) return InvalidData("{}: no requests behind the line of column names", what);
  return requests;
}

Result<std::vector<TraceRequest>> ReadTrace(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxBytes));
  if (text.empty()) return InvalidData("{}: the file is empty", file.string());
  return ParseTrace(text, file.string());
}

}  // namespace kvasir::apps
