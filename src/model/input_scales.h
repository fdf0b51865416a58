// Factors that bring the columns of a matrix to like sizes before it is rounded.
#pragma once

#include <span>

namespace kvasir {

/// Columns smaller or larger than the typical one by more than this factor are brought to its size.
inline constexpr float kColumnGap = 16.0f;

/// Raises sizes[k] to the magnitude of row[k], measured by the row's largest: rows are rounded each by itself, so that
/// none counts more than others. Values that are no numbers are left out.
void AddColumnSizes(std::span<const float> row, std::span<float> sizes);

/// What to multiply inputs with, and divide the columns of a matrix by, so that no column is lost in the rounding of
/// others that are far larger, nor spoils that of smaller ones. `columns` holds the sizes of AddColumnSizes and becomes
/// the factors: powers of two, so that nothing is rounded by them; 1 for columns within kColumnGap of the median, and
/// for the rest what brings them nearest to it, but not beyond. Large models have inputs hundreds of times larger than
/// the others, whose weights are smaller in proportion (Dettmers et al., LLM.int8()); the idea of scaling is that of
/// SmoothQuant (Xiao et al., 2022).
void InputScalesOf(std::span<float> columns);

}  // namespace kvasir
