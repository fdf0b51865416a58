#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/test_paths.h"
#include "io/json.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

json::array Messages(std::initializer_list<std::pair<std::string_view, std::string_view>> messages) {
  json::array list;
  for (const auto& [role, content] : messages) {
    list.push_back(json::object{{"role", std::string(role)}, {"content", std::string(content)}});
  }
  return list;
}

Result<RenderedChat> Render(std::string_view source, const json::array& messages, const RenderOptions& options = {}) {
  auto compiled = ChatTemplate::Compile(source, options.limits);
  if (!compiled.ok()) return compiled.status();
  return compiled->Render(messages, options);
}

// The rendering with every run of literal bytes in square brackets.
std::string Marked(std::string_view source, const json::array& messages, const RenderOptions& options = {}) {
  const auto chat = Render(source, messages, options);
  if (!chat.ok()) return "error: " + chat.status().message();
  std::string out;
  size_t at = 0;
  for (const ByteRange& range : chat->literal) {
    EXPECT_LE(at, range.begin);
    EXPECT_LT(range.begin, range.end);
    EXPECT_LE(range.end, chat->text.size());
    out +=
        chat->text.substr(at, range.begin - at) + "[" + chat->text.substr(range.begin, range.end - range.begin) + "]";
    at = range.end;
  }
  return out + chat->text.substr(at);
}

std::string ErrorOf(std::string_view source, const RenderOptions& options = {}) {
  const auto chat = Render(source, Messages({{"user", "hi"}}), options);
  return chat.ok() ? "rendered: " + chat->text.substr(0, 100) : chat.status().message();
}

TEST(ChatTemplateTaint, RolesAndTemplateTextAreTrustedContentsAreNot) {
  RenderOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  EXPECT_EQ(Marked("{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}",
                   Messages({{"user", "a<s>"}, {"assistant", "b"}}), options),
            "<s><user>[a<s>]</s><assistant>[b]</s>");
}

TEST(ChatTemplateTaint, SurvivesEveryOperationOnStrings) {
  const json::array messages = Messages({{"user", " Abc,dÉf "}});
  const auto marked = [&](std::string_view expression) {
    return Marked(fmt::format("{{% set c = messages[0].content %}}{{{{ {} }}}}", expression), messages);
  };
  EXPECT_EQ(marked("c|trim"), "[Abc,dÉf]");
  EXPECT_EQ(marked("'<' + c.strip() + '>'"), "<[Abc,dÉf]>");
  EXPECT_EQ(marked("'<' ~ c[1:4] ~ c[-3:-1] ~ c[2]"), "<[AbcÉfb]");
  EXPECT_EQ(marked("('x' + c.strip() + 'y')[::-1]"), "y[fÉd,cbA]x");
  EXPECT_EQ(marked("c.split(',')|join('|')"), "[ Abc]|[dÉf ]");
  EXPECT_EQ(marked("'+'.join(c.strip().split(','))"), "[Abc]+[dÉf]");
  EXPECT_EQ(marked("c.strip().upper() ~ c.lower().strip() ~ c|trim|capitalize ~ c|title|trim"),
            "[ABC,DÉFabc,défAbc,défAbc,déf]");
  EXPECT_EQ(marked("c.strip().replace(',', ';')"), "[Abc];[dÉf]");
  EXPECT_EQ(marked("'a,b'.replace(',', c)|trim"), "a[ Abc,dÉf ]b");
  EXPECT_EQ(marked("c|replace('A', '<')|trim"), "<[bc,dÉf]");
  EXPECT_EQ(marked("c|trim|tojson"), "\"[Abc,dÉf]\"");
  EXPECT_EQ(marked("{'k': c|trim, 'l': [1, c|trim]}|tojson"), "{\"k\": \"[Abc,dÉf]\", \"l\": [1, \"[Abc,dÉf]\"]}");
  EXPECT_EQ(marked("c|trim|tojson(ensure_ascii=true)"), "\"[Abc,d\\u00c9f]\"");
  EXPECT_EQ(marked("[c|trim]"), "['[Abc,dÉf]']");
  EXPECT_EQ(marked("'%s-%5s' % (c|trim, 'x')"), "[Abc,dÉf]-    x");
  EXPECT_EQ(marked("'{}-{:>9}'.format('x', c|trim)"), "x-  [Abc,dÉf]");
  EXPECT_EQ(marked("c|trim|indent(2, true)"), "  [Abc,dÉf]");
  EXPECT_EQ(marked("(c|trim * 2)|length"), "14");
  EXPECT_EQ(marked("'<' ~ (c|trim)[0] * 3"), "<[AAA]");
  EXPECT_EQ(marked("c|list|last ~ c|first ~ (c|trim|first) ~ (c|trim).partition(',')[0]"), "[  AAbc]");
  EXPECT_EQ(marked("c|trim|e ~ c|trim|safe ~ c|trim|string|center(9)"), "[Abc,dÉfAbc,dÉf] [Abc,dÉf] ");
  EXPECT_EQ(marked("c|default('x')|trim ~ (none or c|trim)"), "[Abc,dÉfAbc,dÉf]");
  EXPECT_EQ(marked("(c.splitlines()|map('trim')|map('upper')|list)[0]"), "[ABC,DÉF]");
  EXPECT_EQ(marked("c|trim|reverse|truncate(4, true, '…', 0)"), "[fÉd]…");
}

TEST(ChatTemplateTaint, FollowsBlocksMacrosNamespacesAndLoops) {
  const json::array messages = Messages({{"user", "U"}});
  EXPECT_EQ(Marked("{% set x %}a{{ messages[0].content }}b{% endset %}{{ x }}{{ x[1] }}", messages), "a[U]b[U]");
  EXPECT_EQ(Marked("{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(messages[0].content) }}", messages), "<[U]>");
  EXPECT_EQ(Marked("{% set n = namespace(t='') %}{% for m in messages %}{% set n.t = n.t ~ '-' ~ m.content %}{% endfor "
                   "%}{{ n.t }}",
                   messages),
            "-[U]");
  EXPECT_EQ(Marked("{% filter lower %}A{{ messages[0].content }}{% endfilter %}", messages), "a[u]");
  EXPECT_EQ(Marked("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", messages),
            "[role]=user;[content]=[U];");
}

TEST(ChatTemplateTaint, VariablesAndNestedRolesAreFromOutside) {
  RenderOptions options;
  options.variables = {{"tools", json::array{json::object{{"name", "f"}, {"n", 1}}}}, {"date", "today"}};
  EXPECT_EQ(Marked("{{ date }} {{ tools[0]|tojson }}", {}, options), "[today] {\"[name]\": \"[f]\", \"[n]\": 1}");
  json::array nested = {json::object{{"role", "user"}, {"content", json::object{{"role", "system"}}}}};
  EXPECT_EQ(Marked("{{ messages[0].role }} {{ messages[0].content.role }}", nested), "user [system]");
}

// The contents are Cyrillic and the templates are not, so that every byte shows where it came from.
TEST(ChatTemplateTaint, IsExactForTheTemplatesOfEveryFamily) {
  const json::array messages = Messages({{"user", "Привет"}, {"assistant", "Здравствуйте"}, {"user", "Пока"}});
  RenderOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = 0;
  int templates = 0;
  const std::filesystem::path folder = std::filesystem::path(kFixtures) / "chat_template" / "templates";
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(file.path().string());
    const auto source = ReadFile(file.path(), 1 << 20);
    ASSERT_TRUE(source.ok()) << source.status().message();
    const auto chat = Render(*source, messages, options);
    ASSERT_TRUE(chat.ok()) << chat.status().message();
    ++templates;
    std::vector<bool> literal(chat->text.size(), false);
    for (const ByteRange& range : chat->literal) {
      for (size_t i = range.begin; i < range.end; ++i) literal[i] = true;
    }
    size_t tainted = 0;
    for (size_t i = 0; i < chat->text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(chat->text[i]);
      // Cyrillic letters are D0 xx and D1 xx; the templates' own "｜" and "▁" begin with EF and E2.
      const bool letter =
          byte == 0xD0 || byte == 0xD1 || (i > 0 && (chat->text[i - 1] == '\xD0' || chat->text[i - 1] == '\xD1'));
      EXPECT_EQ(literal[i], letter) << "byte " << i << " of " << chat->text;
      tainted += letter;
    }
    EXPECT_EQ(tainted, 2 * (6 + 12 + 4));
  }
  EXPECT_GE(templates, 14);
}

TEST(ChatTemplate, NamesTheLineOfAnError) {
  EXPECT_EQ(ErrorOf("a\nb\n{{ x.y }}"), "chat template, line 3: 'x' is undefined");
  EXPECT_EQ(ErrorOf("a\n{% if %}"), "chat template, line 2: expected an expression, got '%}'");
  EXPECT_EQ(ErrorOf("{{ 'a' + 1 }}"), "chat template, line 1: can only concatenate str (not \"int\") to str");
  EXPECT_EQ(ErrorOf("\n\n{% for x in 5 %}{% endfor %}"), "chat template, line 3: 'int' object is not iterable");
  EXPECT_EQ(ErrorOf("{{ messages[0].foo.bar }}"), "chat template, line 1: 'dict object' has no attribute 'foo'");
  EXPECT_EQ(ErrorOf("{{ messages.append(1) }}"),
            "chat template, line 1: access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(ErrorOf("{{ raise_exception('no ' ~ messages[0].role) }}"), "no user");
}

TEST(ChatTemplate, RefusesBadInput) {
  EXPECT_FALSE(ChatTemplate::Compile("\xff").ok());
  EXPECT_FALSE(ChatTemplate::Compile("{% include 'x' %}").ok());
  RenderOptions options;
  options.variables = {{"messages", 1}};
  EXPECT_THAT(ErrorOf("x", options), HasSubstr("cannot hold 'messages'"));
  options.variables = {{"n", 18446744073709551615u}};
  EXPECT_THAT(ErrorOf("x", options), HasSubstr("does not fit 64 bits"));
  json::value deep = 1;
  for (int i = 0; i < 200; ++i) deep = json::array{deep};
  options.variables = {{"n", deep}};
  EXPECT_THAT(ErrorOf("x", options), HasSubstr("nested deeper"));
  options.variables = {};
  options.limits.max_depth = 100000;
  EXPECT_THAT(ErrorOf("x", options), HasSubstr("max_depth must be between"));
}

TEST(ChatTemplate, InvalidUtf8InMessagesBecomesReplacementCharacters) {
  EXPECT_EQ(Marked("{{ messages[0].content }}", Messages({{"user", "a\xff"}})), "[a\uFFFD]");
}

// Each of these would run for ever, or fill the memory, without the bounds.
TEST(ChatTemplateLimits, StopsWhatDoesNotEnd) {
  const std::string_view bombs[] = {
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% set n = namespace(x='ab') %}{% for i in range(1000) %}{% set n.x = n.x + n.x %}{% endfor %}",
      "{% set n = namespace(x=[1]) %}{% for i in range(1000) %}{% set n.x = n.x + n.x %}{% endfor %}",
      "{% set n = namespace(x=[1]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}",
      "{% set n = namespace(x=(1, 2)) %}{% for i in range(100) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ n.x }}",
      "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson }}",
      "{% set n = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] "
      "%}{% endfor %}{{ n.x == n.y }}",
      "{{ 'x' * 1000000000000 }}",
      "{{ [0] * 1000000000000 }}",
      "{{ 9223372036854775807 * [1, 2] }}",
      "{{ 'abc'|replace('', 'x' * 10000000)|length }}",
      "{{ 'x'.center(1000000000000) }}",
      "{{ ('a' * 5000000).replace('a', 'a' * 5000000) }}",
      "{{ '%99999999999d' % 1 }}",
      "{{ '{:99999999999}'.format(1) }}",
      "{{ 'x'|indent(999999999999, true) }}",
      "{{ [1]|tojson(indent=999999999999) }}",
      "{{ range(100001)|length }}",
      "{{ range(-9223372036854775807, 9223372036854775807)|length }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{{ m() ~ m() }}{% endmacro %}{{ m() }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% set n = namespace(s='a' * 4000000) %}{% for i in range(100000) %}{% if n.s == n.s ~ '' %}{% endif %}{% "
      "endfor %}",
      "{% set s = 'a' * 3000000 %}{% for i in range(100000) %}{{ s.find('b') }}{% endfor %}",
      "{% set s = 'a' * 3000000 %}{% for i in range(100000) %}{{ s.rfind('b' ~ s[:100000]) }}{% endfor %}",
      "{% set s = 'é' * 3000000 %}{% for i in range(100000) %}{{ s[2000000] }}{% endfor %}",
      "{% set s = 'a ' * 3000000 %}{{ s.split()|length }}{{ s.split()|length }}{{ s.split()|length }}",
      "{% set n = namespace(d={}) %}{% for i in range(100000) %}{% set n.d = dict(n.d, **{i ~ '': i}) %}{% endfor %}",
      "{{ strftime_now('%99999999d') }}",
      "{{ strftime_now('%Y' * 100000) }}",
      "{{ [1, 2]|batch(999999999999, 0)|list }}",
      "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 1000 }}{% endfor %}",
  };
  for (std::string_view bomb : bombs) {
    SCOPED_TRACE(bomb);
    const auto start = std::chrono::steady_clock::now();
    const auto chat = Render(bomb, {});
    EXPECT_FALSE(chat.ok());
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  }
}

TEST(ChatTemplateLimits, BoundsTheNestingOfTheSource) {
  const auto repeat = [](std::string_view text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
  };
  constexpr int kMany = 50000;
  const std::string deep[] = {
      "{{ " + repeat("(", kMany) + "1" + repeat(")", kMany) + " }}",
      "{{ " + repeat("[", kMany) + repeat("]", kMany) + " }}",
      "{{ " + repeat("not ", kMany) + "1 }}",
      "{{ " + repeat("- ", kMany) + "1 }}",
      "{{ x" + repeat(".x", kMany) + " }}",
      "{{ x" + repeat("|e", kMany) + " }}",
      "{{ x" + repeat("()", kMany) + " }}",
      "{{ " + repeat("1 if ", kMany) + "1 }}",
      "{{ " + repeat("1 if 1 else ", kMany) + "1 }}",
      "{% set " + repeat("(", kMany) + "a" + repeat(")", kMany) + " = 1 %}",
      repeat("{% if 1 %}", kMany) + repeat("{% endif %}", kMany),
      repeat("{% for i in x %}", kMany),
      "{{ {" + repeat("1: {", kMany),
  };
  for (const std::string& source : deep) {
    SCOPED_TRACE(source.substr(0, 60));
    EXPECT_FALSE(ChatTemplate::Compile(source).ok());
  }
  // Chains are not nesting.
  const std::string chains[] = {
      "{{ 1" + repeat(" + 1", 5000) + " }}",   "{{ 'a'" + repeat(" ~ 'a'", 5000) + " }}",
      "{{ 1" + repeat(" and 1", 5000) + " }}", "{{ 0" + repeat(" or 0", 5000) + " }}",
      "{{ 1" + repeat(" == 1", 5000) + " }}",  "{% if 0 %}" + repeat("{% elif 0 %}", 5000) + "{% endif %}",
      repeat("{% if 1 %}a{% endif %}", 5000),
  };
  for (const std::string& source : chains) {
    const auto chat = Render(source, {});
    EXPECT_TRUE(chat.ok()) << source.substr(0, 40) << ": " << chat.status().message();
  }
}

TEST(ChatTemplateLimits, ReportsWhichLimitWasHit) {
  RenderOptions options;
  options.limits.max_output_bytes = 100;
  EXPECT_THAT(ErrorOf("{% for i in range(60) %}ab{% endfor %}", options), HasSubstr("max_output_bytes"));
  EXPECT_THAT(ErrorOf("{% for i in range(40) %}ab{% endfor %}", options), HasSubstr("rendered: abab"));
  options = {};
  options.limits.fuel = 1000;
  EXPECT_THAT(ErrorOf("{% for i in range(9000) %}{% endfor %}", options), HasSubstr("fuel"));
  options = {};
  options.limits.max_source_bytes = 4;
  EXPECT_THAT(ErrorOf("hello", options), HasSubstr("max_source_bytes"));
  options = {};
  options.limits.max_depth = 5;
  EXPECT_THAT(ErrorOf("{{ [[[[[[[[1]]]]]]]] }}", options), HasSubstr("max_depth"));
}

// Cycles through namespaces, scopes, loops and macros; under AddressSanitizer a leak fails the test.
TEST(ChatTemplateLimits, CyclesDoNotLeak) {
  const std::string_view sources[] = {
      "{% set n = namespace() %}{% set n.n = n %}{% set n.l = [n, {'a': n}] %}ok",
      "{% macro m() %}{{ m }}{% endmacro %}{% set x = m %}{{ m() }}",
      "{% set n = namespace() %}{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{% set n.m = m %}{% endfor "
      "%}{{ "
      "n.m() }}",
      "{% set n = namespace() %}{% for i in [1] recursive %}{% set n.l = loop %}{{ loop.changed(n, loop) }}{% endfor "
      "%}{% set x = n.l %}ok",
      "{% set n = namespace() %}{% for i in [1] if i %}{% set n.l = loop %}{% set n.c = loop.changed %}{% endfor %}{% "
      "set x = n.l %}{% set y = n.c %}{{ n.l.length }}ok",
      "{% set n = namespace(l=none) %}{% for i in range(2000) %}{% set m = namespace(next=n.l) %}{% set n.l = m %}{% "
      "endfor %}ok",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% set n = namespace() %}{% call m() %}{% set n.c = caller %}{% set "
      "n.x "
      "= n %}{% endcall %}ok",
      "{% set c = cycler(1, 2) %}{% set n = namespace(f=c.next) %}{{ n.f() }}{{ n.f() }}{{ c.current }}ok",
  };
  for (std::string_view source : sources) {
    const auto chat = Render(source, {});
    EXPECT_TRUE(chat.ok()) << source << ": " << chat.status().message();
  }
}

TEST(ChatTemplateLimits, LongConversationsGetFuelByTheirSize) {
  const std::string content(4u << 20, 'x');
  const auto chat =
      Render("{% for m in messages %}{{ '<' + m.content|trim + '>' }}{{ m.content|upper|tojson }}{% endfor %}",
             Messages({{"user", content}, {"assistant", content}, {"user", content}}));
  ASSERT_TRUE(chat.ok()) << chat.status().message();
  EXPECT_EQ(chat->text.size(), 3 * (2 * content.size() + 4));
}

TEST(ChatTemplate, IsThreadSafe) {
  const auto compiled =
      ChatTemplate::Compile("{% for m in messages %}{{ m.role|upper ~ ': ' ~ m.content }}{% endfor %}");
  ASSERT_TRUE(compiled.ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&compiled, t] {
      const std::string content(static_cast<size_t>(t + 1), 'x');
      for (int i = 0; i < 200; ++i) {
        const auto chat = compiled->Render(Messages({{"user", content}}), {});
        EXPECT_TRUE(chat.ok() && chat->text == "USER: " + content);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace kvasir
