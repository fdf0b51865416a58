// The table of a verb's flags: the one place that says what a flag is called, what it takes, its range and its default.
// Parsing, environment variables, range checks, chat's /set and --help all come from it.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/status.h"

namespace kvasir::apps {

/// An interval of numbers; open ends are excluded.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;
  bool open_max = false;

  bool Contains(double x) const;
  /// "0 … 1", "above 0, at most 1", "at least 1"; empty when unbounded.
  std::string Describe() const;
};

struct Flag {
  std::vector<std::string> names;  // with dashes; the first long one names the flag in messages
  std::string negative;            // "--no-stream": the switch that turns it off; empty: none
  std::string placeholder;         // "N"; empty: a switch
  std::string range;               // in words; empty: none
  std::string help;
  std::string default_text;
  bool repeatable = false;
  std::function<Status(std::string_view value)> set;
  std::function<std::string()> show;  // the value now, in words
  std::string group;

  const std::string& long_name() const;
  /// KVASIR_ARG_MAX_NEW_TOKENS for --max-new-tokens, one for each long name.
  std::vector<std::string> environment_names() const;
};

namespace internal {
Result<int64_t> ParseInt(std::string_view text, int64_t min, int64_t max);
/// "800000000", "800M", "1.5G", "2Gi": powers of 1000, or with an i of 1024; a B may follow.
Result<int64_t> ParseBytes(std::string_view text);
Result<double> ParseNumber(std::string_view text, const Range& range);
std::string ShowNumber(double value);
template <typename T>
struct Unwrapped {
  using Type = T;
};
template <typename T>
struct Unwrapped<std::optional<T>> {
  using Type = T;
};
}  // namespace internal

/// Flags in the order of --help. Targets outlive the table; a target that is an optional stays empty until set.
class FlagTable {
 public:
  /// Flags added from now on stand under this title.
  void Group(std::string_view title) { group_ = title; }

  /// `names` as in "-n,--max-new-tokens,--n-predict". `unset` describes an empty optional or a special default.
  template <typename T>
  Flag& Int(std::string_view names, std::string_view placeholder, T* target, int64_t min, int64_t max,
            std::string_view help, std::string_view unset = {}) {
    using Value = typename internal::Unwrapped<T>::Type;
    static_assert(std::is_integral_v<Value>);
    return AddValue(
        names, placeholder, IntRange(min, max), help, unset,
        [=](std::string_view text) -> Status {
          ASSIGN_OR_RETURN(const int64_t value, internal::ParseInt(text, min, max));
          *target = static_cast<Value>(value);
          return OkStatus();
        },
        Shower(target));
  }

  template <typename T>
  Flag& Number(std::string_view names, std::string_view placeholder, T* target, const Range& range,
               std::string_view help, std::string_view unset = {}) {
    using Value = typename internal::Unwrapped<T>::Type;
    static_assert(std::is_floating_point_v<Value>);
    return AddValue(
        names, placeholder, range.Describe(), help, unset,
        [=](std::string_view text) -> Status {
          ASSIGN_OR_RETURN(const double value, internal::ParseNumber(text, range));
          *target = static_cast<Value>(value);
          return OkStatus();
        },
        Shower(target));
  }

  /// A number of bytes, at least 1; 0 is what an unset one holds.
  Flag& Bytes(std::string_view names, int64_t* target, std::string_view help, std::string_view unset);

  /// One of several words.
  template <typename T>
  Flag& Choice(std::string_view names, T* target,
               const std::vector<std::pair<std::string, std::type_identity_t<T>>>& choices, std::string_view help,
               std::string_view unset = {}) {
    std::string placeholder;
    for (const auto& choice : choices) placeholder += (placeholder.empty() ? "" : "|") + choice.first;
    auto show = [target, choices] {
      for (const auto& [word, value] : choices) {
        if (*target == value) return word;
      }
      return std::string();
    };
    const std::string words = placeholder;
    return AddValue(
        names, placeholder, "", help, unset,
        [target, choices, words](std::string_view text) -> Status {
          for (const auto& [word, value] : choices) {
            if (word == text) {
              *target = value;
              return OkStatus();
            }
          }
          return InvalidArgument("\"{}\" is none of {}", text, words);
        },
        show);
  }

  /// A value with a syntax of its own. `set` parses and stores it, `show` says what is stored.
  Flag& Parsed(std::string_view names, std::string_view placeholder, std::string_view help,
               std::function<Status(std::string_view)> set, std::function<std::string()> show) {
    return AddValue(names, placeholder, "", help, {}, std::move(set), std::move(show));
  }

  Flag& Text(std::string_view names, std::string_view placeholder, std::string* target, std::string_view help,
             std::string_view unset = {});
  Flag& Text(std::string_view names, std::string_view placeholder, std::optional<std::string>* target,
             std::string_view help, std::string_view unset = {});
  /// May be given several times.
  Flag& Texts(std::string_view names, std::string_view placeholder, std::vector<std::string>* target,
              std::string_view help, std::string_view unset = {});
  Flag& Switch(std::string_view names, bool* target, std::string_view help, std::string_view negative = {});
  Flag& Switch(std::string_view names, std::optional<bool>* target, std::string_view help, std::string_view negative,
               std::string_view unset);

  /// Arguments without a flag set this flag ("kvasir inspect PATH"); at most one argument unless it is repeatable.
  void Positional(std::string_view long_name) { positional_ = long_name; }
  const std::string& positional() const { return positional_; }

  std::span<const Flag> flags() const { return flags_; }
  /// By any of its names, with or without dashes; null when there is none.
  const Flag* Find(std::string_view name) const;
  /// ", did you mean --temp?" for the nearest name, or empty when nothing is near.
  std::string Suggest(std::string_view name) const;

  /// The flags with names, defaults, ranges and environment variables, as --help prints them.
  std::string Help() const;

 private:
  template <typename T>
  static std::function<std::string()> Shower(const T* target) {
    return [target]() -> std::string {
      if constexpr (std::is_arithmetic_v<T>) {
        return internal::ShowNumber(static_cast<double>(*target));
      } else {
        return *target ? internal::ShowNumber(static_cast<double>(**target)) : std::string();
      }
    };
  }
  static std::string IntRange(int64_t min, int64_t max);
  Flag& AddValue(std::string_view names, std::string_view placeholder, std::string range, std::string_view help,
                 std::string_view unset, std::function<Status(std::string_view)> set,
                 std::function<std::string()> show);
  Flag& Add(Flag flag);

  std::vector<Flag> flags_;
  std::string group_;
  std::string positional_;
};

/// The candidate nearest to `word` by edits (a swap of neighbours is one), or null when none is near.
const std::string* Nearest(std::string_view word, std::span<const std::string> candidates);

/// Sets flags from `args` (after the verb) and, where a flag is not given there, from its environment variable.
/// With --help among the arguments nothing else is checked. Errors are InvalidArgument and name flag and value.
Status ParseFlags(FlagTable& table, std::span<const std::string> args);

}  // namespace kvasir::apps
