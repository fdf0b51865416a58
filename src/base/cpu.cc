#include "base/cpu.h"

#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace kvasir {
namespace {

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name") || line.starts_with("Hardware")) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  }
  return "unknown processor";
}

#if defined(__x86_64__)
CpuFeatures Detect() {
  CpuFeatures features;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kGenu = 0x756e6547;  // of "GenuineIntel"
  features.intel = __get_cpuid(0, &a, &b, &c, &d) && b == kGenu;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
  const bool fma = c & (1u << 12);
  const bool f16c = c & (1u << 29);
  if (!(c & (1u << 27))) return features;  // no OSXSAVE: the system saves no wide registers
  unsigned xcr_low = 0;
  unsigned xcr_high = 0;
  __asm__("xgetbv" : "=a"(xcr_low), "=d"(xcr_high) : "c"(0));
  const bool saves_ymm = (xcr_low & 0x6u) == 0x6u;
  const bool saves_zmm = (xcr_low & 0xe6u) == 0xe6u;
  const bool saves_tiles = (xcr_low & 0x60000u) == 0x60000u;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return features;
  features.avx2 = saves_ymm && fma && f16c && (b & (1u << 5)) && (b & (1u << 8));
  constexpr unsigned kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  features.avx512 = features.avx2 && saves_zmm && (b & kAvx512) == kAvx512;
  features.avx512_vnni = features.avx512 && (c & (1u << 11));
  features.avx512_vbmi = features.avx512 && (c & (1u << 1));
  features.amx_bf16 = saves_tiles && (d & (1u << 22)) && (d & (1u << 24));
  features.amx_int8 = saves_tiles && (d & (1u << 24)) && (d & (1u << 25));
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) features.avx512_bf16 = features.avx512 && (a & (1u << 5));
  return features;
}
#elif defined(__aarch64__)
CpuFeatures Detect() {
  CpuFeatures features;
  features.neon = true;  // part of the base instruction set
  return features;
}
#else
CpuFeatures Detect() { return {}; }
#endif

}  // namespace

const CpuFeatures& GetCpuFeatures() {
  static const CpuFeatures features = [] {
    CpuFeatures detected = Detect();
    detected.name = ProcessorName();
    return detected;
  }();
  return features;
}

}  // namespace kvasir
