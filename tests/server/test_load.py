"""Many connections, and slow, greedy and rude ones. Beside each attack somebody streams and must notice nothing."""

import concurrent.futures
import random
import resource
import socket
import struct
import threading
import unittest

from harness import PATIENCE, TEXT, Server, ServerTest, Victim, same_stream, wait_until
from http_wire import Closed, Wire, read_events

QUICK = {"prompt": "Hello", "max_tokens": 2, "temperature": 0}
LONG = {"prompt": "Once upon a time", "max_tokens": 240, "temperature": 0, "ignore_eos": True}


def raise_file_limit(wanted):
    """Of this process; what can be had of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


class Attacked(ServerTest):
    def setUp(self):
        self.server.wait_until_idle()
        self.files = self.server.open_files()

    def tearDown(self):
        super().tearDown()
        wait_until(lambda: self.server.open_files() <= self.files + 2, "all connections are closed")

    def connections(self, count):
        wires = []
        self.addCleanup(lambda: [wire.socket.close() for wire in wires])
        for _ in range(count):
            wires.append(self.server.connect())
        return wires

    def all_end(self, wires):
        """The server closes them all, whatever it says before."""
        for wire in wires:
            try:
                wire.to_end()
            except ConnectionError:
                pass
            wire.socket.close()


class Slow(Attacked):
    FLAGS = ("--header-timeout", 3, "--body-timeout", 3, "--write-timeout", 3, "--idle-timeout", 3)

    def drip(self, wires, data, over):
        """A byte to each of them now and then."""
        for i in range(len(data)):
            if over.wait(0.1):
                return
            for wire in wires:
                try:
                    wire.socket.send(data[i:i + 1])
                except OSError:
                    pass

    def attack(self, wires, data):
        over = threading.Event()
        dripper = threading.Thread(target=self.drip, args=(wires, data, over))
        dripper.start()
        try:
            self.all_end(wires)
        finally:
            over.set()
            dripper.join()

    def test_headers(self):
        with Victim(self, self.server):
            self.attack(self.connections(300), b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 10_000)

    def test_bodies(self):
        head = f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        victim = Victim(self, self.server)  # whose requests have bodies as well, and come when all these are announced
        wires = self.connections(150)
        for i, wire in enumerate(wires):
            wire.send(head + (b"Content-Length: 16000000\r\n\r\n" if i >=
                      100 else b"Transfer-Encoding: chunked\r\n\r\n"))
        with victim:
            self.attack(wires, b"f00000\r\n" + b" " * 10_000)

    def test_large_bodies_share_what_there_is(self):
        # 30 times 15 MB are more than all bodies may have together; some are refused, small requests never.
        head = (f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: 16000000\r\n\r\n").encode()
        statuses = []

        def send(wire):
            try:
                wire.send(head + b" " * 15_000_000)
            except ConnectionError:
                pass
            try:
                statuses.append(wire.answer().status)
            except (Closed, ConnectionError):
                statuses.append(0)

        with Victim(self, self.server), concurrent.futures.ThreadPoolExecutor(30) as threads:
            wires = self.connections(30)
            list(threads.map(send, wires))
            self.all_end(wires)
        self.assertLessEqual(set(statuses), {0, 408, 503})  # 408: its time ran out

    def test_idle_ones(self):
        with Victim(self, self.server):
            self.all_end(self.connections(100))

    def test_readers(self):
        body = dict(LONG, stream=True, n=4, logprobs=5)
        with Victim(self, self.server):
            wires = []
            self.addCleanup(lambda: [wire.socket.close() for wire in wires])
            for i in range(40):
                wires.append(Wire(self.server.port, PATIENCE, receive_buffer=4096))
                if i % 4 == 0:
                    wires[-1].request("POST", TEXT, body)
                else:
                    wires[-1].send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 800)
            # Nobody reads; those that hold more than the system's buffers are given up.
            wait_until(lambda: self.server.open_files() < self.files + 20, "slow readers are given up")
            self.server.wait_until_idle()
            for wire in wires:
                wire.socket.close()


class Many(Attacked):
    def test_two_thousand_idle_ones_and_two_hundred_that_ask(self):
        idle = min(2000, raise_file_limit(4096) - 500)
        self.assertGreaterEqual(idle, 300)
        with Victim(self, self.server):
            wires = self.connections(idle)
            with concurrent.futures.ThreadPoolExecutor(200) as threads:
                answers = list(threads.map(lambda _: self.server.post(TEXT, QUICK), range(400)))
            self.assertEqual({answer.status for answer in answers}, {200})
            self.assertEqual(len({answer.json["choices"][0]["text"] for answer in answers}), 1)
            for wire in wires[::100]:  # who was idle is served as well
                wire.request("GET", "/health")
                self.assertEqual(wire.answer().status, 200)
            for wire in wires:
                wire.socket.close()

    def leave(self, seed):
        """Connects, and hangs up somewhere on the way."""
        choice = random.Random(seed)
        body = dict(
    LONG, stream=choice.random() < 0.7, n=choice.choice(
        (1, 1, 2)), max_tokens=choice.choice(
            (2, 60, 240)))
        with self.server.connect() as wire:
            way = choice.randrange(6)
            if way == 0:
                wire.send(b"POST /v1/completions HT"[:choice.randrange(24)])
            elif way == 1:
                wire.send(
                    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"[:choice.randrange(99)])
            else:
                wire.request("POST", TEXT, body)
                if way > 2 and body["stream"]:
                    wire.head()
                    pieces = wire.chunks()
                    for _ in range(choice.randrange(20)):
                        if next(pieces, None) is None:
                            break
            if choice.random() < 0.5:  # at once and with a reset
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def test_a_thousand_who_leave(self):
        with Victim(self, self.server), concurrent.futures.ThreadPoolExecutor(16) as threads:
            list(threads.map(self.leave, range(1000)))

    def test_garbage_at_random(self):
        def send(seed):
            choice = random.Random(seed)
            good = b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 33' \
                   b'\r\n\r\n{"prompt": "Hello", "max_tokens":1}'
            data = bytearray(good)
            for _ in range(choice.randrange(1, 8)):
                place = choice.randrange(len(data))
                way = choice.randrange(3)
                if way == 0:
                    data[place] = choice.randrange(256)
                elif way == 1:
                    del data[place:place + choice.randrange(1, 9)]
                else:
                    data[place:place] = choice.choice((b"\r\n", b"\x00", b":", b" ", b"{", b"9" * 30, b"\xff"))
            with self.server.connect() as wire:
                wire.send(bytes(data))
                wire.socket.shutdown(socket.SHUT_WR)
                try:
                    said = wire.to_end()
                except ConnectionError:
                    return
                self.assertTrue(not said or said.startswith(b"HTTP/1.1 "), said)
                self.assertNotIn(b" 500 ", said[:20])

        with Victim(self, self.server), concurrent.futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(send, range(1000)))


class Limits(unittest.TestCase):
    def test_connections(self):
        with Server("--max-connections", 5) as server:
            wires = [server.connect() for _ in range(5)]
            for wire in wires:  # all have been accepted
                wire.request("GET", "/health")
                self.assertEqual(wire.answer().status, 200)
            for _ in range(20):
                with server.connect() as wire:
                    answer = wire.answer()
                    self.assertEqual((answer.status, answer.header("Retry-After")), (503, "1"))
                    self.assertIn("connections", answer.json["error"]["message"])
            wires[0].request("GET", "/health")
            self.assertEqual(wires[0].answer().status, 200)
            for wire in wires:
                wire.socket.close()
            wait_until(server.healthy, "there is room again")

    def test_waiting_requests(self):
        with Server("--parallel", 1, "--max-waiting", 1) as server:
            with concurrent.futures.ThreadPoolExecutor(16) as threads:
                answers = list(threads.map(lambda _: server.post(TEXT, LONG), range(32)))
            refused = [answer for answer in answers if answer.status == 429]
            self.assertTrue(refused)
            self.assertEqual({answer.status for answer in answers}, {200, 429})
            for answer in refused:
                self.assertEqual(answer.header("Retry-After"), "1")
                self.assertEqual(answer.json["error"]["type"], "rate_limit_error")
            self.assertEqual(len({answer.json["choices"][0]["text"] for answer in answers if answer.status == 200}), 1)
            server.wait_until_idle()

    def test_bodies(self):
        with Server("--max-body", "1000") as server:
            for size, status in ((900, 400), (1000, 400), (1001, 413), (1 << 20, 413)):
                self.assertEqual(server.post(TEXT, b"x" * size).status, status, size)

    def test_files(self):
        # Fewer descriptors than connections are wanted: those that come later wait or are refused, nothing breaks.
        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with Server(preexec=few) as server:
            quiet = same_stream(server.events(TEXT, Victim.REQUEST))
            with server.connect() as reader:
                # On a connection from before: a new one might be among those that are refused.
                reader.request("POST", TEXT, dict(Victim.REQUEST, stream=True))
                head = reader.head()
                self.assertEqual(head.status, 200)
                wires = [server.connect() for _ in range(100)]
                for wire in wires:
                    wire.socket.close()
                self.assertEqual(same_stream(read_events(reader.body(head))), quiet)
            # Those that nobody has accepted yet are first in the queue.
            wait_until(server.healthy, "it answers again")


if __name__ == "__main__":
    unittest.main()
