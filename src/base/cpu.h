// The processor at hand.
#pragma once

#include <string>

namespace kvasir {

/// Instruction sets that the processor has and the operating system saves.
struct CpuFeatures {
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, VL, DQ
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool avx512_vbmi = false;
  bool amx_bf16 = false;
  bool amx_int8 = false;
  bool neon = false;
  bool intel = false;  // the maker, where what is fastest depends on it and nothing else tells
  std::string name;    // "AMD EPYC 9R14"
};

/// Detected once. Thread-safe.
const CpuFeatures& GetCpuFeatures();

}  // namespace kvasir
