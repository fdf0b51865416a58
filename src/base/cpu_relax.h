// The processor's hint that a loop is waiting.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kvasir {

inline void CpuRelax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace kvasir
