// The page of a report. Nothing in it runs or is fetched.
#include <algorithm>

#include "apps/techniques/plot_svg.h"
#include "apps/techniques/report.h"
#include "base/utf8.h"

namespace kvasir::apps {
namespace {

// The page's policy allows this style sheet by its SHA-256 (the test of the command line computes it anew):
//   printf %s "$text" | openssl dgst -sha256 -binary | base64
constexpr std::string_view kStyleHash = "Hz6PefpYya0gbpAJl/NbsqpyksWfWDjzSTwSbewaMY0=";
constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --text: #1d2430; --dim: #5b6472; --page: #ffffff; --card: #f6f7f9; --rule: #dde1e7;
  --s0: #2563b8; --s1: #c2410c; --s2: #15803d; --s3: #9333a8; --s4: #8a6d00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --dim: #a3acb9; --page: #14181e; --card: #1c222a; --rule: #343c48;
    --s0: #6ea8f5; --s1: #f59056; --s2: #5cc98a; --s3: #d48be6; --s4: #d9bd4f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
p, li { color: var(--dim); max-width: 46rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--s0); }
.ids { color: var(--dim); font-weight: normal; font-size: .9rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; border-bottom-width: 2px; }
th.word, td.word { text-align: left; }
.table table { min-width: 40rem; }
figure { overflow-x: auto; margin: 1rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; max-width: 45rem; margin: 0 auto; }
svg text { fill: var(--dim); font-size: 12px; }
svg .title { fill: var(--text); font-size: 15px; font-weight: 600; }
svg .value { fill: var(--text); }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2; }
.dashed { stroke-dasharray: 6 4; }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); } .s4 { --c: var(--s4); }
.line { stroke: var(--c); } .dot, .bar { fill: var(--c); }
)css";

std::string HtmlTable(const Section& section) {
  const auto word = [&](size_t c) {
    return !section.rows.empty() && std::holds_alternative<std::string>(section.rows.front()[c]) ? " class=\"word\""
                                                                                                 : "";
  };
  std::string html = "<div class=\"table\"><table>\n<tr>";
  for (size_t c = 0; c < section.columns.size(); ++c) {
    html += fmt::format("<th{}>{}</th>", word(c), HtmlText(section.columns[c].title));
  }
  html += "</tr>\n";
  for (const auto& row : section.rows) {
    html += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) {
      html += fmt::format("<td{}>{}</td>", word(c), HtmlText(CellText(section.columns[c], row[c])));
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

std::string HtmlSection(const TechniqueReport::Part& part) {
  const auto& [technique, section] = part;
  std::string html = fmt::format("<section id=\"{}\">\n<h2>{} <span class=\"ids\">{}</span></h2>\n",
                                 HtmlText(technique.name), HtmlText(technique.title), HtmlText(technique.ids));
  for (const Plot& plot : section.plots) html += "<figure>\n" + PlotSvg(plot) + "</figure>\n";
  if (!section.columns.empty()) html += HtmlTable(section);
  html += "<ul>\n";
  for (const std::string& note : section.notes) html += "<li>" + HtmlText(note) + "</li>\n";
  return html + "</ul>\n</section>\n";
}

}  // namespace

std::string HtmlText(std::string_view text) {
  std::string html;
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    switch (unit.code_point) {
      case '&': html += "&amp;"; break;
      case '<': html += "&lt;"; break;
      case '>': html += "&gt;"; break;
      case '"': html += "&quot;"; break;
      case '\'': html += "&#39;"; break;
      default: {
        const bool control = (unit.code_point < 0x20 && unit.code_point != '\n' && unit.code_point != '\t') ||
                             (unit.code_point >= 0x7f && unit.code_point < 0xa0);
        if (control || !unit.valid) {
          html += "\xef\xbf\xbd";
        } else {
          html += text.substr(i, unit.length);
        }
      }
    }
    i += unit.length;
  }
  return html;
}

std::string ReportHtml(const TechniqueReport& report) {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{}'; "
      "base-uri 'none'; form-action 'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>kvasir: techniques measured</title>\n<style>{}</style>\n</head>\n<body>\n"
      "<h1>Techniques of attention and KV caches, measured</h1>\n<p>{}, {}; {}.</p>\n",
      kStyleHash, kStyle, HtmlText(report.date), HtmlText(report.machine), HtmlText(report.limits));
  if (report.quick) html += "<p>A quick run: everything is too small for the times to say anything.</p>\n";
  html += "<nav>\n";
  for (const auto& part : report.parts) {
    html += fmt::format("<a href=\"#{0}\">{0}</a>\n", HtmlText(part.technique.name));
  }
  html += "</nav>\n";
  for (const auto& part : report.parts) html += HtmlSection(part);
  return html + "</body>\n</html>\n";
}

}  // namespace kvasir::apps
