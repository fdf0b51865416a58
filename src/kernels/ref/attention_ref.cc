// The attention kernels in plain code: one row at a time, one chunk at a time. The same steps as cpu/attention_impl.h,
// rounded where the cache's type rounds, and short enough to be checked by reading.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention_kernels.h"
#include "kernels/kernel_set.h"
#include "kernels/ref/attention_score.h"

namespace kvasir::ref {
namespace {

/// A query row as integers, as caches of codes want it.
struct IntegerQuery {
  int32_t values[kMaxHeadDim];
  float scale = 0.0f;  // NaN where the query is not finite
};

constexpr float kMostInteger = 32767.0f;
constexpr float kLeastQuery = 0x1p-100f;

IntegerQuery RoundQuery(const float* q, int64_t n) {
  IntegerQuery out;
  float most = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    most = std::max(most, std::abs(q[i]));
    finite = finite && std::isfinite(q[i]);
  }
  const float inverse = finite && most >= kLeastQuery ? kMostInteger / most : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    out.values[i] = finite ? static_cast<int32_t>(std::nearbyint(q[i] * inverse)) : 0;
  }
  out.scale = finite ? most / kMostInteger : std::numeric_limits<float>::quiet_NaN();
  return out;
}

/// Rounded and saturated; what is no number becomes the least, and the row's sum of weights says that it was none.
int32_t ToInt16(float x) {
  if (!(x > -32768.0f)) return -32768;
  return x < 32767.0f ? static_cast<int32_t>(std::nearbyint(x)) : 32767;
}

/// The slots of one head that a chunk has, taken out of their tiles once for all rows of a task.
class Slots {
 public:
  Slots(const KvView& kv, int64_t head, int64_t chunk)
      : begin(std::max(chunk * kChunkSlots, kv.first_valid)),
        end(std::max(begin, std::min((chunk + 1) * kChunkSlots, kv.length))),
        head_dim_(kv.head_dim) {
    const auto size = static_cast<size_t>((end - begin) * head_dim_);
    if (HasCodes(kv.type)) {
      key_codes_.resize(size);
      value_codes_.resize(size);
      for (int64_t slot = begin; slot < end; ++slot) TakeCodes(kv, head, slot);
    } else {
      keys_.resize(size);
      values_.resize(size);
      for (int64_t slot = begin; slot < end; ++slot) TakeNumbers(kv, head, slot);
    }
  }
  // Each [head_dim]; codes only where the cache has them.
  const float* Key(int64_t slot) const { return keys_.data() + At(slot); }
  const float* Value(int64_t slot) const { return values_.data() + At(slot); }
  const CodeElement* KeyCodes(int64_t slot) const { return key_codes_.data() + At(slot); }
  const CodeElement* ValueCodes(int64_t slot) const { return value_codes_.data() + At(slot); }

  const int64_t begin;
  const int64_t end;

 private:
  int64_t At(int64_t slot) const { return (slot - begin) * head_dim_; }

  void TakeNumbers(const KvView& kv, int64_t head, int64_t slot) {
    const std::byte* const k = kv.k_tile(head, slot / 16);
    const std::byte* const v = kv.v_tile(head, slot / 16);
    float* const keys = keys_.data() + At(slot);
    float* const values = values_.data() + At(slot);
    for (int64_t i = 0; i < head_dim_; ++i) {
      keys[i] = LoadElement(kv.type, k + KeyOffset(kv.type, slot % 16, i));
      values[i] = LoadElement(kv.type, v + ValueOffset(kv.type, head_dim_, slot % 16, i));
    }
  }
  void TakeCodes(const KvView& kv, int64_t head, int64_t slot) {
    CodeElement* const keys = key_codes_.data() + At(slot);
    CodeElement* const values = value_codes_.data() + At(slot);
    for (int64_t i = 0; i < head_dim_; ++i) {
      keys[i] = KeyCodeAt(kv, head, slot, i);
      values[i] = ValueCodeAt(kv, head, slot, i);
    }
  }

  int64_t head_dim_;
  std::vector<float> keys_, values_;
  std::vector<CodeElement> key_codes_, value_codes_;
};

/// Which slots of a chunk a row sees.
using Seen = std::array<bool, kChunkSlots>;

/// q · k of a slot of codes: exact sums of integers per group, then scales.
float CodeDot(const IntegerQuery& q, const KvView& kv, const CodeElement* keys) {
  const int64_t width = kv.type == KvType::kI4 ? kKvGroup : int64_t{kv.head_dim};
  float score = 0.0f;
  for (int64_t at = 0; at < kv.head_dim; at += width) {
    int32_t products = 0;
    int32_t queries = 0;
    for (int64_t i = at; i < std::min<int64_t>(at + width, kv.head_dim); ++i) {
      products += q.values[i] * keys[i].code;
      queries += q.values[i];
    }
    const CodeElement& key = keys[at];
    if (kv.type == KvType::kI8) return static_cast<float>(products) * q.scale * key.scale;
    score = std::fma(static_cast<float>(products), key.scale, score);
    score = std::fma(key.minimum, static_cast<float>(queries), score);
  }
  return score * q.scale;
}

/// acc[at … at + width) += Σ p · v over the slots of a run that the row sees, whose values are codes.
void AddCodes(const Slots& slots, const Seen& seen, int64_t begin, int64_t end, const float* p, int64_t at,
              int64_t width, float* acc) {
  float greatest = 0.0f;
  float scale = 0.0f;
  bool poisoned = false;
  for (int64_t slot = begin; slot < end; ++slot) {
    if (!seen[static_cast<size_t>(slot - slots.begin)]) continue;
    const CodeElement& value = slots.ValueCodes(slot)[at];
    greatest = std::max(greatest, p[slot - begin]);
    if (!std::isnan(value.scale)) scale = std::max(scale, value.scale);
    if (std::isnan(value.scale) && p[slot - begin] != 0.0f) poisoned = true;
  }
  // Weights so small that their inverse is no number count as none, as in the fast kernels.
  const float inverse = greatest >= 0x1p-125f ? 1.0f / greatest : 0.0f;
  const float to_integer = scale > 0.0f ? kMostInteger / scale : 0.0f;
  const float factor = poisoned ? std::numeric_limits<float>::quiet_NaN() : scale / kMostInteger * greatest;
  int32_t sums[kMaxHeadDim] = {};
  float rest = 0.0f;
  for (int64_t slot = begin; slot < end; ++slot) {
    const CodeElement* const codes = slots.ValueCodes(slot) + at;
    if (!seen[static_cast<size_t>(slot - slots.begin)] || std::isnan(codes->scale)) continue;
    const float weight = p[slot - begin] * inverse;
    const int32_t integer = ToInt16(weight * (codes->scale * to_integer));
    rest = std::fma(weight, codes->minimum, rest);
    for (int64_t i = 0; i < width; ++i) sums[i] += integer * codes[i].code;
  }
  for (int64_t i = 0; i < width; ++i) {
    acc[at + i] = std::fma(static_cast<float>(sums[i]), factor, acc[at + i]) + rest * greatest;
  }
}

/// Σ weights · V of a chunk's slots of codes, in runs of 128 slots that have an integer scale each.
void SumCodes(const KvView& kv, const Slots& slots, const Seen& seen, const float* weights, float* acc) {
  constexpr int64_t kRun = 128;
  const int64_t width = kv.type == KvType::kI4 ? kKvGroup : int64_t{kv.head_dim};
  for (int64_t first = slots.begin; first < slots.end;) {
    const int64_t next = std::min((first / kRun + 1) * kRun, slots.end);
    for (int64_t at = 0; at < kv.head_dim; at += width) {
      const int64_t n = std::min<int64_t>(width, kv.head_dim - at);
      AddCodes(slots, seen, first, next, weights + (first - slots.begin), at, n, acc);
    }
    first = next;
  }
}

/// One row through one chunk: weights (of the chunk's slots) is scratch.
void AttendRow(const AttentionTask& task, int64_t row, const Slots& slots, float* weights, float* acc, float* max,
               float* sum) {
  const AttentionArgs& args = *task.args;
  const KvView& kv = args.kv;
  const int64_t group = args.n_heads / kv.kv_heads;
  const int64_t token = row / group;
  const int64_t query_head = task.head * group + row % group;
  const float* q = args.q.row(token) + query_head * kv.head_dim;

  const bool codes = HasCodes(kv.type);
  const IntegerQuery integers = codes ? RoundQuery(q, kv.head_dim) : IntegerQuery{};
  float rounded_query[kMaxHeadDim];
  for (int64_t i = 0; i < kv.head_dim; ++i) {
    rounded_query[i] = kv.type == KvType::kBF16 ? ToFloat(ToBFloat16(q[i])) : q[i];
  }
  Seen seen;
  for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
    seen[static_cast<size_t>(slot - slots.begin)] = Sees(args, token, slot);
  }

  *max = -std::numeric_limits<float>::infinity();
  for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
    if (!seen[static_cast<size_t>(slot - slots.begin)]) continue;
    float dot = codes ? CodeDot(integers, kv, slots.KeyCodes(slot)) : 0.0f;
    if (!codes) {
      const float* const key = slots.Key(slot);
      for (int64_t i = 0; i < kv.head_dim; ++i) dot = std::fma(rounded_query[i], key[i], dot);
    }
    const float logit = Logit(args, query_head, token, slot, dot);
    weights[slot - slots.begin] = logit;
    if (!(logit <= *max)) *max = logit;  // a NaN stays and reaches the sum
  }
  *sum = 0.0f;
  std::fill(acc, acc + kv.head_dim, 0.0f);
  if (*max == -std::numeric_limits<float>::infinity()) *max = 0.0f;
  for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
    if (!seen[static_cast<size_t>(slot - slots.begin)]) continue;
    const float p = std::exp(weights[slot - slots.begin] - *max);
    *sum += p;
    weights[slot - slots.begin] = p;
    if (codes) continue;
    const float rounded = kv.type == KvType::kBF16 ? ToFloat(ToBFloat16(p)) : p;
    const float* const value = slots.Value(slot);
    for (int64_t i = 0; i < kv.head_dim; ++i) acc[i] = std::fma(rounded, value[i], acc[i]);
  }
  if (codes) SumCodes(kv, slots, seen, weights, acc);
}

void MergeRow(float max, float sum, const float* acc, int64_t width, float* into_max, float* into_sum,
              float* into_acc) {
  if (sum == 0.0f) return;
  if (*into_sum == 0.0f) {
    *into_max = max;
    *into_sum = sum;
    std::copy(acc, acc + width, into_acc);
    return;
  }
  const float top = std::max(max, *into_max);
  const float a = std::exp(*into_max - top);
  const float b = std::exp(max - top);
  *into_max = top;
  *into_sum = *into_sum * a + sum * b;
  for (int64_t i = 0; i < width; ++i) into_acc[i] = into_acc[i] * a + acc[i] * b;
}

void Attend(const AttentionTask& task, int64_t chunk_begin, int64_t chunk_end, float* scratch,
            const AttentionState& state, int64_t state_step) noexcept {
  float* weights = scratch;
  float* acc = scratch + kChunkSlots;
  const int64_t head_dim = task.args->kv.head_dim;
  for (int64_t chunk = chunk_begin; chunk < chunk_end; ++chunk) {
    const int64_t skip = (chunk - chunk_begin) * state_step;
    const Slots slots(task.args->kv, task.head, chunk);
    for (int32_t r = 0; r < task.rows; ++r) {
      float max;
      float sum;
      AttendRow(task, task.row_begin + r, slots, weights, acc, &max, &sum);
      MergeRow(max, sum, acc, head_dim, state.max + skip + r, state.sum + skip + r,
               state.acc + skip + r * state.stride);
    }
  }
}

void Merge(const AttentionState& from, int32_t rows, const AttentionState& into) noexcept {
  for (int32_t r = 0; r < rows; ++r) {
    MergeRow(from.max[r], from.sum[r], from.acc + r * from.stride, from.stride, into.max + r, into.sum + r,
             into.acc + r * into.stride);
  }
}

void Store(const AttentionTask& task, const AttentionState& state) noexcept {
  const AttentionArgs& args = *task.args;
  const int64_t head_dim = args.kv.head_dim;
  const int64_t group = args.n_heads / args.kv.kv_heads;
  for (int32_t r = 0; r < task.rows; ++r) {
    const int64_t row = task.row_begin + r;
    float* out = args.out.row(row / group) + (task.head * group + row % group) * head_dim;
    const float sum = state.sum[r];
    for (int64_t i = 0; i < head_dim; ++i) out[i] = sum == 0.0f ? 0.0f : state.acc[r * state.stride + i] / sum;
  }
}

}  // namespace

constinit const AttentionKernels kAttentionKernels = {.attend = Attend, .merge = Merge, .store = Store};

}  // namespace kvasir::ref
