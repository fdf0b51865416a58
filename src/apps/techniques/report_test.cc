#include "apps/techniques/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include <cmath>

#include "apps/techniques/plot_svg.h"

namespace kvasir::apps {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kEvil = "<script>alert(\"&'\")</script>";

TechniqueReport SomeReport() {
  Section section;
  section.notes = {"a note with " + std::string(kEvil)};
  section.columns = {{.key = "kind", .title = "kind " + std::string(kEvil)},
                     {.key = "bytes", .title = "size", .bytes = true},
                     {.key = "seconds", .title = "ms", .unit = 1e-3, .decimals = 2}};
  section.rows = {{std::string(kEvil), int64_t{2048}, 0.0125}, {"größer", int64_t{7}, {}}, {"x", int64_t{0}, NAN}};
  section.plots = {{.title = std::string(kEvil),
                    .x = {.label = std::string(kEvil), .unit = AxisUnit::kTokens, .log = true},
                    .y = {.label = std::string(kEvil)},
                    .series = {{.name = std::string(kEvil), .points = {{1024, 1}, {2048, 3}}}},
                    .bars = {}},
                   {.title = "bars",
                    .x = {.label = "x"},
                    .y = {},
                    .series = {},
                    .bars = {{std::string(kEvil), 2, std::string(kEvil)}, {"nothing", 0, "0"}}}};
  TechniqueReport report{.machine = std::string(kEvil), .limits = "limits", .date = "2026-01-02"};
  report.setting = {{"threads", 2}};
  report.parts = {{AllTechniques().front(), section}};
  return report;
}

TEST(HtmlText, EscapesWhatMarkupIsMadeOf) {
  EXPECT_EQ(HtmlText("a < b & \"c\" > 'd'"), "a &lt; b &amp; &quot;c&quot; &gt; &#39;d&#39;");
  EXPECT_EQ(HtmlText("größer · T²\n\t"), "größer · T²\n\t");
  EXPECT_EQ(HtmlText(std::string_view("\0\x1b\x7f", 3)), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(HtmlText("\xc2\x85 \xff\xfe<"), "\xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd&lt;");
}

TEST(TechniqueReport, NoTextOfItsBecomesMarkup) {
  const std::string html = ReportHtml(SomeReport());
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("alert(\"")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(&quot;&amp;&#39;&quot;)&lt;/script&gt;"));
  EXPECT_THAT(html, HasSubstr("default-src 'none'; style-src 'sha256-"));
  // Nothing is fetched, and no element has a style of its own, which the policy would not allow.
  for (const char* word : {"http://", "https://", "url(", "src=", "@import", "style=\"", "javascript:"}) {
    EXPECT_THAT(html, Not(HasSubstr(word))) << word;
  }
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  EXPECT_THAT(html, HasSubstr("<td>12.50</td>"));
  EXPECT_THAT(html, HasSubstr("<td>2.0 KiB</td>"));
}

TEST(TechniqueReport, TablesLineUp) {
  const std::string text = ReportText(SomeReport(), false);
  EXPECT_THAT(text, HasSubstr("größer" + std::string(kEvil.size() + 5 - 6, ' ') + "      7 B      –\n")) << text;
  const std::string markdown = ReportText(SomeReport(), true);
  EXPECT_THAT(markdown, HasSubstr("|---|--:|--:|\n"));
  EXPECT_THAT(markdown, HasSubstr("| größer | 7 B | – |\n"));
}

TEST(TechniqueReport, JsonHasValuesAsTheyAre) {
  const boost::json::value json = boost::json::parse(ReportJson(SomeReport()));
  EXPECT_EQ(json.at("threads").as_int64(), 2);
  EXPECT_FALSE(json.at("quick").as_bool());
  const boost::json::value& part = json.at("techniques").as_array().at(0);
  EXPECT_EQ(part.at("name").as_string(), "attention-memory");
  EXPECT_EQ(part.at("ids").as_array().size(), 3u);
  EXPECT_EQ(part.at("rows").as_array().at(0).at("kind").as_string(), kEvil);
  EXPECT_EQ(part.at("rows").as_array().at(0).at("bytes").as_int64(), 2048);
  EXPECT_EQ(part.at("rows").as_array().at(0).at("seconds").as_double(), 0.0125);
  EXPECT_TRUE(part.at("rows").as_array().at(1).at("seconds").is_null());
  EXPECT_TRUE(part.at("rows").as_array().at(2).at("seconds").is_null());
}

TEST(Ticks, AreRoundAndReachAsFarAsTheValues) {
  const auto labels = [](const Axis& axis, double low, double high) {
    std::string all;
    for (const Tick& tick : TicksOf(axis, low, high)) all += (all.empty() ? "" : " ") + tick.label;
    return all;
  };
  EXPECT_EQ(labels({}, 0, 93), "0 20 40 60 80 100");
  EXPECT_EQ(labels({}, 3, 1.02), "0 0.5 1 1.5");
  EXPECT_EQ(labels({}, 0, 0), "0 0.2 0.4 0.6 0.8 1");
  EXPECT_EQ(labels({}, 0, 12000), "0 5000 10000 15000");
  EXPECT_EQ(labels({.unit = AxisUnit::kTokens, .log = true}, 1024, 65536), "1k 2k 4k 8k 16k 32k 64k");
  EXPECT_EQ(labels({.unit = AxisUnit::kTokens, .log = true}, 256, 256), "256 512");
  EXPECT_EQ(labels({.unit = AxisUnit::kBytes, .log = true}, 180000, 3.4e11),
            "32 KiB 1.0 MiB 32 MiB 1.0 GiB 32 GiB 1.0 TiB");
  EXPECT_EQ(labels({.log = true}, 0.5, 700), "0.1 1 10 100 1000");
  for (const bool log : {false, true}) {
    for (const double high : {1e-9, 1.0, 3.3e4, 1e18}) {
      const std::vector<Tick> ticks = TicksOf({.unit = AxisUnit::kBytes, .log = log}, high / 7, high);
      EXPECT_LE(ticks.front().value, high / 7);
      EXPECT_GE(ticks.back().value, high * (1 - 1e-9));
      EXPECT_GE(ticks.size(), 2u);
      EXPECT_LE(ticks.size(), 10u);
    }
  }
}

TEST(PlotSvg, OneDotForEveryPointAndOneBarForEveryValue) {
  const TechniqueReport report = SomeReport();
  const auto count = [](const std::string& svg, std::string_view word) {
    size_t n = 0;
    for (size_t at = svg.find(word); at != svg.npos; at = svg.find(word, at + 1)) ++n;
    return n;
  };
  const std::string lines = PlotSvg(report.parts[0].section.plots[0]);
  EXPECT_EQ(count(lines, "<circle"), 2u);
  EXPECT_EQ(count(lines, "<polyline"), 1u);
  EXPECT_THAT(lines, HasSubstr(": 3 at 2k</title>"));
  EXPECT_EQ(count(PlotSvg(report.parts[0].section.plots[1]), "<rect"), 2u);
  EXPECT_EQ(PlotSvg({.title = "t", .x = {}, .y = {}, .series = {{.name = "empty", .points = {}}}, .bars = {}}), "");
}

TEST(ChooseTechniques, ByIdAndByName) {
  const auto names = [](std::string_view list) {
    const auto chosen = ChooseTechniques(list);
    EXPECT_TRUE(chosen.ok()) << chosen.status().message();
    std::string all;
    if (!chosen.ok()) return all;
    for (const Technique& t : *chosen) all += (all.empty() ? "" : " ") + std::string(t.name);
    return all;
  };
  EXPECT_EQ(ChooseTechniques("")->size(), AllTechniques().size());
  EXPECT_EQ(names("A2"), "attention-memory attention-speed");
  EXPECT_EQ(names("K7,A4"), "cache-waste kv-types");
  EXPECT_EQ(names("kv-types,K7"), "kv-types");
  for (const char* wrong : {"A", "A22", "a2", "A2,", ",", "A1 A2", "attention"}) {
    const auto chosen = ChooseTechniques(wrong);
    ASSERT_FALSE(chosen.ok()) << wrong;
    EXPECT_THAT(chosen.status().message(), HasSubstr("attention-memory (A1 A2 N5)"));
  }
}

TEST(PlotsSvgFile, StandsAlone) {
  Section section = SomeReport().parts.front().section;
  section.plots.front().series.front().dots = false;
  const std::string svg = PlotsSvgFile(section.plots);
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\"")) << svg;
  EXPECT_THAT(svg, HasSubstr("<style>"));
  EXPECT_THAT(svg, HasSubstr("<polyline"));
  EXPECT_THAT(svg, HasSubstr("class=\"bar s0\""));
  EXPECT_THAT(svg, Not(HasSubstr("<circle")));
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  // A plot of nothing takes no room.
  section.plots.emplace_back();
  EXPECT_EQ(PlotsSvgFile(section.plots), svg);
}

}  // namespace
}  // namespace kvasir::apps
