#include "apps/bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include <boost/json/array.hpp>

#include "apps/report.h"
#include "apps/terminal.h"
#include "base/checked.h"
#include "base/limits.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"
#include "kernels/quant_pack.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kCols = 2048;
constexpr int64_t kStreamedBytes = int64_t{256} << 20;  // of weights, where reading them is the limit
constexpr int64_t kComputedRows = 5632;                 // where computing is
constexpr int64_t kManyTokens = 64;

/// Products of one weight format with so many tokens.
struct KernelResult {
  std::string format;
  int64_t tokens = 0;
  double bytes_per_s = 0;  // of packed weights read; medians
  double ops_per_s = 0;    // multiplications and additions
  std::string limit;       // "bandwidth", "int8", "bf16" or "fp32": the one that binds
  double percent = 0;      // of it, median
};

/// As in GGUF, e.g. "q4_k".
std::string FormatName(WeightFormat format) {
  if (const auto type = BlockTypeOf(format)) return std::string(DTypeName(*type));
  return format == WeightFormat::kF32 ? "f32" : format == WeightFormat::kF16 ? "f16" : "bf16";
}

struct Case {
  WeightFormat format;
  int64_t tokens;
};

class KernelBench {
 public:
  KernelBench(ExecContext& ctx, CeilingMeter& meter, int32_t repetitions)
      : ctx_(ctx), meter_(meter), repetitions_(repetitions) {}

  Result<KernelResult> Run(const Case& test) {
    const PackedWeight one_panel{.format = test.format, .rows = kPanelRows, .cols = kCols};
    PackedWeight w = one_panel;
    w.rows = test.tokens >= kManyTokens ? kComputedRows : kStreamedBytes / one_panel.bytes() * kPanelRows;
    ASSIGN_OR_RETURN(const Buffer weights, Buffer::Allocate(w.bytes(), MemoryOwner::kWeights));
    // Every byte the same: fp16, bf16 and fp32 of these bits are small normal numbers, and so are the products.
    constexpr int kByte = 0x22;
    ctx_.pool->ParallelFor(w.bytes(), int64_t{1} << 20, [&](int64_t begin, int64_t end, int) {
      std::memset(const_cast<std::byte*>(weights.data()) + begin, kByte, static_cast<size_t>(end - begin));
    });
    w.data = weights.data();
    std::vector<float> x(static_cast<size_t>(test.tokens * kCols));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) / 2 - 4.0f;
    std::vector<float> y(static_cast<size_t>(test.tokens * w.rows));
    const MatView<const float> in(x.data(), test.tokens, kCols);
    const MatView<float> out(y.data(), test.tokens, w.rows);

    RETURN_IF_ERROR(MatMul(ctx_, in, w, {}, out));
    const double bytes = static_cast<double>(w.bytes());
    const double ops = 2.0 * static_cast<double>(test.tokens * w.rows * kCols);
    const auto type = BlockTypeOf(test.format);
    KernelResult result{.format = FormatName(test.format), .tokens = test.tokens};
    std::vector<double> seconds;
    std::vector<double> shares;
    Ceilings before = meter_.Now();
    for (int32_t i = 0; i < repetitions_; ++i) {
      const auto start = std::chrono::steady_clock::now();
      RETURN_IF_ERROR(MatMul(ctx_, in, w, {}, out));
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      const Ceilings after = meter_.Now();
      const auto mean = [&](double Ceilings::* limit) { return (before.*limit + after.*limit) / 2; };
      const double peak = PeakOf(test.format, type.has_value(), mean);
      const double reading = bytes / mean(&Ceilings::read_bytes_per_s);
      const double computing = ops / peak;
      result.limit = reading >= computing ? "bandwidth" : peak_name_;
      shares.push_back(100 * std::max(reading, computing) / seconds.back());
      before = after;
    }
    result.bytes_per_s = bytes / Median(seconds);
    result.ops_per_s = ops / Median(seconds);
    result.percent = Median(shares);
    return result;
  }

 private:
  template <class Fn>
  double PeakOf(WeightFormat format, bool blocks, const Fn& mean) {
    if (blocks && mean(&Ceilings::int8_ops) > 0) {
      peak_name_ = "int8";
      return mean(&Ceilings::int8_ops);
    }
    if (format == WeightFormat::kBF16) {
      peak_name_ = "bf16";
      return mean(&Ceilings::bf16_flops);
    }
    peak_name_ = "fp32";
    return mean(&Ceilings::fp32_flops);
  }

  ExecContext& ctx_;
  CeilingMeter& meter_;
  int32_t repetitions_;
  std::string peak_name_;
};

Result<std::vector<WeightFormat>> ParseFormats(std::string_view text) {
  std::vector<WeightFormat> all;
  std::vector<std::string> names;
  for (int f = 0; f < kWeightFormats; ++f) {
    all.push_back(static_cast<WeightFormat>(f));
    names.push_back(FormatName(all.back()));
  }
  if (text.empty()) return all;
  std::vector<WeightFormat> formats;
  while (true) {
    const size_t comma = std::min(text.find(','), text.size());
    const auto at = std::ranges::find(names, text.substr(0, comma));
    if (at == names.end()) {
      return InvalidArgument("--formats: \"{}\" is none of {}", text.substr(0, comma), fmt::join(names, ", "));
    }
    formats.push_back(all[static_cast<size_t>(at - names.begin())]);
    if (comma == text.size()) return formats;
    text.remove_prefix(comma + 1);
  }
}

std::string Json(const std::vector<KernelResult>& results, int threads, const KernelSet& set) {
  boost::json::array array;
  for (const KernelResult& r : results) {
    array.push_back(boost::json::object{{"format", r.format},
                                        {"tokens", r.tokens},
                                        {"threads", threads},
                                        {"kernels", KernelSetName(set)},
                                        {"bytes_per_s", r.bytes_per_s},
                                        {"ops_per_s", r.ops_per_s},
                                        {"limit", r.limit},
                                        {"pct_of_limit", r.percent}});
  }
  return JsonLine(array);
}

std::string Table(const std::vector<KernelResult>& results, bool md) {
  std::string text;
  const auto line = [&](auto... cells) {
    text += md ? fmt::format("| {} | {} | {} | {} | {} |\n", cells...)
               : fmt::format("{:<8} {:>6} {:>8} {:>8}   {}\n", cells...);
  };
  line("weights", "tokens", "GB/s", "GOP/s", "of the limit");
  if (md) line("---", "--:", "--:", "--:", "---");
  for (const KernelResult& r : results) {
    line(r.format, r.tokens, fmt::format("{:.1f}", r.bytes_per_s / 1e9), fmt::format("{:.0f}", r.ops_per_s / 1e9),
         fmt::format("{:.1f} % of {}", r.percent, r.limit));
  }
  return text;
}

}  // namespace

Status RunKernelBench(const KernelBenchOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<WeightFormat> formats, ParseFormats(options.formats));
  ThreadPool pool(options.threads > 0 ? options.threads : AvailableProcessors());
  Arena arena;
  ExecContext ctx{.pool = &pool, .scratch = &arena, .round_weights = options.round_weights};
  ASSIGN_OR_RETURN(ctx.kernels, SelectKernelSet());
  ASSIGN_OR_RETURN(CeilingMeter meter, CeilingMeter::Create(pool, *ctx.kernels, {.seconds_again = 0.02}));
  const Ceilings best = meter.Best();
  KernelBench bench(ctx, meter, options.repetitions);
  std::vector<KernelResult> results;
  for (WeightFormat format : formats) {
    for (int64_t tokens : options.tokens) {
      ASSIGN_OR_RETURN(KernelResult result, bench.Run({format, tokens}));
      results.push_back(std::move(result));
    }
  }
  if (options.form == ReportForm::kJson) return WriteStdout(Json(results, pool.size(), *ctx.kernels));
  const bool md = options.form == ReportForm::kMarkdown;
  return WriteText(Table(results, md) + (md ? "\n" : "") + LimitsText(best, pool.size(), *ctx.kernels));
}

}  // namespace kvasir::apps
