"""Asking, streaming, stopping, editing and branching."""

import time

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import WebTest, fake_only
from fake_server import STORY


class Chat(WebTest):
    expected = ("429", "500", "400", "503", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION")

    def test_answer_streams_in_and_is_measured(self):
        self.send("Tell me of Ragna.", wait=False)
        self.until("some text", lambda: self.answer().strip())
        self.done()
        self.assertGreater(len(self.answer()), 10)
        self.assertRegex(self.one("stat-ttft").text, r"^\d.* m?s$")
        self.assertRegex(self.one("stat-tps").text, r"^\d[\d.,]*/s$")
        self.assertRegex(self.one("stat-answer").text, r"^\d")
        self.assertRegex(self.one("stat-prompt").text, r"^\d")

    @fake_only
    def test_markdown_is_shown(self):
        self.send("Tell me of Ragna.")
        answer = self.one("message-assistant")
        for tag in ("strong", "ol > li", "table td", "pre code.language-python", ".hljs-keyword", "p > code"):
            self.assertTrue(answer.find_elements(By.CSS_SELECTOR, tag), tag)
        link = answer.find_element(By.CSS_SELECTOR, "a")
        self.assertEqual(link.get_attribute("target"), "_blank")
        self.assertIn("noopener", link.get_attribute("rel"))
        self.assertIn("麦酒 🍯 naïve", self.answer())
        self.assertEqual(self.one("stat-tps").text, "42.5/s")
        body = self.server.requests[0][1]
        self.assertTrue(body["stream"])
        self.assertEqual(body["stream_options"], {"include_usage": True})
        self.assertEqual(body["messages"], [{"role": "user", "content": "Tell me of Ragna."}])
        self.assertEqual(body["model"], "mead-8b")
        for name in ("temperature", "top_p", "seed"):
            self.assertNotIn(name, body, "what is not set is the server's choice")

    @fake_only
    def test_streams_cut_anywhere(self):
        self.send("fake:split")
        for line in ("The kettle began to sing", "nine nights", "Ærlig talt: 麦酒 🍯 naïve."):
            self.assertIn(line, self.answer())
        self.assertFalse(self.all("error"))

    @fake_only
    def test_cached_tokens_are_counted(self):
        self.send("First.")
        self.assertEqual(self.one("stat-cached").text, "0")
        self.send("Second.")
        self.assertEqual(self.one("stat-cached").text, "32")
        messages = self.server.requests[1][1]["messages"]
        self.assertEqual([m["role"] for m in messages], ["user", "assistant", "user"])
        self.assertEqual(messages[1]["content"].rstrip(), STORY.rstrip())

    def test_stop(self):
        self.send("fake:slow Count to ten thousand, one number in a line.", wait=False)
        self.began()
        self.click("stop")
        self.done()
        self.assertIn("Stopped.", self.one("message-assistant").text)
        text = self.answer()
        time.sleep(0.3)
        self.assertEqual(self.answer(), text)

    def test_escape_stops(self):
        self.send("fake:slow Count to ten thousand, one number in a line.", wait=False)
        self.began()
        self.one("composer").send_keys(Keys.ESCAPE)
        self.done()

    def test_edit_begins_a_branch(self):
        self.send("The first wording.")
        self.assertFalse(self.all("branch-prev"))
        self.js("arguments[0].click()", self.driver.find_element(By.CSS_SELECTOR, ".user [data-testid=edit]"))
        area = self.one("edit-text")
        self.assertEqual(area.get_attribute("value"), "The first wording.")
        area.clear()
        area.send_keys("The second wording.", Keys.ENTER)
        self.until("the other question", lambda: "second" in self.text(self.one("message-user")))
        self.done()
        self.assertIn("2 / 2", self.driver.find_element(By.CSS_SELECTOR, ".user .branches").text)
        self.click("branch-prev")
        self.assertIn("first", self.text(self.one("message-user")))
        self.click("branch-next")
        self.assertIn("second", self.text(self.one("message-user")))
        self.saved()
        self.reload()
        self.until("the branch that was shown", lambda: "second" in self.text(self.one("message-user")))

    def test_regenerate_begins_a_branch(self):
        self.send("Once.")
        self.click("regenerate")
        self.until("the other answer", lambda: not self.running() and "2 / 2" in self.one("message-assistant").text)
        self.assertEqual(len(self.all("message-assistant")), 1)
        self.assertEqual(len(self.all("message-user")), 1)

    @fake_only
    def test_answers_can_be_edited(self):
        self.send("Once.")
        self.js("arguments[0].click()", self.driver.find_element(By.CSS_SELECTOR, ".assistant [data-testid=edit]"))
        area = self.one("edit-text")
        area.clear()
        area.send_keys("My own words.")
        self.click("edit-save")
        self.assertEqual(self.answer().strip(), "My own words.")
        self.send("And?")
        self.assertEqual(self.server.requests[-1][1]["messages"][1]["content"], "My own words.")

    @fake_only
    def test_errors_are_said_and_tried_again(self):
        for word, says in (("fake:429", "kind 429"), ("fake:500", "kind 500"), ("fake:error", "pool of blocks is full"),
                           ("fake:break", "broke off")):
            self.click("new-chat")
            self.send(word)
            self.assertIn(says, self.one("error").text, word)
        asked = len(self.server.requests)
        self.click("retry")
        self.until("another request", lambda: len(self.server.requests) > asked)
        self.done()
        # What was written before the connection broke is a branch still.
        self.assertIn("2 / 2", self.one("message-assistant").text)

    @fake_only
    def test_server_gone_and_back(self):
        self.server.gone = True
        self.send("Anybody?")
        self.assertIn("cannot be reached", self.one("error").text)
        self.server.gone = False
        self.until("the banner to go", lambda: not self.driver.find_element(By.ID, "banner").is_displayed())
        self.click("retry")
        self.until("the answer", lambda: "Ragna" in self.answer())
        self.done()
        self.assertEqual(len(self.all("message-assistant")), 1)

    @fake_only
    def test_settings_are_sent(self):
        self.until("the server's defaults", lambda: self.driver.find_elements(By.CSS_SELECTOR, "#dot.on"))
        self.click("settings")
        self.assertEqual(self.one("setting-temperature").get_attribute("placeholder"), "0.7")
        for name, value in (("temperature", "0.3"), ("top_k", "12"), ("max_tokens", "3"), ("seed", "9"),
                            ("system", "Be brief."), ("stop", "END\nFINIS")):
            self.one(f"setting-{name}").send_keys(value)
        self.one("setting-top_p").send_keys("7")
        self.click("settings-save")
        self.assertIn("Top p", self.driver.find_element(By.ID, "settings-problem").text)
        self.one("setting-top_p").clear()
        self.js("arguments[0].value = 'json_schema'; arguments[0].dispatchEvent(new Event('change'))", self.one("setting-format"))
        self.one("setting-schema").send_keys("{no")
        self.click("settings-save")
        self.assertIn("JSON schema", self.driver.find_element(By.ID, "settings-problem").text)
        self.one("setting-schema").clear()
        self.one("setting-schema").send_keys('{"type": "object"}')
        self.shot("settings")
        self.click("settings-save")
        self.reload()
        self.send("Go.")
        body = self.server.requests[0][1]
        self.assertEqual((body["temperature"], body["top_k"], body["max_tokens"], body["seed"]), (0.3, 12, 3, 9))
        self.assertEqual(body["stop"], ["END", "FINIS"])
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        self.assertEqual(body["response_format"]["json_schema"]["schema"], {"type": "object"})
        self.assertIn("Cut off at the limit", self.one("message-assistant").text)

    @fake_only
    def test_model_without_a_template(self):
        self.server.template = False
        self.send("Once upon a time")
        self.assertIn("no chat template", self.one("error").text)
        self.click("retry")
        self.until("the continuation", lambda: "it went on." in self.answer())
        self.done()
        path, body = self.server.requests[-1]
        self.assertEqual((path, body["prompt"]), ("/v1/completions", "Once upon a time"))
        self.send(" Then")
        self.assertEqual(self.server.requests[-1][1]["prompt"], "Once upon a time and so it went on. Then")

    @fake_only
    def test_plain_completion_from_the_beginning(self):
        """A page that has met the server knows of the template, and asks nothing that cannot be answered."""
        self.server.template = False
        self.reload()
        self.until("the empty page", lambda: "How does it begin?" in self.one("messages").text)
        self.one("idea").click()
        begin = self.one("composer").get_attribute("value")
        self.assertTrue(begin)
        self.send("")
        self.assertFalse(self.all("error"))
        self.assertEqual([(path, body["prompt"], body["max_tokens"]) for path, body in self.server.requests],
                         [("/v1/completions", begin, 256)])
        self.click("continue")
        self.until("more of it", lambda: not self.running() and self.answer().count("it went on.") == 2)
        self.assertEqual(self.server.requests[-1][1]["prompt"], begin + " and so it went on.")
        self.assertEqual(len(self.all("message-assistant")), 1)
        self.assertEqual(len(self.all("continue")), 1)
        self.server.template = True
        self.reload()
        self.until("the answer", lambda: self.answer().count("it went on.") == 2)
        self.click("new-chat")
        self.send("A question?")
        self.assertEqual(self.server.requests[-1][0], "/v1/chat/completions")

    @fake_only
    def test_conversation_outgrows_the_context(self):
        self.send("fake:full")
        self.assertIn("outgrown", self.one("error").text)
        self.assertIn("4096", self.one("error").text)
        self.click("retry")
        self.assertFalse(self.all("message-user"))

    @fake_only
    def test_reader_may_look_back_while_it_is_written(self):
        """The smallest move up lets go of the end, and coming back to it takes hold again."""
        self.driver.set_window_size(1400, 500)
        self.send("fake:fast", wait=False)
        scroll = lambda script: self.js(f"const s = document.getElementById('scroll'); {script}")
        end = "return s.scrollHeight - s.scrollTop - s.clientHeight"
        self.until("more than a screen", lambda: scroll("return s.scrollTop > 300"))
        self.assertLess(scroll(end), 60)
        top = scroll("s.scrollTop -= 5; return s.scrollTop")
        self.until("more of it", lambda: scroll(end) > 150)
        self.assertEqual(scroll("return s.scrollTop"), top)
        pill = self.driver.find_element(By.ID, "latest")
        self.assertTrue(pill.is_displayed())
        pill.click()
        self.until("the end", lambda: scroll("return s.scrollTop") > top + 150 and scroll(end) < 60)
        self.until("more of it", lambda: scroll("return s.scrollTop") > top + 300)
        self.assertLess(scroll(end), 60)
        self.assertFalse(pill.is_displayed())
        self.click("stop")
        self.done()

    @fake_only
    def test_a_new_answer_is_looked_at(self):
        self.driver.set_window_size(1400, 500)
        self.send("Once.")
        self.js("document.getElementById('scroll').scrollTop = 0")
        self.until("the place", lambda: self.driver.find_element(By.ID, "latest").is_displayed())
        # Not by click(), which scrolls.
        self.js("document.querySelector('[data-testid=regenerate]').click()")
        self.until("the other answer", lambda: not self.running() and "2 / 2" in self.one("message-assistant").text)
        self.assertFalse(self.driver.find_element(By.ID, "latest").is_displayed())

    @fake_only
    def test_copying_says_so_and_then_no_more(self):
        self.send("Hello.")
        name = self.one("copy-code").get_attribute("aria-label")
        self.click("copy-code")
        self.until("it to say so", lambda: self.one("copy-code").get_attribute("aria-label") != name)
        self.click("copy-code")
        self.until("the name again", lambda: self.one("copy-code").get_attribute("aria-label") == name)


class Keyed(WebTest):
    expected = ("401",)

    @fake_only
    def test_key_is_asked_for_and_kept_for_the_tab(self):
        self.server.key = "sesame"
        self.reload()
        field = self.until("the dialog", lambda: self.one("api-key") if self.one("api-key").is_displayed() else None)
        field.send_keys("wrong", Keys.ENTER)
        self.until("it to ask again", lambda: self.one("api-key").is_displayed() and not self.one("api-key").get_attribute("value") == "")
        self.one("api-key").clear()
        self.one("api-key").send_keys("sesame", Keys.ENTER)
        self.until("the list of models", lambda: "mead-8b" in self.driver.find_element(By.ID, "model").text)
        self.send("Hello.")
        self.assertIn("Ragna", self.answer())
        self.assertIsNone(self.js("return localStorage.getItem('kvasir.key')"))
        self.until("the glass box", lambda: "Bearer sesame" in self.server.glass_keys)
        self.reload()
        self.send("Hello again.")
        self.assertFalse(self.all("error"))
