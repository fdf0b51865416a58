#include "apps/quantize_report.h"

#include <algorithm>
#include <cmath>

#include "apps/terminal.h"
#include "base/status.h"

namespace kvasir::apps {
namespace {

std::string TypesText(const QuantizeFigures& figures) {
  std::string text;
  for (const auto& [type, count] : figures.types) {
    text += fmt::format("{}{}", text.empty() ? "" : ", ", DTypeName(type));
    if (figures.types.size() > 1) text += fmt::format(" ×{}", count);
  }
  return text;
}

json::object FiguresJson(const QuantizeFigures& figures) {
  json::object types;
  for (const auto& [type, count] : figures.types) types[DTypeName(type)] = count;
  return {{"tensors", figures.tensors},
          {"weights", figures.elements},
          {"types", std::move(types)},
          {"bytes_before", figures.bytes_before},
          {"bytes_after", figures.bytes_after},
          {"bits_per_weight", figures.BitsPerWeight()},
          {"relative_rmse", figures.RelativeRmse()}};
}

std::string Line(std::string_view kind, const QuantizeFigures& figures, size_t width) {
  return fmt::format("{:<{}}  {:>5}  {:>10}  {:>10}  {:>6.3f}  {:>9.6f}  {}\n", kind, width, figures.tensors,
                     HumanBytes(figures.bytes_before), HumanBytes(figures.bytes_after), figures.BitsPerWeight(),
                     figures.RelativeRmse(), TypesText(figures));
}

}  // namespace

void QuantizeFigures::Add(const QuantizeFigures& other) {
  tensors += other.tensors;
  elements += other.elements;
  bytes_before += other.bytes_before;
  bytes_after += other.bytes_after;
  error += other.error;
  power += other.power;
  for (const auto& [type, count] : other.types) types[type] += count;
}

double QuantizeFigures::BitsPerWeight() const {
  return elements > 0 ? 8.0 * static_cast<double>(bytes_after) / static_cast<double>(elements) : 0.0;
}

double QuantizeFigures::RelativeRmse() const { return power > 0.0 ? std::sqrt(error / power) : 0.0; }

void QuantizeReport::Add(const std::string& kind, const QuantizeFigures& figures) {
  const auto at = std::ranges::find(kinds_, kind, &std::pair<std::string, QuantizeFigures>::first);
  if (at == kinds_.end()) {
    kinds_.emplace_back(kind, figures);
  } else {
    at->second.Add(figures);
  }
}

QuantizeFigures QuantizeReport::Total() const {
  QuantizeFigures total;
  for (const auto& [kind, figures] : kinds_) total.Add(figures);
  return total;
}

std::string QuantizeReport::Table() const {
  size_t width = 6;
  for (const auto& [kind, figures] : kinds_) width = std::max(width, kind.size());
  std::string text = fmt::format("{:<{}}  {:>5}  {:>10}  {:>10}  {:>6}  {:>9}  types\n", "tensor", width, "count",
                                 "before", "after", "bits", "rel. rmse");
  for (const auto& [kind, figures] : kinds_) text += Line(kind, figures, width);
  return text + Line("in all", Total(), width);
}

json::object QuantizeReport::Json() const {
  json::object kinds;
  for (const auto& [kind, figures] : kinds_) kinds[kind] = FiguresJson(figures);
  json::object total = FiguresJson(Total());
  total["kinds"] = std::move(kinds);
  return total;
}

}  // namespace kvasir::apps
