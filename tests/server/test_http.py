"""HTTP as those write it who want to be misunderstood."""

import json
import unittest

from harness import CHAT, PATIENCE, TEXT, ServerTest, Victim, wait_until
from http_wire import Closed, Wire

ROUTES = {"/": "GET", "/health": "GET", "/v1/health": "GET", "/metrics": "GET", "/version": "GET", "/glassbox": "GET",
          "/props": "GET", "/models": "GET", "/v1/models": "GET", "/tokenize": "POST", "/detokenize": "POST",
          "/apply-template": "POST", CHAT: "POST", "/chat/completions": "POST", TEXT: "POST", "/completions": "POST",
          "/v1/embeddings": "POST", "/embeddings": "POST", "/v1/responses": "POST", "/responses": "POST",
          "/api/version": "GET", "/api/tags": "GET", "/api/ps": "GET", "/api/show": "POST", "/api/chat": "POST",
          "/api/generate": "POST", "/api/embed": "POST", "/api/embeddings": "POST"}
HOST = b"Host: localhost\r\n"
BODY = json.dumps({"prompt": "Hello", "max_tokens": 1}).encode()
TYPE = b"Content-Type: application/json\r\n"
SMUGGLED = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Http(ServerTest):
    def answers(self, data):
        """Statuses of all that comes back when the client says nothing more."""
        found = []
        with self.server.connect() as wire:
            wire.send(data)
            try:
                while True:
                    found.append(wire.answer().status)
                    if len(found) > 8:
                        break
                    wire.socket.settimeout(1)  # the first may take long, whether there are others is soon known
            except (Closed, TimeoutError, ConnectionError):
                pass
        return found

    def only(self, status, data):
        with self.subTest(data[:200]):
            self.assertEqual(self.answers(data), [status])


class Framing(Http):
    def post(self, headers, body=b"", version=b"1.1"):
        return b"POST " + TEXT.encode() + b" HTTP/" + version + b"\r\n" + HOST + TYPE + headers + b"\r\n" + body

    def test_two_ways_to_tell_the_end(self):
        length = b"Content-Length: %d\r\n" % len(BODY)
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        for headers in (length + b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n" + length,
                        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                        length + b"Content-Length: %d\r\n" % (len(BODY) + 1), b"Content-Length: 3, 4\r\n",
                        b"Content-Length: 0\r\n" + length):
            self.only(400, self.post(headers, chunks + SMUGGLED))

    def test_odd_encodings(self):
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        for coding in (b"xchunked", b"chunkedx", b"identity", b"gzip", b"gzip, chunked", b"chunked, identity", b"chunked, chunked",
                       b"\"chunked\"", b"chunked;a=b", b"chun ked", b"chunked,", b",chunked", b"", b"\x0bchunked", b"chunked\x00"):
            self.only(400, self.post(b"Transfer-Encoding: " + coding + b"\r\n", chunks + SMUGGLED))
        for headers in (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
                        b"Transfer-Encoding : chunked\r\n",
                        b"Transfer-Encoding:\r\n chunked\r\n\r\n"[:-2] + b"Content-Length: 0\r\n"):
            self.only(400, self.post(headers, chunks + SMUGGLED))
        folded = self.answers(
    self.post(
        b" Transfer-Encoding: chunked\r\n",
        chunks +
         SMUGGLED))  # a part of the line before
        self.assertIn(folded, ([400], [415, 400]))
        self.only(400, self.post(b"Transfer-Encoding: chunked\r\n", chunks, version=b"1.0"))
        for good in (b"chunked", b"Chunked", b" \tchunked \t"):
            self.only(200, self.post(b"Transfer-Encoding: " + good + b"\r\nConnection: close\r\n", chunks))

    def test_bad_lengths(self):
        for length in (b"-1", b"+5", b"0x5", b"5 5", b"", b"a", b"1e3", b"99999999999999999999999", b"5,", b"5;"):
            self.only(400, self.post(b"Content-Length: " + length + b"\r\n", BODY + SMUGGLED))
        for length in (b"18446744073709551615", b"9223372036854775808", b"16777217"):
            self.only(413, self.post(b"Content-Length: " + length + b"\r\n", BODY))

    def test_bad_chunks(self):
        for chunks in (b"-1\r\n", b"x\r\n", b"\r\n", b"5\nabcde\r\n0\r\n\r\n", b"2\r\nabX\r\n0\r\n\r\n", b" 5\r\n", b"0x5\r\n",
                       b"10000000000000000\r\n", b"2\r\nabcd\r\n0\r\n\r\n"):
            self.only(400, self.post(b"Transfer-Encoding: chunked\r\n", chunks + SMUGGLED))
        size = b"%x" % len(BODY)
        for odd in (b";a\nb", b";\n", b"; a=\"\n\"", b"\n;a", b" \n", b";a\rb", b";\x00", b" ;\x01", b" a", b", 0", b"\x0b"):
            self.only(400, self.post(b"Transfer-Encoding: chunked\r\n", size + odd + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED))
        for end in (b"0\n\r\n", b"0\r\n\n", b"0\r\nA: b\n\r\n", b"0\r\nA: b\rc\r\n\r\n", b"0\r\n A: b\r\n\r\n", b"0\r\nA\r\n\r\n",
                    b"0;\n\r\n\r\n", b"00\r\n\n"):
            self.only(400, self.post(b"Transfer-Encoding: chunked\r\n", size + b"\r\n" + BODY + b"\r\n" + end + SMUGGLED))
        self.only(413, self.post(b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n"))
        self.only(413, self.post(b"Transfer-Encoding: chunked\r\n", b"1000001\r\n"))
        many = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
        self.only(200, self.post(b"Transfer-Encoding: chunked\r\nConnection: close\r\n", many))
        extended = b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(BODY), b"a" * (1 << 20), BODY)
        self.assertGreaterEqual(self.answers(self.post(b"Transfer-Encoding: chunked\r\n", extended))[0], 400)
        trailers = b"0\r\n" + b"a: b\r\n" * (1 << 18) + b"\r\n"
        self.assertGreaterEqual(self.answers(self.post(b"Transfer-Encoding: chunked\r\n", trailers))[0], 400)

    def test_a_body_that_a_get_brings_is_its_own(self):
        body = SMUGGLED
        self.only(
    200,
    b"GET /health HTTP/1.1\r\n" +
    HOST +
    b"Connection: close\r\nContent-Length: %d\r\n\r\n" %
    len(body) +
     body)
        self.assertEqual(self.answers(b"GET /health HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body +
                                      SMUGGLED), [200, 200])

    def test_requests_one_behind_another(self):
        one = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
        self.assertEqual(self.answers(one * 5), [200] * 5)
        length = b"Content-Length: %d\r\n" % len(BODY)
        self.assertEqual(self.answers(self.post(length, BODY) + one + self.post(length, BODY)), [200] * 3)
        refused = b"POST /nothing HTTP/1.1\r\n" + HOST + length + b"\r\n" + BODY
        self.assertEqual(self.answers(refused + one), [404, 200])

    def test_no_answer_passes_for_another(self):
        # Who closes their side has gone, and what they sent behind is not answered in the place of the first.
        slow = json.dumps({"prompt": "Once", "max_tokens": 250, "ignore_eos": True}).encode()
        with self.server.connect() as wire:
            wire.send(self.post(b"Content-Length: %d\r\n" % len(slow), slow) + SMUGGLED)
            wire.socket.shutdown(1)
            said = wire.to_end()
        self.assertNotIn(b'{"version"', said)


class Lines(Http):
    FLAGS = ("--header-timeout", 5)

    def test_ends_of_lines(self):
        for data in (b"GET /health HTTP/1.1\nHost: localhost\n\n", b"GET /health HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n",
                     b"GET /health HTTP/1.1\rHost: localhost\r\r",
                     b"GET /health HTTP/1.1\r\nA: b\rHost: localhost\r\n\r\n"):
            self.only(400, data)
        self.assertIn(self.answers(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n"),
                      ([400], [408]))  # no end; its time runs out

    def test_request_lines(self):
        for line in (b"GET", b"GET /health", b"GET  /health HTTP/1.1", b"GET /health  HTTP/1.1", b" GET /health HTTP/1.1",
                     b"GET /he alth HTTP/1.1", b"GET /health HTTP/2.0", b"GET /health HTTP/9.9", b"GET /health HTTP/1.11",
                     b"GET /health http/1.1", b"G@T /health HTTP/1.1", b"GET /health\x00 HTTP/1.1",
                     b"GET /\x7f HTTP/1.1", b"GET /\x01 HTTP/1.1", b"PRI * HTTP/2.0", b"\x16\x03\x01\x02\x00\x01"):
            self.only(400, line + b"\r\n" + HOST + b"\r\n")

    def test_targets(self):
        for target in (b"http://localhost/health", b"http://evil.example/health",
                       b"localhost:80", b"health", b"?a", b"*a"):
            self.only(400, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        self.only(404, b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        self.only(400, b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")

    def test_control_characters_in_headers(self):
        for header in (b"A: b\x00c", b"A: \x01", b"A: b\x7f", b"A: b\rc", b"A\x00: b", b"A b: c", b": b", b"A", b"A\t: b",
                       b"\x00", b"\xff\xfe: b", b"A: b\x0b"):
            self.only(400, b"GET /health HTTP/1.1\r\n" + HOST + header + b"\r\n\r\n")
        self.only(200, b"GET /health HTTP/1.1\r\n" + HOST + b"A: \xff\xfe\tb\r\nConnection: close\r\n\r\n")

    def test_a_folded_header_is_no_line_of_its_own(self):
        # RFC 9112, 5.2: refused, or read as one value.
        answer = self.answers(b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: b\r\n Host: evil.example\r\n"
                              b"Connection: close\r\n\r\n")
        self.assertIn(answer, ([200], [400]))
        self.assertIn(self.answers(b"GET /health HTTP/1.1\r\nHost:\r\n evil.example\r\nConnection: close\r\n\r\n"),
                      ([400], [403]))

    def test_hosts_there_must_be_one(self):
        self.only(400, b"GET /health HTTP/1.1\r\n\r\n")
        self.only(400, b"GET /health HTTP/1.1\r\n" + HOST * 2 + b"Connection: close\r\n\r\n")
        self.only(200, b"GET /health HTTP/1.0\r\n\r\n")

    def test_large_headers(self):
        for large in (b"A: " + b"b" * (1 << 20), b"A" * (1 << 20) + b": b", b"A: b\r\n" * (1 << 17),
                      b"Cookie: " + b"c" * 33_000):
            self.only(431, b"GET /health HTTP/1.1\r\n" + HOST + large + b"\r\n\r\n")
        self.only(431, b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        self.only(200, b"GET /health HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 30_000 + b"\r\nConnection: close\r\n\r\n")


class Timeouts(Http):
    FLAGS = ("--header-timeout", 0.5, "--body-timeout", 0.5, "--idle-timeout", 0.5)

    def test_what_does_not_come_in_time_is_answered(self):
        post = b"POST " + TEXT.encode() + b" HTTP/1.1\r\n" + HOST + TYPE
        for part in (b"G", b"GET /health HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\n" + HOST, post + b"Content-Length: 9\r\n\r\n",
                     post + b"Content-Length: 9\r\n\r\n{", post + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
            with self.subTest(part), self.server.connect() as wire:
                wire.send(part)
                answer = wire.answer()
                self.error_of(answer, 408, says="time")
                self.assertEqual((answer.json["error"]["type"], answer.header("Connection")),
                                 ("invalid_request_error", "close"))
                self.assertTrue(wire.closed())
        self.assertTrue({("", 408), (TEXT, 408)} <= {(line["path"], line["status"]) for line in self.server.log_lines()})

    def test_who_is_idle_is_told_nothing(self):
        with self.server.connect() as wire:
            self.assertTrue(wire.closed())
        with self.server.connect() as wire:
            for _ in range(2):
                wire.request("GET", "/health")
                self.assertEqual(wire.answer().status, 200)
            self.assertTrue(wire.closed())

    def test_nobody_waits_for_who_does_not_read(self):
        self.server.wait_until_idle()
        files = self.server.open_files()
        wires = [Wire(self.server.port, PATIENCE, receive_buffer=4096) for _ in range(20)]
        for wire in wires:
            self.addCleanup(wire.socket.close)
            wire.send(b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\nGET /metrics")
        wait_until(lambda: self.server.open_files() <= files, "all are closed")


class Routes(Http):
    def test_wrong_methods(self):
        with self.server.connect() as wire:
            for path, right in ROUTES.items():
                for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW", "get"):
                    if method == right or (method, right) == ("HEAD", "GET"):
                        continue
                    with self.subTest(method=method, path=path):
                        wire.request(method, path, b"{}" if method == "POST" else None)
                        answer = wire.answer(method)
                        self.assertEqual(answer.status, 405, answer)
                        self.assertEqual(answer.header("Allow"), right)

    def test_paths_are_taken_as_they_are(self):
        for path in ("//health", "/health/", "/./health", "/v1/../health", "/%68ealth", "/HEALTH", "/health%00", "/health;a",
                     "/v1//models", "/v1/models/", "/v1/models/..", "/v1/models/%2e%2e", "/v1/models/%zz", "/v1/models/demo/",
                     "/../../etc/passwd", "/..%2f..%2fetc/passwd", "/" + "a" * 20_000, "/\xe4", "/%ff"):
            answer = self.server.get(path)
            self.assertEqual(answer.status, 404, (path, answer))
            self.assertTrue(answer.json["error"]["message"])
        for path in ("/health?a=b", "/health?", "/health?/../?", "/v1/models/demo?x"):
            self.assertEqual(self.server.get(path).status, 200, path)

    def test_types_of_bodies(self):
        for good in ("application/json", "Application/JSON; charset=utf-8",
                     "application/vnd.api+json", "application/json ;x"):
            self.assertEqual(self.server.post(TEXT, BODY, Content_Type=good).status, 200, good)
        for bad in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "", "json",
                    "application/jsonp", "text/plain; application/json", None):
            self.assertEqual(self.server.post(TEXT, BODY, Content_Type=bad).status, 415, bad)

    def test_compressed_bodies(self):
        for coding in ("gzip", "br", "x", "gzip, identity"):
            answer = self.server.post(TEXT, BODY, Content_Encoding=coding)
            self.error_of(answer, 415, says="compressed")
        for path in (TEXT, "/api/generate"):
            self.assertEqual(self.server.post(path, BODY, Content_Encoding="Identity").status, 200)

    def test_beside_a_victim(self):
        with Victim(self, self.server):
            for i in range(300):
                with self.server.connect() as wire:
                    wire.send(bytes((i * 37 + j * j) % 256 for j in range(i)) + b"\r\n\r\n")
                    wire.socket.shutdown(1)
                    while wire.socket.recv(1 << 16):
                        pass


if __name__ == "__main__":
    unittest.main()
