#!/usr/bin/env python3
"""A server under mixed load for a while: soak.py [--minutes M] [--workers N].

Streams, whole answers, samples, people who hang up, wrong requests and slow readers, all at random. In the end (exit 0)
nothing runs, no block is in use, memory is what it was after warming up, and every stream of those whose prompts were
also asked in quiet read as it did then.
"""

import argparse
import os
import random
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "cli")]

from harness import CHAT, TEXT, Server, same_stream, wait_until  # noqa: E402  pylint: disable=wrong-import-position
from http_wire import Closed, Wire  # noqa: E402  pylint: disable=wrong-import-position
from kvasir_cli import SANITIZED  # noqa: E402  pylint: disable=wrong-import-position

PROMPTS = [f"Once upon a time there were {i} foxes" + " who ran" * (i % 5) for i in range(12)]
GROWTH = 24 << 20  # bytes that memory may grow by after warming up; allocators keep some of what was freed
WARM_UP = 0.25     # of the time


def body_of(prompt, **more):
    return {"prompt": prompt, "max_tokens": 48, "temperature": 0, "ignore_eos": True} | more


class Soak:
    def __init__(self, server):
        self.server = server
        self.quiet = [same_stream(server.events(TEXT, body_of(prompt))) for prompt in PROMPTS]
        self.over = threading.Event()
        self.failures, self.done = [], {}

    # What people do. Each takes a generator of random numbers.

    def stream(self, choice):
        i = choice.randrange(len(PROMPTS))
        if same_stream(self.server.events(TEXT, body_of(PROMPTS[i]))) != self.quiet[i]:
            raise AssertionError(f"a stream of {PROMPTS[i]!r} reads otherwise than in quiet")

    def whole(self, choice):
        body = {"messages": [{"role": "user", "content": "word " * choice.randrange(40)}], "max_tokens":
                choice.randrange(1, 60), "n": choice.choice((1, 1, 1, 4)), "temperature": choice.choice((0, 1)),
                "logprobs": choice.random() < 0.2, "cache_salt": choice.choice((None, "a", str(choice.random())))}
        answer = self.server.post(CHAT, body)
        assert answer.status == 200 and len(answer.json["choices"]) == body["n"], answer

    def leave(self, choice):
        with self.server.connect() as wire:
            wire.request("POST", TEXT, body_of("Once", max_tokens=200, stream=choice.random() < 0.7))
            if choice.random() < 0.5:
                try:
                    wire.socket.settimeout(choice.random())
                    wire.head()
                    wire.more()
                except (TimeoutError, Closed):
                    pass

    def wrong(self, choice):
        bad = (b"{", b"[" * 5000, {"prompt": 1}, {}, {"prompt": "a", "temperature": "hot"}, {"prompt": "word " * 400},
               {"prompt": "a", "n": 10_000}, b"x" * choice.randrange(100_000))
        answer = self.server.post(choice.choice((TEXT, CHAT)), choice.choice(bad))
        assert 400 <= answer.status < 500, answer

    def slow(self, choice):
        with Wire(self.server.port, 120, receive_buffer=2048) as wire:
            wire.request("POST", TEXT, body_of("Once", stream=True, logprobs=5))
            for _ in range(choice.randrange(20)):
                time.sleep(0.02)
                if not wire.socket.recv(64):
                    break

    def look(self, choice):
        path = choice.choice(("/health", "/metrics", "/v1/models", "/props", "/", "/nothing"))
        answer = self.server.get(path)
        assert answer.status == (404 if path == "/nothing" else 200), answer

    def work(self, seed):
        choice = random.Random(seed)
        ways = [self.stream] * 4 + [self.whole] * 4 + [self.leave] * 3 + [self.wrong] * 2 + [self.slow, self.look]
        while not self.over.is_set() and not self.failures:
            way = choice.choice(ways)
            try:
                way(choice)
            except Exception:  # pylint: disable=broad-except
                self.failures.append(f"{way.__name__}: {traceback.format_exc()}")
            self.done[way.__name__] = self.done.get(way.__name__, 0) + 1

    def run(self, seconds, workers):
        threads = [threading.Thread(target=self.work, args=(seed,)) for seed in range(workers)]
        for thread in threads:
            thread.start()
        self.over.wait(seconds * WARM_UP)
        warm = self.server.resident_bytes()
        end = time.monotonic() + seconds * (1 - WARM_UP)
        while time.monotonic() < end and not self.failures:
            time.sleep(0.2)
        self.over.set()
        for thread in threads:
            thread.join()
        self.server.wait_until_idle()
        wait_until(lambda: self.server.open_files() < 100, "connections are closed")
        grown = self.server.resident_bytes() - warm
        if grown > GROWTH and not SANITIZED:  # sanitizers keep what was freed for a while
            self.failures.append(f"memory has grown by {grown >> 10} KiB since it was warm, from {warm >> 10} KiB")
        for i, prompt in enumerate(PROMPTS):
            if same_stream(self.server.events(TEXT, body_of(prompt))) != self.quiet[i]:
                self.failures.append(f"{prompt!r} is answered otherwise than in the beginning")
        return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--workers", type=int, default=24)
    arguments = parser.parse_args()
    # A pool that holds a third of what would like to run, so that sequences are preempted all the time.
    with Server("--parallel", 12, "--pool-tokens", 384, "--cache", "paged:16", "--write-timeout", 5, "--body-timeout", 5) as server:
        soak = Soak(server)
        grown = soak.run(arguments.minutes * 60, arguments.workers)
        preempted = server.metrics()["kvasir_preemptions_total"]
    print(", ".join(f"{name} {count}" for name, count in sorted(soak.done.items())))
    print(f"{sum(soak.done.values())} in all, {preempted:.0f} preemptions, memory {grown / 1024:+.0f} KiB since it was warm")
    for failure in soak.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
