"""Conversations kept, found and carried; themes, keys, narrow screens; the glass box."""

import json
import os
import time

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import WebTest, fake_only


class Conversations(WebTest):
    def titles(self):
        return [e.text.split("\n")[0] for e in self.all("conversation")]

    def test_reload_keeps_conversations(self):
        self.send("A tale of two kettles.")
        answer = self.answer()
        self.click("new-chat")
        self.assertFalse(self.all("message-user"))
        self.saved()
        self.reload()
        self.until("the list", lambda: self.titles() == ["A tale of two kettles."])
        self.click("conversation")
        self.assertEqual(self.text(self.one("message-user")), "A tale of two kettles.")
        self.assertEqual(self.answer().split(), answer.split())

    def test_search_rename_delete(self):
        self.send("Of kettles and Xylophones.")
        self.click("new-chat")
        self.send("Of bees.")
        self.assertEqual(len(self.titles()), 2)
        self.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.CONTROL, "k")
        self.assertEqual(self.driver.switch_to.active_element.get_attribute("id"), "search")
        self.one("search").send_keys("xylophones kettles")
        self.assertEqual(self.titles(), ["Of kettles and Xylophones."])
        self.assertEqual(self.driver.find_element(By.CSS_SELECTOR, "#conversations mark").text, "Xylophones")
        self.one("search").send_keys(" zebra")
        self.assertEqual(self.titles(), [])
        self.one("search").send_keys(Keys.ESCAPE)
        self.assertEqual(len(self.titles()), 2)
        self.js("arguments[0].click()", self.all("rename")[0])
        field = self.driver.find_element(By.ID, "ask-input")
        field.clear()
        field.send_keys("Bees & <b>honey</b>", Keys.ENTER)
        self.until("the new name", lambda: self.titles()[0] == "Bees & <b>honey</b>")
        self.js("arguments[0].click()", self.all("delete")[0])
        self.driver.find_element(By.ID, "ask-no").click()
        self.assertEqual(len(self.titles()), 2)
        self.js("arguments[0].click()", self.all("delete")[0])
        self.driver.find_element(By.ID, "ask-yes").click()
        self.until("it to be gone", lambda: self.titles() == ["Of kettles and Xylophones."])
        self.saved()
        self.reload()
        self.until("the list", lambda: self.titles() == ["Of kettles and Xylophones."])

    def test_export_and_import(self):
        self.send("To be carried elsewhere: 麦酒 🍯.")
        self.send("And more.")
        self.click("export")
        path = self.until("the file", lambda: next((os.path.join(self.downloads, n) for n in os.listdir(self.downloads)
                                                    if n.startswith("kvasir-conversations") and n.endswith(".json")), None))
        with open(path, encoding="utf-8") as file:
            exported = json.load(file)
        self.assertEqual(len(exported["conversations"]), 1)
        self.assertEqual(len(exported["conversations"][0]["nodes"]), 4)
        self.js("arguments[0].click()", self.all("delete")[0])
        self.driver.find_element(By.ID, "ask-yes").click()
        self.until("it to be gone", lambda: not self.titles())
        for times in (1, 2):  # the second time beside the first
            self.driver.find_element(By.ID, "import-file").send_keys(path)
            self.until("the import", lambda: len(self.titles()) == times)
        self.click("conversation")
        self.assertEqual(len(self.all("message-assistant")), 2)
        os.remove(path)
        self.saved()
        self.reload()
        self.until("both after a reload", lambda: len(self.titles()) == 2)

    @fake_only
    def test_deleted_while_it_is_written(self):
        self.send("fake:slow one", wait=False)
        self.until("some text", lambda: self.answer().strip())
        self.js("arguments[0].click()", self.all("delete")[0])
        self.driver.find_element(By.ID, "ask-yes").click()
        self.until("it to be gone", lambda: not self.titles() and not self.running())
        self.saved()
        self.reload()
        time.sleep(0.5)
        self.assertEqual(self.titles(), [])

    @fake_only
    def test_edit_while_an_answer_is_written(self):
        self.send("fake:slow one", wait=False)
        self.until("some text", lambda: self.answer().strip())
        self.js("arguments[0].click()", self.driver.find_element(By.CSS_SELECTOR, ".user [data-testid=edit]"))
        self.one("edit-text").clear()
        self.one("edit-text").send_keys("Another question.", Keys.ENTER)
        self.until("the other answer", lambda: "Ragna" in self.answer())
        self.done()
        self.click("branch-prev")
        self.assertIn("Stopped.", self.one("message-assistant").text)

    def test_no_room_left(self):
        self.js("IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }")
        self.send("Hello.")
        self.until("the notice", lambda: "no room left" in self.driver.find_element(By.ID, "banner-text").text)
        self.assertTrue(self.answer().strip())

    def test_browser_that_keeps_nothing(self):
        script = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": """
            for (const name of ['localStorage', 'sessionStorage', 'indexedDB'])
              Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError'); }});"""})
        try:
            self.reload()
            self.until("the notice", lambda: "keeps nothing" in self.driver.find_element(By.ID, "banner-text").text)
            self.send("Hello.")
            self.assertTrue(self.answer().strip())
            self.click("theme")
            self.assertEqual(self.js("return document.documentElement.dataset.theme"), "dark")
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)

    def test_two_tabs(self):
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        try:
            self.driver.get(self.url)
            self.ready()
            self.send("From the second tab.")
            self.saved()
            self.driver.switch_to.window(first)
            self.until("the first tab to know", lambda: self.titles() == ["From the second tab."])
        finally:
            for handle in self.driver.window_handles:
                if handle != first:
                    self.driver.switch_to.window(handle)
                    self.driver.close()
            self.driver.switch_to.window(first)


class Looks(WebTest):
    def theme(self):
        return self.js("return document.documentElement.dataset.theme")

    def test_themes(self):
        self.assertEqual(self.theme(), "light")
        self.send("Hello.")
        self.shot("light")
        self.click("theme")
        self.assertEqual(self.theme(), "dark")
        self.shot("dark")
        self.reload()
        self.assertEqual(self.theme(), "dark")
        self.click("theme")
        self.assertEqual(self.theme(), "light")
        self.click("theme")
        self.assertEqual(self.driver.find_element(By.ID, "theme-name").text, "System")
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                    {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        self.until("the system's theme", lambda: self.theme() == "dark")
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self.until("the system's theme", lambda: self.theme() == "light")

    def test_contrast(self):
        """Text that is shown has a contrast of 4.5 with what is behind it (WCAG 2.2, 1.4.3)."""
        self.send("Hello.")
        self.driver.find_element(By.CSS_SELECTOR, ".assistant").click()
        for theme in ("light", "dark"):
            low = self.js(CONTRAST)
            self.assertEqual(low, [], theme)
            self.click("theme")
            time.sleep(0.2)

    def test_narrow_screens(self):
        self.send("Hello, phone.")
        for width in (320, 390, 768):
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                        {"width": width, "height": 720, "deviceScaleFactor": 1, "mobile": False})
            time.sleep(0.3)
            for what in ("document.documentElement", "document.querySelector('#scroll')", "document.querySelector('.below')"):
                self.assertLessEqual(self.js(f"return {what}.scrollWidth - {what}.clientWidth"), 0, (width, what))
            self.shot(f"narrow-{width}")
            if width < 760:
                self.assertFalse(self.one("search").is_displayed())
                self.driver.find_element(By.ID, "sidebar-open").click()
                self.until("the drawer", lambda: self.one("search").is_displayed())
                time.sleep(0.3)
                self.shot(f"drawer-{width}")
                self.driver.find_element(By.ID, "sidebar-close").click()
                self.until("the drawer to go", lambda: not self.one("search").is_displayed())
            self.assertFalse(self.one("kv-map").is_displayed())
            self.driver.find_element(By.ID, "box-toggle").click()
            self.until("the glass box", lambda: self.one("kv-map").is_displayed())
            self.shot(f"box-{width}")
            self.driver.find_element(By.ID, "box-close").click()
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def test_keys(self):
        body = self.driver.find_element(By.TAG_NAME, "body")
        self.js("document.activeElement.blur()")
        body.send_keys("/")
        self.assertEqual(self.driver.switch_to.active_element.get_attribute("id"), "composer")
        self.one("composer").send_keys("one", Keys.SHIFT + Keys.ENTER, Keys.NULL, "two")
        self.assertEqual(self.one("composer").get_attribute("value"), "one\ntwo")
        self.one("composer").clear()
        self.one("composer").send_keys("?")
        dialog = self.driver.find_element(By.ID, "help-dialog")
        self.assertTrue(dialog.is_displayed())
        self.shot("help")
        body.send_keys(Keys.ESCAPE)
        self.assertFalse(dialog.is_displayed())
        self.send("Hello.")
        self.one("composer").send_keys(Keys.ARROW_UP)
        self.assertEqual(self.one("edit-text").get_attribute("value"), "Hello.")
        self.one("edit-text").send_keys(Keys.ESCAPE)
        self.assertFalse(self.all("edit-text"))

    def test_names_and_order(self):
        """Everything that can be used has a name, in the order of reading."""
        self.send("Hello.")
        unnamed = self.js("return [...document.querySelectorAll('button, input, select, textarea, canvas')].filter((e) => "
                          "!e.hidden && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels && e.labels.length)).map((e) => e.outerHTML)")
        self.assertEqual(unnamed, [])
        self.assertEqual(self.js("return document.querySelectorAll('[tabindex]:not([tabindex=\"0\"]):not([tabindex=\"-1\"])').length"), 0)
        self.assertEqual(self.one("messages").get_attribute("aria-live"), "polite")


class GlassBox(WebTest):
    @fake_only
    def test_engine_is_shown_while_somebody_looks(self):
        self.until("steps", lambda: "tokens/s" in self.driver.find_element(By.ID, "speed-text").text)
        self.assertEqual(self.driver.find_element(By.ID, "live").text, "live")
        self.send("Hello.")
        self.send("Hello again.")
        time.sleep(9)
        self.shot("glassbox")
        for id, pattern in (("batch-text", r"sequences?: [\d,]+ prompt \+ \d+ answer tokens"), ("kv-text", r"^768 blocks of 16 tokens each$")):
            self.assertRegex(self.driver.find_element(By.ID, id).text, pattern)
        self.assertRegex(self.one("kv-map").get_attribute("aria-label"), r"\d+ of 768 blocks held")
        for chart in ("kv-map", "batch-chart", "speed-chart"):
            self.assertGreaterEqual(self.js(PAINTED, self.one(chart)), 2, chart)
        self.assertEqual(self.server.streams, 1)
        self.driver.find_element(By.ID, "box-close").click()
        self.until("the stream to end", lambda: self.server.streams == 0)
        self.reload()
        time.sleep(0.5)
        self.assertEqual(self.server.streams, 0, "closed stays closed")
        self.driver.find_element(By.ID, "box-toggle").click()
        self.until("the stream again", lambda: self.server.streams == 1)

    @fake_only
    def test_squares_of_several_blocks(self):
        self.server.per_char = 4
        self.reload()
        self.until("the note", lambda: "a square is 4" in self.driver.find_element(By.ID, "kv-text").text)


# Colours of a canvas.
PAINTED = """
const c = arguments[0], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set();
for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) s.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
return s.size;
"""
CONTRAST = """
const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
  return [255, 255, 255, 1]; };
const low = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !e.checkVisibility({opacityProperty: true, visibilityProperty: true}) || e.closest('script, style, svg, :disabled')) continue;
  const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) low.push(e.tagName + '.' + e.className + ' ' + contrast.toFixed(2) + ' ' + e.textContent.slice(0, 30));
}
return low;
"""
