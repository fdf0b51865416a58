"""The server as curl meets it."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

from harness import CHAT, PATIENCE, TEXT, Server, ServerTest
from http_wire import read_events

BODY = json.dumps({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "stream": True})
JSON = ("-H", "Content-Type: application/json")


def curl(*args, code=0, **options):
    run = subprocess.run(["curl", "-sS", "--max-time", str(PATIENCE), "--noproxy", "*", *args], capture_output=True,
                         check=False, **options)
    assert run.returncode == code, (args, run)
    return run


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class Curl(ServerTest):
    def url(self, path):
        return self.server.url + path

    def status_and_body(self, *args):
        out = curl("-w", "\n%{http_code}", *args).stdout
        body, status = out.rsplit(b"\n", 1)
        return int(status), body

    def test_a_body_without_its_type(self):
        status, body = self.status_and_body(self.url(CHAT), "-d", "{}")
        self.assertEqual(status, 415)
        self.assertIn("application/json", json.loads(body)["error"]["message"])
        self.assertEqual(self.status_and_body(self.url(TEXT), "--json", BODY)[0], 200)

    def test_streams(self):
        one = read_events(curl("-N", *JSON, "-d", BODY, self.url(TEXT)).stdout)
        self.assertEqual(one[-1], "[DONE]")
        head = curl("-N", "-D", "-", "-o", os.devnull, *JSON, "-d", BODY, self.url(TEXT)).stdout.decode().lower()
        for line in ("content-type: text/event-stream; charset=utf-8", "cache-control: no-cache",
                     "transfer-encoding: chunked", "connection: keep-alive"):
            self.assertIn(line + "\r\n", head)

    def test_http_1_0(self):
        run = curl("-0", "-N", "-D", "-", *JSON, "-d", BODY, self.url(TEXT))
        head, body = run.stdout.split(b"\r\n\r\n", 1)
        self.assertEqual(read_events(body)[-1], "[DONE]")
        self.assertNotIn(b"chunked", head)
        self.assertIn(b"Connection: close", head)
        self.assertEqual(self.status_and_body("-0", self.url("/health"))[0], 200)

    def test_head(self):
        for path in ("/health", "/v1/models", "/metrics", "/", "/nothing", CHAT):
            with self.subTest(path):
                head = curl("-I", self.url(path)).stdout.decode()
                whole = curl("-i", self.url(path)).stdout.decode().split("\r\n\r\n", 1)
                self.assertEqual(head.split("\r\n")[0], whole[0].split("\r\n")[0])
                if path != "/metrics":  # which has grown meanwhile
                    self.assertIn(f"Content-Length: {len(whole[1].encode())}\r\n", head)

    def test_a_large_body_after_100_continue(self):
        body = json.dumps({"content": "many words " * 200_000}).encode()
        run = curl("-v", *JSON, "-H", "Expect: 100-continue", "--data-binary", "@-", self.url("/tokenize"), input=body)
        self.assertIn(b"100 Continue", run.stderr)
        self.assertGreater(json.loads(run.stdout)["count"], 200_000)

    def test_a_body_over_the_limit(self):
        with tempfile.TemporaryFile() as file:
            file.truncate(100 << 20)
            for expect in ("100-continue", ""):
                for chunked in ((), ("-H", "Transfer-Encoding: chunked")):
                    file.seek(0)
                    with self.subTest(expect=expect, chunked=chunked):
                        run = curl("-w", "\n%{http_code}", *JSON, "-H", f"Expect: {expect}", *chunked, "--data-binary",
                                   "@-", self.url(TEXT), stdin=file)
                        body, status = run.stdout.rsplit(b"\n", 1)
                        self.assertEqual(int(status), 413)
                        self.assertIn("larger", json.loads(body)["error"]["message"])

    def test_one_connection_for_many_requests(self):
        run = curl("-w", "%{num_connects}\n", *["-o", os.devnull, self.url("/health")] * 5)
        self.assertEqual(run.stdout.split(), [b"1", b"0", b"0", b"0", b"0"])


@unittest.skipUnless(shutil.which("curl") and shutil.which("openssl"), "curl and openssl are not installed")
class Tls(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kvasir-tls-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.key, self.certificate = (os.path.join(self.folder, name) for name in ("key.pem", "certificate.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", self.key, "-out",
                        self.certificate], check=True, capture_output=True)

    def test_https(self):
        with Server("--tls-certificate", self.certificate, "--tls-key", self.key) as server:
            url = f"https://localhost:{server.port}"
            trust = ("--cacert", self.certificate, "--resolve", f"localhost:{server.port}:127.0.0.1")
            self.assertEqual(json.loads(curl(*trust, url + "/health").stdout), {"status": "ok"})
            self.assertEqual(read_events(curl("-N", *trust, *JSON, "-d", BODY, url + TEXT).stdout)[-1], "[DONE]")
            old = curl(*trust, "--tlsv1.1", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url + "/health",
                       code=35)
            self.assertEqual(old.stdout, b"")
            with server.connect() as plain:  # somebody who speaks no TLS
                plain.send(b"GET / HTTP/1.1\r\n\r\n")
                self.assertNotIn(b"HTTP/", plain.to_end())
            self.assertEqual(curl(*trust, url + "/health").returncode, 0)


if __name__ == "__main__":
    unittest.main()
