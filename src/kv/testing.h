// What the tests of caches share: slots with contents that tell them apart.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/ref/attention_score.h"
#include "kv/cache.h"

namespace kvasir::kv_testing {

inline constexpr KvLayerShape kShapes[] = {{2, 8}, {1, 5}, {2, 8}};
inline constexpr KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4};

/// What slot `tag` holds for a layer, head and dimension: small integers, exact in every type without codes.
inline float Content(int tag, int layer, int64_t head, int64_t i, bool value) {
  return static_cast<float>(1 + (tag * 31 + layer * 7 + static_cast<int>(head) * 13 + static_cast<int>(i) * 3 + value) %
                                    251);
}

inline void StoreElement(KvType type, std::byte* p, float x) {
  if (type == KvType::kF32) {
    std::memcpy(p, &x, 4);
  } else {
    const uint16_t bits = type == KvType::kBF16 ? ToBFloat16(x).bits : ToFloat16(x).bits;
    std::memcpy(p, &bits, 2);
  }
}

/// One head's content as codes.
struct Codes {
  Codes(KvType type, const std::vector<float>& x) : codes(x.size()) {
    QuantizeKv(type, x.data(), static_cast<int64_t>(x.size()), codes.data(), scales);
  }
  std::vector<uint8_t> codes;
  KvScale scales[16];
};

inline std::vector<float> Contents(const KvView& view, int tag, int layer, int64_t head, bool value) {
  std::vector<float> x;
  x.reserve(static_cast<size_t>(view.head_dim));
  for (int64_t i = 0; i < view.head_dim; ++i) x.push_back(Content(tag, layer, head, i, value));
  return x;
}

inline void StoreValueScale(const KvView& view, int64_t head, int64_t slot, KvScale scale) {
  for (int64_t g = 0; g < KvGroups(view.type, view.head_dim); ++g) {
    StoreKvScale(view.type, view.v_tile(head, slot / 16) + ValueScaleOffset(view.type, view.head_dim, slot % 16, g),
                 scale);
  }
}

inline void WriteSlotCodes(const KvView& view, int layer, int64_t slot, int tag) {
  const int64_t s = slot % 16;
  for (int64_t h = 0; h < view.kv_heads; ++h) {
    const Codes k(view.type, Contents(view, tag, layer, h, false));
    const Codes v(view.type, Contents(view, tag, layer, h, true));
    std::byte* k_tile = view.k_tile(h, slot / 16);
    std::byte* v_tile = view.v_tile(h, slot / 16);
    for (int64_t i = 0; i < view.head_dim; ++i) {
      StoreCode(view.type, k_tile, KeyCodePlace(view.type, s, i), k.codes[static_cast<size_t>(i)]);
      StoreCode(view.type, v_tile, ValueCodePlace(view.type, view.head_dim, s, i), v.codes[static_cast<size_t>(i)]);
    }
    StoreKvScale(view.type, k_tile + KeyScaleOffset(view.type, view.head_dim, s, 0), k.scales[0]);
    StoreValueScale(view, h, slot, v.scales[0]);
  }
}

inline void WriteSlot(const KvView& view, int layer, int64_t slot, int tag) {
  if (HasCodes(view.type)) return WriteSlotCodes(view, layer, slot, tag);
  for (int64_t h = 0; h < view.kv_heads; ++h) {
    for (int64_t i = 0; i < view.head_dim; ++i) {
      StoreElement(view.type, view.k_tile(h, slot / 16) + ref::KeyOffset(view.type, slot % 16, i),
                   Content(tag, layer, h, i, false));
      StoreElement(view.type, view.v_tile(h, slot / 16) + ref::ValueOffset(view.type, view.head_dim, slot % 16, i),
                   Content(tag, layer, h, i, true));
    }
  }
}

/// Codes and scales of `value` or else key as Codes made them.
inline bool HoldsCodes(const KvView& view, int64_t head, int64_t slot, const Codes& expected, bool value) {
  for (int64_t i = 0; i < view.head_dim; ++i) {
    const ref::CodeElement at = value ? ref::ValueCodeAt(view, head, slot, i) : ref::KeyCodeAt(view, head, slot, i);
    const uint8_t code = expected.codes[static_cast<size_t>(i)];
    if (at.code != (view.type == KvType::kI8 ? static_cast<int8_t>(code) : code)) return false;
    if (at.scale != ToFloat(BFloat16{expected.scales[0].scale})) return false;
    if (at.minimum != ToFloat(BFloat16{expected.scales[0].low})) return false;
  }
  return true;
}

inline bool HoldsTag(const KvView& view, int layer, int64_t slot, int tag) {
  for (int64_t h = 0; h < view.kv_heads; ++h) {
    if (HasCodes(view.type)) {
      for (const bool value : {false, true}) {
        const Codes expected(view.type, Contents(view, tag, layer, h, value));
        if (!HoldsCodes(view, h, slot, expected, value)) return false;
      }
      continue;
    }
    for (int64_t i = 0; i < view.head_dim; ++i) {
      if (ref::KeyAt(view, h, slot, i) != Content(tag, layer, h, i, false)) return false;
      if (ref::ValueAt(view, h, slot, i) != Content(tag, layer, h, i, true)) return false;
    }
  }
  return true;
}

inline bool ValuesAreZero(const KvView& view, int64_t begin, int64_t end) {
  for (int64_t slot = begin; slot < end; ++slot) {
    for (int64_t h = 0; h < view.kv_heads; ++h) {
      for (int64_t i = 0; i < view.head_dim; ++i) {
        if (ref::ValueAt(view, h, slot, i) != 0.0f) return false;
      }
    }
  }
  return true;
}

}  // namespace kvasir::kv_testing
