// Aligned memory for weights, caches and activations, counted by owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"

namespace kvasir {

/// Who memory belongs to in reports (P7).
enum class MemoryOwner : int { kWeights, kKvCache, kActivations, kOther, kCount };

struct MemoryUse {
  int64_t current = 0;
  int64_t peak = 0;
};
/// Bytes held by live Buffers of this owner, and their peak since start or reset. An Arena counts what it has handed
/// out at most since its last Reset, not what it keeps for later. Thread-safe.
MemoryUse GetMemoryUse(MemoryOwner owner);
/// Sets every peak to its current value, as torch.cuda.reset_peak_memory_stats does. Thread-safe. The process's own
/// peak is limits.h's ResetPeakResidentMemory.
void ResetMemoryPeaks();

/// A zeroed, 64-byte-aligned block. Blocks of 4 MiB and more are mapped on their own, aligned to 2 MiB, and ask for
/// huge pages. Move-only; not resizable.
class Buffer {
 public:
  Buffer() = default;
  /// ResourceExhausted when the system has no such memory. `bytes` may be 0. All bytes are counted, although pages
  /// that were never written cost nothing yet.
  static Result<Buffer> Allocate(int64_t bytes, MemoryOwner owner);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  friend class Arena;
  static Result<Buffer> AllocateUncounted(int64_t bytes);
  void Free() noexcept;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int64_t mapped_ = 0;   // bytes of the mapping, 0 when from the heap
  int64_t counted_ = 0;  // bytes in the owner's account
  MemoryOwner owner_ = MemoryOwner::kOther;
};

/// Scratch memory handed out front to back and taken back all at once. Grows in chunks and keeps them; after the
/// first steps it allocates nothing. Not thread-safe.
class Arena {
 public:
  explicit Arena(MemoryOwner owner = MemoryOwner::kActivations);
  ~Arena();
  Arena(Arena&&) noexcept;

  /// `count` values, 64-byte aligned, uninitialised.
  template <typename T>
  Result<T*> Allocate(int64_t count) {
    auto bytes = AllocateBytes(count, static_cast<int64_t>(sizeof(T)));
    if (!bytes.ok()) return bytes.status();
    return reinterpret_cast<T*>(*bytes);
  }
  /// Everything handed out becomes invalid; memory is kept for the next use.
  void Reset();
  /// A position to which Rewind can return, freeing what came after.
  struct Mark {
    size_t chunk = 0;
    int64_t used = 0;
  };
  Mark GetMark() const;
  /// What an allocation of so many bytes takes.
  static int64_t Occupied(int64_t bytes);
  void Rewind(Mark mark);
  int64_t capacity() const;

 private:
  Result<std::byte*> AllocateBytes(int64_t count, int64_t size);
  /// Notes `bytes` more as handed out.
  void Count(int64_t bytes);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
