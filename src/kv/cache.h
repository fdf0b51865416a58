// Key-value caches: where the keys and values of running sequences live.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/status.h"
#include "kernels/views.h"

namespace kvasir {

/// A sequence inside a cache; never reused while it lives.
using SeqId = int32_t;

/// What one layer stores.
struct KvLayerShape {
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};

struct KvCacheConfig {
  std::span<const KvLayerShape> layers;
  KvType type = KvType::kBF16;
  int64_t max_tokens = 0;     // longest sequence, in slots
  int64_t max_sequences = 1;  // sequences alive at once (beams, samples)
};

enum class CacheKind {
  kDynamic,  // K2: blocks are added as the sequence grows
  kStatic,   // K3: every sequence's blocks for max_tokens are allocated at creation and written in place
};

/// Keys and values of several sequences in all layers. Not thread-safe; the views it hands out are read and written
/// by kernels between two calls. Slots of a sequence: [0, Length) are committed; Reserve makes room behind them, a
/// forward pass writes there, and Commit keeps what was accepted.
class KvCache {
 public:
  virtual ~KvCache() = default;

  /// A new, empty sequence. ResourceExhausted when there is no room for one more.
  virtual Result<SeqId> Create() = 0;

  /// Makes room for `tokens` slots behind the committed ones (not in addition to an earlier Reserve). False: full,
  /// and nothing changed; the caller preempts or ends a sequence. Shared blocks that would be written are copied now.
  virtual bool Reserve(SeqId seq, int64_t tokens) = 0;

  /// Keeps the first `tokens` reserved slots.
  virtual void Commit(SeqId seq, int64_t tokens) = 0;

  /// Keeps the reserved slots named in `accepted` (ascending offsets from Length), moved together.
  virtual void CommitSlots(SeqId seq, std::span<const int32_t> accepted) = 0;

  /// Forgets everything from slot `length` on. REQUIRES: length <= Length(seq).
  virtual void Truncate(SeqId seq, int64_t length) = 0;

  /// A new sequence with the same committed content; blocks are shared until one of the two writes (copy-on-write;
  /// the static cache copies at once). A reservation of `seq` ends: reserve again before writing.
  virtual Result<SeqId> Fork(SeqId seq) = 0;

  virtual void Release(SeqId seq) = 0;

  virtual int64_t Length(SeqId seq) const = 0;

  /// The sequence's slots in `layer`; `length` counts reserved slots too. Valid until the next non-const call.
  virtual KvView View(SeqId seq, int layer) const = 0;

  /// Bytes of blocks in use, counting shared blocks once.
  virtual int64_t BytesInUse() const = 0;

  /// Bytes that one more sequence of `tokens` would take.
  virtual int64_t BytesFor(int64_t tokens) const = 0;

  virtual CacheKind kind() const = 0;
};

/// Bytes per token over all layers (K6), scales included, tiles not counted as rounded up.
int64_t KvBytesPerToken(std::span<const KvLayerShape> layers, KvType type);

/// As --kv-type has it, e.g. "bf16".
std::string_view KvTypeName(KvType type);

Result<std::unique_ptr<KvCache>> MakeKvCache(CacheKind kind, const KvCacheConfig& config);

}  // namespace kvasir
