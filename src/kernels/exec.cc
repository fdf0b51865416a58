#include "kernels/exec.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/kernel_set.h"

namespace kvasir {

std::span<const KernelSet* const> AvailableKernelSets() {
  static const std::vector<const KernelSet*> available = [] {
    std::vector<const KernelSet*> sets;
    const KernelSetList compiled = CompiledKernelSets();
    for (int i = 0; i < compiled.count; ++i) {
      if (compiled.sets[i]->accepts(GetCpuFeatures())) sets.push_back(compiled.sets[i]);
    }
    return sets;
  }();
  return available;
}

Result<const KernelSet*> SelectKernelSet() {
  const std::span<const KernelSet* const> available = AvailableKernelSets();
  const char* wanted = std::getenv("KVASIR_ISA");
  if (wanted == nullptr || *wanted == '\0') return available.front();
  std::string names;
  for (const KernelSet* set : available) {
    if (std::string_view(set->name) == wanted) return set;
    names += names.empty() ? "" : ", ";
    names += set->name;
  }
  return InvalidArgument("KVASIR_ISA={}: this program on this processor has {}", wanted, names);
}

std::string_view KernelSetName(const KernelSet& set) { return set.name; }

}  // namespace kvasir
