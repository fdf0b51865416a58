#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>

namespace kvasir {
namespace {

LogLevel LevelFromEnvironment() {
  const char* value = std::getenv("KVASIR_LOG");
  const std::string_view name = value ? value : "warning";
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  return LogLevel::kWarning;
}

std::atomic<LogLevel>& CurrentLevel() {
  static std::atomic<LogLevel> level{LevelFromEnvironment()};
  return level;
}

spdlog::logger& Logger() {
  // Leaked on purpose: threads may log while statics are destroyed.
  static auto* logger = [] {
    auto* made = new spdlog::logger("kvasir", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::trace);
    made->set_pattern("%H:%M:%S.%e %L %v");
    return made;
  }();
  return *logger;
}

}  // namespace

void SetLogLevel(LogLevel level) {
  if (!std::getenv("KVASIR_LOG")) CurrentLevel() = level;
}

bool LogEnabled(LogLevel level) { return level >= CurrentLevel().load(std::memory_order_relaxed); }

void LogMessage(LogLevel level, std::string_view message) {
  switch (level) {
    case LogLevel::kDebug: Logger().debug(message); break;
    case LogLevel::kInfo: Logger().info(message); break;
    case LogLevel::kWarning: Logger().warn(message); break;
    case LogLevel::kError: Logger().error(message); break;
    case LogLevel::kOff: break;
  }
}

}  // namespace kvasir
