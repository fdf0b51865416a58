#include "text/piece_table.h"
#include "text/unicode.h"

#include <cstring>
#include <random>

namespace kvasir {
namespace {
__extension__ typedef unsigned __int128 Uint128;
}  // namespace

uint64_t HashBytes(std::string_view bytes) {
  static const uint64_t seed = [] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) | device();
  }();
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  const auto mix = [](uint64_t a, uint64_t b) {
    const auto product = static_cast<Uint128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  uint64_t hash = seed ^ (bytes.size() * kMultiplier);
  const char* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = mix(hash ^ word, kMultiplier ^ seed);
  }
  uint64_t word = 0;
  if (left > 0) std::memcpy(&word, p, left);
  return mix(hash ^ word, 0xD6E8FEB86659FD93u);
}

Status PieceTable::Add(std::string_view piece, int64_t id, bool replace) {
  if (id < 0 || id > kMaxTokenId) {
    return InvalidData("token \"{}\" has id {}, outside 0 … {}", Excerpt(piece), id, kMaxTokenId);
  }
  if (bytes_.size() + piece.size() > (1u << 30)) return ResourceExhausted("the vocabulary's strings exceed 1 GiB");
  const auto index = static_cast<size_t>(id);
  if (index < entries_.size() && entries_[index].used) {
    return InvalidData("id {} is given to both \"{}\" and \"{}\"", id, Excerpt(Piece(static_cast<TokenId>(id))),
                       Excerpt(piece));
  }
  // A few stray ids are normal; a vector that is nearly all holes is not worth its memory.
  if (index >= entries_.size() && index > (1u << 20) && index / 64 > count_) {
    return InvalidData("token \"{}\" has id {}, far beyond the {} tokens read so far", Excerpt(piece), id, count_);
  }
  if (index >= entries_.size()) entries_.resize(index + 1);
  Entry& entry = entries_[index];
  entry.offset = static_cast<uint32_t>(bytes_.size());
  entry.length = static_cast<uint32_t>(piece.size()) & 0x7fffffffu;
  entry.used = 1;
  bytes_.append(piece);
  ++count_;
  longest_ = std::max(longest_, piece.size());
  if ((strings_ + 1) * 2 > slots_.size()) Grow();
  const size_t mask = slots_.size() - 1;
  for (size_t slot = HashBytes(piece) & mask;; slot = (slot + 1) & mask) {
    if (slots_[slot] < 0) {
      slots_[slot] = static_cast<TokenId>(id);
      ++strings_;
      return OkStatus();
    }
    if (Piece(slots_[slot]) == piece) {
      if (replace) slots_[slot] = static_cast<TokenId>(id);
      return OkStatus();
    }
  }
}

TokenId PieceTable::Find(std::string_view piece) const {
  if (slots_.empty() || piece.size() > longest_) return -1;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = HashBytes(piece) & mask; slots_[slot] >= 0; slot = (slot + 1) & mask) {
    if (Piece(slots_[slot]) == piece) return slots_[slot];
  }
  return -1;
}

void PieceTable::Grow() {
  std::vector<TokenId> old(slots_.empty() ? 64 : slots_.size() * 2, -1);
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const TokenId id : old) {
    if (id < 0) continue;
    size_t slot = HashBytes(Piece(id)) & mask;
    while (slots_[slot] >= 0) slot = (slot + 1) & mask;
    slots_[slot] = id;
  }
}

}  // namespace kvasir
