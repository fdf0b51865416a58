// MatMul: cuts the product into items for the threads and runs the kernel set's tiles over them.
#include <algorithm>
#include <atomic>

#include "base/checked.h"
#include "base/cpu.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"

namespace kvasir {
namespace {

// A strip's activations for one block of k stay in the first-level cache, the weights of an item in the second.
constexpr int64_t kBlockBytesOfX = 24 << 10;
constexpr int64_t kMaxGroup = 8;         // panels per item
constexpr int64_t kMaxBlockStrips = 24;  // strips per item
constexpr int64_t kMaxWideTokens = 512;  // tokens per item where weights are widened, once for all of them
constexpr int64_t kItemsPerThread = 16;  // wanted, so that threads end together
// With few strips the weights of the next block of k come from memory while the strips sweep over this one.
constexpr int64_t kFewStrips = 4;
constexpr int64_t kFewStripsBlockBytes = 8 << 10;
// A panel's weights that several strips sweep over stay in the first-level cache.
constexpr int64_t kSweptBlockBytes = 9 << 10;
// What is widened for few strips stays in the first-level cache.
constexpr int64_t kFewStripsWideBytes = 12 << 10;
// What tiles fetch ahead of weights that several strips use.
constexpr int64_t kSweepAheadBytes = 4 << 10;
// Work that takes one thread a few microseconds is not worth waking the others for.
constexpr int64_t kSerialBytes = 64 << 10;
constexpr int64_t kSerialFlops = 1 << 20;

/// How a single strip reads the weights, of which each is used once: panels side by side, and bytes fetched ahead into
/// the second- and the first-level cache. Close to a plain read on the processors tried.
struct Streaming {
  int panels;
  int64_t ahead;
  int64_t near = 0;
};
Streaming StreamingFor(const FormatKernels& kernels, int64_t tokens) {
  // Emerald Rapids reads by 5 to 15 percent faster where lines come in both steps.
  if (GetCpuFeatures().intel) return {tokens <= 5 ? 1 : 2, 10 << 10, 4 << 10};
  const int32_t ahead = tokens <= 2 ? kernels.ahead_few : kernels.ahead;
  if (ahead > 0) return {1, ahead};
  // The more there is to compute per line, the further ahead.
  if (tokens == 1) return {2, 2 << 10};
  if (tokens <= 5) return {1, 10 << 10};
  return {2, 4 << 10};
}

/// One product, cut into items of (a group of panels) × (a block of strips of tokens).
struct Product {
  const MatMulKernels* set;
  const FormatKernels* kernels;  // of the weights' format
  const FormatKernels* tiles;    // the same, its swept ones, or those that run on widened weights
  MatView<const float> x;
  const PackedWeight* w;
  const Epilogue* epilogue;
  MatView<float> y;

  int64_t panels = 0;
  int64_t lines = 0;  // of a panel
  int64_t line_bytes = 0;
  int64_t block_lines = 0;  // per block of k
  int64_t ahead = 0;        // bytes of weights fetched ahead
  int64_t near = 0;         // also into the first-level cache
  int tile_panels = kMaxTilePanels;
  int64_t strips = 0;
  int64_t group = 0;           // panels per item, or finished together where weights are streamed
  int64_t block_strips = 0;    // strips per item
  float* changed_x = nullptr;  // x scaled and ordered as the weights want it, if they do
  std::byte* packed_x = nullptr;
  float* sums = nullptr;  // [workers][sums_per_worker]
  int64_t sums_per_worker = 0;
  std::byte* wide = nullptr;  // [workers][wide_per_worker]: widened weights of a group and block of k
  int64_t wide_per_worker = 0;

  int64_t groups() const { return CeilDiv(panels, group); }
  int64_t blocks() const { return CeilDiv(strips, block_strips); }
  int64_t items() const { return groups() * blocks(); }
  // Strips differ by at most one token, so that none is much less efficient than the others.
  int64_t StripBegin(int64_t s) const { return x.rows / strips * s + std::min(s, x.rows % strips); }
  int StripTokens(int64_t s) const { return static_cast<int>(StripBegin(s + 1) - StripBegin(s)); }
  bool widens() const { return tiles == kernels->wide; }
  /// So few strips that each tile fetches the weights it reads; else what comes next is fetched meanwhile.
  bool fetches_own() const { return strips <= kFewStrips && !tiles->fetches_next; }
  /// Every weight is read once, by a single strip, from where it is.
  bool streams() const { return strips == 1 && !widens(); }
  /// Bytes of packed x per token before a line that begins a chunk, or of all lines.
  int64_t XBytes(int64_t line) const { return CeilDiv(line, kernels->lines_per_chunk) * kernels->x_chunk_bytes; }
  std::byte* PackedStrip(int64_t s) const { return packed_x + StripBegin(s) * XBytes(lines); }
};

const FormatKernels* KernelsFor(const MatMulKernels& set, const PackedWeight& w, int64_t tokens, bool round) {
  const FormatKernels* const own = set.formats[static_cast<int>(w.format)];
  return round && own->rounded != nullptr && tokens >= own->round_from ? own->rounded : own;
}

bool ChangesInputs(const PackedWeight& w) { return w.order != nullptr || w.input_scales != nullptr; }

void CheckShapes(const Product& p) {
  KVASIR_CHECK(p.x.cols == p.w->cols && p.x.rows == p.y.rows);
  KVASIR_CHECK(reinterpret_cast<uintptr_t>(p.w->data) % 64 == 0);
  if (p.epilogue->gated) {
    KVASIR_CHECK(p.w->rows % (2 * kPanelRows) == 0 && RoundUp(p.y.cols, kPanelRows) * 2 == p.w->rows);
  } else {
    KVASIR_CHECK(p.y.cols == p.w->rows);
  }
}

/// `lines` cut into equal blocks of at most `most` lines, each a whole number of chunks.
int64_t BlockLines(const Product& p, int64_t most) {
  const int64_t chunk = p.kernels->lines_per_chunk;
  const int64_t blocks = CeilDiv(p.lines, std::max(most / chunk * chunk, chunk));
  return RoundUp(CeilDiv(p.lines, std::max<int64_t>(blocks, 1)), chunk);
}

void CutIntoItems(Product& p, int threads) {
  const FormatKernels& kernels = *p.kernels;
  p.panels = CeilDiv(p.w->rows, kPanelRows);
  p.lines = p.w->lines();
  p.line_bytes = p.w->line_bytes();
  p.strips = CeilDiv(p.x.rows, kernels.strip);
  if (kernels.wide != nullptr && p.x.rows >= kernels.widen_from) {
    p.tiles = kernels.wide;
    p.strips = CeilDiv(p.x.rows, p.tiles->strip);
  } else if (kernels.swept != nullptr && p.strips > 1) {
    p.tiles = kernels.swept;
    p.strips = CeilDiv(p.x.rows, p.tiles->strip);
  }
  p.group = kMaxGroup;
  p.ahead = kSweepAheadBytes;
  if (p.strips == 1) {
    const Streaming streaming = StreamingFor(kernels, p.x.rows);
    p.tile_panels = streaming.panels;
    p.ahead = streaming.ahead;
    p.near = streaming.near;
    if (p.widens()) p.group = kMaxTilePanels;
    p.block_lines = std::max<int64_t>(p.lines, 1);
  } else if (p.fetches_own()) {
    p.group = kMaxTilePanels;
    int64_t most = kFewStripsBlockBytes / p.line_bytes;
    if (p.widens())
      most = std::min(most, kFewStripsWideBytes / (p.group * kernels.wide_lines * kernels.wide_line_bytes));
    p.block_lines = BlockLines(p, most);
    p.ahead = p.block_lines * p.line_bytes;
  } else if (p.tiles == kernels.swept) {
    p.group = kMaxTilePanels;
    p.block_lines = BlockLines(p, kSweptBlockBytes / p.line_bytes);
  } else {
    p.block_lines = BlockLines(p, kBlockBytesOfX / (p.tiles->strip * kernels.x_chunk_bytes) * kernels.lines_per_chunk);
  }
  p.block_strips = std::min(p.strips, p.widens() ? CeilDiv(kMaxWideTokens, p.tiles->strip) : kMaxBlockStrips);
  if (p.streams()) return;
  const int64_t smallest = p.epilogue->gated ? 2 : 1;
  while (p.group > smallest && p.items() < kItemsPerThread * threads) p.group /= 2;
}

void SizeScratch(Product& p) {
  const int64_t kept_strips = p.block_lines < p.lines ? p.block_strips : 1;  // their sums wait for the next block of k
  p.sums_per_worker = kept_strips * p.group * p.tiles->strip * kPanelRows;
  if (p.widens()) {
    p.wide_per_worker = p.group * p.block_lines * p.kernels->wide_lines * p.kernels->wide_line_bytes;
  }
}

Status AllocateScratch(Product& p, Arena& arena, int threads) {
  SizeScratch(p);
  if (ChangesInputs(*p.w)) {
    ASSIGN_OR_RETURN(p.changed_x, arena.Allocate<float>(p.x.rows * p.x.cols));
  }
  ASSIGN_OR_RETURN(p.packed_x, arena.Allocate<std::byte>(p.x.rows * p.XBytes(p.lines)));
  ASSIGN_OR_RETURN(p.sums, arena.Allocate<float>(p.sums_per_worker * threads));
  if (p.widens()) {
    ASSIGN_OR_RETURN(p.wide, arena.Allocate<std::byte>(p.wide_per_worker * threads));
  }
  return OkStatus();
}

/// One token's inputs as the panels take them: scaled, and in their order.
void ChangeInputs(const PackedWeight& w, const float* x, float* out) {
  for (int64_t k = 0; k < w.cols; ++k) {
    const int64_t from = w.order != nullptr ? w.order[k] : k;
    out[k] = w.input_scales != nullptr ? x[from] * w.input_scales[from] : x[from];
  }
}

/// So few that one thread packs them before others would have woken up.
bool PacksAlone(const Product& p) { return p.x.rows * p.x.cols <= kSerialBytes; }

void PackActivations(const Product& p, ThreadPool& pool) {
  const auto pack = [&p](int64_t s) {
    const float* x = p.x.row(p.StripBegin(s));
    int64_t stride = p.x.stride;
    if (ChangesInputs(*p.w)) {
      float* const changed = p.changed_x + p.StripBegin(s) * p.x.cols;
      for (int t = 0; t < p.StripTokens(s); ++t) ChangeInputs(*p.w, x + t * stride, changed + t * p.x.cols);
      x = changed;
      stride = p.x.cols;
    }
    p.kernels->pack_x(x, stride, p.StripTokens(s), p.x.cols, p.PackedStrip(s));
  };
  if (PacksAlone(p)) {
    for (int64_t s = 0; s < p.strips; ++s) pack(s);
  } else {
    ForItems(pool, p.strips, [&](int64_t s, int) { pack(s); });
  }
}

/// The widest tile there is for so many tokens and at most so many panels.
int TilePanels(const Product& p, int tokens, int64_t panels) {
  for (int n = static_cast<int>(std::min<int64_t>(panels, p.tile_panels)); n > 1; --n) {
    if (p.tiles->tile[n - 1][tokens - 1] != nullptr) return n;
  }
  return 1;
}

void FinishStrip(const Product& p, int64_t s, int64_t first_panel, int64_t panels, const float* sums) {
  const Epilogue& e = *p.epilogue;
  const int64_t first_row = first_panel * kPanelRows;
  const int64_t columns_per_panel = e.gated ? kPanelRows / 2 : kPanelRows;
  const int64_t first_col = first_panel * columns_per_panel;
  p.set->finish({.acc = sums,
                 .panels = static_cast<int32_t>(panels),
                 .tokens = p.StripTokens(s),
                 .y = p.y.row(p.StripBegin(s)) + first_col,
                 .y_stride = p.y.stride,
                 .y_cols = std::min(panels * columns_per_panel, p.y.cols - first_col),
                 .bias = e.bias == nullptr ? nullptr : e.bias + first_row,
                 .bias_rows = p.w->rows - first_row,
                 .activation = e.activation,
                 .gated = e.gated,
                 .accumulate = e.accumulate,
                 .scale = e.scale});
}

/// Lines of several panels as the tiles take them.
struct Weights {
  const std::byte* data;
  int64_t panel_bytes;
  int64_t lines;
};

Weights WeightsOfBlock(const Product& p, int64_t first_panel, int64_t panels, int64_t line, int64_t lines, int worker) {
  const int64_t panel_bytes = p.w->panel_bytes();
  const std::byte* const data = p.w->data + first_panel * panel_bytes + line * p.line_bytes;
  if (!p.widens()) return {data, panel_bytes, lines};
  std::byte* const wide = p.wide + worker * p.wide_per_worker;
  const int64_t wide_lines = lines * p.kernels->wide_lines;
  const int64_t wide_panel = wide_lines * p.kernels->wide_line_bytes;
  for (int64_t panel = 0; panel < panels; ++panel) {
    p.kernels->widen(data + panel * panel_bytes, lines, p.ahead, wide + panel * wide_panel);
  }
  return {wide, wide_panel, wide_lines};
}

/// What a worker computes at once: at most a group of panels times strips [first_strip, end_strip).
struct Part {
  int64_t first_panel;
  int64_t panels;
  int64_t first_strip;
  int64_t end_strip;
};

/// The weights that a worker needs next, fetched into the second-level cache bit by bit while it sweeps over strips:
/// those of the part's next block of k or, after the last, of the next item, which is most often its own. Each strip
/// has its share; tiles that can fetch it themselves, each from as many panels as it has.
class NextWeights {
 public:
  NextWeights(const Product& p, const Part& part, int64_t line) {
    if (p.fetches_own()) return;
    const bool panels_done = line >= p.lines && part.end_strip == p.strips;
    if (line >= p.lines) line = 0;
    const int64_t first_panel = part.first_panel + (panels_done ? part.panels : 0);
    panels_ = std::clamp<int64_t>(p.panels - first_panel, 0, p.group);
    panel_bytes_ = p.w->panel_bytes();
    begin_ = p.w->data + first_panel * panel_bytes_ + line * p.line_bytes;
    bytes_ = std::min(p.block_lines, p.lines - line) * p.line_bytes;
    step_ = RoundUp(CeilDiv(bytes_, part.end_strip - part.first_strip), 64);
  }
  /// Before a strip's tiles.
  void BeginStrip(const Product& p) {
    begin_ += now_;
    bytes_ -= now_;
    now_ = std::min(step_, bytes_);
    if (p.tiles->fetches_next) return;
    for (int64_t panel = 0; panel < panels_; ++panel) {
      for (int64_t i = 0; i < now_; i += 64) __builtin_prefetch(begin_ + panel * panel_bytes_ + i, 0, 2);
    }
  }
  /// For the tile that begins at `panel` of the group and takes so many.
  void GiveTo(MatMulTile& tile, int64_t panel, int64_t panels) const {
    if (panel >= panels_) return;
    tile.next = begin_ + panel * panel_bytes_;
    tile.next_panel_bytes = panel + panels <= panels_ ? panel_bytes_ : 0;
    tile.next_bytes = now_;
  }

 private:
  const std::byte* begin_ = nullptr;
  int64_t panels_ = 0;
  int64_t panel_bytes_ = 0;
  int64_t bytes_ = 0;  // of each panel from begin_ on
  int64_t step_ = 0;   // for each strip
  int64_t now_ = 0;    // for this one
};

void RunPart(const Product& p, const Part& part, int worker) {
  float* const all_sums = p.sums + worker * p.sums_per_worker;
  const int64_t sums_per_strip = p.block_lines < p.lines ? p.group * p.tiles->strip * kPanelRows : 0;
  int64_t line = 0;
  do {
    const int64_t lines = std::min(p.block_lines, p.lines - line);
    const Weights weights = WeightsOfBlock(p, part.first_panel, part.panels, line, lines, worker);
    NextWeights next(p, part, line + lines);
    for (int64_t s = part.first_strip; s < part.end_strip; ++s) {
      const int tokens = p.StripTokens(s);
      float* const sums = all_sums + (s - part.first_strip) * sums_per_strip;
      next.BeginStrip(p);
      for (int64_t panel = 0; panel < part.panels;) {
        const int n = TilePanels(p, tokens, part.panels - panel);
        MatMulTile tile{.x = p.PackedStrip(s) + p.XBytes(line) * tokens,
                        .w = weights.data + panel * weights.panel_bytes,
                        .panel_bytes = weights.panel_bytes,
                        .lines = weights.lines,
                        .ahead = p.ahead,
                        .near = p.near,
                        .acc = sums + panel * tokens * kPanelRows,
                        .resume = line > 0};
        if (p.tiles->fetches_next) next.GiveTo(tile, panel, n);
        p.tiles->tile[n - 1][tokens - 1](tile);
        panel += n;
      }
      if (line + lines == p.lines) FinishStrip(p, s, part.first_panel, part.panels, sums);
    }
    line += lines;
  } while (line < p.lines);
}

/// Waits until `done`, and fetches [begin, end) meanwhile, as much of it as the second-level cache surely takes.
void WaitFetching(const std::atomic<bool>& done, const std::byte* begin, const std::byte* end) {
  constexpr int64_t kMost = 256 << 10;
  constexpr int64_t kAtOnce = 512;  // bytes fetched between two looks at `done`
  end = std::min(end, begin + kMost);
  for (; begin < end; begin += kAtOnce) {
    if (done.load(std::memory_order_acquire)) return;
    for (int64_t i = 0; i < kAtOnce; i += 64) __builtin_prefetch(begin + i, 0, 2);
  }
  done.wait(false, std::memory_order_acquire);
}

void RunItem(const Product& p, int64_t item, int worker) {
  const int64_t first_panel = item / p.blocks() * p.group;
  const int64_t first_strip = item % p.blocks() * p.block_strips;
  RunPart(p,
          {first_panel, std::min(p.group, p.panels - first_panel), first_strip,
           std::min(first_strip + p.block_strips, p.strips)},
          worker);
}

/// Streamed weights: read in runs as long as may be, since every break in the stream costs time. While one thread packs
/// the activations, the others fetch the weights that they will begin with.
void RunStreams(const Product& p, ThreadPool& pool) {
  // Whole pairs of gate and up, and whole tiles where there are panels enough for all threads.
  const int64_t unit = p.epilogue->gated || p.panels >= kMaxTilePanels * kItemsPerThread * pool.size() ? 2 : 1;
  std::atomic<bool> packed{false};
  std::atomic<bool> taken{false};  // by the thread that packs: the first to come, most often the caller
  if (!PacksAlone(p)) {
    PackActivations(p, pool);
    packed = true;
  }
  ForRuns(
      pool, CeilDiv(p.panels, unit),
      [&](int64_t first) {
        if (packed.load(std::memory_order_acquire)) return;
        if (!taken.exchange(true, std::memory_order_relaxed)) {
          PackActivations(p, pool);
          packed.store(true, std::memory_order_release);
          packed.notify_all();
          return;
        }
        const std::byte* const begin = p.w->data + first * unit * p.w->panel_bytes();
        WaitFetching(packed, begin, p.w->data + p.panels * p.w->panel_bytes());
      },
      [&p, unit](int64_t begin, int64_t end, int worker) {
        const int64_t end_panel = std::min(end * unit, p.panels);
        for (int64_t panel = begin * unit; panel < end_panel; panel += p.group) {
          RunPart(p, {panel, std::min(p.group, end_panel - panel), 0, 1}, worker);
        }
      });
}

/// All of a product, from its activations on.
void RunProduct(const Product& p, ThreadPool& pool, bool serial) {
  if (!serial && p.streams()) return RunStreams(p, pool);
  PackActivations(p, pool);
  if (serial) {
    for (int64_t item = 0; item < p.items(); ++item) RunItem(p, item, 0);
  } else {
    ForItems(pool, p.items(), [&p](int64_t item, int worker) { RunItem(p, item, worker); });
  }
}

}  // namespace

Status MatMul(ExecContext& ctx, MatView<const float> x, const PackedWeight& w, const Epilogue& epilogue,
              MatView<float> y) {
  const MatMulKernels& set = *ctx.kernels->matmul;
  const FormatKernels* const kernels = KernelsFor(set, w, x.rows, ctx.round_weights);
  Product product{&set, kernels, kernels, x, &w, &epilogue, y};
  CheckShapes(product);
  if (x.rows == 0 || w.rows == 0) return OkStatus();
  if (ctx.observer != nullptr) ctx.observer->OnMatMul(w, x);
  const int threads = ctx.pool->size();
  CutIntoItems(product, threads);
  const Arena::Mark mark = ctx.scratch->GetMark();
  const Status allocated = AllocateScratch(product, *ctx.scratch, threads);
  if (!allocated.ok()) {
    ctx.scratch->Rewind(mark);
    return allocated.WithContext("matmul");
  }
  const int64_t flops = 2 * x.rows * w.rows * w.cols;
  RunProduct(product, *ctx.pool, w.bytes() <= kSerialBytes && flops <= kSerialFlops);
  ctx.scratch->Rewind(mark);
  ctx.counters.weight_bytes += w.bytes();
  ctx.counters.matmul_flops += flops;
  return OkStatus();
}

int64_t MatMulScratchBytes(const KernelSet& set, int threads, int64_t tokens, const PackedWeight& w, bool gated,
                           bool round_weights) {
  if (tokens == 0 || w.rows == 0) return 0;
  const FormatKernels* const kernels = KernelsFor(*set.matmul, w, tokens, round_weights);
  const Epilogue epilogue{.gated = gated};
  Product p{set.matmul, kernels, kernels, MatView<const float>(nullptr, tokens, w.cols), &w, &epilogue, {}};
  CutIntoItems(p, threads);
  SizeScratch(p);
  const int64_t sums = p.sums_per_worker * static_cast<int64_t>(sizeof(float));
  const int64_t changed = tokens * w.cols * static_cast<int64_t>(sizeof(float));
  return (ChangesInputs(w) ? Arena::Occupied(changed) : 0) + Arena::Occupied(tokens * p.XBytes(p.lines)) +
         Arena::Occupied(sums * threads) + (p.widens() ? Arena::Occupied(p.wide_per_worker * threads) : 0);
}

}  // namespace kvasir
