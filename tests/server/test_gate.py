"""Who is let in: hosts, origins, keys; and what of a request comes back in an answer or stands in the log."""

import json
import re
import unittest

from harness import CHAT, TEXT, Server, ServerTest
from test_http import ROUTES

BODY = {"prompt": "Hello", "max_tokens": 1}
KEY = "a-secret-key"


class Hosts(ServerTest):
    def test_names_of_this_machine(self):
        port = self.server.port
        for host in ("localhost", f"localhost:{port}", "LOCALHOST", "127.0.0.1", f"127.0.0.1:{port}", "127.9.9.9", "[::1]",
                     f"[::1]:{port}", "sub.localhost", "192.168.1.7:80"):
            self.assertEqual(self.server.get("/health", Host=host).status, 200, host)

    def test_others(self):
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
                     "localhost:evil", "[::1].evil.example", "[::1]evil", "[::1", "[evil.example]", "", ":80", "0x7f.1", "2130706433",
                     "user@localhost", "localhost/evil", "evil.example#localhost", "localhost, evil.example", "\xe4", "1.2.3"):
            for path in ("/health", "/", "/v1/models", "/nothing"):
                answer = self.server.get(path, Host=host)
                self.error_of(answer, 403, code="host_not_allowed")


class AllowedHosts(unittest.TestCase):
    def test_allowed(self):
        with Server("--allowed-host", "Models.Example") as server:
            self.assertEqual(server.get("/health", Host="models.example:8000").status, 200)
            self.assertEqual(server.get("/health", Host="other.example").status, 403)
        with Server("--allowed-host", "*") as server:
            self.assertEqual(server.get("/health", Host="any.example").status, 200)


class Origins(ServerTest):
    FLAGS = ("--cors-origin", "https://chat.example")

    def test_of_other_sites(self):
        port = self.server.port
        for origin in ("https://evil.example", "null", "http://localhost:1", f"http://localhost:{port}.evil.example", "",
                       "https://chat.example.evil.example", "http://chat.example", "https://chat.example:444", "*",
                       "https://chat.example/", "https://chat.example https://evil.example"):
            for method, path in (("GET", "/health"), ("POST", TEXT), ("OPTIONS", TEXT), ("GET", "/")):
                with self.subTest(origin=origin, method=method):
                    answer = self.server.ask(method, path, BODY if method == "POST" else None,
                                             {"Host": f"localhost:{port}", "Origin": origin,
                                              "Access-Control-Request-Method": "POST"})
                    self.error_of(answer, 403, code="origin_not_allowed")
                    self.assertIsNone(answer.header("Access-Control-Allow-Origin"))

    def test_the_own_page_and_who_was_allowed(self):
        port = self.server.port
        for origin in (f"http://localhost:{port}", "https://chat.example"):
            answer = self.server.post(TEXT, BODY, Origin=origin, Host=f"localhost:{port}")
            self.assertEqual(answer.status, 200, answer)
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), origin)
            self.assertEqual(answer.header("Vary"), "Origin")
            self.assertIsNone(answer.header("Access-Control-Allow-Credentials"))
        self.assertIsNone(self.server.post(TEXT, BODY).header("Access-Control-Allow-Origin"))

    def test_preflight(self):
        def ask(**headers):
            return self.server.ask("OPTIONS", CHAT, None, {"Origin": "https://chat.example", "Access-Control-Request-Method":
                                                           "POST"} | headers)
        answer = ask(Access_Control_Request_Headers="authorization, content-type, x-stainless-os")
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertIsNone(answer.header("Content-Length"))
        self.assertIsNone(answer.header("Transfer-Encoding"))
        self.assertEqual(answer.header("Access-Control-Allow-Headers"), "authorization, content-type, x-stainless-os")
        self.assertIn("POST", answer.header("Access-Control-Allow-Methods"))
        for odd in ("a:b", "a\tb", "\xe4", "<script>"):
            self.assertIsNone(ask(Access_Control_Request_Headers=odd).header("Access-Control-Allow-Headers"), odd)

    def test_two_origins(self):
        answer = self.server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: https://chat.example\r\n"
                                 b"Origin: https://evil.example\r\nConnection: close\r\n\r\n")
        self.error_of(answer, 403)


class Keys(ServerTest):
    FLAGS = ("--api-key", KEY, "--api-key", "another", "--cors-origin", "https://chat.example")

    def tearDown(self):
        self.assertIsNone(self.server.process.poll())

    def test_only_who_has_one(self):
        good = {"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-Api-Key": KEY}, \
            {"Authorization": "Bearer another"}
        for headers in good:
            self.assertEqual(self.server.get("/v1/models", **headers).status, 200, headers)
        bad = ["", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Bearer {KEY.upper()}",
               f"Bearer {KEY}, Bearer {KEY}", f"Bearer\t{KEY}", f"Bearer{KEY}", f"Token {KEY}", f'Bearer "{KEY}"',
               f"Bearer {KEY} another", "Bearer \xff", "Bearer " + "x" * 20_000]
        for headers in [{}, {"X-Api-Key": ""}, {"X-Api-Key": KEY + "x"}] + [{"Authorization": text} for text in bad]:
            with self.subTest(headers):
                answer = self.server.get("/v1/models", **headers)
                self.error_of(answer, 401, code="invalid_api_key")
                self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")
                self.assertNotIn(KEY, answer.text)

    def test_two_of_them(self):
        for first, second in ((KEY, "no"), ("no", KEY), (KEY, KEY)):
            for name in (b"Authorization: Bearer ", b"X-Api-Key: "):
                answer = self.server.raw(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + name + first.encode() + b"\r\n" +
                                         name + second.encode() + b"\r\nConnection: close\r\n\r\n")
                self.error_of(answer, 401)

    def test_nothing_can_be_learned_without(self):
        public = ("/", "/health")
        paths = list(ROUTES) + ["/nothing", "/v1/models/demo", "/v1/models/no", "//", "/../", "/v1/../health", "//health", "/health/",
                                "/%2e", "/%2e%2e/v1/models", "/HEALTH", "/Health", "/V1/models", "/v1/models/", "/health%2f..",
                                "/health/../v1/models", "/health;/v1/models", "/.", "/%00", "/favicon.ico"]
        answers = {False: set(), True: set()}  # Ollama's paths have errors in its own form, whether they are there or not
        for path in paths + ["/api/", "/api/nothing", "/api/../health"]:
            for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
                if path in public and method in ("GET", "HEAD"):
                    self.assertEqual(self.server.ask(method, path).status, 200)
                    continue
                answer = self.server.ask(method, path, {} if method == "POST" else None)
                self.assertEqual(answer.status, 401, (method, path, answer))
                if method != "HEAD":
                    answers[path.startswith("/api/")].add(answer.body)
        self.assertEqual([len(bodies) for bodies in answers.values()], [1, 1])  # nor by how it is said
        self.assertEqual(self.server.ask("OPTIONS", "*").status, 401)
        self.assertEqual(self.server.get("/v1/models?key=" + KEY).status, 401)

    def test_bodies_of_strangers_are_not_read(self):
        for body in (b"{", b"x" * (20 << 20)):
            answer = self.server.post(CHAT, body)
            self.error_of(answer, 401)
            self.assertEqual(answer.header("Connection"), "close")
        with self.server.connect() as wire:
            wire.send(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
                      b"Expect: 100-continue\r\n\r\n")
            self.assertEqual(wire.answer().status, 401)  # and no "100 Continue" before it

    def test_a_preflight_needs_none(self):
        answer = self.server.ask(
    "OPTIONS", CHAT, None, {
        "Origin": "https://chat.example", "Access-Control-Request-Method": "POST"})
        self.assertEqual(answer.status, 204)
        answer = self.server.ask("OPTIONS", CHAT, None, {"Origin": "https://chat.example"})
        self.assertEqual(answer.status, 401)


class KeyFiles(unittest.TestCase):
    def test_a_file_of_keys(self):
        with open(f"{self.folder()}/keys", "w") as file:
            file.write("# people\r\nfirst\r\n\n  spaced \nlast")
        with Server("--api-key-file", file.name) as server:
            for key, status in (("first", 200), ("last", 200), ("# people", 401), ("", 401), ("firs", 401)):
                self.assertEqual(server.get("/v1/models", Authorization=f"Bearer {key}").status, status, key)

    def folder(self):
        import tempfile  # pylint: disable=import-outside-toplevel
        folder = tempfile.TemporaryDirectory(prefix="kvasir-keys-")
        self.addCleanup(folder.cleanup)
        return folder.name


class ComesBack(ServerTest):
    FLAGS = ("--cors-origin", "*")

    def test_ids(self):
        for good in ("abc", "A-b_c.9", "x" * 128):
            self.assertEqual(self.server.get("/health", X_Request_Id=good).header("X-Request-Id"), good)
        for bad in ("", "a b", "a\tb", "x" * 129, "a;b", "<b>", "a:b", "\xe4", "a%0d%0aSet-Cookie: x=y", '"', "a,b"):
            given = self.server.get("/health", X_Request_Id=bad).header("X-Request-Id")
            self.assertRegex(given, "^[0-9a-f]{32}$")
        for split in (b"a\rSet-Cookie: b=c", b"a\nSet-Cookie: b=c", b"a\x00b"):
            answer = self.server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: " + split + b"\r\n\r\n")
            self.assertIsNone(answer.header("Set-Cookie"))

    def test_traces(self):
        trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        good = f"00-{trace}-{parent}-01"
        self.assertEqual(self.server.get("/health", traceparent=good).header("traceparent"), good)
        for bad in (f"01-{trace}-{parent}-01", f"00-{trace}-{parent}-1", f"00-{trace.upper()}-{parent}-01",
                    f"00-{'0' * 32}-{parent}-01", f"00-{trace}-{'0' * 16}-01", f"00-{trace}-{parent}-01-x", "", "x" * 10_000):
            self.assertIsNone(self.server.get("/health", traceparent=bad).header("traceparent"), bad)

    def test_any_origin_comes_back_as_it_was(self):
        for origin in ("https://evil.example", "null", "x" * 5000, "a: b", "\xe4"):
            answer = self.server.get("/health", Origin=origin)
            self.assertEqual((answer.status, answer.header("Access-Control-Allow-Origin")), (200, origin))
        answer = self.server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: a\rSet-Cookie: b=c\r\n\r\n")
        self.assertIsNone(answer.header("Set-Cookie"))

    def test_no_answer_is_a_page(self):
        answer = self.server.get("/<script>alert(1)</script>")
        self.assertEqual(answer.header("Content-Type"), "application/json")
        self.assertEqual(answer.header("X-Content-Type-Options"), "nosniff")


class Page(unittest.TestCase):
    def test_the_page(self):
        with Server() as server:
            page = server.get("/")
            self.assertEqual((page.status, page.header("Content-Type")), (200, "text/html; charset=utf-8"))
            self.assertIn("default-src 'none'", page.header("Content-Security-Policy"))
            self.assertEqual(page.header("X-Frame-Options"), "DENY")
        with Server("--no-page") as server:
            self.assertEqual(server.get("/").status, 404)


class Log(ServerTest):
    FLAGS = ("--log-prompts", "--api-key", KEY)

    def tearDown(self):
        self.assertIsNone(self.server.process.poll())

    def test_each_line_is_one_object(self):
        evil = '\n{"status": 200}\r\n"\\\u2028\x1b[2J'
        key = {"Authorization": f"Bearer {KEY}"}
        asked = 0
        for path in ("/%0a{}", "/a\xff\xfeb", '/"\\{}', "/?\"", "/" + "x" * 20_000):
            self.server.get(path, **key)
            asked += 1
        for agent in ('"', "\\", "\xff\xfe", "a\tb", "x" * 20_000, "{}"):
            self.server.get("/health", User_Agent=agent, X_Request_Id=agent, traceparent=agent, **key)
            asked += 1
        self.server.post(TEXT, BODY | {"prompt": evil}, **key)
        self.server.post(TEXT, b'{"prompt": "' + evil.encode() + b'\xff\x00', **key)
        self.server.raw(b"no request\r\n\r\n")
        asked += 3
        self.assertEqual(self.server.end(), 0)  # all lines are out then
        lines = self.server.log_lines()
        self.assertEqual(len(lines), asked)
        for line in lines:
            self.assertTrue({"time", "id", "remote", "method", "path", "status", "bytes", "ms"} <= set(line), line)
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertLessEqual(len(line.get("agent", "")), 256)
        self.assertEqual(json.loads(lines[-3]["body"])["prompt"], evil)
        with open(self.server.log_path, "rb") as file:
            raw = file.read()
        self.assertNotIn(KEY.encode(), raw)
        self.assertIsNone(re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw))
        self.server.process.wait()
        type(self).server = Server(*self.FLAGS)  # for the case after this one
        self.addClassCleanup(self.server.__exit__, None, None, None)

    def test_prompts_are_written_only_where_that_was_asked_for(self):
        with Server() as server:
            server.post(TEXT, BODY | {"prompt": "a private matter"})
            self.assertEqual(server.end(), 0)
            with open(server.log_path) as file:
                self.assertNotIn("private", file.read())


if __name__ == "__main__":
    unittest.main()
