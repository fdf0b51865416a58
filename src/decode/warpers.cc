#include "decode/warpers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "decode/softmax.h"

namespace kvasir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kTie = 1e-7;

// A candidate as one warper ranks it: smaller keys are better, of equal ones the higher id.
struct Ranked {
  double key;
  double weight;
  TokenId id;
};
bool operator<(const Ranked& a, const Ranked& b) { return a.key != b.key ? a.key < b.key : a.id > b.id; }

double SumOf(std::span<const Candidate> candidates) {
  double sum = 0.0;
  for (const Candidate& c : candidates) sum += static_cast<double>(c.weight);
  return sum;
}

// All tokens whose logit is not below the k-th largest, by id. One pass with a rising threshold: memory and
// comparisons stay proportional to k, and compaction at twice the kept size keeps it linear even when all are equal.
void SelectTopK(std::span<const float> logits, size_t k, std::vector<Candidate>& kept) {
  kept.clear();
  float threshold = -kInfinity;
  size_t limit = std::max<size_t>(2 * k, 256);
  const auto larger = [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; };
  const auto compact = [&] {
    if (kept.size() <= k) return;
    const auto kth = kept.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(kept.begin(), kth, kept.end(), larger);
    threshold = kth->logit;
    const auto below = [threshold](const Candidate& c) { return c.logit < threshold; };
    kept.erase(std::remove_if(kth + 1, kept.end(), below), kept.end());
    limit = std::max<size_t>(2 * kept.size(), 256);
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    if (logit < threshold || logit == -kInfinity) continue;
    kept.push_back({static_cast<TokenId>(i), logit, 0.0f});
    if (kept.size() >= limit) compact();
  }
  compact();
  std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

// The last of the best items whose weights first reach `mass`, the last of all if they do not. A quickselect by
// weight: linear, nothing is sorted but the last few. REQUIRES: items is not empty.
Ranked MassBoundary(std::span<Ranked> items, double mass) {
  const auto at = [&](size_t i) { return items.begin() + static_cast<std::ptrdiff_t>(i); };
  size_t first = 0;
  size_t last = items.size();
  while (last - first > 64) {
    const size_t middle = first + (last - first) / 2;
    std::nth_element(at(first), at(middle), at(last));
    double half = 0.0;
    for (size_t i = first; i < middle; ++i) half += items[i].weight;
    if (half >= mass) {
      last = middle;
    } else {
      mass -= half;
      first = middle;
    }
  }
  std::sort(at(first), at(last));
  for (; first + 1 < last; ++first) {
    mass -= items[first].weight;
    if (mass <= 0.0) break;
  }
  return items[first];
}

// Keeps the best candidates by `key` until their weights reach `mass`, at least `minimum`; with `ties` also those
// whose key equals the last one's. The order of ids stays.
// Buckets first: only those at the edge are compared with each other, which matters when 256k tokens are possible.
template <typename Key>
void KeepMass(double mass, size_t minimum, bool ties, Key key, std::vector<Candidate>& kept) {
  if (kept.size() <= minimum) return;
  constexpr size_t kBuckets = 2048;
  static_assert(kBuckets > 1);
  double low = key(kept.front());
  double high = low;
  for (const Candidate& c : kept) {
    low = std::min(low, key(c));
    high = std::max(high, key(c));
  }
  const double scale = high > low ? (kBuckets - 1) / (high - low) : 0.0;
  const auto bucket_of = [&](double k) { return std::min(static_cast<size_t>((k - low) * scale), kBuckets - 1); };
  std::array<double, kBuckets> masses{};
  std::array<uint32_t, kBuckets> counts{};
  for (const Candidate& c : kept) {
    const size_t bucket = bucket_of(key(c));
    masses[bucket] += static_cast<double>(c.weight);
    ++counts[bucket];
  }
  size_t edge = 0;
  double before = 0.0;
  size_t count = 0;
  while (edge + 1 < kBuckets && (before + masses[edge] < mass || count + counts[edge] < minimum)) {
    before += masses[edge];
    count += counts[edge++];
  }
  while (counts[edge] == 0) --edge, before -= masses[edge], count -= counts[edge];
  std::vector<Ranked> items;
  items.reserve(counts[edge]);
  for (const Candidate& c : kept) {
    if (bucket_of(key(c)) == edge) items.push_back({key(c), static_cast<double>(c.weight), c.id});
  }
  Ranked last = MassBoundary(items, mass - before);
  if (count < minimum) {
    const size_t needed = std::min(minimum - count, items.size());
    const auto nth = items.begin() + static_cast<std::ptrdiff_t>(needed - 1);
    std::nth_element(items.begin(), nth, items.end());
    if (last < *nth) last = *nth;
  }
  const auto goes = [&](const Candidate& c) {
    const Ranked item{key(c), 0.0, c.id};
    return ties ? item.key > last.key : last < item;
  };
  kept.erase(std::remove_if(kept.begin(), kept.end(), goes), kept.end());
}

double ByLogit(const Candidate& c) { return -static_cast<double>(c.logit); }

// Nguyen et al. 2024, arXiv:2407.01082. The largest weight is 1.
void MinP(double min_p, size_t minimum, std::vector<Candidate>& kept) {
  const double threshold = min_p * (1.0 - kTie);
  const auto goes = [threshold](const Candidate& c) { return static_cast<double>(c.weight) < threshold; };
  const auto stay = kept.size() - static_cast<size_t>(std::count_if(kept.begin(), kept.end(), goes));
  if (stay >= minimum) {
    kept.erase(std::remove_if(kept.begin(), kept.end(), goes), kept.end());
  } else {
    KeepMass(0.0, minimum, false, ByLogit, kept);
  }
}

// Meister et al. 2022, arXiv:2202.00666: the tokens whose surprise is nearest to the entropy.
void TypicalP(double mass, double scale, float max, size_t minimum, std::vector<Candidate>& kept) {
  const double total = SumOf(kept);
  const double log_total = std::log(total);
  const auto surprise = [&](const Candidate& c) {
    return log_total - (static_cast<double>(c.logit) - static_cast<double>(max)) * scale;
  };
  double entropy = 0.0;
  for (const Candidate& c : kept) {
    if (c.weight > 0.0f) entropy += static_cast<double>(c.weight) / total * surprise(c);
  }
  const auto distance = [&](const Candidate& c) { return std::abs(surprise(c) - entropy); };
  KeepMass((mass - kTie) * total, minimum, true, distance, kept);
}

}  // namespace

TokenId WarpedRow::Pick(double u) const {
  const double target = u * total;
  double sum = 0.0;
  if (!dense) {
    for (const Candidate& c : kept) {
      sum += static_cast<double>(c.weight);
      if (sum > target) return c.id;
    }
    // Rounding kept the sum at the target: the last possible token.
    const auto last = std::find_if(kept.rbegin(), kept.rend(), [](const Candidate& c) { return c.weight > 0.0f; });
    return last == kept.rend() ? kept.front().id : last->id;
  }
  constexpr size_t kBlock = 512;
  size_t last_possible = 0;
  for (size_t begin = 0; begin < weights.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, weights.size());
    double chains[4] = {};  // four chains of additions instead of one: the walk over 256k tokens is bound by latency
    size_t i = begin;
    for (; i + 4 <= end; i += 4) {
      for (size_t l = 0; l < 4; ++l) chains[l] += static_cast<double>(weights[i + l]);
    }
    for (; i < end; ++i) chains[0] += static_cast<double>(weights[i]);
    const double block = (chains[0] + chains[1]) + (chains[2] + chains[3]);
    if (block > 0.0) last_possible = begin;
    if (sum + block > target) {
      last_possible = begin;
      break;
    }
    sum += block;
  }
  size_t chosen = last_possible;
  for (size_t i = last_possible; i < std::min(last_possible + kBlock, weights.size()); ++i) {
    if (weights[i] <= 0.0f) continue;
    chosen = i;
    sum += static_cast<double>(weights[i]);
    if (sum > target) break;
  }
  return static_cast<TokenId>(chosen);
}

void Warp(const SamplingParams& params, std::span<float> logits, float max, WarpedRow& row) {
  if (max == kInfinity) {
    for (float& logit : logits) logit = logit == kInfinity ? 0.0f : -kInfinity;
    max = 0.0f;
  }
  const double scale = 1.0 / static_cast<double>(params.temperature);
  const double top_p = static_cast<double>(params.top_p);
  const double min_p = static_cast<double>(params.min_p);
  const auto minimum = static_cast<size_t>(std::max(params.min_tokens_to_keep, 1));
  const size_t top_k = params.top_k > 0 ? std::max(static_cast<size_t>(params.top_k), minimum) : logits.size();

  row.dense = false;
  if (top_k < logits.size()) {
    SelectTopK(logits, top_k, row.kept);
    row.weights.resize(row.kept.size());
    std::vector<float> kept_logits(row.kept.size());
    std::transform(row.kept.begin(), row.kept.end(), kept_logits.begin(), [](const Candidate& c) { return c.logit; });
    row.total = ExpWeights(kept_logits, max, scale, row.weights);
    for (size_t i = 0; i < row.kept.size(); ++i) row.kept[i].weight = row.weights[i];
  } else {
    row.weights.resize(logits.size());
    row.total = ExpWeights(logits, max, scale, row.weights);
    if (params.top_p >= 1.0f && params.min_p <= 0.0f && params.typical_p >= 1.0f) {
      row.dense = true;
      return;
    }
    // Tokens below (1 - p) / n of the mass weigh less than 1 - p together, so top-p is certain to drop them all.
    double floor = 0.0;
    if (minimum == 1 && params.top_p < 1.0f) {
      floor = (1.0 - top_p) / static_cast<double>(logits.size()) * row.total;
    } else if (minimum == 1) {
      floor = min_p * (1.0 - kTie);
    }
    row.kept.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
      if (static_cast<double>(row.weights[i]) < floor || logits[i] == -kInfinity) continue;
      row.kept.push_back({static_cast<TokenId>(i), logits[i], row.weights[i]});
    }
  }
  // Holtzman et al. 2019, arXiv:1904.09751.
  if (params.top_p < 1.0f) KeepMass((top_p - kTie) * row.total, minimum, false, ByLogit, row.kept);
  if (params.min_p > 0.0f) MinP(min_p, minimum, row.kept);
  if (params.typical_p < 1.0f) TypicalP(static_cast<double>(params.typical_p), scale, max, minimum, row.kept);
  row.total = SumOf(row.kept);
}

}  // namespace kvasir
