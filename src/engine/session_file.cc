// The file, all numbers little-endian: a Head, its identity, tokens (int32) and note, then block after block, of each
// every layer's as the cache lays it out, and XXH3-64 of everything before.
#include "engine/session_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>

#include "base/checked.h"
#include "io/atomic_file.h"

namespace kvasir {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[8] = {'k', 'v', 's', 'e', 's', 's', 'n', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kMostIdentityBytes = 4096;
constexpr size_t kPieceBytes = 1 << 20;

struct Head {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t identity_bytes;
  uint64_t tokens;
  uint64_t planned_length;
  uint64_t note_bytes;
  uint64_t layers;
  uint64_t block_slots;
};
static_assert(sizeof(Head) == 64);

class Checksum {
 public:
  Checksum() : state_(XXH3_createState()) {
    KVASIR_CHECK(state_ != nullptr);
    XXH3_64bits_reset(state_.get());
  }
  void Add(std::span<const std::byte> bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }
  uint64_t Value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

template <typename T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}
std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text)); }

/// A session file from its beginning to its end.
class Reader {
 public:
  static Result<std::unique_ptr<Reader>> Open(const std::filesystem::path& file) {
    std::unique_ptr<Reader> reader(new Reader(file));
    // O_NONBLOCK: opening a pipe does not wait.
    reader->fd_ = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (reader->fd_ < 0 && errno == ELOOP) {
      return InvalidArgument("{}: is a symbolic link; give the session file itself", file.string());
    }
    struct stat status = {};
    if (reader->fd_ < 0 || ::fstat(reader->fd_, &status) != 0) {
      return IoError("{}: cannot be read: {}", file.string(), std::strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) return InvalidArgument("{}: is no plain file", file.string());
    reader->size_ = status.st_size;
    return reader;
  }
  ~Reader() {
    if (fd_ >= 0) ::close(fd_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  int64_t size() const { return size_; }
  std::string Name() const { return file_.string(); }

  Status Read(std::span<std::byte> bytes) {
    RETURN_IF_ERROR(ReadRaw(bytes));
    checksum_.Add(bytes);
    return OkStatus();
  }
  /// Reads what is of no interest but for the checksum.
  Status Skip(int64_t bytes) {
    std::vector<std::byte> piece(static_cast<size_t>(std::min<int64_t>(bytes, kPieceBytes)));
    for (; bytes > 0; bytes -= static_cast<int64_t>(piece.size())) {
      piece.resize(static_cast<size_t>(std::min<int64_t>(bytes, kPieceBytes)));
      RETURN_IF_ERROR(Read(piece));
    }
    return OkStatus();
  }
  /// Compares what was read with the checksum that follows.
  Status Finish() {
    uint64_t stored = 0;
    RETURN_IF_ERROR(ReadRaw(std::as_writable_bytes(std::span(&stored, 1))));
    if (stored != checksum_.Value())
      return InvalidData("{}: is damaged: its checksum is not that of its bytes", Name());
    return OkStatus();
  }

 private:
  explicit Reader(std::filesystem::path file) : file_(std::move(file)) {}

  Status ReadRaw(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::read(fd_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return IoError("{}: cannot be read: {}", Name(), std::strerror(errno));
      if (count == 0) return InvalidData("{}: ends early", Name());
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
    return OkStatus();
  }

  std::filesystem::path file_;
  int fd_ = -1;
  int64_t size_ = 0;
  Checksum checksum_;
};

/// Bytes of one block in all layers.
int64_t BytesPerBlock(const KvCache& cache, int64_t layers) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < layers; ++layer) bytes += cache.BlockBytes(static_cast<int>(layer));
  return bytes;
}

/// Everything before the blocks, checked against the limits and the file's size before anything is allocated for it.
Result<Session> ReadHead(Reader& reader, const SessionLimits& limits, const KvCache& cache) {
  Head head = {};
  if (reader.size() < static_cast<int64_t>(sizeof(head))) return InvalidData("{}: is no session file", reader.Name());
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(&head, 1))));
  if (std::memcmp(head.magic, kMagic, sizeof(kMagic)) != 0) {
    return InvalidData("{}: is no session file", reader.Name());
  }
  if (head.version != kVersion || head.zero != 0) {
    return InvalidArgument("{}: a session file of version {}; this program reads version {}", reader.Name(),
                           head.version, kVersion);
  }
  if (head.identity_bytes > kMostIdentityBytes || head.note_bytes > static_cast<uint64_t>(kMostNoteBytes) ||
      head.tokens > static_cast<uint64_t>(kMostKvTokens) ||
      head.planned_length > static_cast<uint64_t>(kMostKvTokens)) {
    return InvalidData("{}: is damaged: {} tokens, {} bytes of notes", reader.Name(), head.tokens, head.note_bytes);
  }
  std::string identity(std::min<size_t>(head.identity_bytes, static_cast<size_t>(reader.size())), '\0');
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(identity))));
  if (identity != limits.identity) {
    std::ranges::replace_if(identity, [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
    return InvalidArgument("{}: was saved with {}, but this is {}; give the same model and flags, or another file",
                           reader.Name(), identity, limits.identity);
  }
  const auto tokens = static_cast<int64_t>(head.tokens);
  if (head.layers != static_cast<uint64_t>(limits.layers)) {
    return InvalidData("{}: is damaged: {} layers", reader.Name(), head.layers);
  }
  if (head.block_slots != static_cast<uint64_t>(cache.BlockSlots())) {
    return InvalidArgument(
        "{}: was saved in blocks of {} tokens, but those of this cache have {}; give the --cache "
        "that it was saved with",
        reader.Name(), head.block_slots, cache.BlockSlots());
  }
  if (tokens > limits.tokens) {
    return InvalidArgument("{}: holds {} tokens; the context has {}: give a larger -c", reader.Name(), tokens,
                           limits.tokens);
  }
  const auto blocks = CheckedMul(BytesPerBlock(cache, limits.layers), CeilDiv(tokens, cache.BlockSlots()));
  const int64_t rest = static_cast<int64_t>(sizeof(head) + head.identity_bytes + head.note_bytes) + tokens * 4 + 8;
  if (!blocks || reader.size() - rest != *blocks) {
    return InvalidData("{}: is damaged: {} bytes do not hold {} tokens", reader.Name(), reader.size(), tokens);
  }
  Session session;
  session.planned_length = static_cast<int64_t>(head.planned_length);
  session.tokens.resize(head.tokens);
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(session.tokens))));
  for (const TokenId token : session.tokens) {
    if (token < 0 || token >= limits.vocab) return InvalidData("{}: is damaged: token {}", reader.Name(), token);
  }
  session.note.resize(head.note_bytes);
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(session.note))));
  return session;
}

/// visit(bytes of a block in a layer) in the file's order.
template <typename Visit>
Status ForBlocks(KvCache& cache, SeqId seq, int64_t layers, int64_t tokens, const Visit& visit) {
  for (int64_t block = 0; block < CeilDiv(tokens, cache.BlockSlots()); ++block) {
    for (int64_t layer = 0; layer < layers; ++layer) {
      RETURN_IF_ERROR(visit(cache.Block(seq, static_cast<int>(layer), block)));
    }
  }
  return OkStatus();
}

}  // namespace

Status SaveSession(const std::filesystem::path& file, const SessionLimits& limits, const Session& session,
                   KvCache& cache, SeqId seq) {
  const auto tokens = static_cast<int64_t>(session.tokens.size());
  KVASIR_CHECK(cache.SlotsArePositions() && (tokens == 0 || cache.KeptTokens(seq) == tokens));
  if (static_cast<int64_t>(session.note.size()) > kMostNoteBytes) {
    return InvalidArgument("{}: {} bytes of notes; a session holds {}", file.string(), session.note.size(),
                           kMostNoteBytes);
  }
  Head head = {};
  std::memcpy(head.magic, kMagic, sizeof(kMagic));
  head.version = kVersion;
  head.identity_bytes = limits.identity.size();
  head.tokens = session.tokens.size();
  head.planned_length = static_cast<uint64_t>(session.planned_length);
  head.note_bytes = session.note.size();
  head.layers = static_cast<uint64_t>(limits.layers);
  head.block_slots = static_cast<uint64_t>(cache.BlockSlots());
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  Checksum checksum;
  const auto write = [&](std::span<const std::byte> bytes) {
    checksum.Add(bytes);
    return out->Write(bytes);
  };
  RETURN_IF_ERROR(write(std::as_bytes(std::span(&head, 1))));
  RETURN_IF_ERROR(write(BytesOf(limits.identity)));
  RETURN_IF_ERROR(write(BytesOf(session.tokens)));
  RETURN_IF_ERROR(write(BytesOf(session.note)));
  RETURN_IF_ERROR(ForBlocks(cache, seq, limits.layers, tokens, write));
  const uint64_t sum = checksum.Value();
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(&sum, 1))));
  return out->Commit();
}

Result<Session> LoadSession(const std::filesystem::path& file, const SessionLimits& limits, KvCache& cache,
                            const std::function<void()>& make_room, SeqId* seq) {
  KVASIR_CHECK(cache.SlotsArePositions());
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<Reader> reader, Reader::Open(file));
    ASSIGN_OR_RETURN(const Session session, ReadHead(*reader, limits, cache));
    const int64_t blocks = CeilDiv(static_cast<int64_t>(session.tokens.size()), cache.BlockSlots());
    RETURN_IF_ERROR(reader->Skip(BytesPerBlock(cache, limits.layers) * blocks));
    RETURN_IF_ERROR(reader->Finish());
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Reader> reader, Reader::Open(file));
  ASSIGN_OR_RETURN(Session session, ReadHead(*reader, limits, cache));
  make_room();
  ASSIGN_OR_RETURN(*seq, cache.Create());
  const auto tokens = static_cast<int64_t>(session.tokens.size());
  const auto fill = [&]() -> Status {
    if (!cache.Reserve(*seq, tokens)) return ResourceExhausted("{}: no memory for {} tokens", file.string(), tokens);
    RETURN_IF_ERROR(
        ForBlocks(cache, *seq, limits.layers, tokens, [&](std::span<std::byte> block) { return reader->Read(block); }));
    return reader->Finish();
  };
  if (Status status = fill(); !status.ok()) {
    cache.Release(*seq);
    return status;
  }
  cache.Commit(*seq, tokens);
  cache.ClearUnused(*seq);
  return session;
}

}  // namespace kvasir
