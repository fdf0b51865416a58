// Regular expressions of JSON Schema ("pattern", "format") as automata over the insides of JSON strings.
#pragma once

#include <string_view>

#include "base/status.h"
#include "decode/byte_dfa.h"

namespace kvasir {

/// The texts between the quotes of JSON strings in which the pattern is found, as JSON Schema has it: anywhere, unless
/// it is anchored. Each character is written in one way: as UTF-8, or where it cannot be by its short escape ("\n").
/// Control characters without one are left out.
///
/// The regular part of ECMA 262's syntax: literals, ".", classes with ranges, \d \w \s and their opposites (of ASCII,
/// as there), groups, "|", "* + ? {n,m}" (greedy or lazy), "^" at the beginning and "$" at the end of the whole or of
/// one of its alternatives. InvalidArgument, with the place, for anything else: look-around, back references, \b, \p,
/// flags.
Result<ByteDfa> CompileJsonPattern(std::string_view pattern, WorkBudget& budget);

/// The pattern of a "format": date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid; empty for others.
/// What it matches is valid; of valid texts it leaves out the rare ones (years before 1000, quoted local parts, names
/// of more than eight labels or labels of more than 30 characters).
std::string_view JsonFormatPattern(std::string_view format);

/// The names, for messages.
std::string_view JsonFormatNames();

}  // namespace kvasir
