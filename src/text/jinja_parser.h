// Jinja source to a syntax tree.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "text/jinja_ast.h"

namespace kvasir::jinja {

/// Parses a template. Errors name the line. Statements that load other templates (include, import, extends, block)
/// are Unsupported. Nesting of blocks and expressions is bounded by max_depth.
Result<std::shared_ptr<const Template>> Parse(std::string_view source, int max_depth);

}  // namespace kvasir::jinja
