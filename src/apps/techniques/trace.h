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

  int64_t tokens() const { return context_tokens + generated_tokens; }
};

/// The most tokens of a prompt, and of an answer.
inline constexpr int64_t kMaxTraceTokens = 1 << 20;

/// Reads the columns ContextTokens and GeneratedTokens, which the first line names; other columns (TIMESTAMP) are not
/// looked at, and no field is quoted. This is the form of the Azure LLM inference traces (Patel 2024,
/// arXiv:2311.18677). InvalidData names the line: a row of too few or many fields, a field that is no whole number from
/// 0 to kMaxTraceTokens, a line over 4 KiB, a request or a file without any tokens. `what` (a file's name) begins the
/// message.
Result<std::vector<TraceRequest>> ParseTrace(std::string_view text, std::string_view what);

/// The same from a file of at most 64 MiB.
Result<std::vector<TraceRequest>> ReadTrace(const std::filesystem::path& file);

}  // namespace kvasir::apps
