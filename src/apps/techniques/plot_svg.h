// Plots as SVG, for pages without scripts.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "apps/techniques/section.h"

namespace kvasir::apps {

/// An <svg> element; every text in it is escaped. Looks come from the page's style sheet, by classes: s0, s1, … for
/// series, "grid", "axis", "line", "dashed", "dot", "bar". Every dot has its figures as a tooltip.
std::string PlotSvg(const Plot& plot);

/// An SVG file with the plots below each other, which has its looks in itself.
std::string PlotsSvgFile(std::span<const Plot> plots);

struct Tick {
  double value = 0;
  std::string label;
};
/// Round values from below `low` to above `high`, from the first to the last: the axis' ends. At most about eight. A
/// linear axis begins at 0. REQUIRES: 0 <= low <= high, finite; on a logarithmic axis 0 < low.
std::vector<Tick> TicksOf(const Axis& axis, double low, double high);

}  // namespace kvasir::apps
