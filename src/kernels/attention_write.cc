// Writing new keys and values into the tiles of a cache. The bytes are the same on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/dtype.h"
#include "kernels/attention_kernels.h"
#include "kernels/kernel_set.h"
#include "kernels/kv_codes.h"
#include "kernels/ops.h"

namespace kvasir {
namespace {

/// Tasks of this many tiles (of one KV head): enough work to be worth handing out.
constexpr int64_t kTilesPerTask = 4;

/// One head of one token, rounded to 16 bits: [head_dim].
void Round(const KvView& kv, const float* x, const PackKernels& pack, uint16_t* out) {
  if (kv.type == KvType::kBF16) {
    pack.f32_to_bf16(x, kv.head_dim, out);
    return;
  }
  pack.f32_to_f16(x, kv.head_dim, out);
  // Values beyond fp16 saturate: as infinities they would be NaN to rows that give the token no weight. What was
  // infinite before stays so.
  for (int64_t i = 0; i < kv.head_dim; ++i) {
    if ((out[i] & 0x7fff) == 0x7c00 && std::isfinite(x[i])) out[i] = static_cast<uint16_t>(out[i] - 1);
  }
}

/// One head's codes and scales.
struct Codes {
  uint8_t codes[kMaxHeadDim + 4];
  KvScale scales[kMaxHeadDim / kKvGroup];
};

void ScatterKeyI8(const Codes& k, int64_t d, int64_t s, std::byte* tile) {
  std::byte* out = tile + KeyCodePlace(KvType::kI8, s, 0).byte;
  for (int64_t i = 0; i < d; ++i) out[i / 2 * 32 + i % 2] = std::byte{k.codes[i]};
}

void ScatterValueI8(const Codes& v, int64_t d, int64_t s, std::byte* tile) {
  std::byte* out = tile + ValueCodePlace(KvType::kI8, d, s, 0).byte;
  for (int64_t i = 0; i < d; ++i) out[i * 2] = std::byte{v.codes[i]};
}

/// Two codes of a slot in the halves of a byte, which is written whole.
std::byte Pair(const uint8_t* codes, int64_t apart) { return static_cast<std::byte>(codes[0] | codes[apart] << 4); }

void ScatterKeyI4(const Codes& k, int64_t d, int64_t s, std::byte* tile) {
  for (int64_t at = 0; at < d; at += kKvGroup) {
    std::byte* out = tile + KeyCodePlace(KvType::kI4, s, at).byte;
    for (int64_t i = 0; i < std::min(kKvGroup, d - at); i += 4) {
      out[i * 8] = Pair(k.codes + at + i, 2);
      out[i * 8 + 1] = Pair(k.codes + at + i + 1, 2);
    }
  }
}

void ScatterValueI4(const Codes& v, int64_t d, int64_t s, std::byte* tile) {
  for (int64_t at = 0; at < d; at += kKvGroup) {
    std::byte* out = tile + ValueCodePlace(KvType::kI4, d, s, at).byte;
    const int64_t half = (std::min(kKvGroup, d - at) + 1) / 2;
    for (int64_t i = 0; i < half; ++i) out[i * 2] = Pair(v.codes + at + i, half);
  }
}

/// The codes of x; those behind d are zero.
void MakeCodes(const KvView& kv, const float* x, Codes* out) {
  QuantizeKv(kv.type, x, kv.head_dim, out->codes, out->scales);
  for (int64_t i = kv.head_dim; i < kv.head_dim + 3; ++i) out->codes[i] = 0;
}

void WriteKeyCodes(const KvView& kv, const float* k, int64_t s, std::byte* tile) {
  const int64_t d = kv.head_dim;
  Codes codes;
  MakeCodes(kv, k, &codes);
  (kv.type == KvType::kI8 ? ScatterKeyI8 : ScatterKeyI4)(codes, d, s, tile);
  for (int64_t g = 0; g < KvGroups(kv.type, d); ++g) {
    StoreKvScale(kv.type, tile + KeyScaleOffset(kv.type, d, s, g), codes.scales[g]);
  }
}

void WriteValueCodes(const KvView& kv, const float* v, int64_t s, std::byte* tile) {
  const int64_t d = kv.head_dim;
  Codes codes;
  MakeCodes(kv, v, &codes);
  (kv.type == KvType::kI8 ? ScatterValueI8 : ScatterValueI4)(codes, d, s, tile);
  for (int64_t g = 0; g < KvGroups(kv.type, d); ++g) {
    StoreKvScale(kv.type, tile + ValueScaleOffset(kv.type, d, s, g), codes.scales[g]);
  }
}

void WriteKey16(const KvView& kv, const uint16_t* k, int64_t s, std::byte* tile) {
  const int64_t d = kv.head_dim;
  auto* out = reinterpret_cast<uint16_t*>(tile) + s * 2;
  for (int64_t i = 0; i + 1 < d; i += 2) {
    out[i * 16] = k[i];
    out[i * 16 + 1] = k[i + 1];
  }
  if (d % 2 != 0) {
    out[(d - 1) * 16] = k[d - 1];
    out[(d - 1) * 16 + 1] = 0;
  }
}

void WriteValue16(const KvView& kv, const uint16_t* v, int64_t s, std::byte* tile) {
  auto* out = reinterpret_cast<uint16_t*>(tile) + s / 2 * kv.head_dim * 2 + s % 2;
  for (int64_t i = 0; i < kv.head_dim; ++i) out[i * 2] = v[i];
}

void WriteKey32(const KvView& kv, const float* k, int64_t s, std::byte* tile) {
  auto* out = reinterpret_cast<float*>(tile) + s;
  for (int64_t i = 0; i < kv.head_dim; ++i) out[i * 16] = k[i];
}

void WriteKey(const KvView& kv, const PackKernels& pack, const float* k, int64_t s, std::byte* tile) {
  if (HasCodes(kv.type)) return WriteKeyCodes(kv, k, s, tile);
  if (kv.type == KvType::kF32) return WriteKey32(kv, k, s, tile);
  uint16_t rounded[kMaxHeadDim];
  Round(kv, k, pack, rounded);
  WriteKey16(kv, rounded, s, tile);
}

void WriteValue(const KvView& kv, const PackKernels& pack, const float* v, int64_t s, std::byte* tile) {
  const int64_t d = kv.head_dim;
  if (HasCodes(kv.type)) return WriteValueCodes(kv, v, s, tile);
  if (kv.type == KvType::kF32) {
    std::memcpy(tile + s * d * 4, v, static_cast<size_t>(d) * 4);
    return;
  }
  uint16_t rounded[kMaxHeadDim];
  Round(kv, v, pack, rounded);
  WriteValue16(kv, rounded, s, tile);
}

void WriteTiles(const KvWrite& write, const PackKernels& pack, int64_t head, int64_t first_tile, int64_t end_tile) {
  const KvView& kv = write.kv;
  const int64_t begin = std::max(first_tile * kTileTokens, write.first_slot);
  const int64_t end = std::min(end_tile * kTileTokens, write.first_slot + write.k.rows);
  for (int64_t slot = begin; slot < end; ++slot) {
    const int64_t row = slot - write.first_slot;
    const int64_t at = head * kv.head_dim;
    WriteKey(kv, pack, write.k.row(row) + at, slot % kTileTokens, kv.k_tile(head, slot / kTileTokens));
    if (write.v.data == nullptr) continue;
    WriteValue(kv, pack, write.v.row(row) + at, slot % kTileTokens, kv.v_tile(head, slot / kTileTokens));
  }
}

/// Tasks per KV head of one write.
int64_t TasksOf(const KvWrite& write) {
  if (write.k.rows == 0) return 0;
  const int64_t first = write.first_slot / kTileTokens;
  const int64_t end = CeilDiv(write.first_slot + write.k.rows, kTileTokens);
  return CeilDiv(end - first, kTilesPerTask);
}

}  // namespace

void WriteKv(ExecContext& ctx, std::span<const KvWrite> writes) {
  int64_t tasks = 0;
  int64_t rows = 0;
  for (const KvWrite& write : writes) {
    KVASIR_CHECK(write.kv.head_dim >= 1 && write.kv.head_dim <= kMaxHeadDim);
    KVASIR_CHECK((write.v.data == nullptr || write.k.rows == write.v.rows) && write.first_slot >= 0);
    KVASIR_CHECK(write.first_slot + write.k.rows <= write.kv.length);
    tasks += TasksOf(write) * write.kv.kv_heads;
    rows += write.k.rows;
    ctx.counters.kv_bytes += write.k.rows * write.kv.kv_heads * KvTokenBytes(write.kv.type, write.kv.head_dim);
  }
  const PackKernels& pack = *ctx.kernels->pack;
  const auto run = [&](int64_t begin, int64_t end, int) {
    int64_t first = 0;  // tasks of the writes before
    for (const KvWrite& write : writes) {
      const int64_t per_head = TasksOf(write);
      const int64_t count = per_head * write.kv.kv_heads;
      for (int64_t i = std::max(begin - first, int64_t{0}); i < std::min(end - first, count); ++i) {
        const int64_t tile = write.first_slot / kTileTokens + i % per_head * kTilesPerTask;
        WriteTiles(write, pack, i / per_head, tile, tile + kTilesPerTask);
      }
      first += count;
    }
  };
  // Few rows are written faster than other threads wake up.
  if (rows <= 4) {
    run(0, tasks, 0);
  } else {
    ctx.pool->ParallelFor(tasks, CeilDiv(tasks, int64_t{4} * ctx.pool->size()), run);
  }
}

}  // namespace kvasir
