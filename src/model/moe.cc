#include "model/moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvasir {
namespace {

struct Assignment {
  int32_t token;
  float weight;
};

/// The chosen experts of one token with their weights; ties go to the lower index, as torch.topk usually has it.
void ChooseExperts(const float* logits, const MoeSpec& spec, int32_t token, std::vector<int32_t>& order,
                   std::vector<std::vector<Assignment>>& by_expert) {
  const size_t n = static_cast<size_t>(spec.n_experts);
  order.resize(n);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + spec.top_k, order.end(),
                    [&](int32_t a, int32_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); });
  const float highest = logits[order[0]];
  float all = 0.0f;
  for (size_t e = 0; e < n; ++e) all += std::exp(logits[e] - highest);
  float chosen = 0.0f;
  for (int32_t i = 0; i < spec.top_k; ++i) chosen += std::exp(logits[order[static_cast<size_t>(i)]] - highest);
  const float total = spec.renormalize ? chosen : all;
  for (int32_t i = 0; i < spec.top_k; ++i) {
    const int32_t e = order[static_cast<size_t>(i)];
    by_expert[static_cast<size_t>(e)].push_back({token, std::exp(logits[e] - highest) / total});
  }
}

}  // namespace

Status RunExperts(ExecContext& ctx, const FfnSpec& spec, const LayerWeights& weights, MatView<const float> h,
                  MatView<float> out) {
  const Arena::Mark mark = ctx.scratch->GetMark();
  const int64_t n_experts = spec.moe.n_experts;
  ASSIGN_OR_RETURN(float* router, ctx.scratch->Allocate<float>(h.rows * n_experts));
  ASSIGN_OR_RETURN(float* input, ctx.scratch->Allocate<float>(h.rows * h.cols));
  ASSIGN_OR_RETURN(float* inner, ctx.scratch->Allocate<float>(h.rows * spec.width));
  ASSIGN_OR_RETURN(float* result, ctx.scratch->Allocate<float>(h.rows * h.cols));
  const MatView<float> router_logits(router, h.rows, n_experts);
  RETURN_IF_ERROR(MatMul(ctx, h, weights.router.weight, {.bias = weights.router.bias}, router_logits));

  std::vector<std::vector<Assignment>> by_expert(static_cast<size_t>(n_experts));
  std::vector<int32_t> order;
  for (int64_t t = 0; t < h.rows; ++t) {
    for (int64_t e = 0; e < n_experts; ++e) {
      if (std::isnan(router_logits.row(t)[e])) return InvalidData("the router of a mixture gave NaN");
    }
    ChooseExperts(router_logits.row(t), spec.moe, static_cast<int32_t>(t), order, by_expert);
  }
  for (int64_t t = 0; t < out.rows; ++t) std::fill_n(out.row(t), out.cols, 0.0f);
  for (size_t e = 0; e < by_expert.size(); ++e) {
    const int64_t count = static_cast<int64_t>(by_expert[e].size());
    if (count == 0) continue;
    const FfnWeights& expert = weights.experts[e];
    const MatView<float> x(input, count, h.cols);
    const MatView<float> y(inner, count, spec.width);
    const MatView<float> z(result, count, h.cols);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(h.row(by_expert[e][static_cast<size_t>(i)].token), h.cols, x.row(i));
    }
    RETURN_IF_ERROR(MatMul(ctx, x, expert.up.weight,
                           {.bias = expert.up.bias, .activation = spec.activation, .gated = spec.gated}, y));
    RETURN_IF_ERROR(MatMul(ctx, y, expert.down.weight, {.bias = expert.down.bias}, z));
    for (int64_t i = 0; i < count; ++i) {
      const Assignment& a = by_expert[e][static_cast<size_t>(i)];
      for (int64_t c = 0; c < out.cols; ++c) out.row(a.token)[c] += a.weight * z.row(i)[c];
    }
  }
  ctx.scratch->Rewind(mark);
  return OkStatus();
}

}  // namespace kvasir
