// What this process may use: processors (affinity, cgroup) and memory (system, cgroup, rlimit).
#pragma once

#include <cstdint>

namespace kvasir {

/// Processors this process may run on: the smaller of its affinity mask and its cgroup's CPU quota (rounded up).
int AvailableProcessors();

/// Bytes that can still be allocated without swapping or breaking the cgroup's memory limit.
int64_t AvailableMemory();

/// Peak resident bytes of this process (VmHWM), and resident bytes now.
int64_t PeakResidentMemory();
int64_t ResidentMemory();

/// Bytes of the largest cache level of one processor package; 0 when unknown.
int64_t LastLevelCacheBytes();

}  // namespace kvasir
