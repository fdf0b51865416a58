// Numbers within bounds as automata over their JSON texts.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "decode/byte_dfa.h"
#include "io/json.h"

namespace kvasir {

/// What a JSON number says, in decimal digits: whole.fraction without zeros at the outer ends.
struct Decimal {
  bool negative = false;
  std::string whole;
  std::string fraction;

  /// Of an integer, or of a double by the fewest digits that name it. InvalidArgument for what is no number, and for
  /// fractions of more than kFractionDigits.
  static Result<Decimal> Of(const json::value& value);
};

/// Digits that numbers are written with at most: no model can go on with them for ever, and every integer fits 64 bits.
inline constexpr int kWholeDigits = 18;
inline constexpr int kFractionDigits = 17;

struct NumberRange {
  std::optional<Decimal> min;
  std::optional<Decimal> max;
  bool above_min = false;  // exclusive
  bool below_max = false;
};

/// The numbers of a range: integers without a fraction, or else with one and, where there are no bounds, an exponent.
/// InvalidArgument when there is none.
Result<ByteDfa> CompileJsonNumber(bool integer, const NumberRange& range, WorkBudget& budget);

}  // namespace kvasir
