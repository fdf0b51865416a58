// The file, all numbers little-endian: a Head, its identity, tokens (int32) and note, then block after block, of each
// every layer's as the cache lays it out, and XXH3-64 of everything before.
//
// That is version 1, of caches that keep every token. Version 2, of all others, has a Place behind the head, and behind
// the note, layer after layer, the keys of the sinks as they are before rotation (fp32), as far as there are tokens.
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
#include <optional>
#include <span>

#include "base/checked.h"
#include "io/atomic_file.h"

namespace kvasir {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[8] = {'k', 'v', 's', 'e', 's', 's', 'n', '\n'};
constexpr uint32_t kWholeVersion = 1;
constexpr uint32_t kBoundedVersion = 2;
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

/// KvSequenceState.
struct Place {
  uint64_t next;
  uint64_t dropped;
  uint64_t sinks_in_place;
};
static_assert(sizeof(Place) == 24);

/// What a file holds before keys and values.
struct Content {
  Session session;
  KvSequenceState state;
};

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

uint32_t VersionOf(const SessionLimits& limits, const KvCache& cache) {
  return limits.with_keys && cache.bound().tokens == 0 ? kWholeVersion : kBoundedVersion;
}

int64_t Blocks(const KvCache& cache, const KvSequenceState& state) {
  return CeilDiv(cache.bound().Reach(state.next), cache.BlockSlots());
}

int64_t SinkRows(const KvCache& cache, const KvSequenceState& state) {
  return std::min(cache.bound().sinks, state.next);
}

/// Bytes of keys and values; nothing if that is more than can be counted.
std::optional<int64_t> KeyBytes(const KvCache& cache, int64_t layers, const KvSequenceState& state) {
  int64_t block = 0;
  for (int64_t layer = 0; layer < layers; ++layer) block += cache.BlockBytes(static_cast<int>(layer));
  const auto blocks = CheckedMul(block, Blocks(cache, state));
  const auto sinks = CheckedMul(cache.SinkKeyBytesPerToken(), SinkRows(cache, state));
  return blocks && sinks ? CheckedAdd(*blocks, *sinks) : std::nullopt;
}

Status CheckNumbers(const Head& head, const std::string& name) {
  if (std::memcmp(head.magic, kMagic, sizeof(kMagic)) != 0) return InvalidData("{}: is no session file", name);
  if (head.version < kWholeVersion || head.version > kBoundedVersion || head.zero != 0) {
    return InvalidArgument("{}: a session file of version {}; this program reads versions {} and {}", name,
                           head.version, kWholeVersion, kBoundedVersion);
  }
  if (head.identity_bytes > kMostIdentityBytes || head.note_bytes > static_cast<uint64_t>(kMostNoteBytes) ||
      head.tokens > static_cast<uint64_t>(kMostKvTokens) ||
      head.planned_length > static_cast<uint64_t>(kMostKvTokens)) {
    return InvalidData("{}: is damaged: {} tokens, {} bytes of notes", name, head.tokens, head.note_bytes);
  }
  return OkStatus();
}

/// Where the cache stood, of a file with so many tokens.
Result<KvSequenceState> ReadPlace(Reader& reader, uint32_t version, uint64_t tokens) {
  if (version == kWholeVersion) return KvSequenceState{.next = static_cast<int64_t>(tokens)};
  Place place = {};
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(&place, 1))));
  constexpr auto kMost = static_cast<uint64_t>(kMostKvTokens);
  if (place.next > kMost || place.dropped > kMost || place.sinks_in_place > 1) {
    return InvalidData("{}: is damaged: {} tokens, {} dropped", reader.Name(), place.next, place.dropped);
  }
  return KvSequenceState{.next = static_cast<int64_t>(place.next),
                         .dropped = static_cast<int64_t>(place.dropped),
                         .sinks_in_place = place.sinks_in_place != 0};
}

/// Everything before keys and values, checked against the limits and the file's size before anything is allocated for
/// it.
Result<Content> ReadHead(Reader& reader, const SessionLimits& limits, const KvCache& cache) {
  Head head = {};
  if (reader.size() < static_cast<int64_t>(sizeof(head))) return InvalidData("{}: is no session file", reader.Name());
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(&head, 1))));
  RETURN_IF_ERROR(CheckNumbers(head, reader.Name()));
  ASSIGN_OR_RETURN(const KvSequenceState state, ReadPlace(reader, head.version, head.tokens));
  std::string identity(std::min<size_t>(head.identity_bytes, static_cast<size_t>(reader.size())), '\0');
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(identity))));
  if (identity != limits.identity) {
    std::ranges::replace_if(identity, [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
    return InvalidArgument("{}: was saved with {}, but this is {}; give the same model and flags, or another file",
                           reader.Name(), identity, limits.identity);
  }
  const auto tokens = static_cast<int64_t>(head.tokens);
  if (head.layers != static_cast<uint64_t>(limits.layers) || head.version != VersionOf(limits, cache)) {
    return InvalidData("{}: is damaged: {} layers, version {}", reader.Name(), head.layers, head.version);
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
  if (state.next != (limits.with_keys ? tokens : 0) || !cache.IsPossible(state)) {
    return InvalidData("{}: is damaged: {} tokens, of which {} were run and {} dropped", reader.Name(), tokens,
                       state.next, state.dropped);
  }
  const auto keys = KeyBytes(cache, limits.layers, state);
  const int64_t place = head.version == kBoundedVersion ? static_cast<int64_t>(sizeof(Place)) : 0;
  const int64_t rest =
      static_cast<int64_t>(sizeof(head) + head.identity_bytes + head.note_bytes) + place + tokens * 4 + 8;
  if (!keys || reader.size() - rest != *keys) {
    return InvalidData("{}: is damaged: {} bytes do not hold {} tokens", reader.Name(), reader.size(), tokens);
  }
  Content content;
  content.state = state;
  Session& session = content.session;
  session.planned_length = static_cast<int64_t>(head.planned_length);
  session.tokens.resize(head.tokens);
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(session.tokens))));
  for (const TokenId token : session.tokens) {
    if (token < 0 || token >= limits.vocab) return InvalidData("{}: is damaged: token {}", reader.Name(), token);
  }
  session.note.resize(head.note_bytes);
  RETURN_IF_ERROR(reader.Read(std::as_writable_bytes(std::span(session.note))));
  return content;
}

/// visit(bytes) of the sinks' keys, then of blocks, in the file's order.
template <typename Visit>
Status ForKeys(KvCache& cache, SeqId seq, int64_t layers, const Visit& visit) {
  const KvSequenceState state = cache.State(seq);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const MatView<float> keys = cache.SinkKeys(seq, static_cast<int>(layer));
    for (int64_t row = 0; row < std::min(keys.rows, SinkRows(cache, state)); ++row) {
      RETURN_IF_ERROR(visit(std::as_writable_bytes(std::span(keys.row(row), static_cast<size_t>(keys.cols)))));
    }
  }
  for (int64_t block = 0; block < Blocks(cache, state); ++block) {
    for (int64_t layer = 0; layer < layers; ++layer) {
      RETURN_IF_ERROR(visit(cache.Block(seq, static_cast<int>(layer), block)));
    }
  }
  return OkStatus();
}

}  // namespace

Status SaveSession(const std::filesystem::path& file, const SessionLimits& limits, const Session& session,
                   KvCache& cache, std::optional<SeqId> seq) {
  const auto tokens = static_cast<int64_t>(session.tokens.size());
  const bool with_keys = limits.with_keys && tokens > 0;
  KVASIR_CHECK(!with_keys || (seq && cache.NextPosition(*seq) == tokens));
  const KvSequenceState state = with_keys ? cache.State(*seq) : KvSequenceState{};
  if (static_cast<int64_t>(session.note.size()) > kMostNoteBytes) {
    return InvalidArgument("{}: {} bytes of notes; a session holds {}", file.string(), session.note.size(),
                           kMostNoteBytes);
  }
  Head head = {};
  std::memcpy(head.magic, kMagic, sizeof(kMagic));
  head.version = VersionOf(limits, cache);
  head.identity_bytes = limits.identity.size();
  head.tokens = session.tokens.size();
  head.planned_length = static_cast<uint64_t>(session.planned_length);
  head.note_bytes = session.note.size();
  head.layers = static_cast<uint64_t>(limits.layers);
  head.block_slots = static_cast<uint64_t>(cache.BlockSlots());
  const Place place = {.next = static_cast<uint64_t>(state.next),
                       .dropped = static_cast<uint64_t>(state.dropped),
                       .sinks_in_place = state.sinks_in_place ? 1U : 0U};
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> out, AtomicFile::Create(file));
  Checksum checksum;
  const auto write = [&](std::span<const std::byte> bytes) {
    checksum.Add(bytes);
    return out->Write(bytes);
  };
  RETURN_IF_ERROR(write(std::as_bytes(std::span(&head, 1))));
  if (head.version == kBoundedVersion) RETURN_IF_ERROR(write(std::as_bytes(std::span(&place, 1))));
  RETURN_IF_ERROR(write(BytesOf(limits.identity)));
  RETURN_IF_ERROR(write(BytesOf(session.tokens)));
  RETURN_IF_ERROR(write(BytesOf(session.note)));
  if (with_keys) RETURN_IF_ERROR(ForKeys(cache, *seq, limits.layers, write));
  const uint64_t sum = checksum.Value();
  RETURN_IF_ERROR(out->Write(std::as_bytes(std::span(&sum, 1))));
  return out->Commit();
}

Result<Session> LoadSession(const std::filesystem::path& file, const SessionLimits& limits, KvCache& cache,
                            const std::function<void()>& make_room, std::optional<SeqId>* seq) {
  seq->reset();
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<Reader> reader, Reader::Open(file));
    ASSIGN_OR_RETURN(const Content content, ReadHead(*reader, limits, cache));
    RETURN_IF_ERROR(reader->Skip(*KeyBytes(cache, limits.layers, content.state)));
    RETURN_IF_ERROR(reader->Finish());
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Reader> reader, Reader::Open(file));
  ASSIGN_OR_RETURN(Content content, ReadHead(*reader, limits, cache));
  make_room();
  if (!limits.with_keys) {
    RETURN_IF_ERROR(reader->Finish());
    return std::move(content.session);
  }
  ASSIGN_OR_RETURN(const SeqId made, cache.Create());
  const auto fill = [&]() -> Status {
    if (!cache.Restore(made, content.state)) {
      return ResourceExhausted("{}: no memory for {} tokens", file.string(), content.session.tokens.size());
    }
    RETURN_IF_ERROR(
        ForKeys(cache, made, limits.layers, [&](std::span<std::byte> bytes) { return reader->Read(bytes); }));
    return reader->Finish();
  };
  if (Status status = fill(); !status.ok()) {
    cache.Release(made);
    return status;
  }
  cache.ClearUnused(made);
  *seq = made;
  return std::move(content.session);
}

}  // namespace kvasir
