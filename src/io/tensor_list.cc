#include "io/tensor_list.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace kvasir {

Result<TensorList> TensorList::Make(std::vector<RawTensor> tensors, std::string_view what) {
  if (tensors.size() > std::numeric_limits<uint32_t>::max()) {
    return ResourceExhausted("{}: {} tensors, more than kvasir can number", what, tensors.size());
  }
  TensorList list;
  list.tensors_ = std::move(tensors);
  list.by_name_.resize(list.tensors_.size());
  std::iota(list.by_name_.begin(), list.by_name_.end(), 0u);
  const auto name = [&list](uint32_t i) -> const std::string& { return list.tensors_[i].name; };
  std::ranges::sort(list.by_name_, {}, [&name](uint32_t i) { return std::pair(std::string_view(name(i)), i); });
  const auto twin = std::ranges::adjacent_find(list.by_name_, {}, name);
  if (twin == list.by_name_.end()) return list;
  const RawTensor& first = list.tensors_[twin[0]];
  const RawTensor& second = list.tensors_[twin[1]];
  if (first.file == second.file || first.file == nullptr || second.file == nullptr) {
    return InvalidData("{}: tensor \"{}\" stands twice in it", what, first.name);
  }
  return InvalidData("{}: tensor \"{}\" stands both in {} and in {}", what, first.name,
                     first.file->path().filename().string(), second.file->path().filename().string());
}

const RawTensor* TensorList::Find(std::string_view name) const {
  const auto key = [this](uint32_t i) -> std::string_view { return tensors_[i].name; };
  const auto at = std::ranges::lower_bound(by_name_, name, {}, key);
  return at != by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

}  // namespace kvasir
