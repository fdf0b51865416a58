"""Starting a server, watching it, and ending it, for the tests of this folder. Standard library only."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from http_wire import Answer, Wire, read_events
from kvasir_cli import DEMO, PROGRAM, SANITIZED, environment

# Nothing is expected to take so long; a machine that is busy or runs a sanitizer may.
PATIENCE = 120 if not SANITIZED else 600
MODEL = os.path.basename(os.path.abspath(DEMO))

# What tests/server/make_venv has made, if it was made by this Python.
SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "server-venv", "lib",
                    f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
if os.path.isdir(SITE):
    sys.path.insert(0, SITE)  # before what this Python may have of them itself

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def wait_until(condition, what, seconds=PATIENCE):
    """The condition's first value that is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Server:
    """A running `kvasir serve` on a port of its own; a context manager that always ends it.

    `stderr`: a descriptor that gets its standard error instead of `errors`; such a server needs a `port`."""

    def __init__(self, *flags, chat=True, env=None, preexec=None, wait=True, port=0, model=None, stderr=None):
        self.folder = tempfile.mkdtemp(prefix="kvasir-server-")
        self.log_path = os.path.join(self.folder, "log")
        args = [PROGRAM, "serve", "--port", str(port)] + (["-m", model] if model else [])
        args += (["--chat-template", "chatml"] if chat else []) + [str(flag) for flag in flags]
        if not any(str(flag) in ("--log-file", "--no-access-log", "--access-log") for flag in flags):
            args += ["--log-file", self.log_path]
        self.errors = []
        self.port = port
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=stderr or subprocess.PIPE, env=environment(env), preexec_fn=preexec)
        self.reader = threading.Thread(target=self.read_errors, daemon=True)
        self.reader.start()
        try:
            if wait:
                started = self.find_port if stderr is None else self.healthy
                wait_until(lambda: self.process.poll() is not None or started(), "the server starts")
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended: {self.error_text}")
        except BaseException:
            self.kill()
            raise

    def read_errors(self):
        for line in self.process.stderr or ():
            self.errors.append(line.decode(errors="replace"))

    @property
    def error_text(self):
        return "".join(self.errors)

    def find_port(self):
        found = re.search(r'^kvasir: serving ".*" on https?://.*:(\d+)$', self.error_text, re.M)
        if found:
            self.port = int(found[1])
        return found

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            if error[0] is None and self.process.poll() is None:
                code = self.end()
                if code != 0:
                    raise AssertionError(f"exit {code} on SIGTERM: {self.error_text}")
        finally:
            self.kill()

    def end(self, sig=signal.SIGTERM):
        """Its exit status, after a signal."""
        self.process.send_signal(sig)
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(PATIENCE)
        if self.process.stderr:
            self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Asking.

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def connect(self, **options):
        return Wire(self.port, timeout=PATIENCE, **options)

    def raw(self, data):
        """All that comes back for these bytes until the server closes, or everything up to a whole answer."""
        with self.connect() as wire:
            wire.send(data)
            return wire.answer()

    def ask(self, method, path, body=None, headers=None):
        """An `Answer` on a connection of its own. A body that is no bytes is sent as JSON."""
        with self.connect() as wire:
            wire.request(method, path, body, headers)
            return wire.answer(method)

    def get(self, path, **headers):
        return self.ask("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, headers)

    def events(self, path, body, **headers):
        """The texts of a stream's events, and whether it ended as it should."""
        with self.connect() as wire:
            wire.request("POST", path, dict(body, stream=True), headers)
            head = wire.head()
            if head.status != 200:
                raise AssertionError(f"status {head.status}: {wire.body(head)!r}")
            return read_events(wire.body(head))

    # Looking at it.

    def metrics(self):
        """The figures without labels by name, those with labels by name{labels}."""
        figures = {}
        for line in self.get("/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                figures[name] = float(value)
        return figures

    def idle(self):
        """Whether it answers, runs nothing and holds no block."""
        figures = self.metrics()
        busy = ("kvasir_requests_running", "kvasir_requests_waiting", "kvasir_kv_cache_usage_ratio")
        return self.get("/health").status == 200 and not any(figures[name] for name in busy)

    def wait_until_idle(self):
        wait_until(self.idle, "the server comes to rest")

    def healthy(self):
        try:
            return self.get("/health").status == 200
        except ConnectionError:
            return False

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            line = next(line for line in file if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def log_lines(self):
        with open(self.log_path, "rb") as file:
            return [json.loads(line) for line in file.read().split(b"\n")[:-1]]


class ServerTest(unittest.TestCase):
    """One server for all cases of a class, started with its FLAGS; after each case it must be well and at rest."""

    FLAGS = ()
    OPTIONS = {}

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS, **cls.OPTIONS)
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def tearDown(self):
        self.assertIsNone(self.server.process.poll(), self.server.error_text)
        self.server.wait_until_idle()

    def error_of(self, answer: Answer, status, code=None, says=()):
        """The answer is an error as OpenAI's clients expect it."""
        self.assertEqual(answer.status, status, answer)
        error = answer.json["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"], answer)
        self.assertTrue(error["message"], answer)
        if code:
            self.assertEqual(error["code"], code, answer)
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, error["message"], answer)
        return error


def same_stream(events):
    """A stream's events without what is never the same twice: ids, times, measured figures."""
    steady = []
    for event in events:
        if event == "[DONE]":
            steady.append(event)
            continue
        chunk = json.loads(event)
        for key in ("id", "created", "timings"):
            chunk.pop(key, None)
        if chunk.get("usage"):
            chunk["usage"].pop("prompt_tokens_details")  # blocks that a neighbour's like prompt has left
        steady.append(json.dumps(chunk))
    return steady


class Victim:
    """Somebody with a long answer beside an attack: streams one again and again, all of which must read as the first,
    which was streamed in quiet. A context manager; some streams fall wholly into its time."""

    REQUEST = {"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "ignore_eos": True,
               "stream_options": {"include_usage": True}}

    def __init__(self, test, server, **headers):
        self.test, self.server, self.headers = test, server, headers
        self.quiet = self.stream()
        self.failures, self.streams = [], 0
        self.over = threading.Event()

    def stream(self):
        events = same_stream(self.server.events(TEXT, self.REQUEST, **self.headers))
        self.test.assertEqual(events[-1], "[DONE]")
        self.test.assertGreater(len(events), 100)
        return events

    def run(self):
        while not (self.over.is_set() and self.streams) and not self.failures:
            try:
                if self.stream() != self.quiet:
                    self.failures.append("a stream reads otherwise than in quiet")
                self.streams += 1
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(repr(error))

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()
        if error[0] is None:
            self.test.assertEqual(self.failures, [])
            self.test.assertEqual(self.server.get("/health").status, 200)
