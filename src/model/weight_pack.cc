// Slots → packed bytes, in stripes on all threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>

#include "base/checked.h"
#include "model/input_scales.h"
#include "model/weights.h"
#include "quant/coded_blocks.h"

namespace kvasir {
namespace {

constexpr int64_t kStripeBytes = int64_t{16} << 20;

/// Which row of its tensor row `r` of a list of segments is.
int64_t RowOfTensor(const std::vector<RowSegment>& segments, int64_t r, const RowSegment** found) {
  *found = nullptr;
  for (const RowSegment& s : segments) {
    if (r < s.count) {
      *found = &s;
      return s.first + r * s.step;
    }
    r -= s.count;
  }
  return 0;
}

/// Where row `r` of a list of segments lies; no data for rows that are made (RowEncoder).
PackSource LocateRow(const std::vector<RowSegment>& segments, int64_t r, const RowSegment** found) {
  const int64_t row = RowOfTensor(segments, r, found);
  if (*found == nullptr) return {};
  const RowSegment& s = **found;
  const RawTensor& t = *s.tensor;
  if (t.rows) return {nullptr, 1, t.dtype};
  const int64_t inner = t.shape.size() <= 1 ? 1 : t.shape.back();
  if (s.transposed) {
    return {t.data + (s.slice_offset + row) * DTypeBlockBytes(t.dtype), inner, t.dtype};
  }
  const int64_t blocks = (s.slice_offset + row * inner) / DTypeBlockSize(t.dtype);
  return {t.data + blocks * DTypeBlockBytes(t.dtype), 1, t.dtype};
}

int64_t RowsOf(const std::vector<RowSegment>& segments) {
  int64_t total = 0;
  for (const RowSegment& s : segments) total += s.count;
  return total;
}

/// Whether any scale of a panel's records is NaN or infinite.
bool HasNonFiniteScale(const std::byte* data, int64_t bytes, const QuantLayout& layout) {
  if (layout.scale == ScaleKind::kE8M0) return false;
  if (layout.scale == ScaleKind::kF32) {
    for (const std::byte* record = data; record < data + bytes; record += layout.record_bytes()) {
      const auto* scales = reinterpret_cast<const float*>(record + layout.scales_at());
      for (int32_t i = 0; i < layout.blocks() * kPanelRows; ++i) {
        if (!std::isfinite(scales[i])) return true;
      }
    }
    return false;
  }
  const int32_t begin = layout.super() ? layout.super_at() : layout.scales_at();
  for (const std::byte* record = data; record < data + bytes; record += layout.record_bytes()) {
    const auto* words = reinterpret_cast<const uint16_t*>(record + begin);
    for (int32_t i = 0; i < (layout.header_bytes() - begin) / 2; ++i) {
      if ((words[i] & 0x7c00u) == 0x7c00u) return true;
    }
  }
  return false;
}

/// Whether any code of a panel of eight-bit floats is NaN or infinite.
bool HasNonFiniteCode(const std::byte* data, int64_t bytes, const QuantLayout& layout) {
  // E4M3 has one NaN (of each sign) and no infinities.
  const unsigned special = layout.table == CodeTable::kE4M3 ? 0x7f : 0x7c;
  for (const std::byte* record = data; record < data + bytes; record += layout.record_bytes()) {
    for (int32_t i = layout.unit_at(0); i < layout.record_bytes(); ++i) {
      if ((static_cast<unsigned>(record[i]) & special) == special) return true;
    }
  }
  return false;
}

/// Whether any element is NaN or infinite: all exponent bits set.
bool HasNonFinite(const std::byte* data, int64_t bytes, WeightFormat format) {
  if (const QuantLayout* layout = GetQuantLayout(format)) {
    return HasNonFiniteScale(data, bytes, *layout) || (layout->float8() && HasNonFiniteCode(data, bytes, *layout));
  }
  if (format == WeightFormat::kF32) {
    const auto* words = reinterpret_cast<const uint32_t*>(data);
    uint32_t bad = 0;
    for (int64_t i = 0; i < bytes / 4; ++i) bad |= static_cast<uint32_t>((words[i] & 0x7f800000u) == 0x7f800000u);
    return bad != 0;
  }
  const auto* words = reinterpret_cast<const uint16_t*>(data);
  const uint16_t mask = format == WeightFormat::kBF16 ? 0x7f80u : 0x7c00u;
  uint16_t bad = 0;
  for (int64_t i = 0; i < bytes / 2; ++i) bad = static_cast<uint16_t>(bad | ((words[i] & mask) == mask ? 1u : 0u));
  return bad != 0;
}

/// Divides each row by its length, in place (Baichuan 2's head); rows: [16, cols] fp32.
void NormalizeRow(float* row, int64_t cols) {
  double sum = 0.0;
  for (int64_t k = 0; k < cols; ++k) sum += static_cast<double>(row[k]) * row[k];
  const double length = std::max(std::sqrt(sum), 1e-12);
  for (int64_t k = 0; k < cols; ++k) row[k] = static_cast<float>(row[k] / length);
}

/// A part of one slot: panels [first, first + count), or a whole vector.
struct Job {
  const WeightSlot* slot;
  int64_t first_panel;
  int64_t panels;
  int64_t bytes;
};

/// Where in the weight buffer a slot's bytes_behind are.
int64_t BehindPanels(const WeightSlot& slot) { return slot.offset + slot.bytes - slot.bytes_behind; }

class Packer {
 public:
  explicit Packer(std::byte* data) : data_(data) {}

  /// AddColumnSizes of the job's rows.
  std::vector<float> MeasureColumns(const Job& job) {
    const WeightSlot& slot = *job.slot;
    std::vector<float> sizes(static_cast<size_t>(slot.cols), 0.0f);
    std::vector<float> row(sizes.size());
    for (int64_t p = job.first_panel; p < job.first_panel + job.panels; ++p) {
      for (int64_t r = 0; r < RowsOfPanel(slot, p); ++r) {
        const RowSegment* segment = nullptr;
        LoadRow(SourceRow(slot, p, r, &segment), slot.cols, row.data());
        AddColumnSizes(row, sizes);
      }
    }
    GiveBack(slot, job);
    return sizes;
  }

  /// The first row of the job that is not finite is an error naming its tensor.
  Status Run(const Job& job) {
    const WeightSlot& slot = *job.slot;
    if (slot.vector) return FillVector(slot);
    const PackedWeight shape{.format = slot.format, .rows = slot.rows, .cols = slot.cols};
    for (int64_t p = job.first_panel; p < job.first_panel + job.panels; ++p) {
      std::byte* out = data_ + slot.offset + p * shape.panel_bytes();
      RETURN_IF_ERROR(PackOne(slot, p, out));
      if (HasNonFinite(out, shape.panel_bytes(), slot.format)) {
        const RawTensor& tensor = NonFiniteTensor(slot, p, out);
        return InvalidData(
            "tensor \"{}\" holds NaN or infinity (or a value beyond {}'s range); the checkpoint is "
            "damaged or needs a wider --dtype",
            tensor.name, slot.format == WeightFormat::kF16 ? "f16" : "its type");
      }
    }
    if (job.first_panel == 0 && !slot.order.empty()) {
      std::memcpy(data_ + BehindPanels(slot), slot.order.data(), slot.order.size_bytes());
    }
    GiveBack(slot, job);
    return OkStatus();
  }

 private:
  /// The rows that a panel is made of begin at FirstRow in SegmentsOf.
  static const std::vector<RowSegment>& SegmentsOf(const WeightSlot& slot, int64_t panel) {
    return slot.gated && panel % 2 == 0 ? slot.gate_segments : slot.segments;
  }
  static int64_t FirstRow(const WeightSlot& slot, int64_t panel) {
    return (slot.gated ? panel / 2 : panel) * kPanelRows;
  }

  static int64_t RowsOfPanel(const WeightSlot& slot, int64_t panel) {
    const int64_t total = slot.gated ? RowsOf(SegmentsOf(slot, panel)) : slot.rows;
    return std::clamp<int64_t>(total - FirstRow(slot, panel), 0, kPanelRows);
  }

  /// Row `r` of a panel as it is stored or made.
  PackSource SourceRow(const WeightSlot& slot, int64_t panel, int64_t r, const RowSegment** segment) {
    const std::vector<RowSegment>& segments = SegmentsOf(slot, panel);
    const int64_t row = FirstRow(slot, panel) + r;
    PackSource source = LocateRow(segments, row, segment);
    if ((*segment)->tensor->rows) MakeRow(slot, segments, row, static_cast<size_t>(r), source);
    return source;
  }

  /// The tensor of the first row of a packed panel that holds NaN or infinity. REQUIRES: there is one.
  static const RawTensor& NonFiniteTensor(const WeightSlot& slot, int64_t panel, const std::byte* data) {
    const PackedWeight view{.format = slot.format, .rows = kPanelRows, .cols = slot.cols, .data = data};
    std::vector<float> row(static_cast<size_t>(slot.cols));
    const RowSegment* segment = nullptr;
    for (int64_t r = 0; r < kPanelRows; ++r) {
      UnpackRow(view, r, row.data());
      if (std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) continue;
      LocateRow(SegmentsOf(slot, panel), FirstRow(slot, panel) + r, &segment);
      break;
    }
    KVASIR_CHECK(segment != nullptr);
    return *segment->tensor;
  }

  Status PackOne(const WeightSlot& slot, int64_t panel, std::byte* out) {
    const int64_t count = RowsOfPanel(slot, panel);
    PackSource rows[kPanelRows];
    for (int64_t r = 0; r < count; ++r) {
      const RowSegment* segment = nullptr;
      rows[r] = SourceRow(slot, panel, r, &segment);
      if (slot.normalize_rows || slot.quantized) {
        RETURN_IF_ERROR(ChangeRow(slot, *segment->tensor, static_cast<size_t>(r), rows[r]));
      }
    }
    PackPanel({rows, static_cast<size_t>(count)}, slot.cols, slot.format, out);
    return OkStatus();
  }

  /// Row `r` of segments whose rows are made, as `source` of panel row n: encoded, or widened where the slot is to have
  /// plain values in the inputs' own order.
  void MakeRow(const WeightSlot& slot, const std::vector<RowSegment>& segments, int64_t r, size_t n,
               PackSource& source) {
    const RowSegment* segment = nullptr;
    const int64_t row = RowOfTensor(segments, r, &segment);
    const RawTensor& tensor = *segment->tensor;
    std::vector<std::byte>& bytes = bytes_[n];
    bytes.resize(static_cast<size_t>(slot.cols / DTypeBlockSize(tensor.dtype) * DTypeBlockBytes(tensor.dtype)));
    tensor.rows->Encode(row, bytes.data());
    source = {bytes.data(), 1, tensor.dtype};
    const std::span<const int32_t> order = tensor.rows->order();
    if (order.empty() || !slot.order.empty()) return;
    values_.resize(static_cast<size_t>(slot.cols));
    LoadRow(source, slot.cols, values_.data());
    std::vector<float>& natural = floats_[n];
    natural.resize(static_cast<size_t>(slot.cols));
    for (size_t i = 0; i < order.size(); ++i) natural[static_cast<size_t>(order[i])] = values_[i];
    source = {reinterpret_cast<const std::byte*>(natural.data()), 1, DType::kF32};
  }

  /// Normalises or rounds one row of `tensor`, panel row n, which `source` becomes.
  Status ChangeRow(const WeightSlot& slot, const RawTensor& tensor, size_t n, PackSource& source) {
    constexpr int64_t kLongestBlock = 256;
    std::vector<float>& row = floats_[n];
    std::vector<float> loaded(static_cast<size_t>(RoundUp(slot.cols, kLongestBlock)));
    LoadRow(source, slot.cols, loaded.data());
    row = std::move(loaded);
    if (slot.normalize_rows) NormalizeRow(row.data(), slot.cols);
    source = {reinterpret_cast<const std::byte*>(row.data()), 1, DType::kF32};
    if (!slot.quantized) return OkStatus();
    if (!std::all_of(row.begin(), row.begin() + slot.cols, [](float x) { return std::isfinite(x); })) {
      return InvalidData("tensor \"{}\" holds NaN or infinity; the checkpoint is damaged", tensor.name);
    }
    const auto* const scales = reinterpret_cast<const float*>(data_ + BehindPanels(slot));
    for (int64_t k = 0; k < slot.cols; ++k) row[static_cast<size_t>(k)] /= scales[k];
    // Zeros fill the last block.
    const int64_t block = DTypeBlockSize(*slot.quantized);
    const int64_t cols = RoundUp(slot.cols, block);
    std::fill(row.begin() + slot.cols, row.begin() + cols, 0.0f);
    bytes_[n].resize(static_cast<size_t>(cols / block * DTypeBlockBytes(*slot.quantized)));
    QuantizeCodedRow(*slot.quantized, row.data(), cols, bytes_[n].data());
    source = {bytes_[n].data(), 1, *slot.quantized};
    return OkStatus();
  }

  /// Writes an fp32 vector: the rows of one column, one value each, as packing and unpacking a row of n columns.
  Status FillVector(const WeightSlot& slot) {
    auto* out = reinterpret_cast<float*>(data_ + slot.offset);
    const auto fill = [&](const std::vector<RowSegment>& segments, int64_t first_value) -> Status {
      const int64_t count = RowsOf(segments);
      alignas(64) float panel[kPanelRows * kWeightColAlign];
      for (int64_t r = 0; r < count; ++r) {
        const RowSegment* segment = nullptr;
        const PackSource source = LocateRow(segments, r, &segment);
        PackPanel({&source, 1}, 1, WeightFormat::kF32, reinterpret_cast<std::byte*>(panel));
        if (!std::isfinite(panel[0])) return InvalidData("tensor \"{}\" holds NaN or infinity", segment->tensor->name);
        // In a gated bias the values alternate by panels of 16, as the rows do.
        const int64_t at =
            slot.gated ? (r / kPanelRows * 2) * kPanelRows + r % kPanelRows + first_value : r + first_value;
        out[at] = panel[0];
      }
      return OkStatus();
    };
    if (slot.gated) RETURN_IF_ERROR(fill(slot.gate_segments, 0));
    return fill(slot.segments, slot.gated ? kPanelRows : 0);
  }

  /// The mapped pages of contiguous rows that this job has read are not needed again.
  static void GiveBack(const WeightSlot& slot, const Job& job) {
    for (const auto* segments : {&slot.segments, &slot.gate_segments}) {
      const int64_t panels = slot.gated ? job.panels / 2 : job.panels;
      const int64_t first_panel = slot.gated ? job.first_panel / 2 : job.first_panel;
      int64_t begin = first_panel * kPanelRows;
      int64_t end = begin + panels * kPanelRows;
      for (const RowSegment& s : *segments) {
        const int64_t from = std::clamp<int64_t>(begin, 0, s.count);
        const int64_t to = std::clamp<int64_t>(end, 0, s.count);
        begin -= s.count;
        end -= s.count;
        if (from < to && to == s.count && s.tensor->rows) s.tensor->rows->GiveBack();
        if (from >= to || s.transposed || s.step != 1 || !s.tensor->file) continue;
        const RowSegment* ignored = nullptr;
        const std::vector<RowSegment> one = {s};
        const PackSource first = LocateRow(one, from, &ignored);
        const PackSource last = LocateRow(one, to - 1, &ignored);
        s.tensor->file->GiveBack(first.data, static_cast<size_t>(last.data - first.data));
      }
    }
  }

  std::byte* data_;
  std::vector<std::byte> bytes_[kPanelRows];  // made or rounded rows
  std::vector<float> floats_[kPanelRows];
  std::vector<float> values_;
};

std::vector<Job> CutIntoJobs(const WeightPlan& plan) {
  std::vector<Job> jobs;
  for (const WeightSlot& slot : plan.slots) {
    if (slot.vector) {
      jobs.push_back({&slot, 0, 0, slot.bytes});
      continue;
    }
    const PackedWeight shape{.format = slot.format, .rows = slot.rows, .cols = slot.cols};
    const int64_t panels = CeilDiv(slot.rows, kPanelRows);
    // An even number, so that a gate panel and its up panel stay together.
    const int64_t stripe = std::max<int64_t>(kStripeBytes / std::max<int64_t>(shape.panel_bytes(), 1) / 2 * 2, 2);
    for (int64_t p = 0; p < panels; p += stripe) {
      const int64_t count = std::min(stripe, panels - p);
      jobs.push_back({&slot, p, count, count * shape.panel_bytes()});
    }
  }
  return jobs;
}

/// Fills in the input scales of the slots that are rounded.
void MeasureInputScales(const WeightPlan& plan, const std::vector<Job>& jobs, ThreadPool& pool, std::byte* data) {
  const auto scales_of = [&](const WeightSlot& slot) {
    return std::span(reinterpret_cast<float*>(data + BehindPanels(slot)), static_cast<size_t>(slot.cols));
  };
  std::mutex mutex;
  pool.ParallelFor(static_cast<int64_t>(jobs.size()), 1, [&](int64_t begin, int64_t end, int) {
    Packer packer(data);
    for (int64_t i = begin; i < end; ++i) {
      const Job& job = jobs[static_cast<size_t>(i)];
      if (!job.slot->quantized) continue;
      const std::vector<float> own = packer.MeasureColumns(job);
      const std::span<float> sizes = scales_of(*job.slot);  // zeros at first
      const std::lock_guard<std::mutex> lock(mutex);
      for (size_t k = 0; k < own.size(); ++k) sizes[k] = std::max(sizes[k], own[k]);
    }
  });
  for (const WeightSlot& slot : plan.slots) {
    if (slot.quantized) InputScalesOf(scales_of(slot));
  }
}

}  // namespace

Result<Buffer> PackWeights(const WeightPlan& plan, ThreadPool& pool,
                           const std::function<void(int64_t, int64_t)>& progress) {
  ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(plan.bytes, MemoryOwner::kWeights));
  const std::vector<Job> jobs = CutIntoJobs(plan);
  MeasureInputScales(plan, jobs, pool, buffer.data());
  std::mutex mutex;
  Status first_error;
  std::atomic<bool> failed{false};
  std::atomic<int64_t> done{0};
  std::vector<Packer> packers(static_cast<size_t>(pool.size()), Packer(buffer.data()));
  pool.ParallelFor(static_cast<int64_t>(jobs.size()), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      if (failed.load(std::memory_order_relaxed)) return;
      const Job& job = jobs[static_cast<size_t>(i)];
      Status status = packers[static_cast<size_t>(worker)].Run(job);
      const int64_t now = done.fetch_add(job.bytes) + job.bytes;
      if (!status.ok()) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (first_error.ok()) first_error = std::move(status);
        failed = true;
      } else if (worker == 0 && progress) {
        progress(now, plan.bytes);
      }
    }
  });
  if (!first_error.ok()) return first_error;
  PlaceWeights(plan, buffer.data());
  return buffer;
}

void PlaceWeights(const WeightPlan& plan, const std::byte* data) {
  for (const WeightSlot& slot : plan.slots) {
    if (slot.vector) {
      *slot.vector = reinterpret_cast<const float*>(data + slot.offset);
    } else {
      *slot.matrix = {.format = slot.format, .rows = slot.rows, .cols = slot.cols, .data = data + slot.offset};
      const std::byte* const behind = data + BehindPanels(slot);
      if (slot.quantized) {
        const auto* const scales = reinterpret_cast<const float*>(behind);
        const bool any = std::any_of(scales, scales + slot.cols, [](float scale) { return scale != 1.0f; });
        slot.matrix->input_scales = any ? scales : nullptr;
      } else if (slot.bytes_behind > 0) {
        slot.matrix->order = reinterpret_cast<const int32_t*>(behind);
      }
    }
  }
}

namespace {

/// Two lanes of multiply-and-mix; not cryptographic, but it changes with any byte.
class Hasher {
 public:
  void Add(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    while (size > 0) {
      uint64_t word = 0;
      const size_t n = std::min<size_t>(size, 8);
      std::memcpy(&word, bytes, n);
      Mix(word ^ (static_cast<uint64_t>(n) << 56));
      bytes += n;
      size -= n;
    }
  }
  void Add(std::string_view text) {
    Mix(text.size());
    Add(text.data(), text.size());
  }
  std::string Hex() const { return fmt::format("{:016x}{:016x}", a_, b_); }

 private:
  void Mix(uint64_t word) {
    a_ = (a_ ^ word) * 0x9E3779B97F4A7C15ull;
    a_ ^= a_ >> 32;
    b_ = (b_ + word) * 0xC2B2AE3D27D4EB4Full;
    b_ ^= b_ >> 29;
  }
  uint64_t a_ = 0x243F6A8885A308D3ull;
  uint64_t b_ = 0x13198A2E03707344ull;
};

}  // namespace

std::string FingerprintModel(const DecoderSpec& spec, const TensorSource& source) {
  constexpr int64_t kSample = 4096;
  Hasher hasher;
  hasher.Add(spec.family);
  hasher.Add(fmt::format("{} {} {} {}", spec.vocab_size, spec.width, spec.layers.size(), spec.context));
  for (const RawTensor& tensor : source.stored()) {
    hasher.Add(tensor.name);
    hasher.Add(fmt::format("{} [{}]", DTypeName(tensor.dtype), fmt::join(tensor.shape, ",")));
    for (const int64_t at : {int64_t{0}, tensor.bytes / 2, tensor.bytes - kSample}) {
      const int64_t begin = std::clamp<int64_t>(at, 0, std::max<int64_t>(tensor.bytes - kSample, 0));
      hasher.Add(tensor.data + begin, static_cast<size_t>(std::min(kSample, tensor.bytes)));
    }
  }
  return hasher.Hex();
}

}  // namespace kvasir
