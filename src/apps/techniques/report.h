// The forms of `kvasir bench techniques`: tables, JSON, and a page that stands alone.
#pragma once

#include <boost/json/object.hpp>

#include <string>
#include <vector>

#include "apps/techniques/technique.h"

namespace kvasir::apps {

/// What was measured where.
struct TechniqueReport {
  struct Part {
    Technique technique;
    Section section;
  };
  std::string machine;  // "AMD EPYC, 2 threads, avx512"
  std::string limits;   // best ones measured, in words
  std::string date;     // "2026-11-22"
  bool quick = false;
  boost::json::object setting;  // of JSON: threads, kernels, limits
  std::vector<Part> parts;
};

/// Tables for terminals or, with `markdown`, for documents.
std::string ReportText(const TechniqueReport& report, bool markdown);

/// One line: the setting's members, and "techniques": [{name, ids, title, notes, rows}], each row an object with the
/// columns' keys.
std::string ReportJson(const TechniqueReport& report);

/// A whole HTML page with plots as SVG: no script, no request to anywhere, light or dark as the reader has it. Its
/// Content-Security-Policy allows one style sheet, by its hash, and nothing else.
std::string ReportHtml(const TechniqueReport& report);

/// Text for HTML, inside elements and quoted attributes: & < > " ' as entities, other control characters than newline
/// and tab and bytes that are not UTF-8 replaced by U+FFFD.
std::string HtmlText(std::string_view text);

}  // namespace kvasir::apps
