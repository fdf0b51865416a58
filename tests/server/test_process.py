"""The server as a process: starting, ending, signals, and where its words go."""

import concurrent.futures
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import tempfile
import time
import unittest

from harness import PATIENCE, TEXT, Server, free_port, same_stream, wait_until
from http_wire import Wire, read_events
from kvasir_cli import DEMO, CliTest, read_safetensors

BODY = {"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "ignore_eos": True}


def refuses_connections(port):
    try:
        Wire(port, timeout=PATIENCE).socket.close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was in the queue when that was closed
        return False
    return False


class Starting(CliTest):
    def fails_to_serve(self, *flags, says):
        # Whether it fails is asked, not how fast.
        self.fails("serve", *map(str, flags), says=says, within=PATIENCE)

    def test_a_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.fails_to_serve("--port", port, says=[f"127.0.0.1:{port}", "in use", "--port"])

    def test_what_is_not_there(self):
        self.fails_to_serve("-m", self.path("none"), "--port", 0, says=self.path("none"))
        self.fails_to_serve("--host", "no.such.host.invalid", "--port", 0, says="no.such.host.invalid")
        self.fails_to_serve("--host", "192.0.2.1", "--port", 0, says="192.0.2.1")  # nobody's address
        self.fails_to_serve("--log-file", self.path("none/log"), "--port", 0, says=self.path("none/log"))
        self.fails_to_serve("--api-key-file", self.path("none"), "--port", 0, says=self.path("none"))
        self.fails_to_serve("--chat-template", self.path("none"), "--port", 0, says=self.path("none"))
        self.fails_to_serve("--tls-certificate", self.path("a"), "--port", 0, says="TLS")
        self.fails_to_serve(
    "--tls-certificate",
    self.path("a"),
    "--tls-key",
    self.path("b"),
    "--port",
    0,
     says=self.path("a"))

    def test_no_address_is_not_every_address(self):
        self.fails_to_serve("--host", "", "--port", 0, says="--host")

    def test_keys_that_let_everybody_in(self):
        self.fails_to_serve("--api-key", "", "--port", 0, says="empty")
        for text in ("", "\n\n# only a comment\n", "\r\n"):
            self.fails_to_serve("--api-key-file", self.write("keys", text), "--port", 0, says="no key")

    def test_names_that_are_none(self):
        for name in ("", "a\nb", "\x1b[2J", "a\x7f"):
            self.fails_to_serve("-a", name, "--port", 0, says="--served-model-name")

    def test_every_address(self):
        with Server("--host", "0.0.0.0") as server:
            self.assertEqual(server.get("/health").status, 200)

    def test_at_once_again_on_the_same_port(self):
        port = free_port()
        for _ in range(3):
            with Server(port=port) as server:
                self.assertEqual(server.post(TEXT, BODY | {"max_tokens": 3}).status, 200)

    def test_flags_from_the_environment(self):
        with Server(env={"KVASIR_ARG_API_KEY": "secret"}) as server:
            self.assertEqual(server.get("/v1/models").status, 401)
            self.assertEqual(server.get("/v1/models", X_Api_Key="secret").status, 200)


class Loading(CliTest):
    def slow_model(self):
        """The demonstration model with many times its layers."""
        model = self.copy_demo(num_hidden_layers=120)
        header, data = read_safetensors(os.path.join(DEMO, "model.safetensors"))
        layer = {name: entry for name, entry in header.items() if ".layers.0." in name}
        pieces, place = [data], len(data)
        for i in range(6, 120):
            for name, entry in layer.items():
                begin, end = entry["data_offsets"]
                pieces.append(memoryview(data)[begin:end])
                header[name.replace(".layers.0.", f".layers.{i}.")] = dict(
                    entry, data_offsets=[place, place + end - begin])
                place += end - begin
        with open(os.path.join(model, "model.safetensors"), "wb") as file:
            text = json.dumps(header).encode()
            file.write(struct.pack("<Q", len(text)) + text)
            file.writelines(pieces)  # never all of it in memory: a child's peak would begin with its parent's
        return model

    def test_what_is_told_meanwhile_and_a_signal(self):
        port = free_port()
        with Server("--weights", "nf4", "--api-key", "k", model=self.slow_model(), port=port, wait=False) as server:
            wait_until(lambda: server.process.poll() is not None or not refuses_connections(port), "it listens")
            answer = server.get("/v1/models", X_Api_Key="k")
            health = server.get("/health")
            for told in (answer, health):
                self.assertEqual((told.status, told.header("Retry-After")), (503, "1"), told)
                self.assertEqual(told.json["error"]["code"], "loading")
            self.assertEqual(server.get("/v1/models").status, 401)
            self.assertEqual(server.get("/metrics", X_Api_Key="k").status, 200)
            self.assertEqual(server.end(), 0)
            self.assertNotIn("serving", server.error_text)

    def test_signals_at_any_moment(self):
        for i in range(12):
            with self.subTest(i):
                server = Server(wait=False)
                try:
                    time.sleep(i * 0.01)
                    code = server.end()
                    self.assertIn(code, (0, -signal.SIGTERM), server.error_text)
                    if code != 0:  # it was so early that nobody waited for signals yet
                        self.assertNotIn("serving", server.error_text)
                finally:
                    server.kill()


class Ending(unittest.TestCase):
    def test_answers_end_whole(self):
        with Server("--parallel", 8) as server:
            quiet = same_stream(server.events(TEXT, BODY))
            with concurrent.futures.ThreadPoolExecutor(33) as threads:
                streams, wholes = [], []
                for i in range(32):
                    wire = server.connect()
                    self.addCleanup(wire.socket.close)
                    wire.request("POST", TEXT, BODY | {"stream": i % 2 == 0})
                    (wholes if i % 2 else streams).append(wire)
                heads = [wire.head() for wire in streams[:4]]  # some have begun
                idle = server.connect()
                self.addCleanup(idle.socket.close)
                idle.request("GET", "/health")
                self.assertEqual(idle.answer().status, 200)
                wait_until(lambda: sum(server.metrics()[f"kvasir_requests_{kind}"] for kind in ("running", "waiting")) >= 10,
                           "many are under way")
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: refuses_connections(server.port), "new connections are refused")
                self.assertTrue(idle.closed())
                bodies = [threads.submit(wire.body, head) for wire, head in zip(streams, heads)]
                bodies += [threads.submit(lambda wire=wire: wire.body(wire.head())) for wire in streams[4:]]
                answers = [threads.submit(wire.answer) for wire in wholes]
                for body in bodies:
                    self.assertEqual(same_stream(read_events(body.result())), quiet)
                said = "".join(json.loads(event)["choices"][0]["text"] for event in quiet[:-1])
                for answer in answers:
                    self.assertEqual(answer.result().status, 200)
                    self.assertEqual(answer.result().json["choices"][0]["text"], said)
            self.assertEqual(server.process.wait(PATIENCE), 0)
            logged = [line for line in server.log_lines() if line["path"] == TEXT]
            self.assertEqual([line["status"] for line in logged], [200] * 33)

    def test_a_request_on_an_old_connection_is_told(self):
        with Server("--parallel", 1) as server, server.connect() as wire, server.connect() as busy:
            busy.request("POST", TEXT, BODY | {"prompt": ["Once"] * 8, "stream": True})
            head = busy.head()
            wire.send(b"GET /v1/models HTTP/1.1\r\n")  # its head is not whole yet
            wait_until(lambda: server.metrics()["kvasir_requests_waiting"] > 0, "it is under way")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(server.port), "new connections are refused")
            wire.send(b"Host: localhost\r\n\r\n")
            answer = wire.answer()
            self.assertEqual((answer.status, answer.header("Connection")), (503, "close"))
            self.assertEqual(answer.json["error"]["code"], "shutting_down")
            self.assertEqual(read_events(busy.body(head))[-1], "[DONE]")
            self.assertEqual(server.process.wait(PATIENCE), 0)

    def test_a_second_signal_ends_it_at_once(self):
        with Server("--parallel", 1) as server, server.connect() as wire:
            wire.request("POST", TEXT, BODY | {"prompt": ["Once"] * 120, "stream": True})
            wire.head()
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(server.port), "it is ending")
            self.assertIsNone(server.process.poll())
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(PATIENCE), 1)
            with self.assertRaises((AssertionError, ConnectionError, Exception)):
                read_events(wire.body(wire.head()))

    def test_ctrl_c_and_a_limit_of_patience(self):
        with Server("--parallel", 1, "--drain-timeout", 0.2) as server, server.connect() as wire:
            wire.request("POST", TEXT, BODY | {"prompt": ["Once"] * 120})
            wait_until(lambda: server.metrics()["kvasir_requests_running"] > 0, "it runs")
            self.assertEqual(server.end(signal.SIGINT), 0)
            answer = wire.answer()
            self.assertEqual((answer.status, answer.json["error"]["code"]), (503, "shutting_down"))

    def test_somebody_watches(self):
        with Server() as server, server.connect() as wire:
            wire.request("GET", "/glassbox")
            wire.head()
            self.assertEqual(server.end(), 0)


class Words(unittest.TestCase):
    """Nobody need listen to the log."""

    def uses(self, server, requests=20):
        first = server.post(TEXT, BODY).json["choices"][0]["text"]
        for _ in range(requests):
            self.assertEqual(server.get("/health").status, 200)
        self.assertEqual(server.post(TEXT, BODY).json["choices"][0]["text"], first)

    def test_closed_descriptors(self):
        def close():
            for descriptor in (0, 1, 2):
                os.close(descriptor)
        with Server("--access-log", port=free_port(), preexec=close, stderr=open(os.devnull, "w").fileno()) as server:
            self.uses(server)
            self.assertEqual(server.end(), 0)

    def test_a_full_disk(self):
        with Server("--log-file", "/dev/full") as server:
            self.uses(server)

    def test_a_pipe_that_nobody_reads(self):
        for requests in (20, 1000):
            reader, writer = os.pipe()
            self.addCleanup(os.close, reader)
            fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
            with Server("--access-log", port=free_port(), stderr=writer) as server:
                os.close(writer)
                self.uses(server, requests)
                self.assertEqual(server.end(), 0)

    def test_a_warning_that_nobody_reads(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        fcntl.fcntl(writer, 1031, 4096)
        with Server("--access-log", "--parallel", 1, "--drain-timeout", 0.2, port=free_port(), stderr=writer) as server, \
                server.connect() as wire:
            # A pipe that is full to its last byte, by a description of its own, which alone does not wait.
            filler = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, filler)
            os.close(writer)
            for size in (4096, 1):
                try:
                    while True:
                        os.write(filler, b"x" * size)
                except BlockingIOError:
                    pass
            self.uses(server)
            wire.request("POST", TEXT, BODY | {"prompt": ["Once"] * 120})
            wait_until(lambda: server.metrics()["kvasir_requests_running"] > 0, "it runs")
            self.assertEqual(server.end(), 0)  # and warns of an answer that is cut off
            self.assertEqual(wire.answer().status, 503)

    def test_a_pipe_whose_reader_has_gone(self):
        reader, writer = os.pipe()
        with Server("--access-log", port=free_port(), stderr=writer) as server:
            os.close(writer)
            os.close(reader)
            self.uses(server)
            self.assertEqual(server.end(), 0)

    def test_a_slow_reader_gets_whole_lines(self):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 4096)
        with Server("--access-log", "--log-prompts", port=free_port(), stderr=writer) as server:
            os.close(writer)
            server.post(TEXT, BODY | {"user": "x" * 60_000, "max_tokens": 1})  # a line of many pieces
            self.uses(server)
            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                with open(reader, "rb") as pipe:
                    said = threads.submit(pipe.read)
                    self.assertEqual(server.end(), 0)
                    lines = [json.loads(line) for line in said.result().splitlines() if line.startswith(b"{")]
        self.assertEqual(len([line for line in lines if line["path"] == TEXT]), 3)

    def test_no_log(self):
        with Server("--no-access-log") as server:
            self.uses(server)
            self.assertEqual(server.end(), 0)
            self.assertNotIn("/health", server.error_text)

    def test_the_log_goes_on_in_the_same_file(self):
        folder = tempfile.mkdtemp(prefix="kvasir-log-")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "log")
        for _ in range(2):
            with Server("--log-file", path) as server:
                self.uses(server, 3)
        with open(path) as file:
            self.assertEqual(len([json.loads(line) for line in file]), 10)


if __name__ == "__main__":
    unittest.main()
