// Plans attention: which rows of which sequence and KV head, over which chunks of KV, make a task. Results do not
// depend on the plan, because chunks are computed from fresh starts and merged in order whatever the tasks are. What
// a stride leaves of the keys is attended to before (attention_strided.h), and merged behind a row's last chunk.
#include <algorithm>
#include <atomic>
#include <memory>

#include "base/checked.h"
#include "kernels/attention_check.h"
#include "kernels/attention_kernels.h"
#include "kernels/attention_state.h"
#include "kernels/attention_strided.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"

namespace kvasir {
namespace {

/// Partial states of one call may take this much; sequences beyond it are not split over the KV length.
constexpr int64_t kMaxPartialFloats = int64_t{16} << 20;

struct ChunkRange {
  int64_t begin = 0;
  int64_t end = 0;
};

/// Split sequences make about this many tasks per thread, of at most this many chunks.
constexpr int64_t kTasksPerThread = 8;
constexpr int64_t kLongestRun = 8;

/// The tasks of one sequence: [kv_heads][blocks of rows] or, when split, [kv_heads][runs of chunks].
struct SequencePlan {
  AttentionArgs args;     // without a stride
  StridedResult strided;  // null: there is none
  int64_t first_task = 0;
  int64_t tasks_per_head = 0;
  int64_t rows = 0;  // per KV head
  bool split = false;
  ChunkRange chunks;                        // of all rows
  int64_t chunks_per_task = 1;              // split
  float* partials = nullptr;                // split: [kv_heads][chunks][state]
  std::atomic<int32_t>* waiting = nullptr;  // split: [kv_heads] tasks not done yet
  int64_t state_floats = 0;

  /// Rows times chunks of its largest task.
  int64_t WorkOfTask() const {
    return std::min<int64_t>(rows, kTaskRows) * (split ? chunks_per_task : chunks.end - chunks.begin);
  }
};

/// Chunks in which the tokens [first, last] may see something.
ChunkRange ChunksOf(const AttentionArgs& args, int64_t first, int64_t last) {
  const KvView& kv = args.kv;
  int64_t low = kv.first_valid;
  int64_t high = kv.length;
  if (kv.positions == nullptr) {
    high = args.first_slot + last + 1;
    // A tree's tokens may all be at the first position.
    const int64_t position = args.first_slot + (args.tree != nullptr ? 0 : first);
    if (args.window > 0) low = std::max(low, position - args.window + 1);
  }
  if (low >= high) return {};
  return {low / kChunkSlots, CeilDiv(high, kChunkSlots)};
}

/// What is left of a pattern beside its strided part; of atrous attention, nothing.
bool HasDensePart(const AttentionArgs& args) { return !IsStrided(args) || HasLocalPart(args); }

AttentionArgs DensePart(const AttentionArgs& args) {
  AttentionArgs dense = args;
  if (IsStrided(args)) {
    dense.window = args.window > 0 ? std::min(args.window, args.local + 1) : args.local + 1;
    dense.stride = dense.local = 0;
  }
  return dense;
}

class Plan {
 public:
  explicit Plan(ExecContext& ctx) : ctx_(ctx) {}

  /// strided: of each sequence, or null when none has such a part.
  Status Prepare(std::span<const AttentionArgs> sequences, const StridedResult* strided) {
    ASSIGN_OR_RETURN(plans_, ctx_.scratch->Allocate<SequencePlan>(static_cast<int64_t>(sequences.size())));
    int64_t head_dim = 1;
    int64_t partial_floats = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (!HasDensePart(sequences[i])) continue;
      SequencePlan& plan = *std::construct_at(plans_ + count_++);
      plan.args = DensePart(sequences[i]);
      if (strided != nullptr) plan.strided = strided[i];
      RETURN_IF_ERROR(PrepareSequence(plan.args, &plan, &partial_floats));
      head_dim = std::max<int64_t>(head_dim, plan.args.kv.head_dim);
    }
    // The largest tasks go first, so that the last ones are short.
    std::sort(plans_, plans_ + count_,
              [](const SequencePlan& a, const SequencePlan& b) { return a.WorkOfTask() > b.WorkOfTask(); });
    for (int64_t i = 0; i < count_; ++i) {
      plans_[i].first_task = tasks_;
      tasks_ += plans_[i].args.kv.kv_heads * plans_[i].tasks_per_head;
    }
    if (tasks_ == 0) return OkStatus();
    worker_floats_ = AttentionScratchFloats(head_dim) + AttentionStateFloats(kTaskRows, head_dim);
    ASSIGN_OR_RETURN(worker_memory_, ctx_.scratch->Allocate<float>(worker_floats_ * ctx_.pool->size()));
    return OkStatus();
  }

  int64_t tasks() const { return tasks_; }

  void RunTask(int64_t index, int worker) const {
    const SequencePlan* plan = std::upper_bound(plans_, plans_ + count_, index,
                                                [](int64_t i, const SequencePlan& p) { return i < p.first_task; }) -
                               1;
    const AttentionArgs& args = plan->args;
    float* memory = worker_memory_ + worker * worker_floats_;
    const int64_t at = index - plan->first_task;
    const auto head = static_cast<int32_t>(at / plan->tasks_per_head);
    if (plan->split) {
      RunChunks(args, *plan, head, at % plan->tasks_per_head, memory);
    } else {
      // Later rows see more: they go first, so that the last tasks are short.
      RunRows(args, *plan, head, plan->tasks_per_head - 1 - at % plan->tasks_per_head, memory);
    }
  }

 private:
  Status PrepareSequence(const AttentionArgs& args, SequencePlan* plan, int64_t* partial_floats) {
    const int64_t heads = args.kv.kv_heads;
    plan->rows = args.q.rows * (args.n_heads / heads);
    plan->tasks_per_head = CeilDiv(plan->rows, kTaskRows);
    plan->chunks = ChunksOf(args, 0, args.q.rows - 1);
    const int64_t n = plan->chunks.end - plan->chunks.begin;
    plan->state_floats = AttentionStateFloats(plan->rows, args.kv.head_dim);
    const int64_t floats = heads * n * plan->state_floats;
    if (plan->tasks_per_head == 1 && n > 1 && ctx_.pool->size() > 1 && floats <= kMaxPartialFloats - *partial_floats) {
      plan->split = true;
      // Runs of chunks let the kernel prefetch, while several tasks per thread even out who is faster.
      plan->chunks_per_task = std::clamp<int64_t>(heads * n / (kTasksPerThread * ctx_.pool->size()), 1, kLongestRun);
      plan->tasks_per_head = CeilDiv(n, plan->chunks_per_task);
      *partial_floats += floats;
      ASSIGN_OR_RETURN(plan->partials, ctx_.scratch->Allocate<float>(floats));
      ASSIGN_OR_RETURN(plan->waiting, ctx_.scratch->Allocate<std::atomic<int32_t>>(heads));
      for (int64_t h = 0; h < heads; ++h) {
        std::construct_at(plan->waiting + h, static_cast<int32_t>(plan->tasks_per_head));
      }
    }
    return OkStatus();
  }

  void RunRows(const AttentionArgs& args, const SequencePlan& plan, int32_t head, int64_t block, float* memory) const {
    AttentionTask task = {&args, head, 0, block * kTaskRows};
    task.rows = static_cast<int32_t>(std::min<int64_t>(kTaskRows, plan.rows - task.row_begin));
    const AttentionState state = StateAt(memory, task.rows, args.kv.head_dim);
    float* scratch = memory + AttentionStateFloats(kTaskRows, args.kv.head_dim);
    ClearState(state, task.rows);
    const int64_t group = args.n_heads / args.kv.kv_heads;
    const ChunkRange chunks = ChunksOf(args, task.row_begin / group, (task.row_begin + task.rows - 1) / group);
    const AttentionKernels& kernels = *ctx_.kernels->attention;
    kernels.attend(task, chunks.begin, chunks.end, scratch, state, 0);
    MergeStrided(task, plan.strided, scratch, state);
    kernels.store(task, state);
  }

  void RunChunks(const AttentionArgs& args, const SequencePlan& plan, int32_t head, int64_t run, float* memory) const {
    const AttentionTask task = {&args, head, static_cast<int32_t>(plan.rows), 0};
    const int64_t count = plan.chunks.end - plan.chunks.begin;
    const int64_t begin = run * plan.chunks_per_task;
    const int64_t end = std::min(begin + plan.chunks_per_task, count);
    float* partials = plan.partials + head * count * plan.state_floats;
    const auto state = [&](int64_t i) {
      return StateAt(partials + i * plan.state_floats, plan.rows, args.kv.head_dim);
    };
    for (int64_t i = begin; i < end; ++i) ClearState(state(i), plan.rows);
    float* scratch = memory + AttentionStateFloats(kTaskRows, args.kv.head_dim);
    const AttentionKernels& kernels = *ctx_.kernels->attention;
    kernels.attend(task, plan.chunks.begin + begin, plan.chunks.begin + end, scratch, state(begin), plan.state_floats);
    if (plan.waiting[head].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    // The last one to finish merges all, from the first chunk on.
    for (int64_t i = 1; i < count; ++i) kernels.merge(state(i), task.rows, state(0));
    MergeStrided(task, plan.strided, scratch, state(0));
    kernels.store(task, state(0));
  }

  /// Adds the strided part of the task's rows, whose accumulators are in args.out. scratch: that of attend.
  void MergeStrided(const AttentionTask& task, const StridedResult& strided, float* scratch,
                    const AttentionState& into) const {
    if (strided.max == nullptr) return;
    const AttentionArgs& args = *task.args;
    const int64_t head_dim = args.kv.head_dim;
    const int64_t group = args.n_heads / args.kv.kv_heads;
    const AttentionState state = StateAt(scratch, task.rows, head_dim);
    for (int32_t r = 0; r < task.rows; ++r) {
      const int64_t token = (task.row_begin + r) / group;
      const int64_t query_head = task.head * group + (task.row_begin + r) % group;
      state.max[r] = strided.max[token * args.n_heads + query_head];
      state.sum[r] = strided.sum[token * args.n_heads + query_head];
      const float* out = args.out.row(token) + query_head * head_dim;
      float* acc = state.acc + r * state.stride;
      for (int64_t i = 0; i < head_dim; ++i) acc[i] = out[i] * state.sum[r];
      std::fill(acc + head_dim, acc + state.stride, 0.0f);
    }
    ctx_.kernels->attention->merge(state, task.rows, into);
  }

  ExecContext& ctx_;
  SequencePlan* plans_ = nullptr;
  int64_t count_ = 0;  // of plans_
  int64_t tasks_ = 0;
  float* worker_memory_ = nullptr;
  int64_t worker_floats_ = 0;
};

Status AttendAll(ExecContext& ctx, std::span<const AttentionArgs> sequences) {
  StridedResult* strided = nullptr;
  if (std::ranges::any_of(sequences, IsStrided)) {
    const auto count = static_cast<int64_t>(sequences.size());
    ASSIGN_OR_RETURN(strided, ctx.scratch->Allocate<StridedResult>(count));
    std::uninitialized_fill_n(strided, count, StridedResult{});
    RETURN_IF_ERROR(AttendStrided(ctx, sequences, strided));
  }
  Plan plan(ctx);
  RETURN_IF_ERROR(plan.Prepare(sequences, strided));
  ctx.pool->ParallelFor(plan.tasks(), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) plan.RunTask(i, worker);
  });
  for (const AttentionArgs& args : sequences) CountAttention(args, &ctx.counters);
  return OkStatus();
}

/// What Plan takes at most.
int64_t DenseScratchBytes(const AttentionShape& shape) {
  constexpr int64_t kFloat = sizeof(float);
  const int64_t rows = shape.tokens * (shape.n_heads / shape.kv_heads);
  const int64_t stride = AttentionStateStride(shape.head_dim);
  const int64_t worker = AttentionScratchFloats(shape.head_dim) + AttentionStateFloats(kTaskRows, shape.head_dim);
  // Sequences of at most kTaskRows rows may be split; the sum over all of them of heads · chunks · state_floats.
  const int64_t split = std::min(shape.sequences, rows);
  const int64_t split_rows = std::min(rows, split * kTaskRows);
  const int64_t chunks = CeilDiv(shape.slots, kChunkSlots);
  const int64_t states = shape.kv_heads * chunks * (split_rows * (2 + stride) + 15 * split);
  const int64_t partials = shape.threads > 1 && chunks > 1 ? std::min(states, kMaxPartialFloats) : 0;
  const int64_t waiting =
      split * Arena::Occupied(shape.kv_heads * static_cast<int64_t>(sizeof(std::atomic<int32_t>))) + split * 64;
  return Arena::Occupied(worker * shape.threads * kFloat) + Arena::Occupied(partials * kFloat) + waiting;
}

}  // namespace

Status Attention(ExecContext& ctx, std::span<const AttentionArgs> sequences) {
  for (const AttentionArgs& args : sequences) {
    RETURN_IF_ERROR(CheckAttentionArgs(args));
    if (args.tree != nullptr && IsStrided(args)) {
      return Unsupported("[attention] a tree of tokens with atrous or sparse attention");
    }
  }
  const Arena::Mark mark = ctx.scratch->GetMark();
  const Status status = AttendAll(ctx, sequences);
  ctx.scratch->Rewind(mark);
  return status;
}

int64_t AttentionScratchBytes(const AttentionShape& shape) {
  const int64_t plans = Arena::Occupied(shape.sequences * static_cast<int64_t>(sizeof(SequencePlan)));
  if (shape.stride <= 1) return plans + DenseScratchBytes(shape);
  const StridedScratch strided = StridedScratchBytes(shape);
  const int64_t dense = plans + (shape.local > 0 ? DenseScratchBytes(shape) : 0);
  return Arena::Occupied(shape.sequences * static_cast<int64_t>(sizeof(StridedResult))) + strided.results +
         std::max(strided.running, dense);
}

}  // namespace kvasir
