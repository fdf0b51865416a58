#include "base/limits.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <thread>

#include "base/buffer.h"

namespace kvasir {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

std::atomic<int64_t> memory_limit{0};

std::optional<std::string> FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::optional<int64_t> ToInt(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

/// The folders of this process's cgroup and of its ancestors, version 2 and the named version 1 controller.
template <typename Visit>
void ForEachCgroup(const std::string& controller, Visit visit) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version2 = controllers.empty();
    if (!version2 && ("," + controllers + ",").find("," + controller + ",") == std::string::npos) continue;
    const std::string root = version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
    std::string path = line.substr(second + 1);
    while (true) {
      visit(root + (path == "/" ? "" : path), version2);
      if (path.empty() || path == "/") break;
      path.resize(path.rfind('/'));
    }
  }
}

/// A value in kB from /proc/self/status or /proc/meminfo, in bytes.
std::optional<int64_t> KilobytesOf(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(key)) continue;
    const size_t digit = line.find_first_of("0123456789");
    if (digit == std::string::npos) return std::nullopt;
    const auto value = ToInt(std::string_view(line).substr(digit));
    if (!value) return std::nullopt;
    return *value * 1024;
  }
  return std::nullopt;
}

/// Memory of this process that is no page of a file. Of large Buffers that nobody has written to yet only the account
/// knows.
int64_t OwnMemory() {
  int64_t buffers = 0;
  for (int i = 0; i < static_cast<int>(MemoryOwner::kCount); ++i) {
    buffers += GetMemoryUse(static_cast<MemoryOwner>(i)).current;
  }
  const auto anonymous = KilobytesOf("/proc/self/status", "RssAnon:");
  return std::max(buffers, anonymous ? *anonymous : ResidentMemory());
}

}  // namespace

int AvailableProcessors() {
  int processors = static_cast<int>(std::thread::hardware_concurrency());
  // The mask grows until it fits: machines may have more processors than CPU_SETSIZE.
  for (int slots = 1024; slots <= (1 << 18); slots *= 2) {
    cpu_set_t* set = CPU_ALLOC(slots);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(slots);
    CPU_ZERO_S(bytes, set);
    const bool ok = ::sched_getaffinity(0, bytes, set) == 0;
    if (ok) processors = CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (ok) break;
  }
  ForEachCgroup("cpu", [&](const std::string& folder, bool version2) {
    int64_t quota = -1;
    int64_t period = 100'000;
    if (version2) {
      const auto line = FirstLine(folder + "/cpu.max");
      if (!line) return;
      const size_t space = line->find(' ');
      quota = ToInt(*line).value_or(-1);
      if (space != std::string::npos) period = ToInt(std::string_view(*line).substr(space + 1)).value_or(period);
    } else {
      quota = ToInt(FirstLine(folder + "/cpu.cfs_quota_us").value_or("")).value_or(-1);
      period = ToInt(FirstLine(folder + "/cpu.cfs_period_us").value_or("")).value_or(period);
    }
    if (quota > 0 && period > 0) processors = std::min(processors, static_cast<int>((quota + period - 1) / period));
  });
  return std::max(processors, 1);
}

int64_t AvailableMemory() {
  int64_t available = KilobytesOf("/proc/meminfo", "MemAvailable:").value_or(kNoLimit);
  ForEachCgroup("memory", [&](const std::string& folder, bool version2) {
    const auto limit = ToInt(FirstLine(folder + (version2 ? "/memory.max" : "/memory.limit_in_bytes")).value_or(""));
    const auto used = ToInt(FirstLine(folder + (version2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(""));
    if (!limit || !used) return;
    // Page cache counts as used but is given back under pressure.
    int64_t reclaimable = 0;
    std::ifstream file(folder + "/memory.stat");
    std::string line;
    while (std::getline(file, line)) {
      if (line.starts_with("inactive_file ") || line.starts_with("active_file ")) {
        reclaimable += ToInt(std::string_view(line).substr(line.find(' ') + 1)).value_or(0);
      }
    }
    available = std::min(available, std::max<int64_t>(*limit - *used + reclaimable, 0));
  });
  struct rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const int64_t used = KilobytesOf("/proc/self/status", "VmSize:").value_or(0);
    available = std::min(available, std::max<int64_t>(static_cast<int64_t>(limit.rlim_cur) - used, 0));
  }
  if (const int64_t own = MemoryLimit(); own > 0) {
    available = std::min(available, std::max<int64_t>(own - OwnMemory(), 0));
  }
  return available;
}

void SetMemoryLimit(int64_t bytes) { memory_limit = std::max<int64_t>(bytes, 0); }
int64_t MemoryLimit() { return memory_limit; }

int64_t PeakResidentMemory() { return KilobytesOf("/proc/self/status", "VmHWM:").value_or(0); }
int64_t ResidentMemory() { return KilobytesOf("/proc/self/status", "VmRSS:").value_or(0); }

bool ResetPeakResidentMemory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;  // proc(5): the peak becomes what is resident now
  return file.good();
}

int64_t LastLevelCacheBytes() {
  int64_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    const auto line = FirstLine("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    if (!line) break;
    int64_t bytes = ToInt(*line).value_or(0);
    if (line->ends_with('K')) bytes *= 1024;
    if (line->ends_with('M')) bytes *= 1024 * 1024;
    largest = std::max(largest, bytes);
  }
  if (largest > 0) return largest;
  // No /sys, as in some containers: the C library asks the processor, where it knows how to.
  for (int name : {_SC_LEVEL4_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE}) {
    largest = std::max<int64_t>(largest, sysconf(name));
  }
  return largest;
}

}  // namespace kvasir
