"""Running the built program and making model files, for the tests of the command line. Standard library only."""

import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

PROGRAM = os.environ.get("KVASIR_PROGRAM", "build/release/kvasir")
DEMO = os.environ.get("KVASIR_DEMO_MODEL", "models/demo")
SANITIZED = bool(os.environ.get("KVASIR_SANITIZE"))
VERBS = ["generate", "chat", "inspect", "analyze", "tokenize", "logits", "perplexity", "bench",
         "bench techniques", "bench serve", "pack", "quantize"]


class Run:
    """The outcome of one run."""

    def __init__(self, args, code, out, err, seconds, peak_bytes):
        self.args, self.code, self.out, self.err = args, code, out, err
        self.seconds, self.peak_bytes = seconds, peak_bytes

    @property
    def text(self):
        return self.out.decode()

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"kvasir {' '.join(map(str, self.args))}\nexit {self.code}\nstdout: {self.out!r}\nstderr: {self.err}"


def environment(extra=None):
    """The caller's environment without its own settings of kvasir."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KVASIR_ARG_", "KVASIR_LOG", "KVASIR_ISA"))}
    env["KVASIR_DEMO_MODEL"] = DEMO
    # A sanitizer's report must not look like an error that was expected.
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS"):
        env[name] = env.get(name, "") + ":exitcode=99"
    env.update(extra or {})
    return env


def kvasir(*args, stdin=b"", env=None, stdout=subprocess.PIPE, timeout=120, preexec=None):
    """Runs the program to its end."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        source.write(stdin)
        source.seek(0)
        process = subprocess.Popen([PROGRAM, *args], stdin=source, stderr=errors, env=environment(env),
                                   stdout=output if stdout == subprocess.PIPE else stdout, preexec_fn=preexec)
        deadline = start + timeout
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise AssertionError(f"{args}: still running after {timeout} s")
            time.sleep(0.002)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        return Run(args, process.returncode, output.read(), errors.read().decode(errors="replace"),
                   time.monotonic() - start, usage.ru_maxrss * 1024)


def wait_until_interrupts_are_caught(process, timeout=30):
    """Returns once Ctrl-C no longer ends the process at once (/proc lists the signals that it handles)."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with open(f"/proc/{process.pid}/status") as file:
            caught = next(line for line in file if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & (1 << (signal.SIGINT - 1)):
            return
        time.sleep(0.005)
    raise AssertionError("Ctrl-C is never caught")


class CliTest(unittest.TestCase):
    """With a folder for files, which is removed afterwards."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kvasir-cli-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        mode = "wb" if isinstance(content, bytes) else "w"
        with open(self.path(name), mode) as file:
            file.write(content)
        return self.path(name)

    def ok(self, *args, **options):
        run = kvasir(*args, **options)
        self.assertEqual(run.code, 0, run)
        return run

    def fails(self, *args, code=1, says=(), within=2.0, **options):
        """The run ends with `code`, one line of error that holds every text of `says`, and no output."""
        run = kvasir(*args, **options)
        self.assertEqual(run.code, code, run)
        lines = [line for line in run.err.splitlines() if line.startswith("kvasir: error: ")]
        self.assertEqual(len(lines), 1, run)
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, lines[0], run)
        if not SANITIZED:
            self.assertLess(run.seconds, within, run)
            self.assertLess(run.peak_bytes, 256 << 20, run)
        return run

    def copy_demo(self, **config):
        """A copy of the demonstration model whose config has these values; None removes a key."""
        target = self.path("model")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(DEMO, target)
        path = os.path.join(target, "config.json")
        with open(path) as file:
            values = json.load(file)
        for key, value in config.items():
            values[key] = value
            if value is None:
                del values[key]
        with open(path, "w") as file:
            json.dump(values, file)
        return target


def read_safetensors(path):
    """(header without metadata, data) of a file."""
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return header, bytearray(file.read())


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + bytes(data))
