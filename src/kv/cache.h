// Key-value caches: where the keys and values of running sequences live.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/views.h"

namespace kvasir {

/// A sequence inside a cache; never reused while it lives.
using SeqId = int32_t;

/// Tokens that a sequence can count: kernels count slots in int32, and look a chunk ahead.
inline constexpr int64_t kMostKvTokens = std::numeric_limits<int32_t>::max() - 4096;

/// What one layer stores.
struct KvLayerShape {
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};

/// What a bounded cache keeps of a sequence: its first `sinks` tokens for ever, and behind them the last ones, `tokens`
/// in all. A pass (the tokens of one sequence in one step) first drops so many of the oldest rolling tokens that all
/// of its own fit as well, then its tokens see what is left and, causally, each other. So a token sees `tokens` tokens
/// where it comes alone, as in decoding, and fewer where others come behind it in its pass.
struct KvBound {
  int64_t tokens = 0;  // L; 0: all tokens are kept
  int64_t sinks = 0;   // S

  /// The longest pass once tokens are dropped: a quarter of those that roll, so that three quarters stay.
  int64_t MostPerPass() const { return std::max<int64_t>((tokens - sinks) / 4, 1); }
  /// Positions between which a text of `length` tokens is attended to.
  int64_t Reach(int64_t length) const { return tokens > 0 ? std::min(length, tokens) : length; }
};

/// Tokens per block of a paged cache unless others are asked for. Half a block of each sequence is empty, 1.6 % of a
/// thousand tokens (of 64: 3.2 %); attention while decoding reads blocks of 128, larger runs of memory, up to 5 percent
/// faster.
inline constexpr int64_t kPagedBlockTokens = 32;
inline constexpr int64_t kMostPagedBlockTokens = 1024;

inline constexpr int64_t kAllBlocks = std::numeric_limits<int64_t>::max();

/// What only a paged cache has.
struct PagedConfig {
  int64_t block_tokens = 0;  // a multiple of 16 up to kMostPagedBlockTokens; 0: kPagedBlockTokens
  int64_t pool_tokens = 0;   // of all sequences together, rounded up to blocks; 0: max_tokens for each of max_sequences
  int64_t most_prefix_blocks = kAllBlocks;  // that the prefix tree may hold; 0: there is none
  /// Of a block's tokens, for the prefix tree; null: PrefixTree's own. Any will do, a poor one is slow.
  uint64_t (*prefix_hash)(std::span<const int32_t> tokens) = nullptr;
};

struct KvCacheConfig {
  std::span<const KvLayerShape> layers;
  KvType type = KvType::kBF16;
  int64_t max_tokens = 0;     // longest sequence, tokens that a bounded cache has dropped included
  int64_t max_sequences = 1;  // sequences alive at once (beams, samples)
  KvBound bound;              // kWindow, kSink
  bool rotated_keys = false;  // keys are rotated to their positions (RoPE): sinks, which move, need their originals
  PagedConfig paged;          // kPaged
};

enum class CacheKind {
  kDynamic,  // K2: blocks are added as the sequence grows
  kStatic,   // K3: every sequence's blocks for max_tokens are allocated at creation and written in place
  kWindow,   // A9: the last bound.tokens tokens, at their positions in the text
  kSink,     // A11, K4: attention sinks and a window behind them, at positions counted inside the cache
  kPaged,    // A4, K5: a fixed pool of small blocks for all sequences, and a tree of prefixes that share them
};

/// Tokens in consecutive slots.
struct KvRun {
  int64_t slot = 0;   // of the first
  int64_t count = 0;  // at most
};

/// Sinks whose keys must be written anew, rotated to where they stand in this pass.
struct KvSinks {
  int64_t count = 0;           // in slots [0, count)
  int64_t first_position = 0;  // of the first; the others follow
};

/// What is to be known of a sequence beside its blocks and its sinks' keys, so that it can be saved and restored.
struct KvSequenceState {
  int64_t next = 0;            // KvCache::NextPosition
  int64_t dropped = 0;         // tokens that a bounded cache has forgotten, behind its sinks
  bool sinks_in_place = true;  // false: before the next pass the sinks' keys are written anew (KvCache::MovedSinks)
};

/// What becomes of a cache's blocks, a block being one in every layer.
struct KvBlockUse {
  int64_t blocks = 0;        // that memory is allocated for
  int64_t used = 0;          // that sequences hold, shared ones counted once
  int64_t cached = 0;        // that only the prefix tree holds: free once they are needed
  int64_t slots = 0;         // of the used blocks
  int64_t wasted_slots = 0;  // of those, how many hold no token

  int64_t free() const { return blocks - used - cached; }
};

/// A block in use at this moment, a block being one in every layer.
struct KvBlock {
  int32_t id = 0;       // no other block's while this one is in use
  int32_t holders = 0;  // sequences that hold it
  bool known = false;   // to the prefix tree
};

/// Keys and values of several sequences in all layers. Not thread-safe; the views it hands out are read and written
/// by kernels between two calls. Reserve makes room behind a sequence's committed tokens, a forward pass writes there,
/// and Commit keeps what was accepted.
///
/// A sequence's tokens have positions in its text, 0, 1, …, and slots in the cache. They are the same in caches that
/// keep all tokens; a bounded cache forgets tokens and uses their slots again.
class KvCache {
 public:
  virtual ~KvCache() = default;

  /// A new, empty sequence. ResourceExhausted when there is no room for one more: max_sequences are alive, or memory
  /// runs out.
  virtual Result<SeqId> Create() = 0;

  /// Makes room for `tokens` tokens behind the committed ones (not in addition to an earlier Reserve). False: full,
  /// or more than a bounded cache takes in one pass, and nothing changed; the caller preempts or ends a sequence.
  /// Shared blocks that would be written are copied now. What a bounded cache must forget for them is gone at once,
  /// whatever is committed later.
  virtual bool Reserve(SeqId seq, int64_t tokens) = 0;

  /// Keeps the first `tokens` reserved tokens.
  virtual void Commit(SeqId seq, int64_t tokens) = 0;

  /// Keeps the reserved tokens named in `accepted` (ascending offsets from NextPosition), moved together. REQUIRES: a
  /// prefix where a sink cache still fills its sinks.
  virtual void CommitSlots(SeqId seq, std::span<const int32_t> accepted) = 0;

  /// Forgets the tokens from position `length` on, and any reservation. False, and nothing changed: a bounded cache
  /// has dropped tokens that a sequence of this length would still have (never so for 0, which a caller falls back to
  /// and runs the text again). REQUIRES: length <= NextPosition(seq).
  [[nodiscard]] virtual bool Truncate(SeqId seq, int64_t length) = 0;

  /// A new sequence with the same committed content; blocks are shared until one of the two writes (copy-on-write;
  /// the static cache copies at once). A reservation of `seq` ends: reserve again before writing. ResourceExhausted as
  /// for Create.
  virtual Result<SeqId> Fork(SeqId seq) = 0;

  virtual void Release(SeqId seq) = 0;

  /// The position of the sequence's next token: how many have been committed, dropped ones included.
  virtual int64_t NextPosition(SeqId seq) const = 0;

  /// Committed tokens whose keys and values are there.
  virtual int64_t KeptTokens(SeqId seq) const = 0;

  /// Where the token at `position` is, and how many behind it lie in the slots that follow. REQUIRES: it is kept or
  /// reserved.
  virtual KvRun RunAt(SeqId seq, int64_t position) const = 0;

  /// The sequence's slots in `layer`; `length` counts reserved slots too. Valid until the next non-const call.
  virtual KvView View(SeqId seq, int layer) const = 0;

  /// The sinks that the reserved pass moves: their keys in the tiles of every layer must be replaced by SinkKeys,
  /// rotated to the positions given, before the pass attends to them.
  virtual KvSinks MovedSinks(SeqId) const { return {}; }

  /// Where a pass puts the keys of the tokens at positions below `rows`, as they are before rotation: [rows, kv_heads ·
  /// head_dim]. No rows where the cache wants none. Valid until the next non-const call.
  virtual MatView<float> SinkKeys(SeqId, int /*layer*/) const { return {}; }
  /// Bytes of a row of SinkKeys in all layers.
  virtual int64_t SinkKeyBytesPerToken() const { return 0; }

  /// Whether the token at position p is in slot p.
  virtual bool SlotsArePositions() const { return true; }
  virtual int64_t BlockSlots() const = 0;
  virtual int64_t BlockBytes(int layer) const = 0;

  /// Sequences are saved as their state, their committed tokens' blocks and the first rows of SinkKeys, one for each
  /// token up to the sinks; an equal cache to which all of this is brought back goes on with the same bits.
  virtual KvSequenceState State(SeqId seq) const { return {.next = NextPosition(seq)}; }
  /// Whether a sequence of this cache can be in such a state.
  virtual bool IsPossible(const KvSequenceState& state) const = 0;
  /// Brings a new sequence into `state`; the caller then fills its blocks and its SinkKeys and calls ClearUnused.
  /// False: no room, and nothing changed. REQUIRES: IsPossible(state), nothing was reserved for the sequence yet.
  virtual bool Restore(SeqId seq, const KvSequenceState& state) = 0;
  /// A sequence's block of slots [block · BlockSlots(), …) in `layer`, as kernels read it, to be saved or, of a
  /// restored sequence, to be filled. Valid until the next non-const call.
  virtual std::span<std::byte> Block(SeqId seq, int layer, int64_t block) = 0;
  /// Makes the values of slots that hold no committed token zeros, as they were before blocks were filled.
  virtual void ClearUnused(SeqId seq) = 0;

  /// Prefixes (K5): a paged cache keeps what sequences have computed in a tree of whole blocks, and sequences whose
  /// text begins alike share them; other caches know no prefix. `scope` names, exactly, all that keys and values depend
  /// on beside the tokens before them, and who may share them: nothing is shared between two scopes.
  ///
  /// Of `tokens`, how many from the first on MatchPrefix would find.
  virtual int64_t KnownPrefix(std::string_view /*scope*/, std::span<const int32_t> /*tokens*/) const { return 0; }
  /// Gives a sequence the longest known prefix of `tokens` that leaves at least one of them to be run, whose logits
  /// are needed. Returns its length. REQUIRES: nothing has been reserved for the sequence yet.
  virtual int64_t MatchPrefix(SeqId, std::string_view /*scope*/, std::span<const int32_t> /*tokens*/) { return 0; }
  /// Offers the whole blocks of the sequence's first tokens, `tokens`, to others; it goes on as before, but shares
  /// what was known already. REQUIRES: tokens.size() <= NextPosition(seq).
  virtual void InsertPrefix(SeqId, std::string_view /*scope*/, std::span<const int32_t> /*tokens*/) {}
  /// Forgets all prefixes. Sequences keep what they share.
  virtual void ClearPrefixes() {}

  /// Bytes of blocks in use, counting shared blocks once.
  virtual int64_t BytesInUse() const = 0;

  /// Counts blocks, for metrics: takes time in proportion to those in use.
  virtual KvBlockUse BlockUse() const = 0;

  /// The blocks in use, in no order: takes time in proportion to them.
  virtual std::vector<KvBlock> Blocks() const = 0;

  /// Bytes that one more sequence of `tokens` would take.
  virtual int64_t BytesFor(int64_t tokens) const = 0;

  virtual CacheKind kind() const = 0;

  /// Of a bounded cache; else nothing.
  virtual KvBound bound() const { return {}; }
};

/// Bytes per token over all layers (K6), scales included, tiles not counted as rounded up.
int64_t KvBytesPerToken(std::span<const KvLayerShape> layers, KvType type);

struct KvPoolSize {
  int64_t blocks = 0;
  int64_t tokens = 0;  // slots of the blocks
  int64_t bytes = 0;   // over all layers: all that the cache ever takes
};
/// A paged cache's pool. InvalidArgument for sizes that cannot be, ResourceExhausted for more than can be counted.
Result<KvPoolSize> PagedPoolSize(const KvCacheConfig& config);

/// As --kv-type has it, e.g. "bf16".
std::string_view KvTypeName(KvType type);

Result<std::unique_ptr<KvCache>> MakeKvCache(CacheKind kind, const KvCacheConfig& config);

}  // namespace kvasir
