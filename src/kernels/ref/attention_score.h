// Single elements of a KV cache and single attention logits, plainly: shared by the reference kernels, plain attention
// and tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "kernels/kv_codes.h"
#include "kernels/views.h"

namespace kvasir::ref {

/// Byte offset in a K tile of slot `s` (0…15), dimension `i`. REQUIRES: no codes.
inline int64_t KeyOffset(KvType type, int64_t s, int64_t i) {
  return type == KvType::kF32 ? (i * 16 + s) * 4 : ((i / 2 * 16 + s) * 2 + i % 2) * 2;
}

/// Byte offset in a V tile of slot `s` (0…15), dimension `i`. REQUIRES: no codes.
inline int64_t ValueOffset(KvType type, int64_t head_dim, int64_t s, int64_t i) {
  return type == KvType::kF32 ? (s * head_dim + i) * 4 : ((s / 2 * head_dim + i) * 2 + s % 2) * 2;
}

inline float LoadElement(KvType type, const std::byte* p) {
  if (type == KvType::kF32) {
    float x;
    std::memcpy(&x, p, 4);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return type == KvType::kBF16 ? ToFloat(BFloat16{bits}) : ToFloat(Float16{bits});
}

/// A code with the scale and minimum of its group.
struct CodeElement {
  int32_t code;
  float scale;
  float minimum;  // 0 for i8

  float value() const { return minimum + scale * static_cast<float>(code); }
};

inline CodeElement LoadCodeElement(KvType type, const std::byte* tile, KvCodePlace place, int64_t scale_offset) {
  const KvScale scale = LoadKvScale(type, tile + scale_offset);
  return {LoadCode(type, tile, place), ToFloat(BFloat16{scale.scale}), ToFloat(BFloat16{scale.low})};
}
inline CodeElement KeyCodeAt(const KvView& kv, int64_t head, int64_t slot, int64_t i) {
  return LoadCodeElement(kv.type, kv.k_tile(head, slot / 16), KeyCodePlace(kv.type, slot % 16, i),
                         KeyScaleOffset(kv.type, kv.head_dim, slot % 16, KvGroupOf(kv.type, i)));
}
inline CodeElement ValueCodeAt(const KvView& kv, int64_t head, int64_t slot, int64_t i) {
  return LoadCodeElement(kv.type, kv.v_tile(head, slot / 16), ValueCodePlace(kv.type, kv.head_dim, slot % 16, i),
                         ValueScaleOffset(kv.type, kv.head_dim, slot % 16, KvGroupOf(kv.type, i)));
}

inline float KeyAt(const KvView& kv, int64_t head, int64_t slot, int64_t i) {
  if (HasCodes(kv.type)) return KeyCodeAt(kv, head, slot, i).value();
  return LoadElement(kv.type, kv.k_tile(head, slot / 16) + KeyOffset(kv.type, slot % 16, i));
}
inline float ValueAt(const KvView& kv, int64_t head, int64_t slot, int64_t i) {
  if (HasCodes(kv.type)) return ValueCodeAt(kv, head, slot, i).value();
  return LoadElement(kv.type, kv.v_tile(head, slot / 16) + ValueOffset(kv.type, kv.head_dim, slot % 16, i));
}

inline int64_t PositionAt(const KvView& kv, int64_t slot) {
  return kv.positions != nullptr ? kv.positions[slot] : slot;
}

/// The same in a pass, whose tokens may be a tree.
inline int64_t PositionAt(const AttentionArgs& args, int64_t slot) {
  return args.tree != nullptr && slot >= args.first_slot ? args.tree->positions[slot - args.first_slot]
                                                         : PositionAt(args.kv, slot);
}

/// Whether row `token` attends to `slot`, which lies in [first_valid, length).
inline bool Sees(const AttentionArgs& args, int64_t token, int64_t slot) {
  const int64_t own = PositionAt(args, args.first_slot + token);
  const int64_t position = PositionAt(args, slot);
  const int64_t distance = own - position;
  if (args.tree != nullptr && slot >= args.first_slot) {
    const int64_t other = slot - args.first_slot;
    if (other >= args.q.rows || !args.tree->Sees(token, other)) return false;
  }
  if (position < 0 || distance < args.min_distance) return false;
  if (args.window > 0 && distance >= args.window) return false;
  return args.stride <= 1 || distance <= args.local || distance % args.stride == 0;
}

/// The logit of a dot product.
inline float Logit(const AttentionArgs& args, int64_t query_head, int64_t token, int64_t slot, float dot) {
  float x = dot * args.scale;
  if (args.softcap != 0.0f) x = args.softcap * std::tanh(x / args.softcap);
  if (args.alibi_slopes != nullptr) {
    const float slope = args.alibi_slopes[query_head];
    const int64_t position = PositionAt(args, slot);
    const int64_t own = PositionAt(args, args.first_slot + token);
    if (args.alibi_bf16) {
      const float rounded = ToFloat(ToBFloat16(slope));
      const float bias = ToFloat(ToBFloat16(rounded * static_cast<float>(position)));
      const float own_bias = ToFloat(ToBFloat16(rounded * static_cast<float>(own)));
      x += args.alibi_scale * (bias - own_bias);
    } else {
      x += slope * args.alibi_scale * static_cast<float>(position - own);
    }
  }
  return x;
}

}  // namespace kvasir::ref
