// Traces of requests to a language model, as published in comma-separated values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir::apps {

/// Of one request.
struct TraceRequest {
  int64_t context_tokens = 0;    // of the prompt
  int64_t generated_tokens = 0;  // of the answer
  double at_s = 0;               // when it came, in seconds since the first one; 0 unless times were asked for

  int64_t tokens() const { return context_tokens + generated_tokens; }
};

/// The most tokens of a prompt, and of an answer.
inline constexpr int64_t kMaxTraceTokens = 1 << 20;

/// Whether the column TIMESTAMP is read.
enum class TraceTimes { kLeftOut, kNeeded };

/// Reads the columns ContextTokens and GeneratedTokens, which the first line names; no field is quoted, and other
/// columns are not looked at. This is the form of the Azure LLM inference traces (Patel 2024, arXiv:2311.18677). Times
/// are of the form "2023-11-16 18:15:46.6805900" in UTC (a T between, a Z or +00:00 at the end are taken, too), or
/// numbers of seconds; none is before that of the line above. InvalidData names the line: a row of too few or many
/// fields, a field that is no whole number from 0 to kMaxTraceTokens or no such time, a line over 4 KiB, a request or a
/// file without any tokens. `what` (a file's name) begins the message.
Result<std::vector<TraceRequest>> ParseTrace(std::string_view text, std::string_view what,
                                             TraceTimes times = TraceTimes::kLeftOut);

/// The same from a file of at most 64 MiB.
Result<std::vector<TraceRequest>> ReadTrace(const std::filesystem::path& file, TraceTimes times = TraceTimes::kLeftOut);

}  // namespace kvasir::apps
