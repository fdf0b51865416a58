// What is found out about a server before it is loaded.
#pragma once

#include <string>

#include "apps/serve_load/load_run.h"
#include "base/status.h"

namespace kvasir::apps {

enum class PromptForm { kAuto, kIds, kText };

/// Fills in what the target does not say yet: the first of /v1/models where there is no model, and what prompts are
/// made of. With kAuto those are token ids where the endpoint is kCompletions and the server takes them, else words.
/// Words are those that its /tokenize counts as one token each; without such a thing (what is told by a note) all of
/// CommonWords. IoError: the server cannot be reached or has no model. Blocks.
Status PrepareTarget(PromptForm form, double timeout_s, LoadTarget& target);

}  // namespace kvasir::apps
