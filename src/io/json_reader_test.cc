#include "io/json.h"
#include "io/test_files.h"

namespace kvasir {
namespace {

using testing::Fails;

class JsonReaderTest : public ::testing::Test {
 protected:
  JsonReaderTest()
      : value_(*ParseJson(R"({
          "int": 7, "float_int": 7.0, "big": 18446744073709551615, "huge": 1e300, "half": 2.5, "neg": -3,
          "bool": true, "text": "t", "null": null, "list": [1, 2.0, 3], "bad_list": [1, "x"], "object": {"a": 1},
          "new_name": 1, "other": 2})",
                          "config.json")),
        reader_(value_.as_object(), "config.json") {}

  json::value value_;
  JsonReader reader_;
};

TEST_F(JsonReaderTest, TakesTheFirstNameThatIsThereAndNotNull) {
  EXPECT_EQ(*reader_.Int({"old_name", "new_name", "other"}, 0, 9), 1);
  EXPECT_EQ(*reader_.Int({"null", "other"}, 0, 9), 2);
  EXPECT_FALSE(reader_.Has({"null"}));
  EXPECT_FALSE(reader_.Has({"nowhere", "null"}));
  EXPECT_TRUE(reader_.Has({"nowhere", "text"}));
  EXPECT_EQ(reader_.Find({"null"}), nullptr);
}

TEST_F(JsonReaderTest, ReadsIntegersWithinBounds) {
  EXPECT_EQ(*reader_.Int({"int"}, 7, 7), 7);
  EXPECT_EQ(*reader_.Int({"float_int"}, 0, 100), 7);
  EXPECT_EQ(*reader_.Int({"neg"}, INT64_MIN, 0), -3);
  EXPECT_EQ(*reader_.Int({"nowhere"}, 0, 1, 42), 42);
  EXPECT_EQ(*reader_.Int({"null"}, 0, 1, 42), 42);
  EXPECT_TRUE(Fails(reader_.Int({"int"}, 8, 9).status(), {"config.json", "\"int\" is 7", "from 8 to 9"}));
  EXPECT_TRUE(Fails(reader_.Int({"big"}, 0, INT64_MAX).status(), {"\"big\" is 18446744073709551615"}));
  EXPECT_TRUE(Fails(reader_.Int({"huge"}, 0, INT64_MAX).status(), {"\"huge\""}));
  EXPECT_TRUE(Fails(reader_.Int({"half"}, 0, 9).status(), {"\"half\" is 2.5", "an integer"}));
  EXPECT_TRUE(Fails(reader_.Int({"text"}, 0, 9).status(), {"\"text\" must be an integer, it is a string"}));
  EXPECT_TRUE(Fails(reader_.Int({"bool"}, 0, 9).status(), {"it is a boolean"}));
}

TEST_F(JsonReaderTest, NamesTheSpellingThatIsWrong) {
  EXPECT_TRUE(Fails(reader_.Int({"old_name", "text"}, 0, 9).status(), {"\"text\" must be"}));
  EXPECT_TRUE(Fails(reader_.Int({"a", "b"}, 0, 9).status(), {"config.json: \"a\" or \"b\" is missing"}));
  EXPECT_TRUE(Fails(reader_.String({"a"}).status(), {"config.json: \"a\" is missing"}));
}

TEST_F(JsonReaderTest, ReadsNumbersBoolsAndStrings) {
  EXPECT_EQ(*reader_.Number({"half"}), 2.5);
  EXPECT_EQ(*reader_.Number({"int"}), 7.0);
  EXPECT_EQ(*reader_.Number({"big"}), 18446744073709551615.0);
  EXPECT_EQ(*reader_.Number({"nowhere"}, 0.5), 0.5);
  EXPECT_TRUE(Fails(reader_.Number({"text"}).status(), {"\"text\" must be a number, it is a string"}));
  EXPECT_TRUE(Fails(reader_.Number({"nowhere"}).status(), {"\"nowhere\" is missing"}));
  EXPECT_TRUE(*reader_.Bool({"bool"}));
  EXPECT_FALSE(*reader_.Bool({"nowhere"}, false));
  EXPECT_TRUE(Fails(reader_.Bool({"int"}).status(), {"\"int\" must be true or false, it is an integer"}));
  EXPECT_TRUE(Fails(reader_.Bool({"nowhere"}).status(), {"missing"}));
  EXPECT_EQ(*reader_.String({"text"}), "t");
  EXPECT_EQ(*reader_.String({"nowhere"}, "d"), "d");
  EXPECT_TRUE(Fails(reader_.String({"object"}).status(), {"\"object\" must be a string, it is an object"}));
  value_.as_object()["infinite"] = 1e308 * 10;
  EXPECT_TRUE(Fails(reader_.Number({"infinite"}).status(), {"finite"}));
}

TEST_F(JsonReaderTest, ReadsListsAndObjects) {
  EXPECT_EQ(*reader_.IntList({"list"}, 1, 3), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(*reader_.IntList({"int"}, 0, 9), (std::vector<int64_t>{7}));
  EXPECT_TRUE(reader_.IntList({"nowhere"}, 0, 9)->empty());
  EXPECT_TRUE(Fails(reader_.IntList({"list"}, 1, 2).status(), {"\"list\"[2] is 3"}));
  EXPECT_TRUE(Fails(reader_.IntList({"bad_list"}, 0, 9).status(), {"\"bad_list\"[1] must be an integer"}));
  EXPECT_TRUE(Fails(reader_.IntList({"text"}, 0, 9).status(), {"\"text\""}));
  EXPECT_EQ((*reader_.Object({"object"}))->at("a").as_int64(), 1);
  EXPECT_EQ(*reader_.Object({"nowhere"}), nullptr);
  EXPECT_TRUE(Fails(reader_.Object({"list"}).status(), {"\"list\" must be an object, it is an array"}));
}

}  // namespace
}  // namespace kvasir
