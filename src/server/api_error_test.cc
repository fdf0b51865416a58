#include "server/api_error.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "io/json.h"

namespace kvasir::server {
namespace {

json::object ErrorOf(const std::string& body) {
  auto value = ParseJson(body, "test");
  EXPECT_TRUE(value.ok()) << body;
  return value->as_object().at("error").as_object();
}

bool Has(const HttpResponse& response, std::string_view name) {
  return std::ranges::any_of(response.headers, [&](const auto& header) { return header.first == name; });
}

TEST(ApiErrorTest, StatusesOfErrors) {
  EXPECT_EQ(ToApiError(InvalidArgument("a")).status, 400);
  EXPECT_EQ(ToApiError(InvalidData("a")).status, 400);
  EXPECT_EQ(ToApiError(Unsupported("a")).status, 400);
  EXPECT_EQ(ToApiError(NotFound("a")).status, 404);
  EXPECT_EQ(ToApiError(ResourceExhausted("a")).status, 429);
  EXPECT_EQ(ToApiError(Internal("a")).status, 500);
  EXPECT_EQ(ToApiError(IoError("a")).status, 500);
  EXPECT_EQ(ToApiError(InvalidArgument("why"), "field").param, "field");
  EXPECT_EQ(ToApiError(InvalidArgument("why")).message, "why");
}

TEST(ApiErrorTest, TheBodyIsAsOpenAisClientsReadIt) {
  const json::object whole = ErrorOf(ErrorBody({.status = 400, .message = "m", .param = "p", .code = "c"}));
  EXPECT_EQ(json::serialize(whole), R"({"message":"m","type":"invalid_request_error","param":"p","code":"c"})");
  const json::object bare = ErrorOf(ErrorBody(503, "m"));
  EXPECT_EQ(json::serialize(bare), R"({"message":"m","type":"service_unavailable","param":null,"code":null})");
  for (const auto& [status, type] : {std::pair(401, "authentication_error"),
                                     {403, "permission_error"},
                                     {404, "invalid_request_error"},
                                     {429, "rate_limit_error"},
                                     {500, "server_error"}}) {
    EXPECT_EQ(ErrorOf(ErrorBody(status, "m")).at("type"), type);
  }
}

TEST(ApiErrorTest, AnythingMayStandInAMessage) {
  const std::string odd = "\"\\\n\x01\xFF</script>";
  EXPECT_EQ(ErrorOf(ErrorBody({.message = odd, .param = odd})).at("message"), "\"\\\n\x01\xEF\xBF\xBD</script>");
  EXPECT_EQ(ErrorBody(400, odd).find('\n'), std::string::npos);
}

TEST(ApiErrorTest, Responses) {
  EXPECT_TRUE(Has(ErrorResponse({.status = 429}), "Retry-After"));
  EXPECT_TRUE(Has(ErrorResponse({.status = 503}), "Retry-After"));
  EXPECT_TRUE(Has(ErrorResponse({.status = 401}), "WWW-Authenticate"));
  EXPECT_TRUE(ErrorResponse({.status = 400}).headers.empty());
  EXPECT_EQ(ErrorResponse({.status = 400}).content_type, "application/json");
}

}  // namespace
}  // namespace kvasir::server
