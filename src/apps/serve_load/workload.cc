#include "apps/serve_load/workload.h"

#include <algorithm>
#include <cmath>

namespace kvasir::apps {
namespace {

constexpr uint64_t kFirstStream = uint64_t{1} << 32;  // of the seed: one for each request behind it

/// A whole number around the mean, each with the same probability.
int64_t Length(int64_t mean, double ratio, Random& random) {
  const auto low = static_cast<int64_t>(std::ceil(static_cast<double>(mean) * (1 - ratio)));
  const auto high = static_cast<int64_t>(std::floor(static_cast<double>(mean) * (1 + ratio)));
  const auto steps = static_cast<double>(std::max<int64_t>(0, high - low) + 1);
  return std::max<int64_t>(1, low + static_cast<int64_t>(random.Uniform() * steps));
}

}  // namespace

Workload::Workload(const WorkloadSettings& settings)
    : settings_(settings),
      arrivals_(settings.rate.value_or(Arrivals::kAllAtOnce), settings.burstiness, settings.seed) {}

std::optional<LoadRequest> Workload::Next() {
  const auto of_trace = settings_.trace != nullptr ? static_cast<int64_t>(settings_.trace->size()) : 0;
  int64_t count = settings_.requests;
  if (settings_.trace != nullptr) count = count > 0 ? std::min(count, of_trace) : of_trace;
  if ((count > 0 || settings_.trace != nullptr) && next_ >= count) return std::nullopt;

  LoadRequest request{.index = next_++};
  Random random(settings_.seed, kFirstStream + static_cast<uint64_t>(request.index));
  request.at_s = arrivals_.Next();
  if (settings_.trace != nullptr) {
    const TraceRequest& traced = (*settings_.trace)[static_cast<size_t>(request.index)];
    request.prompt_tokens = std::max<int64_t>(1, traced.context_tokens);
    request.answer_tokens = std::max<int64_t>(1, traced.generated_tokens);
    if (!settings_.rate) request.at_s = traced.at_s * settings_.time_scale;
  } else {
    request.prompt_tokens = Length(settings_.prompt_tokens, settings_.range_ratio, random);
    request.answer_tokens = Length(settings_.answer_tokens, settings_.range_ratio, random);
  }
  request.prompt_tokens += settings_.shared_prefix;
  if (random.Uniform() < settings_.hang_ups) {
    // At any moment: before the first piece, behind any, or behind the last one and before the end.
    request.hang_up_after = static_cast<int64_t>(random.Uniform() * static_cast<double>(request.answer_tokens + 1));
  }
  request.slow = random.Uniform() < settings_.slow_readers;
  return request;
}

}  // namespace kvasir::apps
