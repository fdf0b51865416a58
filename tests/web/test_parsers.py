"""Parts of the page by themselves: events however they are cut, texts however they stream in."""

import os
import pathlib
import re

from browser import WebTest, fake_only
from fake_server import COSTLY, HOSTILE, STORY

WEB = pathlib.Path(os.environ.get("KVASIR_WEB") or pathlib.Path(__file__).resolve().parents[2] / "web")

STREAM = ("\ufeffdata: one\n\n: comment\r\n\r\ndata:two\r\ndata:  lines\r\n\r\nevent: error\rdata\rdata:x\r\rid: 5\nretry: 1\n\n"
          "data: {\"a\": \"ü🍯\"}\n\ndata: \r\n\r\nunknown: y\ndata: last one\n\ndata: cut off")
EVENTS = [["message", "one"], ["message", "two\n lines"], ["error", "\nx"], ["message", '{"a": "ü🍯"}'], ["message", ""],
          ["message", "last one"]]


class Parsers(WebTest):
    def setUp(self):
        super().setUp()
        html = (pathlib.Path(os.environ["KVASIR_PAGE"]) / "page.html").read_text(encoding="utf-8")
        libraries = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[1:-1]
        own = "".join((WEB / name).read_text(encoding="utf-8") for name in ("dom.js", "sse.js", "conversation.js", "markdown.js"))
        self.driver.get("about:blank")
        # Together, since a name that is declared in one is known only there.
        self.js("(0, eval)(arguments[0])", ";\n".join([*libraries, own]) + "\nObject.assign(window, {SseParser, MarkdownView, searchConversations, Conversation});")

    @fake_only
    def test_events_cut_anywhere(self):
        result = self.js("""
          const [stream, wanted] = arguments, units = [...stream].join('');
          const parse = (pieces) => { const events = []; const p = new SseParser((e) => events.push([e.event, e.data]));
            for (const piece of pieces) p.push(piece); return JSON.stringify(events); };
          const whole = parse([units]);
          if (whole !== JSON.stringify(wanted)) return whole;
          for (let i = 0; i <= units.length; ++i)
            for (let j = i; j <= units.length; ++j) {
              const cut = parse([units.slice(0, i), units.slice(i, j), units.slice(j)]);
              if (cut !== whole) return `${i} ${j}: ${cut}`;
            }
          if (parse([...units]) !== whole) return 'one by one';
          try { parse(['data: ', ...Array(9).fill('x'.repeat(1 << 20))]); return 'no limit of a line'; } catch (error) {}
          try { parse(Array(9).fill('data: ' + 'x'.repeat(1 << 20) + '\\n')); return 'no limit of an event'; } catch (error) {}
          return 'as it should be';""", STREAM, EVENTS)
        self.assertEqual(result, "as it should be")

    @fake_only
    def test_streamed_text_ends_as_the_whole_text(self):
        """Up to 16 K characters to the same elements, and beyond to the same text in the same kinds of blocks."""
        link = "Later [x] is known.\n\n" * 5 + "[x]: https://example.org/\n"
        nested = "- a\n\n  more\n\n  ```js\n  f();\n  ```\n- b\n  1. c\n\n> quote\n> more\n\nSetext\n===\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
        for text in (STORY, HOSTILE, link, nested, STORY * 3, "```\nopen\n", "~~~~py\nx = 1\n```\n~~~~\nafter"):
            result = self.js(STREAMED, text, True)
            self.assertEqual(result, "same", text[:60])
        for text in (STORY * 80, ("word " * 30 + "\n\n") * 300, "```\n" + "line\n" * 9000 + "```\n\nafter\n" * 3):
            result = self.js(STREAMED, text, False)
            self.assertEqual(result, "same", text[:60])

    @fake_only
    def test_every_costly_text_is_shown_whole(self):
        for name, text in COSTLY.items():
            shown = self.js("const d = document.createElement('div'); new MarkdownView(d).set(arguments[0]); return d.textContent", text)
            if name in ("brackets", "stars", "quotes"):
                self.assertEqual(shown.strip(), text.strip(), name)
            else:
                self.assertGreater(len(shown), 3000, name)

    @fake_only
    def test_search(self):
        found = self.js("""
          const c = new Conversation(); const a = c.add('', 'user', 'About İstanbul and KETTLES'); c.add(a.id, 'assistant', 'x'.repeat(99) + ' the End');
          const f = (q) => searchConversations([c], q).map((hit) => hit.snippet ? hit.snippet[1] : null);
          return [f('kettles'), f('END the'), f('kettles end'), f('[.*'), f('about')];""")
        self.assertEqual(found, [["KETTLES"], ["End"], [], [], ["About"]])


STREAMED = """
const [text, exact] = arguments, whole = document.createElement('div'), part = document.createElement('div');
const plain = (d) => d.textContent.replace(/\\s+/g, ' ');
const tags = (d) => [...d.querySelectorAll('*')].filter((e) => !e.matches('.tail, svg, use')).map((e) => e.tagName).join(' ');
new MarkdownView(whole).set(text);
for (const size of exact ? [1, 2, 7, 64] : [97, 1000]) {
  const view = new MarkdownView(part);
  for (let end = size; end < text.length; end += size) view.update(text.slice(0, end), false);
  view.update(text, true);
  if (exact ? whole.innerHTML !== part.innerHTML : plain(whole) !== plain(part) || tags(whole) !== tags(part))
    return `${size}: ${part.innerHTML.slice(0, 2000)} instead of ${whole.innerHTML.slice(0, 2000)}`;
}
return 'same';
"""
