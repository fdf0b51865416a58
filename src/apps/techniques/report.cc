#include "apps/techniques/report.h"

#include <boost/json/array.hpp>

#include <algorithm>
#include <cmath>

#include "apps/report.h"
#include "apps/terminal.h"

namespace kvasir::apps {
namespace {

/// Columns of a UTF-8 text without wide characters.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

bool IsText(const Cell& cell) { return std::holds_alternative<std::string>(cell); }

/// Fills up to `width`, numbers from the left.
std::string Padded(const std::string& text, size_t width, bool left) {
  const std::string fill(width - std::min(width, Width(text)), ' ');
  return left ? text + fill : fill + text;
}

std::string Table(const Section& section) {
  std::vector<size_t> widths;
  for (size_t c = 0; c < section.columns.size(); ++c) {
    size_t width = Width(section.columns[c].title);
    for (const auto& row : section.rows) width = std::max(width, Width(CellText(section.columns[c], row[c])));
    widths.push_back(width);
  }
  std::string text;
  const auto line = [&](const auto& cell_of) {
    std::string row;
    for (size_t c = 0; c < widths.size(); ++c) {
      const bool left = !section.rows.empty() && IsText(section.rows.front()[c]);
      row += (c > 0 ? "  " : "") + Padded(cell_of(c), widths[c], left);
    }
    row.erase(row.find_last_not_of(' ') + 1);
    text += row + "\n";
  };
  line([&](size_t c) { return section.columns[c].title; });
  for (const auto& row : section.rows) line([&](size_t c) { return CellText(section.columns[c], row[c]); });
  return text;
}

std::string MarkdownTable(const Section& section) {
  std::string text = "|";
  for (const Column& column : section.columns) text += " " + column.title + " |";
  text += "\n|";
  for (size_t c = 0; c < section.columns.size(); ++c) {
    text += !section.rows.empty() && IsText(section.rows.front()[c]) ? "---|" : "--:|";
  }
  text += "\n";
  for (const auto& row : section.rows) {
    text += "|";
    for (size_t c = 0; c < row.size(); ++c) text += " " + CellText(section.columns[c], row[c]) + " |";
    text += "\n";
  }
  return text;
}

boost::json::value CellJson(const Cell& cell) {
  if (const auto* whole = std::get_if<int64_t>(&cell)) return *whole;
  if (const auto* number = std::get_if<double>(&cell)) return *number;
  if (const auto* text = std::get_if<std::string>(&cell)) return boost::json::string(*text);
  return nullptr;
}

boost::json::object PartJson(const TechniqueReport::Part& part) {
  boost::json::array ids;
  std::string_view rest = part.technique.ids;
  while (!rest.empty()) {
    const size_t space = std::min(rest.find(' '), rest.size());
    ids.emplace_back(rest.substr(0, space));
    rest.remove_prefix(std::min(space + 1, rest.size()));
  }
  boost::json::array rows;
  for (const auto& row : part.section.rows) {
    boost::json::object object;
    for (size_t c = 0; c < row.size(); ++c) object[part.section.columns[c].key] = CellJson(row[c]);
    rows.push_back(std::move(object));
  }
  return {{"name", part.technique.name},
          {"ids", std::move(ids)},
          {"title", part.technique.title},
          {"notes", boost::json::array(part.section.notes.begin(), part.section.notes.end())},
          {"rows", std::move(rows)}};
}

}  // namespace

std::string CellText(const Column& column, const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* whole = std::get_if<int64_t>(&cell))
    return column.bytes ? HumanBytes(*whole) : fmt::to_string(*whole);
  if (const auto* number = std::get_if<double>(&cell); number != nullptr && std::isfinite(*number)) {
    return fmt::format("{:.{}f}", *number / column.unit, column.decimals);
  }
  return "–";
}

std::string ReportText(const TechniqueReport& report, bool markdown) {
  std::string text;
  for (const auto& [technique, section] : report.parts) {
    text += fmt::format("{}{} ({})\n", markdown ? "## " : "", technique.title, technique.name);
    if (markdown) text += "\n";
    if (!section.columns.empty()) text += markdown ? MarkdownTable(section) + "\n" : Table(section);
    for (const std::string& note : section.notes) text += fmt::format("{}{}\n", markdown ? "- " : "  ", note);
    text += "\n";
  }
  text += fmt::format("{}; {}", report.machine, report.limits);
  if (!text.ends_with('\n')) text += '\n';
  if (report.quick) text += "--quick: everything is too small for the times to say anything\n";
  return text;
}

std::string ReportJson(const TechniqueReport& report) {
  boost::json::object object = report.setting;
  object["quick"] = report.quick;
  boost::json::array parts;
  for (const auto& part : report.parts) parts.push_back(PartJson(part));
  object["techniques"] = std::move(parts);
  return JsonLine(object);
}

}  // namespace kvasir::apps
