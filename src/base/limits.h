// What this process may use: processors (affinity, cgroup) and memory (system, cgroup, rlimit).
#pragma once

#include <cstdint>

namespace kvasir {

/// Processors this process may run on: the smaller of its affinity mask and its cgroup's CPU quota (rounded up).
int AvailableProcessors();

/// Bytes that can still be allocated without swapping, breaking the cgroup's memory limit or SetMemoryLimit's. Page
/// cache counts as free: the system gives it back.
int64_t AvailableMemory();

/// The most that this process may take, in bytes; 0: as much as there is. Counted is memory of its own (allocated
/// Buffers, or resident anonymous pages if they are more), not pages of mapped files. A bound for AvailableMemory and
/// all that asks it, not for allocations as such. Thread-safe.
void SetMemoryLimit(int64_t bytes);
int64_t MemoryLimit();

/// Peak resident bytes of this process (VmHWM), and resident bytes now; pages of mapped files are counted too.
int64_t PeakResidentMemory();
int64_t ResidentMemory();
/// Begins a new peak at what is resident now. False where the system does not let a process do that: the peak is then
/// still that since the process started.
bool ResetPeakResidentMemory();

/// Bytes of the largest cache level of one processor package; 0 when unknown.
int64_t LastLevelCacheBytes();

}  // namespace kvasir
