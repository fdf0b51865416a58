"""The page against the real server with the demonstration model, of which nothing is known but that it writes."""

import os
import sys
import unittest

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import browser
import test_chat
import test_page

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path += [os.path.join(TESTS, "cli"), os.path.join(TESTS, "server")]

from harness import Server, free_port  # pylint: disable=wrong-import-position

SHORT = 24  # tokens of an answer
LONG = 30000  # and of one that is not to end by itself: the likeliest token goes round in circles


class RealTest(browser.WebTest):
    """A server for each class, started with its FLAGS and a context in which an answer lasts."""

    real = True
    FLAGS = ("-c", 32768)
    CHAT = True  # with a template
    ONLY = None  # names of the inherited tests that run, if not all
    LASTING = ("test_stop", "test_escape_stops")

    @classmethod
    def start_server(cls):
        cls.server = None
        cls.kvasir = Server("--threads", 1, *cls.FLAGS, chat=cls.CHAT)
        cls.addClassCleanup(cls.kvasir.__exit__, None, None, None)
        cls.url = cls.kvasir.url + "/"

    def setUp(self):
        super().setUp()
        self.let_answers_last(LONG if self._testMethodName in self.LASTING else SHORT)

    def let_answers_last(self, tokens):
        self.click("settings")
        for name, value in (("max_tokens", tokens), ("temperature", 0)):
            field = self.one(f"setting-{name}")
            field.clear()
            field.send_keys(str(value))
        self.click("settings-save")
        self.assertFalse(self.one("settings-save").is_displayed())

    def began(self):
        super().began()
        self.assertTrue(self.running(), "an answer that was to last has ended")

    def shown(self, id):
        return self.driver.find_element(By.ID, id).text

    def number(self, id):
        return int(self.shown(id).replace(",", "").replace("–", "-1"))


class Chat(RealTest, test_chat.Chat):
    expected = ()

    def test_key_is_not_asked_for(self):
        self.assertFalse(self.one("api-key").is_displayed())


class Kept(RealTest, test_page.Conversations):
    ONLY = ("test_reload_keeps_conversations",)


class Looks(RealTest, test_page.Looks):
    ONLY = ("test_themes", "test_narrow_screens")


class GlassBox(RealTest):
    def test_engine_is_shown_as_it_runs(self):
        self.until("the feed", lambda: self.shown("live") in ("live", "idle"))
        self.let_answers_last(LONG)
        self.send("Tell me of the old king, of his three sons and of the road that they took.", wait=False)
        self.began()
        self.until("the batch", lambda: self.shown("batch-text") == "1 sequence: 0 prompt + 1 answer tokens")
        self.until("the engine's speed", lambda: self.shown("speed-text").split(" ")[0] not in ("No", "0.0"))
        self.assertEqual((self.shown("stat-running"), self.shown("stat-waiting")), ("1", "0"))
        self.assertRegex(self.shown("kv-text"), r"^[\d,]+ blocks of \d+ tokens each")
        held = self.until("blocks in use", lambda: self.number("kv-used") > 0 and self.number("kv-used"))
        self.until("more blocks", lambda: self.number("kv-used") > held)
        self.until("the map in words", lambda: "blocks held" in self.one("kv-map").get_attribute("aria-label"))
        for chart in ("kv-map", "batch-chart", "speed-chart"):
            self.assertGreaterEqual(self.js(test_page.PAINTED, self.one(chart)), 2, chart)
        self.assertRegex(self.one("stat-ttft").text, r"^\d.* m?s$")
        self.assertRegex(self.one("stat-tps").text, r"^\d[\d.,]*/s$")
        self.shot("real-glassbox")
        self.click("stop")
        self.done()
        self.until("an engine at rest", lambda: self.shown("stat-running") == "0" and self.number("kv-used") == 0)
        self.assertGreater(self.number("kv-cached"), 0)

    def test_second_question_finds_the_first_in_the_cache(self):
        question = "Tell me of the old king, of his three sons and of the road that they took."
        self.send(question)
        first = self.number("stat-prompt")
        self.assertEqual(self.number("stat-answer"), SHORT)
        self.send("And then?")
        self.assertGreater(self.number("stat-prompt"), first)
        self.assertGreater(self.number("stat-cached"), 0)
        self.assertLess(self.number("stat-cached"), self.number("stat-prompt"))


class PlainCompletion(RealTest):
    """A model without a template, as the demonstration model is."""

    CHAT = False
    FLAGS = ("-c", 256)
    expected = ("400",)  # in the end the context is full

    def test_text_goes_on_until_the_context_is_full(self):
        self.until("the empty page", lambda: "How does it begin?" in self.one("messages").text)
        self.one("idea").click()
        self.send("")
        self.assertFalse(self.all("error"))
        begin = self.answer()
        self.assertTrue(begin.strip())
        self.shot("real-completion")
        self.click("continue")
        self.until("more of it", lambda: not self.running() and len(self.answer()) > len(begin))
        self.assertEqual(self.answer()[:len(begin)], begin)
        self.let_answers_last(LONG)
        self.click("continue")
        self.until("the end of the context", lambda: not self.running() and self.all("continue"))
        self.click("continue")
        self.assertIn("outgrown", self.until("the refusal", lambda: self.all("error") and self.one("error").text))


class Keyed(RealTest):
    FLAGS = ("-c", 32768, "--api-key", "sesame")
    expected = ("401",)

    def setUp(self):
        browser.WebTest.setUp(self)  # a dialog is open

    def test_key_is_asked_for_and_used(self):
        field = self.until("the dialog", lambda: self.one("api-key") if self.one("api-key").is_displayed() else None)
        field.send_keys("wrong", Keys.ENTER)
        self.until("it to ask again", lambda: self.one("api-key").is_displayed() and self.one("api-key").get_attribute("value") == "wrong")
        self.one("api-key").clear()
        self.one("api-key").send_keys("sesame", Keys.ENTER)
        self.until("the list of models", lambda: "demo" in self.shown("model"))
        self.let_answers_last(SHORT)
        self.send("Hello.")
        self.assertFalse(self.all("error"))
        self.assertTrue(self.answer().strip())
        self.until("the glass box", lambda: self.number("kv-free") > 0)


class GoneAndBack(RealTest):
    expected = ("ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION", "503")
    LASTING = ("test_server_dies_in_an_answer_and_comes_back",)

    @classmethod
    def start_server(cls):
        cls.port = free_port()
        cls.server = None
        cls.kvasir = cls.run_server()
        cls.addClassCleanup(lambda: cls.kvasir.__exit__(None, None, None))
        cls.url = cls.kvasir.url + "/"

    @classmethod
    def run_server(cls):
        return Server("--threads", 1, *cls.FLAGS, port=cls.port)

    def test_server_dies_in_an_answer_and_comes_back(self):
        self.send("Tell me of the old king.", wait=False)
        self.began()
        self.kvasir.kill()
        self.done()
        self.assertIn("broke off", self.one("error").text)
        begin = self.answer()
        self.assertTrue(begin.strip(), "what has come is kept")
        self.until("the notice", lambda: "cannot be reached" in self.shown("banner"))
        self.shot("real-gone")
        type(self).kvasir = self.run_server()
        self.until("the notice to go", lambda: not self.driver.find_element(By.ID, "banner").is_displayed())
        self.let_answers_last(SHORT)
        self.click("retry")
        self.until("the other answer", lambda: not self.running() and "2 / 2" in self.one("message-assistant").text)
        self.assertFalse(self.all("error"))
        self.click("branch-prev")
        self.assertEqual(self.answer(), begin)
        self.until("the feed", lambda: self.shown("live") in ("live", "idle"))


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for case in (Chat, Kept, Looks, GlassBox, PlainCompletion, Keyed, GoneAndBack):
        for name in loader.getTestCaseNames(case):
            if (case.ONLY is None or name in case.ONLY) and not getattr(getattr(case, name), "fake_only", False):
                suite.addTest(case(name))
    return suite
