#include "server/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Element {
  std::string tag, attributes, text;
};

/// The scripts and styles of the page, and the page without their text and without comments.
std::vector<Element> TakeApart(std::string_view html, std::string* markup) {
  std::vector<Element> elements;
  for (size_t at = 0; at < html.size();) {
    if (html.substr(at, 4) == "<!--") {
      at = html.find("-->", at) + 3;
      continue;
    }
    const bool script = html.substr(at, 7) == "<script";
    if (script || html.substr(at, 6) == "<style") {
      const std::string tag = script ? "script" : "style";
      const size_t open = html.find('>', at) + 1;
      const size_t close = html.find("</" + tag, open);
      elements.push_back({tag, std::string(html.substr(at + 1 + tag.size(), open - at - 2 - tag.size())),
                          std::string(html.substr(open, close - open))});
      at = close;
    }
    *markup += html[at++];
  }
  return elements;
}

std::string Sha256Base64(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EXPECT_EQ(EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr), 1);
  std::array<unsigned char, EVP_MAX_MD_SIZE * 2> base64{};
  const int length = EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(size));
  return {reinterpret_cast<const char*>(base64.data()), static_cast<size_t>(length)};
}

size_t Count(std::string_view text, std::string_view word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

TEST(PageTest, IsOneDocumentOfModestWeight) {
  const std::string_view html = PageHtml();
  EXPECT_EQ(html.substr(0, 15), "<!DOCTYPE html>");
  EXPECT_LT(html.size(), 400'000u);
  EXPECT_EQ(Count(html, "@inline"), 0u);
  EXPECT_EQ(html.substr(html.size() - 8), "</html>\n");
}

TEST(PageTest, EveryScriptAndStyleIsInThePolicyAndNothingElse) {
  std::string markup;
  const std::vector<Element> elements = TakeApart(PageHtml(), &markup);
  const std::string policy(PageContentSecurityPolicy());
  size_t scripts = 0;
  for (const Element& element : elements) {
    EXPECT_EQ(element.attributes, "") << "no src, no type: all of it is in the page";
    const std::string hash = "'sha256-" + Sha256Base64(element.text) + "'";
    const size_t at = policy.find(hash);
    ASSERT_NE(at, std::string::npos) << element.tag << ": " << element.text.substr(0, 80);
    EXPECT_EQ(at < policy.find("style-src"), element.tag == "script");
    scripts += element.tag == "script";
    // Else the parser would end the script elsewhere than its author thought.
    if (element.tag == "script") {
      const std::regex hazard("<!--|</?script", std::regex::icase);
      EXPECT_FALSE(std::regex_search(element.text, hazard)) << element.text.substr(0, 80);
    }
  }
  EXPECT_GE(scripts, 5u);
  EXPECT_EQ(Count(policy, "'sha256-"), elements.size());
  for (const char* directive :
       {"default-src 'none';", "connect-src 'self';", "img-src data:;", "base-uri 'none';", "form-action 'none';",
        "frame-ancestors 'none';", "require-trusted-types-for 'script';"}) {
    EXPECT_THAT(policy, HasSubstr(directive));
  }
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  EXPECT_THAT(policy, Not(HasSubstr("http")));
}

TEST(PageTest, LoadsNothingAndHasNoHandlersInMarkup) {
  std::string markup;
  const std::vector<Element> elements = TakeApart(PageHtml(), &markup);
  EXPECT_GT(markup.size(), 5000u);
  EXPECT_FALSE(std::regex_search(
      markup, std::regex(R"(\s(on[a-z]+|style|srcset|src|action|formaction)\s*=)", std::regex::icase)));
  // Links within the page and the icon, which is in the page itself.
  const std::regex link(R"re(\shref\s*=\s*"([^"]*)")re", std::regex::icase);
  for (std::sregex_iterator it(markup.begin(), markup.end(), link), end; it != end; ++it) {
    const std::string target = (*it)[1];
    EXPECT_TRUE(target.starts_with("#") || target.starts_with("data:image/svg+xml,")) << target;
  }
  for (const Element& element : elements) {
    if (element.tag != "style") continue;
    EXPECT_THAT(element.text, Not(HasSubstr("url(")));
    EXPECT_THAT(element.text, Not(HasSubstr("@import")));
  }
  EXPECT_THAT(std::string(PageHtml()), Not(HasSubstr("sourceMappingURL")));
}

TEST(PageTest, NamesTheLicencesOfWhatItHolds) {
  const std::string html(PageHtml());
  for (const char* word : {"marked", "MIT", "DOMPurify", "Apache-2.0", "highlight.js", "BSD-3-Clause",
                           "The above copyright notice and this permission notice shall be included"}) {
    EXPECT_THAT(html.substr(0, 6000), HasSubstr(word));
  }
}

TEST(PageTest, HasTheIdsThatTestsOfTheServerUse) {
  const std::string html(PageHtml());
  for (const char* id : {"composer", "send", "stop", "messages", "theme", "settings", "search", "new-chat", "export",
                         "import", "api-key", "stat-ttft", "stat-tps", "stat-cached", "kv-map", "batch-chart"}) {
    EXPECT_EQ(Count(html, std::string("data-testid=\"") + id + "\""), 1u) << id;
  }
}

/// inline_page over a folder of its own.
class InlinePageTest : public testing::Test {
 protected:
  InlinePageTest() : folder_(std::filesystem::path(testing::TempDir()) / "inline_page_test") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ / "lib");
  }
  ~InlinePageTest() override { std::filesystem::remove_all(folder_); }

  void Put(const std::string& name, std::string_view text) { std::ofstream(folder_ / name) << text; }

  bool Run() {
    const std::string command = std::string(KVASIR_INLINE_PAGE) + " " + (folder_ / "out.cc").string() + " " +
                                folder_.string() + " lib=" + (folder_ / "lib").string() + " 2>" +
                                (folder_ / "errors").string();
    return std::system(command.c_str()) == 0;
  }

  std::string Get(const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }

  std::filesystem::path folder_;
};

TEST_F(InlinePageTest, InlinesAndHashes) {
  Put("index.html",
      "<p>\n@inline style a.css\n@inline script a.js b.js\n@inline library lib/c.js\n@inline commonjs lib/d.js\n");
  Put("a.css", "p { color: red; }\n");
  Put("a.js", "const a = '</script><!-- <SCRIPT>';\n");
  Put("b.js", "f(a);\n");
  Put("lib/c.js", "c();\n//# sourceMappingURL=c.map\n");
  Put("lib/d.js", "module.exports = () => 1;\n");
  ASSERT_TRUE(Run()) << Get("errors");
  const std::string html = Get("out.html");
  EXPECT_THAT(html, HasSubstr("<p>\n<style>p { color: red; }\n</style>\n<script>(() => {\n'use strict';\n"));
  EXPECT_THAT(html, HasSubstr("const a = '\\x3C/script>\\x3C!-- \\x3CSCRIPT>';\n"));
  EXPECT_THAT(html, HasSubstr("f(a);\n})();\n</script>\n<script>c();\n\n</script>\n"));
  EXPECT_THAT(html, HasSubstr("hljs.registerLanguage('d', "));
  EXPECT_THAT(Get("out.csp"), HasSubstr("style-src 'sha256-" + Sha256Base64("p { color: red; }\n") + "';"));
  EXPECT_THAT(Get("out.cc.d"), HasSubstr("b.js"));
}

TEST_F(InlinePageTest, RefusesWhatIsMissingUnknownOrTooLarge) {
  Put("index.html", "@inline script none.js\n");
  EXPECT_FALSE(Run());
  EXPECT_THAT(Get("errors"), HasSubstr("none.js"));
  Put("index.html", "@inline image a.js\n");
  Put("a.js", "1;\n");
  EXPECT_FALSE(Run());
  EXPECT_THAT(Get("errors"), HasSubstr("image"));
  Put("index.html", "@inline script other/a.js\n");
  EXPECT_FALSE(Run());
  EXPECT_THAT(Get("errors"), HasSubstr("other/a.js"));
  Put("index.html", "@inline script a.js\n");
  Put("a.js", std::string(400'001, ' '));
  EXPECT_FALSE(Run());
  EXPECT_THAT(Get("errors"), HasSubstr("at most 400000"));
}

}  // namespace
}  // namespace kvasir
