// Files that hold the keys and values of a sequence, so that another process goes on where this one ended (K5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kv/cache.h"
#include "text/vocab.h"

namespace kvasir {

/// What a session file says beside keys and values.
struct Session {
  std::vector<TokenId> tokens;  // whose keys and values it holds, but for those that the cache has dropped
  int64_t planned_length = 0;   // that their rotations were made for
  std::string note;             // the caller's own, at most kMostNoteBytes
};
inline constexpr int64_t kMostNoteBytes = int64_t{64} << 20;

/// What a session must have been saved with to be of use, and what bounds it.
struct SessionLimits {
  std::string identity;  // of all that keys and values depend on, as text for people
  int64_t layers = 0;
  int32_t vocab = 0;
  int64_t tokens = 0;
  /// Whether tokens come with keys and values: where every step begins anew, nothing in the cache is of use.
  bool with_keys = true;
};

/// Writes the sequence, whose committed tokens are session.tokens; it is not looked at without tokens or with_keys. The
/// file appears whole or stays as it was.
Status SaveSession(const std::filesystem::path& file, const SessionLimits& limits, const Session& session,
                   KvCache& cache, std::optional<SeqId> seq);

/// Reads `file` into a new sequence of `cache`, none without with_keys. It is read twice: only when all of it, to its
/// checksum, was found right is `make_room` called and the sequence made. Symbolic links and whatever is no plain file
/// are refused. Errors: IoError, InvalidData (damaged, no session), InvalidArgument (of another model or other
/// settings, too long, of a newer version), ResourceExhausted.
Result<Session> LoadSession(const std::filesystem::path& file, const SessionLimits& limits, KvCache& cache,
                            const std::function<void()>& make_room, std::optional<SeqId>* seq);

}  // namespace kvasir
