#include "kernels/attention_strided.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "base/checked.h"
#include "kernels/attention_kernels.h"
#include "kernels/attention_state.h"
#include "kernels/kernel_set.h"
#include "kernels/kv_tiles.h"

namespace kvasir {
namespace {

/// Query rows of a class that share what was gathered, and most classes of a task: their slots lie side by side, so
/// they are gathered together, as far as a worker's memory goes.
constexpr int64_t kSharedRows = 4 * kTaskRows;
constexpr int64_t kMaxClasses = kMaxTileGathers;
constexpr int64_t kWorkerBytes = int64_t{4} << 20;
constexpr int64_t kTasksPerThread = 4;

/// How a sequence is cut into tasks: [kv_heads][blocks of tokens][runs of classes]. No number shrinks when a sequence
/// grows, so that what the longest takes is enough for all.
struct Cut {
  int64_t classes = 0;  // with queries
  int64_t tokens = 0;   // of a class, in one task
  int64_t token_blocks = 0;
  int64_t classes_per_task = 0;
  int64_t runs = 0;
  // What a worker holds of each class: tiles of keys and as many of values, states, positions of slots and queries.
  int64_t tile_bytes = 0;
  int64_t tiles = 0;
  int64_t state_floats = 0;  // of kTaskRows rows
  int64_t states = 0;

  int64_t TilesBytes() const { return RoundUp(2 * tiles * tile_bytes, 64); }
  int64_t StatesBytes() const { return states * RoundUp(state_floats * int64_t{sizeof(float)}, 64); }
  int64_t ClassBytes() const {
    return TilesBytes() + StatesBytes() + RoundUp((kChunkSlots + tokens) * int64_t{sizeof(int32_t)}, 64);
  }
};

Cut MakeCut(const AttentionShape& shape) {
  const int64_t group = shape.n_heads / shape.kv_heads;
  const int64_t shared_tokens = std::max<int64_t>(kSharedRows / group, 1);
  Cut cut;
  cut.tile_bytes = KvTileBytes(shape.type, shape.head_dim);
  cut.state_floats = AttentionStateFloats(kTaskRows, shape.head_dim);
  // Of the longest sequences a task takes this many classes.
  cut.tiles = kChunkTiles;
  cut.tokens = shared_tokens;
  cut.states = CeilDiv(shared_tokens * group, kTaskRows);
  const int64_t most_classes = std::clamp<int64_t>(kWorkerBytes / cut.ClassBytes(), 1, kMaxClasses);

  const int64_t class_tokens = CeilDiv(shape.tokens, shape.stride);
  cut.classes = std::min(shape.stride, shape.tokens);
  cut.tokens = std::min(shared_tokens, class_tokens);
  cut.token_blocks = CeilDiv(class_tokens, cut.tokens);
  cut.tiles = std::min(kChunkTiles, CeilDiv(CeilDiv(shape.slots, shape.stride), kTileTokens));
  cut.states = CeilDiv(cut.tokens * group, kTaskRows);
  const int64_t tasks = shape.kv_heads * cut.token_blocks * cut.classes;  // of one class each
  cut.classes_per_task =
      std::clamp<int64_t>(tasks / (kTasksPerThread * shape.threads), 1, std::min(most_classes, cut.classes));
  cut.runs = CeilDiv(cut.classes, cut.classes_per_task);
  return cut;
}

int64_t WorkerBytes(const Cut& cut, int64_t head_dim) {
  return RoundUp(AttentionScratchFloats(head_dim) * int64_t{sizeof(float)}, 64) +
         cut.classes_per_task * cut.ClassBytes();
}

/// The distance of the nearest key of the strided part.
int64_t FirstDistance(const AttentionArgs& args) {
  const int64_t behind_local = HasLocalPart(args) ? (args.local / args.stride + 1) * args.stride : 0;
  return std::max(behind_local, RoundUp(args.min_distance, args.stride));
}

struct SequencePlan {
  const AttentionArgs* args = nullptr;
  StridedResult result;  // null: nobody wants it
  int64_t first_task = 0;
  Cut cut;
};

/// A residue class in one task. Index i of it is position residue + i · stride.
struct ResidueClass {
  AttentionArgs args;  // of its queries, over gathered slots; kv.first_valid and kv.length are those of the chunk
  std::byte* block = nullptr;    // the tiles: all that kv.blocks points to
  int32_t* positions = nullptr;  // of the chunk's slots, then of the queries
  float* states = nullptr;
  int64_t residue = 0;
  int64_t low = 0;  // indices that queries may see
  int64_t high = 0;
  int64_t first_token = 0;  // of the sequence
};

bool SeesChunk(const ResidueClass& c) { return c.args.kv.first_valid < c.args.kv.length; }

class Plan {
 public:
  Plan(ExecContext& ctx, std::span<const AttentionArgs> sequences) : ctx_(ctx), sequences_(sequences) {}

  Status Prepare(const StridedResult* results) {
    ASSIGN_OR_RETURN(plans_, ctx_.scratch->Allocate<SequencePlan>(static_cast<int64_t>(sequences_.size())));
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const AttentionArgs& args = sequences_[i];
      if (!IsStrided(args) || args.q.rows == 0) continue;
      const Cut cut = MakeCut({.threads = ctx_.pool->size(),
                               .type = args.kv.type,
                               .n_heads = args.n_heads,
                               .kv_heads = args.kv.kv_heads,
                               .head_dim = args.kv.head_dim,
                               .tokens = args.q.rows,
                               .slots = args.kv.length,
                               .stride = args.stride});
      std::construct_at(plans_ + count_++, SequencePlan{&args, results[i], tasks_, cut});
      tasks_ += args.kv.kv_heads * cut.token_blocks * cut.runs;
      worker_bytes_ = std::max(worker_bytes_, WorkerBytes(cut, args.kv.head_dim));
    }
    ASSIGN_OR_RETURN(worker_memory_, ctx_.scratch->Allocate<std::byte>(worker_bytes_ * ctx_.pool->size()));
    return OkStatus();
  }

  int64_t tasks() const { return tasks_; }

  void RunTask(int64_t index, int worker) const {
    const SequencePlan& plan = *(std::upper_bound(plans_, plans_ + count_, index,
                                                  [](int64_t i, const SequencePlan& p) { return i < p.first_task; }) -
                                 1);
    const Cut& cut = plan.cut;
    const int64_t at = index - plan.first_task;
    const auto head = static_cast<int32_t>(at / (cut.token_blocks * cut.runs));
    // Later tokens see more: they go first, so that the last tasks are short.
    const int64_t block = cut.token_blocks - 1 - at / cut.runs % cut.token_blocks;
    const int64_t first = at % cut.runs * cut.classes_per_task;

    std::byte* memory = worker_memory_ + worker * worker_bytes_;
    ResidueClass classes[kMaxClasses];
    size_t count = 0;
    for (int64_t i = first; i < std::min(first + cut.classes_per_task, cut.classes); ++i) {
      if (SetUp(plan, i, block, memory, &classes[count])) ++count;
      memory += cut.ClassBytes();
    }
    Attend(plan, head, {classes, count}, reinterpret_cast<float*>(memory));
  }

 private:
  /// The class of the sequence's token i and, of its queries, the block-th lot. Whether there is one.
  static bool SetUp(const SequencePlan& plan, int64_t i, int64_t block, std::byte* memory, ResidueClass* c) {
    const AttentionArgs& args = *plan.args;
    const int64_t stride = args.stride;
    const int64_t skipped = block * plan.cut.tokens;
    const int64_t tokens = std::min(plan.cut.tokens, CeilDiv(args.q.rows - i, stride) - skipped);
    if (tokens <= 0) return false;
    c->first_token = i + skipped * stride;
    const int64_t position = args.first_slot + c->first_token;
    const int64_t last = position + (tokens - 1) * stride;
    c->residue = position % stride;

    const int64_t distance = FirstDistance(args);
    const int64_t farthest = args.window > 0 ? position - args.window + 1 : 0;
    const int64_t least = std::max(args.kv.first_valid, farthest);
    c->low = least > c->residue ? CeilDiv(least - c->residue, stride) : 0;
    c->high = last >= distance ? (last - distance) / stride + 1 : 0;

    c->block = memory;
    c->states = reinterpret_cast<float*>(memory + plan.cut.TilesBytes());
    c->positions = reinterpret_cast<int32_t*>(memory + plan.cut.TilesBytes() + plan.cut.StatesBytes());
    for (int64_t t = 0; t < tokens; ++t) c->positions[kChunkSlots + t] = static_cast<int32_t>(position + t * stride);

    c->args = args;
    c->args.q = {args.q.row(c->first_token), tokens, args.q.cols, args.q.stride * stride};
    c->args.out = {args.out.row(c->first_token), tokens, args.out.cols, args.out.stride * stride};
    c->args.first_slot = kChunkSlots;
    c->args.min_distance = distance;
    c->args.stride = c->args.local = 0;
    KvView& kv = c->args.kv;
    kv.block_tiles = static_cast<int32_t>(plan.cut.tiles);
    kv.head_stride = 0;  // only this task's head is gathered
    kv.tile_stride = plan.cut.tile_bytes;
    kv.v_offset = plan.cut.tiles * plan.cut.tile_bytes;
    kv.blocks = &c->block;
    kv.positions = c->positions;
    return true;
  }

  /// Of each class the chunk's slots that some query may see, by whole tiles.
  static void Gather(const AttentionArgs& args, int32_t head, int64_t chunk, std::span<ResidueClass> classes) {
    const int64_t begin = chunk * kChunkSlots;
    int64_t low = kChunkSlots;
    int64_t high = 0;
    for (ResidueClass& c : classes) {
      KvView& kv = c.args.kv;
      kv.first_valid = std::clamp<int64_t>(c.low - begin, 0, kChunkSlots);
      kv.length = std::clamp<int64_t>(c.high - begin, 0, kChunkSlots);
      if (!SeesChunk(c)) continue;
      low = std::min(low, kv.first_valid);
      high = std::max(high, kv.length);
    }
    TileGather tiles[kMaxClasses];
    for (int64_t tile = low / kTileTokens; tile * kTileTokens < high; ++tile) {
      size_t count = 0;
      for (ResidueClass& c : classes) {
        const KvView& kv = c.args.kv;
        const bool seen = SeesChunk(c) && kv.length > tile * kTileTokens && kv.first_valid < (tile + 1) * kTileTokens;
        if (seen) FillIn(args, head, begin, tile, c, &tiles[count++]);
      }
      GatherTiles(args.kv.type, args.kv.head_dim, {tiles, count});
    }
  }

  /// What a tile of a class takes from where. Slots that nobody sees hold what the nearest of the others does: they are
  /// multiplied by 0, so anything will do that is no NaN where the others are none.
  static void FillIn(const AttentionArgs& args, int32_t head, int64_t begin, int64_t tile, const ResidueClass& c,
                     TileGather* out) {
    const KvView& kv = c.args.kv;
    out->to = {c.block + tile * kv.tile_stride, c.block + tile * kv.tile_stride + kv.v_offset};
    for (int64_t t = 0; t < kTileTokens; ++t) {
      const int64_t i = std::clamp(tile * kTileTokens + t, kv.first_valid, kv.length - 1);
      const int64_t slot = c.residue + (begin + i) * args.stride;
      c.positions[i] = static_cast<int32_t>(slot);
      const std::byte* k = args.kv.k_tile(head, slot / kTileTokens);
      out->from[t] = {k, k + args.kv.v_offset};
      out->slots[t] = static_cast<int32_t>(slot % kTileTokens);
    }
  }

  void Attend(const SequencePlan& plan, int32_t head, std::span<ResidueClass> classes, float* scratch) const {
    const AttentionKernels& kernels = *ctx_.kernels->attention;
    int64_t first_chunk = std::numeric_limits<int64_t>::max();
    int64_t end_chunk = 0;
    for (const ResidueClass& c : classes) {
      if (c.low < c.high) {
        first_chunk = std::min(first_chunk, c.low / kChunkSlots);
        end_chunk = std::max(end_chunk, CeilDiv(c.high, kChunkSlots));
      }
      ForEachBlock(plan, head, c,
                   [](const AttentionTask& task, const AttentionState& state) { ClearState(state, task.rows); });
    }
    for (int64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
      Gather(*plan.args, head, chunk, classes);
      for (const ResidueClass& c : classes) {
        if (!SeesChunk(c)) continue;
        ForEachBlock(plan, head, c, [&](const AttentionTask& task, const AttentionState& state) {
          kernels.attend(task, 0, 1, scratch, state, 0);
        });
      }
    }
    for (const ResidueClass& c : classes) {
      ForEachBlock(plan, head, c, [&](const AttentionTask& task, const AttentionState& state) {
        kernels.store(task, state);
        if (plan.result.max != nullptr) KeepResult(plan, c, task, state);
      });
    }
  }

  /// Calls run(task, state) for the class's rows, kTaskRows at a time.
  template <typename Run>
  static void ForEachBlock(const SequencePlan& plan, int32_t head, const ResidueClass& c, const Run& run) {
    const int64_t rows = c.args.q.rows * (c.args.n_heads / c.args.kv.kv_heads);
    const int64_t step = plan.cut.StatesBytes() / plan.cut.states / int64_t{sizeof(float)};
    for (int64_t block = 0; block * kTaskRows < rows; ++block) {
      AttentionTask task = {&c.args, head, 0, block * kTaskRows};
      task.rows = static_cast<int32_t>(std::min<int64_t>(kTaskRows, rows - task.row_begin));
      run(task, StateAt(c.states + block * step, task.rows, c.args.kv.head_dim));
    }
  }

  static void KeepResult(const SequencePlan& plan, const ResidueClass& c, const AttentionTask& task,
                         const AttentionState& state) {
    const int64_t group = c.args.n_heads / c.args.kv.kv_heads;
    for (int32_t r = 0; r < task.rows; ++r) {
      const int64_t row = task.row_begin + r;
      const int64_t token = c.first_token + row / group * plan.args->stride;
      const int64_t at = token * c.args.n_heads + task.head * group + row % group;
      plan.result.max[at] = state.max[r];
      plan.result.sum[at] = state.sum[r];
    }
  }

  ExecContext& ctx_;
  std::span<const AttentionArgs> sequences_;
  SequencePlan* plans_ = nullptr;
  int64_t count_ = 0;  // of plans_
  int64_t tasks_ = 0;
  std::byte* worker_memory_ = nullptr;
  int64_t worker_bytes_ = 0;
};

}  // namespace

Status AttendStrided(ExecContext& ctx, std::span<const AttentionArgs> sequences, StridedResult* results) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionArgs& args = sequences[i];
    if (!IsStrided(args)) continue;
    if (args.kv.positions != nullptr) {
      return Unsupported(
          "[attention] atrous and sparse patterns over a cache whose slots are no positions; use a dynamic or static "
          "cache");
    }
    if (!HasLocalPart(args)) continue;
    const int64_t rows = args.q.rows * args.n_heads;
    ASSIGN_OR_RETURN(results[i].max, ctx.scratch->Allocate<float>(2 * rows));
    results[i].sum = results[i].max + rows;
  }
  const Arena::Mark mark = ctx.scratch->GetMark();
  Plan plan(ctx, sequences);
  const Status status = plan.Prepare(results);
  if (status.ok()) {
    ctx.pool->ParallelFor(plan.tasks(), 1, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) plan.RunTask(i, worker);
    });
  }
  ctx.scratch->Rewind(mark);
  return status;
}

StridedScratch StridedScratchBytes(const AttentionShape& shape) {
  StridedScratch bytes;
  if (shape.tokens == 0) return bytes;
  bytes.running = Arena::Occupied(shape.sequences * int64_t{sizeof(SequencePlan)}) +
                  Arena::Occupied(shape.threads * WorkerBytes(MakeCut(shape), shape.head_dim));
  if (shape.local > 0) {
    bytes.results = 2 * shape.tokens * shape.n_heads * int64_t{sizeof(float)} + shape.sequences * Arena::Occupied(1);
  }
  return bytes;
}

}  // namespace kvasir
