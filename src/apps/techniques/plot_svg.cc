#include "apps/techniques/plot_svg.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "apps/techniques/report.h"
#include "apps/terminal.h"

namespace kvasir::apps {
namespace {

// In the units of the viewBox, which are pixels where the page is wide enough.
constexpr double kWidth = 720;
constexpr double kLeft = 78;
constexpr double kRight = 24;
constexpr double kPlotHeight = 300;
constexpr double kBottom = 52;
constexpr double kTitleHeight = 30;
constexpr double kLegendLine = 20;
constexpr double kLetter = 6.6;  // about the width of one
constexpr double kBarStep = 34;
constexpr double kBarHeight = 20;
constexpr size_t kMostTicks = 8;

/// The class of a series' colour.
size_t ColorOf(const std::vector<Series>& series, size_t index) {
  return series[index].color >= 0 ? static_cast<size_t>(series[index].color) : index;
}

double LetterWidth(std::string_view text) {
  return kLetter * static_cast<double>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string ValueText(AxisUnit unit, double value) {
  if (unit == AxisUnit::kBytes) return HumanBytes(static_cast<int64_t>(value));
  if (unit == AxisUnit::kTokens && value >= 1024 && std::fmod(value, 1024) == 0) {
    return fmt::format("{:.0f}k", value / 1024);
  }
  // Four significant digits, never in scientific notation.
  const double magnitude = std::abs(value);
  if (magnitude >= 1000) return fmt::format("{:.0f}", value);
  const int decimals = magnitude >= 100 ? 1 : magnitude >= 10 ? 2 : 3;
  std::string text = fmt::format("{:.{}f}", value, decimals);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

std::vector<Tick> LinearTicks(const Axis& axis, double high) {
  if (high <= 0) high = 1;
  const double rough = high / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  }
  const auto count = static_cast<int>(std::ceil(high / step - 1e-9));
  std::vector<Tick> ticks;
  for (int i = 0; i <= count; ++i) ticks.push_back({i * step, ValueText(axis.unit, i * step)});
  return ticks;
}

/// Powers of two or of ten, so far apart that they are few.
std::vector<Tick> LogTicks(const Axis& axis, double low, double high) {
  const double base = axis.unit == AxisUnit::kNumber ? 10 : 2;
  const auto first = static_cast<int>(std::floor(std::log(low) / std::log(base) + 1e-9));
  const auto last = static_cast<int>(std::ceil(std::log(high) / std::log(base) - 1e-9));
  int step = 1;
  for (const int candidate : {1, 2, 5, 10, 20, 50, 100, 200, 500}) {
    step = candidate;
    if (static_cast<size_t>((last - first) / step) < kMostTicks) break;
  }
  // Powers of 1024 are among the ticks where they can be.
  const auto floor_to = [&](int exponent) {
    return static_cast<int>(std::floor(static_cast<double>(exponent) / step)) * step;
  };
  std::vector<Tick> ticks;
  for (int exponent = floor_to(first);; exponent += step) {
    const double value = std::pow(base, exponent);
    ticks.push_back({value, ValueText(axis.unit, value)});
    if (exponent >= last && ticks.size() > 1) return ticks;
  }
}

/// Maps an axis' values to pixels.
class Scale {
 public:
  Scale(const Axis& axis, const std::vector<Tick>& ticks, double from, double to)
      : log_(axis.log), from_(from), to_(to), low_(Of(ticks.front().value)), high_(Of(ticks.back().value)) {}
  double operator()(double value) const { return from_ + (to_ - from_) * (Of(value) - low_) / (high_ - low_); }

 private:
  double Of(double value) const { return log_ ? std::log(value) : value; }
  bool log_;
  double from_, to_, low_, high_;
};

std::string TextElement(double x, double y, std::string_view anchor, std::string_view text,
                        std::string_view more = {}) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     HtmlText(text));
}

std::string GridLine(double x1, double y1, double x2, double y2) {
  return fmt::format("<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x1, y1, x2,
                     y2);
}

/// A plot's elements, in a box of kWidth and its height.
struct Drawing {
  double height = 0;
  std::string elements;
};

std::string Title(const Plot& plot) { return TextElement(0, 16, "start", plot.title, " class=\"title\""); }

/// The series' names in lines from the y given on; moves y behind them.
std::string Legend(const std::vector<Series>& series, double* y) {
  constexpr double kSample = 26;
  std::string svg;
  double x = kLeft;
  for (size_t i = 0; i < series.size(); ++i) {
    const double width = kSample + 6 + LetterWidth(series[i].name) + 18;
    if (x > kLeft && x + width > kWidth) {
      x = kLeft;
      *y += kLegendLine;
    }
    svg += fmt::format("<line class=\"line{} s{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                       series[i].dashed ? " dashed" : "", ColorOf(series, i), x, *y - 4, x + kSample, *y - 4);
    svg += TextElement(x + kSample + 6, *y, "start", series[i].name);
    x += width;
  }
  *y += kLegendLine;
  return svg;
}

std::string LineOf(const Plot& plot, size_t index, const Scale& x, const Scale& y) {
  const Series& series = plot.series[index];
  const size_t color = ColorOf(plot.series, index);
  std::string points;
  std::string dots;
  for (const auto& [at, value] : series.points) {
    points += fmt::format("{}{:.1f},{:.1f}", points.empty() ? "" : " ", x(at), y(value));
    if (!series.dots) continue;
    dots += fmt::format(
        "<circle class=\"dot s{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"><title>{}</title></circle>\n", color, x(at),
        y(value),
        HtmlText(fmt::format("{}: {} at {}", series.name, ValueText(plot.y.unit, value), ValueText(plot.x.unit, at))));
  }
  return fmt::format("<polyline class=\"line{} s{}\" points=\"{}\"/>\n", series.dashed ? " dashed" : "", color,
                     points) +
         dots;
}

Drawing Lines(const Plot& plot) {
  double low_x = INFINITY, high_x = 0, low_y = INFINITY, high_y = 0;
  for (const Series& series : plot.series) {
    for (const auto& [at, value] : series.points) {
      low_x = std::min(low_x, at);
      high_x = std::max(high_x, at);
      low_y = std::min(low_y, value);
      high_y = std::max(high_y, value);
    }
  }
  if (low_x > high_x) return {};  // nothing to show
  double top = kTitleHeight + 14;
  const std::string legend = Legend(plot.series, &top);
  const double bottom = top + kPlotHeight;
  const std::vector<Tick> x_ticks = TicksOf(plot.x, low_x, high_x);
  const std::vector<Tick> y_ticks = TicksOf(plot.y, low_y, high_y);
  const Scale x(plot.x, x_ticks, kLeft, kWidth - kRight);
  const Scale y(plot.y, y_ticks, bottom, top);

  std::string svg = Title(plot) + legend;
  for (const Tick& tick : y_ticks) {
    svg += GridLine(kLeft, y(tick.value), kWidth - kRight, y(tick.value));
    svg += TextElement(kLeft - 8, y(tick.value) + 4, "end", tick.label);
  }
  for (const Tick& tick : x_ticks) {
    svg += GridLine(x(tick.value), top, x(tick.value), bottom);
    svg += TextElement(x(tick.value), bottom + 18, "middle", tick.label);
  }
  svg += TextElement((kLeft + kWidth - kRight) / 2, bottom + 42, "middle", plot.x.label);
  const double middle = (top + bottom) / 2;
  svg += TextElement(14, middle, "middle", plot.y.label, fmt::format(" transform=\"rotate(-90 14 {:.1f})\"", middle));
  for (size_t i = 0; i < plot.series.size(); ++i) svg += LineOf(plot, i, x, y);
  return {bottom + kBottom, std::move(svg)};
}

Drawing Bars(const Plot& plot) {
  double high = 0;
  double label_width = 0;
  double text_width = 0;
  for (const Bar& bar : plot.bars) {
    high = std::max(high, bar.value);
    label_width = std::max(label_width, LetterWidth(bar.label));
    text_width = std::max(text_width, LetterWidth(bar.text));
  }
  const double left = label_width + 14;
  const double top = kTitleHeight;
  const double bottom = top + kBarStep * static_cast<double>(plot.bars.size());
  const std::vector<Tick> ticks = TicksOf(plot.x, 0, high);
  // The text behind the longest bar fits on the page.
  const Scale x(plot.x, ticks, left, kWidth - kRight - text_width);
  std::string svg = Title(plot);
  for (const Tick& tick : ticks) {
    svg += GridLine(x(tick.value), top, x(tick.value), bottom);
    svg += TextElement(x(tick.value), bottom + 18, "middle", tick.label);
  }
  svg += TextElement((left + kWidth - kRight - text_width) / 2, bottom + 42, "middle", plot.x.label);
  double y = top + (kBarStep - kBarHeight) / 2;
  for (const Bar& bar : plot.bars) {
    svg += fmt::format("<rect class=\"bar s0\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\"/>\n", left,
                       y, std::max(x(bar.value) - left, 0.5), kBarHeight);
    svg += TextElement(left - 8, y + 14.5, "end", bar.label);
    svg += TextElement(x(bar.value) + 6, y + 14.5, "start", bar.text, " class=\"value\"");
    y += kBarStep;
  }
  return {bottom + kBottom, std::move(svg)};
}

Drawing Draw(const Plot& plot) { return plot.bars.empty() ? Lines(plot) : Bars(plot); }

// Of files that stand alone; a page has its own.
constexpr std::string_view kFileStyle = R"css(
text { font: 12px "DejaVu Sans", system-ui, sans-serif; fill: #5b6472; }
.title { font-size: 15px; font-weight: 600; fill: #1d2430; } .value { fill: #1d2430; }
.grid { stroke: #dde1e7; } .line { fill: none; stroke: var(--c); stroke-width: 2; }
.dashed { stroke-dasharray: 6 4; } .dot, .bar { fill: var(--c); }
.s0 { --c: #2563b8; } .s1 { --c: #c2410c; } .s2 { --c: #15803d; } .s3 { --c: #9333a8; } .s4 { --c: #8a6d00; }
)css";

}  // namespace

std::vector<Tick> TicksOf(const Axis& axis, double low, double high) {
  return axis.log ? LogTicks(axis, low, high) : LinearTicks(axis, high);
}

std::string PlotSvg(const Plot& plot) {
  const Drawing drawing = Draw(plot);
  if (drawing.elements.empty()) return {};
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n", kWidth,
                     drawing.height, HtmlText(plot.title), drawing.elements);
}

std::string PlotsSvgFile(std::span<const Plot> plots) {
  constexpr double kMargin = 20;
  std::string groups;
  double y = kMargin;
  for (const Plot& plot : plots) {
    const Drawing drawing = Draw(plot);
    if (drawing.elements.empty()) continue;
    groups += fmt::format("<g transform=\"translate({:.0f} {:.0f})\">\n{}</g>\n", kMargin, y, drawing.elements);
    y += drawing.height + kMargin;
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
      "{1:.0f}\">\n<style>{2}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{3}</svg>\n",
      kWidth + 2 * kMargin, y, kFileStyle, groups);
}

}  // namespace kvasir::apps
