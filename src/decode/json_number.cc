#include "decode/json_number.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>
#include <tuple>

#include "decode/json_pattern.h"

namespace kvasir {
namespace {

/// One end of a range of magnitudes. Absent: there is none.
struct Edge {
  const Decimal* at = nullptr;
  bool open = false;

  /// The digit at a position of a number with `length` whole digits; fraction digits follow on.
  int Digit(int position, int length) const {
    const auto whole = static_cast<int>(at->whole.size());
    if (position < length) {
      const int i = position - (length - whole);
      return i < 0 ? 0 : at->whole[static_cast<size_t>(i)] - '0';
    }
    const auto i = static_cast<size_t>(position - length);
    return i < at->fraction.size() ? at->fraction[i] - '0' : 0;
  }
  /// Whether it has no digit but zeros from the position on.
  bool ZeroFrom(int position, int length) const {
    for (int i = position; i < length + static_cast<int>(at->fraction.size()); ++i) {
      if (Digit(i, length) != 0) return false;
    }
    return true;
  }
};

/// Writes the magnitudes between two ends, number by number of whole digits.
class MagnitudeWriter {
 public:
  MagnitudeWriter(ByteNfa& nfa, ByteNfa::Fragment fragment, bool integer, Edge low, Edge high)
      : nfa_(nfa), fragment_(fragment), integer_(integer), low_(low), high_(high) {}

  void Write() {
    for (length_ = 1; length_ <= kWholeDigits; ++length_) {
      const auto digits = [](const Edge& edge) {
        return std::max(1, edge.at == nullptr ? 0 : static_cast<int>(edge.at->whole.size()));
      };
      if (low_.at != nullptr && digits(low_) > length_) continue;
      if (high_.at != nullptr && digits(high_) < length_) break;
      places_.clear();
      const bool at_low = low_.at != nullptr && digits(low_) == length_;
      const bool at_high = high_.at != nullptr && digits(high_) == length_;
      nfa_.AddEmpty(fragment_.in, Place({0, false, at_low, at_high}));
    }
  }

 private:
  struct Key {
    int position;  // digits so far
    bool point;    // behind a decimal point
    bool at_low;   // equal to the low end so far; else above it
    bool at_high;
    auto operator<=>(const Key&) const = default;
  };

  bool MayEnd(const Key& key) const {
    if (key.position < length_ || (key.point && key.position == length_)) return false;
    if (key.at_low && (!low_.ZeroFrom(key.position, length_) || low_.open)) return false;
    return !key.at_high || !high_.ZeroFrom(key.position, length_) || !high_.open;
  }

  int32_t Place(const Key& key) {
    const auto [found, added] = places_.try_emplace(key, 0);
    if (!added) return found->second;
    const int32_t state = nfa_.AddState();
    found->second = state;
    if (MayEnd(key)) nfa_.AddEmpty(state, fragment_.out);
    if (key.position == length_ && !key.point) {
      if (!integer_) nfa_.AddEdge(state, '.', '.', Place({key.position, true, key.at_low, key.at_high}));
      return state;
    }
    if (key.position == length_ + kFractionDigits) return state;
    const int from = key.at_low ? low_.Digit(key.position, length_) : 0;
    const int to = key.at_high ? high_.Digit(key.position, length_) : 9;
    for (int digit = std::max(from, key.position == 0 && length_ > 1 ? 1 : 0); digit <= to; ++digit) {
      const auto byte = static_cast<uint8_t>('0' + digit);
      const bool at_low = key.at_low && digit == from;
      const bool at_high = key.at_high && digit == to;
      nfa_.AddEdge(state, byte, byte, Place({key.position + 1, key.point, at_low, at_high}));
    }
    return state;
  }

  ByteNfa& nfa_;
  ByteNfa::Fragment fragment_;
  bool integer_;
  Edge low_;
  Edge high_;
  int length_ = 0;
  std::map<Key, int32_t> places_;
};

bool IsZero(const Decimal& decimal) { return decimal.whole.empty() && decimal.fraction.empty(); }

}  // namespace

Result<Decimal> Decimal::Of(const json::value& value) {
  char buffer[512];  // the largest double has 309 digits
  std::to_chars_result end{};
  if (value.is_int64()) {
    end = std::to_chars(buffer, buffer + sizeof(buffer), value.get_int64());
  } else if (value.is_uint64()) {
    end = std::to_chars(buffer, buffer + sizeof(buffer), value.get_uint64());
  } else if (value.is_double()) {
    end = std::to_chars(buffer, buffer + sizeof(buffer), value.get_double(), std::chars_format::fixed);
  } else {
    return InvalidArgument("it must be a number");
  }
  if (end.ec != std::errc()) return InvalidArgument("it has too many digits");
  std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  Decimal decimal;
  if (text.starts_with('-')) {
    decimal.negative = true;
    text.remove_prefix(1);
  }
  const size_t point = std::min(text.find('.'), text.size());
  decimal.whole = text.substr(0, point);
  if (point < text.size()) decimal.fraction = text.substr(point + 1);
  decimal.whole.erase(0, decimal.whole.find_first_not_of('0'));
  decimal.fraction.erase(decimal.fraction.find_last_not_of('0') + 1);
  if (decimal.fraction.size() > kFractionDigits) {
    return InvalidArgument("it has more than {} digits behind the point", kFractionDigits);
  }
  if (IsZero(decimal)) decimal.negative = false;
  return decimal;
}

Result<ByteDfa> CompileJsonNumber(bool integer, const NumberRange& range, WorkBudget& budget) {
  if (!range.min && !range.max) {
    const std::string whole = fmt::format("^-?(?:0|[1-9][0-9]{{0,{}}})", kWholeDigits - 1);
    const std::string rest = fmt::format("(?:\\.[0-9]{{1,{}}})?(?:[eE][+-]?[0-9]{{1,2}})?", kFractionDigits);
    return CompileJsonPattern(whole + (integer ? "" : rest) + "$", budget);
  }
  ByteNfa nfa;
  const ByteNfa::Fragment fragment{nfa.AddState(), nfa.AddState()};
  const Edge min{range.min ? &*range.min : nullptr, range.above_min};
  const Edge max{range.max ? &*range.max : nullptr, range.below_max};
  const Decimal zero;
  if (max.at == nullptr || !max.at->negative) {
    const bool from_zero = min.at == nullptr || min.at->negative;
    MagnitudeWriter(nfa, fragment, integer, from_zero ? Edge{&zero, false} : min, max).Write();
  }
  // Below zero the larger magnitude is the smaller number; -0 is left out.
  if (min.at == nullptr || min.at->negative) {
    const int32_t minus = nfa.AddState();
    nfa.AddEdge(fragment.in, '-', '-', minus);
    const bool from_zero = max.at == nullptr || !max.at->negative;
    MagnitudeWriter(nfa, {minus, fragment.out}, integer, from_zero ? Edge{&zero, true} : max, min).Write();
  }
  RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(nfa.states.size())));
  return Determinize(nfa, fragment, budget);
}

}  // namespace kvasir
