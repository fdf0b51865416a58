"""What the tests of the web page share: a headless Chromium, and a server that is fake or, as asked, real.

KVASIR_PAGE   the folder with page.html and page.csp, for the fake server
KVASIR_SHOTS  a folder for pictures of the page, which some tests take
KVASIR_URL    a real server instead, e.g. http://127.0.0.1:8080/; tests of what only the fake one says are skipped
"""

import functools
import json
import os
import shutil
import tempfile
import time
import unittest
import urllib.parse

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from fake_server import FakeServer

REAL = os.environ.get("KVASIR_URL")


def fake_only(test):
    """For what only the fake server says."""
    @functools.wraps(test)
    def run(self):
        if self.real:
            self.skipTest("what only the fake server says")
        test(self)

    run.fake_only = True
    return run


def chromium(downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("KVASIR_CHROMIUM") or shutil.which("chromium")
    for flag in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
                 "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
                 "--window-size=1400,900", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": downloads})
    return webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)


class WebTest(unittest.TestCase):
    """One browser for a class; each test begins with nothing kept. After each, nothing was asked of anybody else, and
    nothing tried what the policy forbids."""

    # Statuses that a test expects; the browser logs every failed request.
    expected = ()
    real = bool(REAL)  # the server, with a model

    @classmethod
    def start_server(cls):
        cls.server = None if REAL else FakeServer(os.environ["KVASIR_PAGE"]).start()
        cls.url = REAL or cls.server.url

    @classmethod
    def setUpClass(cls):
        cls.start_server()
        cls.downloads = tempfile.mkdtemp()
        cls.driver = chromium(cls.downloads)

    @classmethod
    def tearDownClass(cls):
        cls.driver.quit()
        shutil.rmtree(cls.downloads, ignore_errors=True)
        if cls.server:
            cls.server.shutdown()
            cls.server.server_close()

    def setUp(self):
        if self.server:
            self.server.reset()
        self.driver.set_window_size(1400, 900)
        self.driver.get("about:blank")
        for storage in ("local_storage", "indexeddb"):
            self.driver.execute_cdp_cmd("Storage.clearDataForOrigin",
                                        {"origin": self.url.rstrip("/"), "storageTypes": storage})
        self.driver.get(self.url)
        self.js("sessionStorage.clear()")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(self.url)
        self.ready()

    def tearDown(self):
        for entry in self.driver.get_log("browser"):
            message = entry["message"]
            if entry["level"] == "SEVERE" and not any(word in message for word in self.expected):
                self.fail(f"the browser says: {message}")
            self.assertNotIn("Content Security Policy", message)
            self.assertNotIn("TrustedHTML", message)
        origin = urllib.parse.urlsplit(self.url).netloc
        asked = 0
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urllib.parse.urlsplit(message["params"]["request"]["url"])
                if address.scheme in ("http", "https", "ws", "wss"):
                    asked += 1
                    self.assertEqual(address.netloc, origin, message["params"]["request"]["url"])
        self.assertGreater(asked, 0)

    # --- The page

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def all(self, testid):
        return [e for e in self.driver.find_elements(By.CSS_SELECTOR, f"[data-testid={testid}]")]

    def one(self, testid):
        found = self.all(testid)
        self.assertTrue(found, f"there is no {testid}")
        return found[-1]

    def until(self, what, condition, seconds=None):
        seconds = seconds or (120 if self.real else 20)
        end = time.monotonic() + seconds
        while True:
            try:
                value = condition()
                if value:
                    return value
            except StaleElementReferenceException:
                pass
            if time.monotonic() > end:
                self.fail(f"waited {seconds} s in vain for {what}")
            time.sleep(0.02)

    def click(self, testid):
        # Buttons of a message show when it is pointed at; and in one go, since lists are drawn anew.
        self.assertTrue(self.js("const e = [...document.querySelectorAll(`[data-testid=${arguments[0]}]`)].pop();"
                                "if (e) { e.scrollIntoView({block: 'center'}); e.click(); } return Boolean(e)", testid),
                        f"there is no {testid}")

    def running(self):
        return self.one("stop").is_displayed()

    def send(self, text, wait=True):
        self.one("composer").send_keys(text)
        before = len(self.all("message-user"))
        self.one("composer").send_keys(Keys.ENTER)
        self.until("the question", lambda: len(self.all("message-user")) > before or self.running())
        if wait:
            self.done()

    def began(self):
        """Waits for text of an answer that is to be stopped."""
        self.until("some text", lambda: self.answer().strip() or not self.running())
        if self.real and not self.running():
            self.skipTest("the model ended its answer at once")

    def done(self):
        self.until("the end of the answer", lambda: not self.running())

    def text(self, element):
        return self.js("return arguments[0].querySelector('.text').textContent", element)

    def answer(self):
        return self.text(self.one("message-assistant"))

    def saved(self):
        """Waits for what is to be saved."""
        self.driver.execute_async_script("const done = arguments[0]; setTimeout(done, 1300);")

    def reload(self):
        self.driver.refresh()
        self.ready()

    def ready(self):
        """What was kept has been read, and the page listens."""
        self.until("the page", lambda: self.driver.find_elements(By.CSS_SELECTOR, "#messages > *"))

    def shot(self, name):
        folder = os.environ.get("KVASIR_SHOTS")
        if folder:
            self.driver.save_screenshot(os.path.join(folder, f"{name}.png"))
