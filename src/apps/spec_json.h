// A decoder's spec as JSON and in words.
#pragma once

#include <boost/json/object.hpp>

#include <string>

#include "model/decoder_spec.h"

namespace kvasir::apps {

/// All fields of the spec, in the spec's own names.
boost::json::object SpecJson(const DecoderSpec& spec);

/// A few lines for people; layers that are alike are described once.
std::string SpecText(const DecoderSpec& spec);

}  // namespace kvasir::apps
