// The web page, made at build time from web/ by web/inline_page.cc.
#pragma once

#include <string_view>

namespace kvasir {

/// The page as it is served at `/`: one UTF-8 HTML document that loads nothing else and speaks only to the server that
/// it came from. Static storage; thread-safe.
std::string_view PageHtml();

/// The Content-Security-Policy to serve PageHtml with: its scripts and styles by their SHA-256, requests to the own
/// origin, nothing else. Static storage; thread-safe. W3C CSP Level 3.
std::string_view PageContentSecurityPolicy();

}  // namespace kvasir
