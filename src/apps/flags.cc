#include "apps/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"

namespace kvasir::apps {
namespace {

std::vector<std::string> Split(std::string_view names) {
  std::vector<std::string> parts;
  while (!names.empty()) {
    const size_t comma = std::min(names.find(','), names.size());
    parts.emplace_back(names.substr(0, comma));
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
  return parts;
}

Result<bool> ParseBool(std::string_view text) {
  for (const char* word : {"true", "yes", "on", "1"}) {
    if (text == word) return true;
  }
  for (const char* word : {"false", "no", "off", "0"}) {
    if (text == word) return false;
  }
  return InvalidArgument("\"{}\" is neither true nor false", text);
}

// Damerau-Levenshtein distance with adjacent swaps, in two rows more than needed; words are short.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

// Columns of a UTF-8 text without wide characters.
size_t Columns(std::string_view text) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size(); i += DecodeUtf8(text, i).length) ++columns;
  return columns;
}

constexpr size_t kHelpColumn = 34;
constexpr size_t kHelpWidth = 110;
constexpr char kNoBreak = '\x01';  // a space that no line ends at

void AppendWrapped(std::string& out, size_t column, std::string_view text) {
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    if (column + Columns(word) > kHelpWidth) {
      out += "\n" + std::string(kHelpColumn, ' ');
      column = kHelpColumn;
    } else if (column > kHelpColumn) {
      out += ' ';
      ++column;
    }
    for (char c : word) out += c == kNoBreak ? ' ' : c;
    column += Columns(word);
    text.remove_prefix(std::min(space + 1, text.size()));
  }
}

}  // namespace

bool Range::Contains(double x) const { return (open_min ? x > min : x >= min) && (open_max ? x < max : x <= max); }

std::string Range::Describe() const {
  const bool low = std::isfinite(min);
  const bool high = std::isfinite(max);
  if (low && high && !open_min && !open_max) return fmt::format("{} … {}", min, max);
  std::string text;
  if (low) text = fmt::format("{} {}", open_min ? "above" : "at least", min);
  if (high) text += fmt::format("{}{} {}", low ? ", " : "", open_max ? "below" : "at most", max);
  return text;
}

const std::string& Flag::long_name() const {
  for (const std::string& name : names) {
    if (name.starts_with("--")) return name;
  }
  return names.front();
}

std::vector<std::string> Flag::environment_names() const {
  std::vector<std::string> result;
  for (const std::string& name : names) {
    if (!name.starts_with("--")) continue;
    std::string variable = "KVASIR_ARG_";
    for (char c : name.substr(2)) variable += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
    result.push_back(std::move(variable));
  }
  return result;
}

namespace internal {

Result<int64_t> ParseInt(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) {
    return InvalidArgument("\"{}\" is not a whole number", text);
  }
  if (error != std::errc() || value < min || value > max) {
    return InvalidArgument("{} is out of range ({} … {})", text, min, max);
  }
  return value;
}

Result<int64_t> ParseBytes(std::string_view text) {
  const auto wrong = [&] { return InvalidArgument("\"{}\" is no number of bytes, such as 800M, 1.5G or 2Gi", text); };
  double value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.begin(), last, value);
  if (error != std::errc() || !std::isfinite(value)) return wrong();
  std::string_view unit = text.substr(text.size() - static_cast<size_t>(last - end));
  if (unit.ends_with('B')) unit.remove_suffix(1);
  const bool binary = unit.ends_with('i');
  if (binary) unit.remove_suffix(1);
  constexpr std::string_view kUnits = "KMGT";
  if (unit.size() > 1 || (binary && unit.empty())) return wrong();
  if (!unit.empty()) {
    const size_t power = kUnits.find(unit == "k" ? 'K' : unit.front());
    if (power == kUnits.npos) return wrong();
    value *= std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  constexpr double kMost = 1e18;
  if (value < 1 || value > kMost) return InvalidArgument("{} is out of range (1 … 1000000T)", text);
  return static_cast<int64_t>(value);
}

Result<double> ParseNumber(std::string_view text, const Range& range) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::invalid_argument || end != text.data() + text.size() || std::isnan(value)) {
    return InvalidArgument("\"{}\" is not a number", text);
  }
  if (error != std::errc() || !std::isfinite(value) || !range.Contains(value)) {
    const std::string words = range.Describe();
    return InvalidArgument("{} is out of range ({})", text, words.empty() ? "any finite number" : words);
  }
  return value;
}

std::string ShowNumber(double value) {
  // The shortest form of the fp32 value is what was typed ("0.8" and not 0.800000011920929).
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{}", static_cast<float>(value));
}

}  // namespace internal

std::string FlagTable::IntRange(int64_t min, int64_t max) {
  if (max == std::numeric_limits<int64_t>::max() || max == std::numeric_limits<int32_t>::max()) {
    return fmt::format("at least {}", min);
  }
  return fmt::format("{} … {}", min, max);
}

Flag& FlagTable::Add(Flag flag) {
  flag.group = group_;
  flags_.push_back(std::move(flag));
  return flags_.back();
}

Flag& FlagTable::AddValue(std::string_view names, std::string_view placeholder, std::string range,
                          std::string_view help, std::string_view unset, std::function<Status(std::string_view)> set,
                          std::function<std::string()> show) {
  Flag flag;
  flag.names = Split(names);
  flag.placeholder = placeholder;
  flag.range = std::move(range);
  flag.help = help;
  flag.default_text = unset.empty() ? show() : std::string(unset);
  flag.set = std::move(set);
  flag.show = std::move(show);
  return Add(std::move(flag));
}

Flag& FlagTable::Text(std::string_view names, std::string_view placeholder, std::string* target, std::string_view help,
                      std::string_view unset) {
  return AddValue(
      names, placeholder, "", help, unset,
      [target](std::string_view text) {
        *target = text;
        return OkStatus();
      },
      [target] { return *target; });
}

Flag& FlagTable::Text(std::string_view names, std::string_view placeholder, std::optional<std::string>* target,
                      std::string_view help, std::string_view unset) {
  return AddValue(
      names, placeholder, "", help, unset,
      [target](std::string_view text) {
        *target = std::string(text);
        return OkStatus();
      },
      [target] { return target->value_or(""); });
}

Flag& FlagTable::Texts(std::string_view names, std::string_view placeholder, std::vector<std::string>* target,
                       std::string_view help, std::string_view unset) {
  Flag& flag = AddValue(
      names, placeholder, "", help, unset,
      [target](std::string_view text) {
        target->emplace_back(text);
        return OkStatus();
      },
      [target] {
        std::string all;
        for (const std::string& text : *target) all += (all.empty() ? "" : ", ") + text;
        return all;
      });
  flag.repeatable = true;
  return flag;
}

Flag& FlagTable::Bytes(std::string_view names, int64_t* target, std::string_view help, std::string_view unset) {
  return AddValue(
      names, "BYTES", "", help, unset,
      [target](std::string_view text) -> Status {
        ASSIGN_OR_RETURN(*target, internal::ParseBytes(text));
        return OkStatus();
      },
      [target] { return *target > 0 ? std::to_string(*target) : std::string(); });
}

Flag& FlagTable::Switch(std::string_view names, bool* target, std::string_view help, std::string_view negative) {
  Flag flag;
  flag.names = Split(names);
  flag.negative = negative;
  flag.help = help;
  flag.set = [target](std::string_view text) -> Status {
    ASSIGN_OR_RETURN(*target, ParseBool(text));
    return OkStatus();
  };
  flag.show = [target] { return std::string(*target ? "on" : "off"); };
  flag.default_text = *target ? "on" : "";
  return Add(std::move(flag));
}

Flag& FlagTable::Switch(std::string_view names, std::optional<bool>* target, std::string_view help,
                        std::string_view negative, std::string_view unset) {
  Flag flag;
  flag.names = Split(names);
  flag.negative = negative;
  flag.help = help;
  flag.set = [target](std::string_view text) -> Status {
    ASSIGN_OR_RETURN(*target, ParseBool(text));
    return OkStatus();
  };
  flag.show = [target] { return std::string(!*target ? "" : **target ? "on" : "off"); };
  flag.default_text = unset;
  return Add(std::move(flag));
}

const Flag* FlagTable::Find(std::string_view name) const {
  for (const Flag& flag : flags_) {
    for (const std::string& known : flag.names) {
      if (known == name || known == "--" + std::string(name) || known == "-" + std::string(name)) return &flag;
    }
  }
  return nullptr;
}

std::string FlagTable::Suggest(std::string_view name) const {
  std::vector<std::string> names;
  for (const Flag& flag : flags_) {
    for (const std::string& known : flag.names) {
      if (known.starts_with("--")) names.push_back(known);
    }
    if (!flag.negative.empty()) names.push_back(flag.negative);
  }
  std::string word(name);
  if (!word.starts_with("--")) word = (word.starts_with("-") ? "-" : "--") + word;
  const std::string* nearest = Nearest(word, names);
  return nearest ? fmt::format("; did you mean {}?", *nearest) : "";
}

std::string FlagTable::Help() const {
  std::string out;
  std::string group = "\n";  // differs from every title
  for (const Flag& flag : flags_) {
    if (flag.group != group) {
      group = flag.group;
      out += fmt::format("{}{}:\n", out.empty() ? "" : "\n", group);
    }
    std::string left = "  ";
    for (const std::string& name : flag.names) left += (left.size() > 2 ? ", " : "") + name;
    if (!flag.negative.empty()) left += ", " + flag.negative;
    if (!flag.placeholder.empty()) left += " " + flag.placeholder;
    out += left;
    if (Columns(left) + 2 > kHelpColumn) {
      out += "\n" + std::string(kHelpColumn, ' ');
    } else {
      out += std::string(kHelpColumn - Columns(left), ' ');
    }
    std::string details;
    if (!flag.default_text.empty()) details += "default: " + flag.default_text + "; ";
    if (!flag.range.empty()) details += flag.range + "; ";
    if (flag.repeatable) details += "may be repeated; ";
    details += std::string("env:") + kNoBreak + flag.environment_names().front();
    AppendWrapped(out, kHelpColumn, flag.help + " [" + details + "]");
    out += "\n";
  }
  return out;
}

const std::string* Nearest(std::string_view word, std::span<const std::string> candidates) {
  if (word.size() > 64) return nullptr;  // nobody's slip, and the distance takes time
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // A beginning of the word counts as one edit: --max-new is meant for --max-new-tokens.
    const bool prefix = word.size() >= 4 && candidate.starts_with(word);
    const size_t distance = prefix ? 1 : Distance(word, candidate);
    if (distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace kvasir::apps
