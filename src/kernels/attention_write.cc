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

void ScatterI8(int64_t d, const Codes& k, const Codes& v, int64_t s, std::byte* k_tile, std::byte* v_tile) {
  std::byte* k_out = k_tile + KeyCodePlace(KvType::kI8, s, 0).byte;
  std::byte* v_out = v_tile + ValueCodePlace(KvType::kI8, d, s, 0).byte;
  for (int64_t i = 0; i < d; ++i) {
    k_out[i / 2 * 32 + i % 2] = std::byte{k.codes[i]};
    v_out[i * 2] = std::byte{v.codes[i]};
  }
}

/// Both halves of a byte are the slot's own: bytes are written whole. Codes behind d are zero.
void ScatterI4(int64_t d, const Codes& k, const Codes& v, int64_t s, std::byte* k_tile, std::byte* v_tile) {
  const auto pair = [](const uint8_t* codes, int64_t apart) {
    return static_cast<std::byte>(codes[0] | codes[apart] << 4);
  };
  for (int64_t at = 0; at < d; at += kKvGroup) {
    const int64_t n = std::min(kKvGroup, d - at);
    std::byte* k_out = k_tile + KeyCodePlace(KvType::kI4, s, at).byte;
    for (int64_t i = 0; i < n; i += 4) {
      k_out[i * 8] = pair(k.codes + at + i, 2);
      k_out[i * 8 + 1] = pair(k.codes + at + i + 1, 2);
    }
    std::byte* v_out = v_tile + ValueCodePlace(KvType::kI4, d, s, at).byte;
    const int64_t half = (n + 1) / 2;
    for (int64_t i = 0; i < half; ++i) v_out[i * 2] = pair(v.codes + at + i, half);
  }
}

void WriteRowCodes(const KvView& kv, const float* k, const float* v, int64_t s, std::byte* k_tile, std::byte* v_tile) {
  const int64_t d = kv.head_dim;
  Codes key;
  Codes value;
  QuantizeKv(kv.type, k, d, key.codes, key.scales);
  QuantizeKv(kv.type, v, d, value.codes, value.scales);
  if (kv.type == KvType::kI8) {
    ScatterI8(d, key, value, s, k_tile, v_tile);
  } else {
    for (int64_t i = d; i < d + 3; ++i) key.codes[i] = value.codes[i] = 0;
    ScatterI4(d, key, value, s, k_tile, v_tile);
  }
  for (int64_t g = 0; g < KvGroups(kv.type, d); ++g) {
    StoreKvScale(kv.type, k_tile + KeyScaleOffset(kv.type, d, s, g), key.scales[g]);
    StoreKvScale(kv.type, v_tile + ValueScaleOffset(kv.type, d, s, g), value.scales[g]);
  }
}

void WriteRow16(const KvView& kv, const uint16_t* k, const uint16_t* v, int64_t s, std::byte* k_tile,
                std::byte* v_tile) {
  const int64_t d = kv.head_dim;
  auto* k_out = reinterpret_cast<uint16_t*>(k_tile) + s * 2;
  for (int64_t i = 0; i + 1 < d; i += 2) {
    k_out[i * 16] = k[i];
    k_out[i * 16 + 1] = k[i + 1];
  }
  if (d % 2 != 0) {
    k_out[(d - 1) * 16] = k[d - 1];
    k_out[(d - 1) * 16 + 1] = 0;
  }
  auto* v_out = reinterpret_cast<uint16_t*>(v_tile) + s / 2 * d * 2 + s % 2;
  for (int64_t i = 0; i < d; ++i) v_out[i * 2] = v[i];
}

void WriteRow32(const KvView& kv, const float* k, const float* v, int64_t s, std::byte* k_tile, std::byte* v_tile) {
  auto* k_out = reinterpret_cast<float*>(k_tile) + s;
  for (int64_t i = 0; i < kv.head_dim; ++i) k_out[i * 16] = k[i];
  std::memcpy(v_tile + s * kv.head_dim * 4, v, static_cast<size_t>(kv.head_dim) * 4);
}

void WriteTiles(const KvWrite& write, const PackKernels& pack, int64_t head, int64_t first_tile, int64_t end_tile) {
  const KvView& kv = write.kv;
  const int64_t begin = std::max(first_tile * kTileTokens, write.first_slot);
  const int64_t end = std::min(end_tile * kTileTokens, write.first_slot + write.k.rows);
  uint16_t k16[kMaxHeadDim];
  uint16_t v16[kMaxHeadDim];
  for (int64_t slot = begin; slot < end; ++slot) {
    const float* k = write.k.row(slot - write.first_slot) + head * kv.head_dim;
    const float* v = write.v.row(slot - write.first_slot) + head * kv.head_dim;
    std::byte* k_tile = kv.k_tile(head, slot / kTileTokens);
    std::byte* v_tile = kv.v_tile(head, slot / kTileTokens);
    switch (kv.type) {
      case KvType::kF32: WriteRow32(kv, k, v, slot % kTileTokens, k_tile, v_tile); break;
      case KvType::kBF16:
      case KvType::kF16:
        Round(kv, k, pack, k16);
        Round(kv, v, pack, v16);
        WriteRow16(kv, k16, v16, slot % kTileTokens, k_tile, v_tile);
        break;
      case KvType::kI8:
      case KvType::kI4: WriteRowCodes(kv, k, v, slot % kTileTokens, k_tile, v_tile); break;
    }
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
    KVASIR_CHECK(write.k.rows == write.v.rows && write.first_slot >= 0);
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
