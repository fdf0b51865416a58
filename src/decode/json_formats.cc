// The formats of JSON Schema as patterns.
#include <string>
#include <utility>
#include <vector>

#include "decode/json_pattern.h"

namespace kvasir {
namespace {

using Formats = std::vector<std::pair<std::string_view, std::string>>;

// RFC 3339, with the months' lengths and leap years; without leap seconds, which are few.
std::string Date() {
  const std::string year = "[1-9]\\d{3}";
  const std::string leap_year = "(?:[1-9]\\d(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)";
  return "(?:" + year + "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|" +
         "02-(?:0[1-9]|1\\d|2[0-8]))|" + leap_year + "-02-29)";
}
std::string Time() {
  const std::string minutes = "(?:[01]\\d|2[0-3]):[0-5]\\d";
  return minutes + ":[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-]" + minutes + ")";
}

// RFC 3339, appendix A, with numbers of up to nine digits.
std::string Duration() {
  const std::string number = "\\d{1,9}";
  const std::string second = number + "S";
  const std::string minute = number + "M(?:" + second + ")?";
  const std::string hour = number + "H(?:" + minute + ")?";
  const std::string time = "T(?:" + hour + "|" + minute + "|" + second + ")";
  const std::string day = number + "D";
  const std::string month = number + "M(?:" + day + ")?";
  const std::string year = number + "Y(?:" + month + ")?";
  const std::string date = "(?:" + year + "|" + month + "|" + day + ")(?:" + time + ")?";
  return "P(?:" + date + "|" + time + "|" + number + "W)";
}

// RFC 1123: at most 253 characters.
std::string Hostname() {
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,28}[A-Za-z0-9])?";
  return label + "(?:\\." + label + "){0,7}";
}

// RFC 5321's Dot-string.
std::string Email() {
  const std::string word = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";
  return word + "(?:\\." + word + "){0,2}@" + Hostname();
}

std::string Ipv4() {
  const std::string octet = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  return octet + "(?:\\." + octet + "){3}";
}

// RFC 4291, section 2.2, forms 1 and 2: eight groups, or at most seven around "::".
std::string Ipv6() {
  const std::string group = "[0-9A-Fa-f]{1,4}";
  std::string all = fmt::format("(?:{0}:){{7}}{0}|(?:{0}:){{6}}{0}::", group);
  for (int before = 0; before <= 6; ++before) {
    const std::string left = before == 0 ? "" : fmt::format("(?:{0}:){{{1}}}{0}", group, before - 1);
    all += fmt::format("|{1}::(?:{0}(?::{0}){{0,{2}}})?", group, left, 6 - before);
  }
  return all;
}

const Formats& All() {
  static const Formats kFormats = [] {
    const std::string hex = "[0-9A-Fa-f]";
    const std::vector<std::pair<std::string_view, std::string>> texts = {
        {"date-time", Date() + "T" + Time()},
        {"time", Time()},
        {"date", Date()},
        {"duration", Duration()},
        {"email", Email()},
        {"hostname", Hostname()},
        {"ipv4", Ipv4()},
        {"ipv6", Ipv6()},
        {"uuid", hex + "{8}(?:-" + hex + "{4}){3}-" + hex + "{12}"}};
    Formats formats;
    for (const auto& [name, text] : texts) formats.emplace_back(name, "^(?:" + text + ")$");
    return formats;
  }();
  return kFormats;
}

}  // namespace

std::string_view JsonFormatPattern(std::string_view format) {
  for (const auto& [name, pattern] : All()) {
    if (name == format) return pattern;
  }
  return {};
}

std::string_view JsonFormatNames() { return "date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid"; }

}  // namespace kvasir
