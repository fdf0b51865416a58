// What a technique's measurement hands to the report: a table, remarks and plots, without any form.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace kvasir::apps {

/// Nothing is shown as a dash, and null in JSON.
using Cell = std::variant<std::monostate, int64_t, double, std::string>;

/// JSON has a cell's value as it is; tables show `value / unit` with so many decimals, or bytes as people read them.
struct Column {
  std::string key;    // in JSON, with the value's unit in it: "scratch_bytes"
  std::string title;  // in tables, with the unit that is shown
  double unit = 1;
  int decimals = 0;  // of a double; whole numbers have none
  bool bytes = false;
};

enum class AxisUnit { kNumber, kTokens, kBytes };

struct Axis {
  std::string label;
  AxisUnit unit = AxisUnit::kNumber;
  bool log = false;
};

/// A line through points (x, y) in ascending x; on a logarithmic axis all of them are above 0.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
  bool dashed = false;  // computed, not measured
  int32_t color = -1;   // of the series of this index; -1: its own
  bool dots = true;     // at every point, with its figures as a tooltip; without: for curves of very many points
};

struct Bar {
  std::string label;
  double value = 0;  // 0 and more
  std::string text;  // shown behind the bar
};

/// Lines over two axes, or bars with x as the axis of their values.
struct Plot {
  std::string title;
  Axis x;
  Axis y;
  std::vector<Series> series;
  std::vector<Bar> bars;
};

struct Section {
  std::vector<std::string> notes;  // sentences: what was measured and how, what was published
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;  // each with a cell for every column
  std::vector<Plot> plots;
};

/// A cell as tables show it.
std::string CellText(const Column& column, const Cell& cell);

}  // namespace kvasir::apps
