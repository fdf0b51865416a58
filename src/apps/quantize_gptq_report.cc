// GPTQ's flags, and how its work is reported.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <cmath>

#include "apps/quantize_gptq.h"
#include "apps/report.h"
#include "apps/terminal.h"

namespace kvasir::apps {
namespace {

namespace json = boost::json;

double Bits(const GptqEntry& entry) {
  return 8.0 * static_cast<double>(entry.bytes_after) / static_cast<double>(entry.rows * entry.cols);
}

}  // namespace

void GptqFlags::Add(FlagTable& flags) {
  flags.Group("GPTQ (--method gptq)");
  flags.Int("--bits", "N", &gptq.bits, 2, 8, "Bits of a weight: 2, 3, 4 or 8.");
  flags.Int("--group-size", "N", &gptq.group_size, -1, 65'536, "Inputs that share a scale; -1: all of a row.");
  flags.Switch("--sym", &gptq.symmetric, "The zero point is the middle code.");
  flags.Switch("--act-order", &gptq.act_order, "Inputs of the greatest power first (desc_act).");
  flags.Switch("--mse", &gptq.search_grid, "Search each group's grid for the least error; slow.");
  flags.Number("--damp", "X", &gptq.damping, {.min = 0, .max = 1}, "Added to the Hessian's diagonal, times its mean.");
  flags.Int("--samples", "N", &samples, 1, 1 << 20, "Samples cut from the calibration text.");
  flags.Int("--sample-length", "N", &sample_length, 1, 1 << 20, "Tokens of a sample.",
            "the model's context, at most 2048");
  flags.Switch("--aim-at-originals", &aim_at_originals,
               "Each matrix makes up for what those before it have lost; twice the time and memory.",
               "--no-aim-at-originals");
  flags.Switch("--nearest", &nearest, "Round to nearest on the same grids; needs no calibration text.");
  flags.Switch("--gptq-v2", &version_2, "Store zero points as they are (checkpoint_format gptq_v2), not less one.");
  flags.Choice("--dequantize", &dequantize, {{"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}},
               "Write the quantised values as plain tensors of this type.", "GPTQ's tensors");
}

Status GptqFlags::Validate() const {
  if (samples < 1) return InvalidArgument("--samples {}: give at least 1", samples);
  if (sample_length && *sample_length < 1)
    return InvalidArgument("--sample-length {}: give at least 1", *sample_length);
  return gptq.Validate();
}

std::string GptqTable(const GptqReport& report) {
  size_t widest = 6;
  for (const GptqEntry& entry : report.matrices) widest = std::max(widest, entry.tensor.size());
  std::string text = fmt::format("{:<{}}  {:>13}  {:>10}  {:>10}  {:>6}  {:>9}\n", "tensor", widest, "outputs x in",
                                 "nearest", "gptq", "bits", "size");
  double before = 0;
  double after = 0;
  for (const GptqEntry& entry : report.matrices) {
    const bool known = entry.tokens > 0;
    text += fmt::format(
        "{:<{}}  {:>13}  {:>10}  {:>10}  {:>6.2f}  {:>9}\n", entry.tensor, widest,
        fmt::format("{} x {}", entry.rows, entry.cols), known ? fmt::format("{:.5f}", entry.error_before) : "-",
        known ? fmt::format("{:.5f}", entry.error_after) : "-", Bits(entry), HumanBytes(entry.bytes_after));
    before += entry.error_before * entry.error_before;
    after += entry.error_after * entry.error_after;
  }
  if (report.samples > 0) {
    const double n = static_cast<double>(report.matrices.size());
    text += fmt::format("relative error of the outputs on {} samples of {} tokens, root mean square: {:.5f} → {:.5f}\n",
                        report.samples, report.sample_length, std::sqrt(before / n), std::sqrt(after / n));
  }
  text += fmt::format("{} → {} in {:.1f} s; {} matrices quantised, {} kept\n", HumanBytes(report.bytes_before),
                      HumanBytes(report.bytes_after), report.seconds, report.matrices.size(), report.kept.size());
  return text;
}

std::string GptqJson(const GptqReport& report, const std::filesystem::path& folder) {
  json::array matrices;
  for (const GptqEntry& entry : report.matrices) {
    json::object object{{"tensor", entry.tensor},
                        {"rows", entry.rows},
                        {"cols", entry.cols},
                        {"bytes_before", entry.bytes_before},
                        {"bytes_after", entry.bytes_after}};
    if (entry.tokens > 0) {
      object["tokens"] = entry.tokens;
      object["dead_inputs"] = entry.dead;
      object["damping"] = entry.damping;
      object["error_nearest"] = entry.error_before;
      object["error"] = entry.error_after;
    }
    matrices.push_back(std::move(object));
  }
  json::array kept;
  for (const std::string& name : report.kept) kept.emplace_back(name);
  return JsonLine(json::object{{"folder", folder.string()},
                               {"samples", report.samples},
                               {"sample_length", report.sample_length},
                               {"bytes_before", report.bytes_before},
                               {"bytes_after", report.bytes_after},
                               {"seconds", report.seconds},
                               {"matrices", std::move(matrices)},
                               {"kept", std::move(kept)}});
}

}  // namespace kvasir::apps
