#include "decode/stop.h"

#include <algorithm>

namespace kvasir {

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone: return "";
    case FinishReason::kEos:
    case FinishReason::kStopString: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
    case FinishReason::kError: return "error";
  }
  return "";
}

StopStrings::StopStrings(const std::vector<std::string>& strings) : nodes_(1) {
  for (const std::string& string : strings) {
    int32_t node = 0;
    for (const char c : string) {
      int32_t child = Child(node, c);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        nodes_[static_cast<size_t>(node)].children.emplace_back(c, child);
        const size_t depth = nodes_[static_cast<size_t>(node)].depth + 1;
        nodes_.emplace_back().depth = depth;
      }
      node = child;
    }
    nodes_[static_cast<size_t>(node)].match_size = string.size();
  }
  // Breadth first, since a failure link leads to a shorter prefix.
  std::vector<int32_t> queue{0};
  for (size_t head = 0; head < queue.size(); ++head) {
    const int32_t parent = queue[head];
    for (const auto& [c, child] : nodes_[static_cast<size_t>(parent)].children) {
      Node& node = nodes_[static_cast<size_t>(child)];
      int32_t candidate = parent;
      int32_t target = -1;
      while (candidate != 0 && target < 0) {
        candidate = nodes_[static_cast<size_t>(candidate)].failure;
        target = Child(candidate, c);
      }
      node.failure = std::max(target, 0);
      if (node.match_size == 0) node.match_size = nodes_[static_cast<size_t>(node.failure)].match_size;
      queue.push_back(child);
    }
  }
}

int32_t StopStrings::Child(int32_t node, char c) const {
  for (const auto& [key, child] : nodes_[static_cast<size_t>(node)].children) {
    if (key == c) return child;
  }
  return -1;
}

StopStrings::Output StopStrings::Push(std::string_view text) {
  Output output;
  if (stopped_) {
    output.stopped = true;
    return output;
  }
  // What was shown is dropped only once it is half of the buffer: each byte is moved a constant number of times.
  if (shown_ > held_.size() / 2) {
    held_.erase(0, shown_);
    shown_ = 0;
  }
  const size_t begin = held_.size();
  held_ += text;
  for (size_t i = begin; i < held_.size(); ++i) {
    int32_t next = Child(state_, held_[i]);
    while (next < 0 && state_ != 0) {
      state_ = nodes_[static_cast<size_t>(state_)].failure;
      next = Child(state_, held_[i]);
    }
    state_ = std::max(next, 0);
    if (const size_t size = nodes_[static_cast<size_t>(state_)].match_size; size > 0) {
      output.text = held_.substr(shown_, i + 1 - size - shown_);
      output.stopped = stopped_ = true;
      held_.clear();
      shown_ = 0;
      return output;
    }
  }
  const size_t safe = held_.size() - nodes_[static_cast<size_t>(state_)].depth;
  output.text = held_.substr(shown_, safe - shown_);
  shown_ = safe;
  return output;
}

std::string StopStrings::Flush() {
  std::string rest = held_.substr(shown_);
  held_.clear();
  shown_ = 0;
  state_ = 0;
  return rest;
}

}  // namespace kvasir
