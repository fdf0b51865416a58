#include "apps/report.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <cmath>
#include <limits>

namespace kvasir::apps {
namespace {

std::string Line(const boost::json::value& value) { return JsonLine(value); }

TEST(JsonLine, WritesPlainDecimals) {
  EXPECT_EQ(Line(12.345), "12.345\n");
  EXPECT_EQ(Line(0.0), "0\n");
  EXPECT_EQ(Line(-0.5), "-0.5\n");
  EXPECT_EQ(Line(5.0), "5\n");
  EXPECT_EQ(Line(1e-5), "0.00001\n");
  EXPECT_EQ(Line(123456789012.0), "123456789012\n");
  EXPECT_EQ(Line(123456789012.3), "123456789000\n");
  EXPECT_EQ(Line(static_cast<double>(1e-5f)), "0.00001\n");
  EXPECT_EQ(Line(1.0 / 3), "0.333333333\n");
  EXPECT_EQ(Line(1e22), "10000000000000000000000\n");
  EXPECT_EQ(Line(std::nan("")), "null\n");
  EXPECT_EQ(Line(-std::numeric_limits<double>::infinity()), "null\n");
}

TEST(JsonLine, ExtremesAreStillNumbers) {
  using Limits = std::numeric_limits<double>;
  for (const double number : {Limits::max(), Limits::lowest(), Limits::min(), Limits::denorm_min(), 1e-300, 1e300}) {
    const std::string line = Line(number);
    EXPECT_EQ(line.find_first_of("eE"), std::string::npos);
    EXPECT_NEAR(boost::json::parse(line).to_number<double>() / number, 1.0, 1e-8) << line;
  }
}

TEST(JsonLine, KeepsFloatsApart) {
  for (float x : {0.1f, 1.00000012f, 3.4e38f, 1.17549435e-38f, 16777215.0f, -7.0000005f}) {
    EXPECT_EQ(static_cast<float>(boost::json::parse(Line(static_cast<double>(x))).to_number<double>()), x);
  }
}

TEST(JsonLine, WritesStructuresAsTheyAre) {
  const boost::json::value value = {{"text", "a \"quoted\"\n\u0001"},
                                    {"list", {1, 2.5, nullptr, true}},
                                    {"big", INT64_MAX},
                                    {"key\"", {{"n", 0.25}}}};
  const std::string line = Line(value);
  EXPECT_EQ(line, R"({"text":"a \"quoted\"\n\u0001","list":[1,2.5,null,true],"big":9223372036854775807,)"
                  R"("key\"":{"n":0.25}})"
                  "\n");
  EXPECT_EQ(boost::json::parse(line), value);
  EXPECT_EQ(Line(boost::json::array()), "[]\n");
  EXPECT_EQ(Line(boost::json::object()), "{}\n");
}

}  // namespace
}  // namespace kvasir::apps
