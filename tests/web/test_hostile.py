"""What a model, a file or the browser's own storage may hold, and what must not come of it."""

import json
import os
import time

from selenium.webdriver.common.by import By

from browser import WebTest, fake_only
from fake_server import COSTLY, MASSES

RECORD = {"id": "a1", "title": "<img src=x onerror=window.owned=20>", "named": True, "completion": False, "created": 5,
          "updated": 6, "picks": [["", "n1"], ["__proto__", "n1"], 5],
          "nodes": [{"id": "n1", "parent": "", "role": "user", "text": "<script>window.owned=21</script> hello", "time": 1},
                    {"id": "n2", "parent": "n1", "role": "assistant", "text": "<img src=x onerror=window.owned=22>", "time": 1,
                     "model": "<b>", "finish": "stop", "error": {"kind": "x", "message": "<img src=x onerror=window.owned=23>"},
                     "stats": {"tps": 5, "ttft": "<b>", "answer": -1, "other": 7}}]}


class Hostile(WebTest):
    def inert(self):
        self.assertIsNone(self.js("return window.owned || null"))
        self.assertEqual(self.js("return document.querySelectorAll('#messages :is(img,iframe,form,style,script,svg:not(button svg),"
                                 "math,input,object,embed,link,meta,video,audio):not(.edit *, .edit)').length"), 0)
        for element in self.js("return [...document.querySelectorAll('#messages *')].flatMap((e) => [...e.attributes])"
                               ".map((a) => [a.name, a.value])"):
            self.assertFalse(element[0].startswith("on"), element)
            self.assertNotEqual(element[0], "style")
        for link in self.driver.find_elements(By.CSS_SELECTOR, "#messages a[href]"):
            self.assertRegex(link.get_attribute("href"), r"^(https?://|mailto:)")
            self.assertEqual(link.get_attribute("target"), "_blank")
            self.assertIn("noopener", link.get_attribute("rel"))

    @fake_only
    def test_answer_cannot_be_markup(self):
        self.send("fake:hostile")
        self.assertIn("The end of it.", self.answer())
        self.assertIn("<img src=x onerror=window.owned=12>", self.answer(), "code is shown as it is")
        self.assertIn("<script>window.owned=2</script>", self.answer(), "markup is shown as text")
        for link in self.driver.find_elements(By.CSS_SELECTOR, "#messages a"):
            if not link.get_attribute("href"):
                self.js("arguments[0].click()", link)
        time.sleep(0.3)
        self.inert()
        hrefs = [e.get_attribute("href") for e in self.driver.find_elements(By.CSS_SELECTOR, "#messages a[href]")]
        self.assertIn("mailto:a@example.org", hrefs)
        self.assertFalse([h for h in hrefs if "models" in h or "vbscript" in h or "data:" in h])
        self.saved()
        self.reload()
        self.until("the conversation", lambda: "The end of it." in self.answer())
        self.inert()

    @fake_only
    def test_huge_answer(self):
        self.send("fake:huge")
        self.assertGreater(len(self.answer()), 150000)
        # The page is not busy with it: two frames come at once.
        took = self.driver.execute_async_script(
            "const done = arguments[0], t = performance.now();"
            "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - t)));")
        self.assertLess(took, 2000)
        self.one("composer").send_keys("still here")
        self.assertEqual(self.one("composer").get_attribute("value"), "still here")

    @fake_only
    def test_unclosed_fence(self):
        self.send("fake:fence")
        code = self.one("message-assistant").find_element(By.CSS_SELECTOR, "pre code.language-cpp")
        self.assertIn("return 0;", code.text)
        self.assertTrue(self.one("copy-code").is_displayed())

    @fake_only
    def test_long_code(self):
        self.send("fake:code")
        self.assertEqual(self.answer().count("compute(value, 12)"), 1200)

    @fake_only
    def test_texts_that_take_parsers_long(self):
        for name in COSTLY:
            self.click("new-chat")
            begin = time.monotonic()
            self.send(f"fake:costly-{name}")
            self.assertLess(time.monotonic() - begin, 15, name)
            self.assertGreater(len(self.answer()), 5000, name)
            busy = self.driver.execute_async_script(
                "const done = arguments[0], t = performance.now(); setTimeout(() => done(performance.now() - t));")
            self.assertLess(busy, 3000, name)

    @fake_only
    def test_megabytes(self):
        for name, mass in MASSES.items():
            self.click("new-chat")
            self.send(f"fake:mass-{name}")
            shown = self.answer()
            for letter in set("xwh;") & set(mass):
                self.assertEqual(shown.count(letter), mass.count(letter), name)
            self.one("composer").send_keys("still here")
            self.assertEqual(self.one("composer").get_attribute("value"), "still here")
            self.one("composer").clear()
        self.saved()
        self.reload()
        self.assertGreater(len(self.answer()), 100)

    @fake_only
    def test_answer_without_end(self):
        self.send("fake:endless")
        self.assertIn("longer than this page keeps", self.one("error").text)
        self.assertGreater(len(self.answer()), 4000000)
        self.saved()
        self.reload()
        self.assertGreater(len(self.answer()), 4000000)

    @fake_only
    def test_text_in_a_tab_that_is_not_seen(self):
        """What has come meanwhile is rendered at once, whatever hides behind code that is long."""
        text = "```\n" + "line\n" * 20000 + "```\n\n" + COSTLY["stars"] * 3
        begin = time.monotonic()
        self.send("Hello.")
        self.js("""
          const text = arguments[0], view = document.createElement('div');
          window.fetch = async () => new Response(`data: ${JSON.stringify({choices: [{delta: {content: text}, finish_reason: 'stop'}]})}\n\n`,
                                                  {headers: {'Content-Type': 'text/event-stream'}});""", text)
        self.send("Again.")
        self.assertEqual(self.answer().count("*"), text.count("*"))
        self.assertLess(time.monotonic() - begin, 15)

    @fake_only
    def test_text_that_turns_direction(self):
        self.send("fake:turned \u202egnp.exe")
        self.assertIn("The end of it.", self.answer())
        answer = self.one("message-assistant")
        self.assertIn("turn the direction", answer.find_element(By.CSS_SELECTOR, ".code-bar").text)
        for kind, direction in (("p", "ltr"), (".code", "ltr"), ("ul", "rtl")):
            self.assertEqual(self.js("return getComputedStyle(arguments[0].querySelector(arguments[1])).direction", answer, kind), direction, kind)
        # Nothing of it reaches the page around it.
        for place in ("return document.title", "return document.getElementById('title').textContent"):
            self.assertNotIn("\u202e", self.js(place))
        self.assertNotIn("\u202e", self.one("conversation").text)

    def test_long_conversation(self):
        """Opens at once with its last messages; the others are there when they are asked for, or found."""
        nodes = [{"id": f"n{i}", "parent": f"n{i - 1}" if i else "", "role": "assistant" if i % 2 else "user", "text": f"message {i} of many"}
                 for i in range(20000)]
        self.load({"format": "kvasir-conversations", "version": 1,
                   "conversations": [{**RECORD, "nodes": nodes, "picks": [["n5", "n6"], ["n5", "n5"], [[], {}]] * 10000}]})
        self.click("conversation")
        self.assertIn("19999", self.answer())
        self.assertEqual(len(self.all("message-user")), 100)
        top = "return arguments[0].getBoundingClientRect().top"
        first = self.driver.find_element(By.CSS_SELECTOR, ".message")
        self.js("document.getElementById('scroll').scrollTop = 0")
        before = self.js(top, first)
        self.click("earlier")
        self.assertEqual(len(self.all("message-user")), 600)
        self.assertLess(abs(self.js(top, first) - before), 100, "what was read has stayed where it was")
        self.one("search").send_keys("message 15000 of")
        self.until("the hit", lambda: len(self.all("conversation")) == 1)
        self.click("conversation")
        self.until("the message", lambda: "message 15000 of many" in self.text(self.driver.find_element(By.CSS_SELECTOR, ".message")))

    def load(self, content):
        path = os.path.join(self.downloads, "import.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        self.driver.execute_script("document.getElementById('banner').hidden = true")
        self.driver.find_element(By.ID, "import-file").send_keys(path)
        return self.until("what came of it", lambda: self.driver.find_element(By.ID, "banner-text").text)

    def test_hostile_files(self):
        def broken(**changes):
            return {**RECORD, "nodes": [{**RECORD["nodes"][0], **changes}]}

        self.assertIn("not JSON", self.load("{"))
        self.assertIn("not exported by this page", self.load("[]"))
        self.assertIn("not exported by this page", self.load({"format": "other", "conversations": []}))
        self.assertIn("newer version", self.load({"format": "kvasir-conversations", "version": 2, "conversations": []}))
        path = os.path.join(self.downloads, "large.json")
        with open(path, "wb") as file:
            file.truncate((64 << 20) + 1)
        self.driver.find_element(By.ID, "import-file").send_keys(path)
        self.until("the refusal", lambda: "larger than 64 MiB" in self.driver.find_element(By.ID, "banner-text").text)
        deep = "[" * 100000 + "]" * 100000
        self.assertIn("could not be imported", self.load('{"format":"kvasir-conversations","version":1,"conversations":"%s"}' % deep))
        bad = [None, 5, [], {}, {"nodes": 5}, broken(id=""), broken(id="../x"), broken(parent="n9"), broken(parent="n1"),
               broken(role="system"), broken(role="assistant"), broken(text=5), broken(text=None),
               {**RECORD, "nodes": [RECORD["nodes"][0]] * 2}, {**RECORD, "nodes": [RECORD["nodes"][1]]},
               {**RECORD, "nodes": [{"__proto__": 1}]}]
        said = self.load({"format": "kvasir-conversations", "version": 1, "conversations": [*bad, RECORD]})
        self.assertIn("Imported 1 conversation.", said)
        self.assertIn(f"{len(bad)} entries", said)
        self.click("conversation")
        self.assertIn("<script>window.owned=21</script> hello", self.text(self.one("message-user")))
        self.assertIn("<img src=x onerror=window.owned=22>", self.answer())
        self.assertIn("owned=23", self.one("error").text)
        self.inert()
        self.one("search").send_keys("OWNED=21")
        self.assertIn("owned=21", self.one("conversation").text)
        self.inert()

    def test_broken_storage(self):
        self.driver.execute_async_script(
            """const done = arguments[1];
            localStorage.setItem('kvasir.settings', '{"temperature": "<b>", "top_k": {"a": 1}, "format": "evil", "seed": "7"');
            localStorage.setItem('kvasir.theme', 'no theme');
            const open = indexedDB.open('kvasir', 1);
            open.onsuccess = () => {
              const t = open.result.transaction('conversations', 'readwrite');
              t.objectStore('conversations').put({id: 'junk', nodes: 'none'});
              t.objectStore('conversations').put(arguments[0]);
              t.oncomplete = () => { open.result.close(); done(); };
            };""", RECORD)
        self.reload()
        self.until("the notice", lambda: "1 saved conversation" in self.driver.find_element(By.ID, "banner-text").text)
        self.click("conversation")
        self.inert()
        self.send("Hello.")
        self.assertFalse([e for e in self.all("error")[1:]])
