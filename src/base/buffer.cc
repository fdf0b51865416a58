#include "base/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/checked.h"

namespace kvasir {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kMapFrom = int64_t{4} << 20;

struct Account {
  std::atomic<int64_t> current{0};
  std::atomic<int64_t> peak{0};
};

Account& AccountOf(MemoryOwner owner) {
  static Account accounts[static_cast<int>(MemoryOwner::kCount)];
  return accounts[static_cast<int>(owner)];
}

void CountFor(MemoryOwner owner, int64_t delta) {
  Account& account = AccountOf(owner);
  const int64_t now = account.current.fetch_add(delta) + delta;
  int64_t peak = account.peak.load();
  while (now > peak && !account.peak.compare_exchange_weak(peak, now)) {
  }
}

/// Maps `size` (a multiple of kHugePage) bytes aligned to kHugePage, or null.
std::byte* MapAligned(int64_t size) {
  const size_t reserve = static_cast<size_t>(size + kHugePage);
  void* raw = ::mmap(nullptr, reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(raw);
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const size_t head = (kHugePage - address % kHugePage) % kHugePage;
  const size_t tail = reserve - head - static_cast<size_t>(size);
  if (head > 0) ::munmap(begin, head);
  if (tail > 0) ::munmap(begin + head + size, tail);
  ::madvise(begin + head, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint: failing is no error
  return begin + head;
}

}  // namespace

MemoryUse GetMemoryUse(MemoryOwner owner) {
  const Account& account = AccountOf(owner);
  return {account.current.load(), account.peak.load()};
}

void ResetMemoryPeaks() {
  for (int i = 0; i < static_cast<int>(MemoryOwner::kCount); ++i) {
    Account& account = AccountOf(static_cast<MemoryOwner>(i));
    account.peak = account.current.load();
  }
}

Result<Buffer> Buffer::Allocate(int64_t bytes, MemoryOwner owner) {
  ASSIGN_OR_RETURN(Buffer buffer, AllocateUncounted(bytes));
  buffer.owner_ = owner;
  buffer.counted_ = buffer.size_;
  CountFor(owner, buffer.counted_);
  return buffer;
}

Result<Buffer> Buffer::AllocateUncounted(int64_t bytes) {
  Buffer buffer;
  if (bytes < 0) return InvalidArgument("cannot allocate {} bytes", bytes);
  if (bytes == 0) return buffer;
  if (bytes > (int64_t{1} << 46))
    return ResourceExhausted("cannot allocate {} bytes: more than any machine has", bytes);
  if (bytes >= kMapFrom) {
    buffer.mapped_ = RoundUp(bytes, kHugePage);
    buffer.data_ = MapAligned(buffer.mapped_);
  } else {
    const int64_t rounded = RoundUp(bytes, kAlignment);
    buffer.data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, static_cast<size_t>(rounded)));
    if (buffer.data_) std::memset(buffer.data_, 0, static_cast<size_t>(rounded));
  }
  if (!buffer.data_) {
    buffer.mapped_ = 0;
    return ResourceExhausted("out of memory: {} bytes could not be allocated", bytes);
  }
  buffer.size_ = bytes;
  return buffer;
}

void Buffer::Free() noexcept {
  if (!data_) return;
  if (mapped_ > 0) {
    ::munmap(data_, static_cast<size_t>(mapped_));
  } else {
    std::free(data_);
  }
  CountFor(owner_, -counted_);
  data_ = nullptr;
  size_ = 0;
  mapped_ = 0;
  counted_ = 0;
}

Buffer::~Buffer() { Free(); }

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)),
      counted_(std::exchange(other.counted_, 0)),
      owner_(other.owner_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    mapped_ = std::exchange(other.mapped_, 0);
    counted_ = std::exchange(other.counted_, 0);
    owner_ = other.owner_;
  }
  return *this;
}

struct Arena::State {
  struct Chunk {
    Buffer buffer;
    int64_t used = 0;
  };
  MemoryOwner owner;
  std::vector<Chunk> chunks;
  size_t current = 0;   // chunks before it are full, after it empty
  int64_t used = 0;     // handed out now
  int64_t counted = 0;  // in the owner's account: the most handed out at once since Reset

  explicit State(MemoryOwner its_owner) : owner(its_owner) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { CountFor(owner, -counted); }
};

Arena::Arena(MemoryOwner owner) : state_(std::make_unique<State>(owner)) {}
Arena::~Arena() = default;
Arena::Arena(Arena&&) noexcept = default;

void Arena::Count(int64_t bytes) {
  state_->used += bytes;
  if (state_->used <= state_->counted) return;
  CountFor(state_->owner, state_->used - state_->counted);
  state_->counted = state_->used;
}

int64_t Arena::Occupied(int64_t bytes) { return RoundUp(std::max<int64_t>(bytes, 1), kAlignment); }

Result<std::byte*> Arena::AllocateBytes(int64_t count, int64_t size) {
  const auto bytes = count < 0 ? std::nullopt : CheckedMul(count, size);
  if (!bytes || *bytes > (int64_t{1} << 46))
    return InvalidArgument("cannot allocate {} values of {} bytes", count, size);
  const int64_t needed = Occupied(*bytes);
  auto& chunks = state_->chunks;
  while (state_->current < chunks.size()) {
    State::Chunk& chunk = chunks[state_->current];
    if (chunk.buffer.size() - chunk.used >= needed) {
      std::byte* result = chunk.buffer.data() + chunk.used;
      chunk.used += needed;
      Count(needed);
      return result;
    }
    if (state_->current + 1 == chunks.size()) break;
    ++state_->current;
    chunks[state_->current].used = 0;
  }
  // Double what there is, so that a growing need costs few allocations.
  const int64_t total = capacity();
  const int64_t fresh = std::max<int64_t>({needed, int64_t{256} << 10, std::min<int64_t>(total, int64_t{64} << 20)});
  auto buffer = Buffer::AllocateUncounted(fresh);
  if (!buffer.ok()) return buffer.status();
  chunks.push_back({*std::move(buffer), needed});
  state_->current = chunks.size() - 1;
  Count(needed);
  return chunks.back().buffer.data();
}

void Arena::Reset() {
  if (state_->chunks.size() > 1) {
    // The next round gets one chunk that holds all of this round's need.
    const int64_t total = capacity();
    state_->chunks.clear();
    auto merged = Buffer::AllocateUncounted(total);
    if (merged.ok()) state_->chunks.push_back({*std::move(merged), 0});
  }
  for (auto& chunk : state_->chunks) chunk.used = 0;
  state_->current = 0;
  CountFor(state_->owner, -state_->counted);
  state_->used = 0;
  state_->counted = 0;
}

Arena::Mark Arena::GetMark() const {
  if (state_->chunks.empty()) return {};
  return {state_->current, state_->chunks[state_->current].used};
}

void Arena::Rewind(Mark mark) {
  if (state_->chunks.empty()) return;
  for (size_t i = mark.chunk + 1; i < state_->chunks.size(); ++i) state_->chunks[i].used = 0;
  state_->chunks[mark.chunk].used = mark.used;
  state_->current = mark.chunk;
  state_->used = 0;
  for (size_t i = 0; i <= mark.chunk; ++i) state_->used += state_->chunks[i].used;
}

int64_t Arena::capacity() const {
  int64_t total = 0;
  for (const auto& chunk : state_->chunks) total += chunk.buffer.size();
  return total;
}

}  // namespace kvasir
