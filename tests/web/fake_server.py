#!/usr/bin/env python3
"""A server that speaks as kvasir's does, without a model: fake_server.py --page FOLDER [--port N].

FOLDER holds page.html and page.csp, as the build leaves them in its web folder. What it answers is decided by words of
the last message: `fake:slow`, `fake:hostile` and so on (see SCRIPTS). It listens on 127.0.0.1.
"""

import argparse
import http.server
import itertools
import json
import pathlib
import random
import threading
import time

STORY = ("The **kettle** began to sing, and Ragna put down her pen.\n\n"
         "1. First she listened.\n2. Then she wrote on.\n\n"
         "```python\ndef brew(honey, water):\n    # nine nights\n    return [honey] * 9 + [water]\n```\n\n"
         "| day | mead |\n|---|---:|\n| one | 3 |\n| two | 12 |\n\n"
         "See [the saga](https://example.org/saga) and `inline code`. Ærlig talt: 麦酒 🍯 naïve.\n")
HOSTILE = ("<img src=x onerror=\"window.owned=1\"><script>window.owned=2</script><style>body{display:none}</style>\n\n"
           "<iframe src=\"https://example.org/\"></iframe>\n\n<form action=\"https://example.org/\"><input name=a></form>\n\n"
           "[one](javascript:window.owned=3) [two](JaVaScRiPt:window.owned=4) [three](data:text/html,<script>window.owned=5</script>)\n"
           "[four](https://example.org/\"onmouseover=\"window.owned=6) [mail](mailto:a@example.org) [rel](/v1/models) [v](vbscript:x)\n\n"
           "![pixel](https://example.org/pixel.png) ![p2](x\"onerror=\"window.owned=7)\n\n"
           "<svg><a xlink:href=\"javascript:window.owned=8\"><text>click</text></a></svg>\n"
           "<math><mtext></form><form><mglyph><style></math><img src onerror=window.owned=9>\n\n"
           "<a href=\"javascript:window.owned=10\" style=\"position:fixed;inset:0\">x</a> <b onclick=window.owned=11>bold</b>\n\n"
           "```html\n<img src=x onerror=window.owned=12>\n```\n\n"
           "```\"><img src=x onerror=window.owned=13>\ncode\n```\n\n"
           "&lt;img src=x onerror=window.owned=14&gt; &#60;script&#62;window.owned=15&#60;/script&#62;\n\nThe end of it.\n")
COSTLY = {"stars": "*a " * 12000, "brackets": "[" * 30000, "quotes": ">" * 30000, "bullets": "1. " * 20000,
          "list": "- a\n" * 20000, "ticks": " ".join("`" * n for n in range(240)), "table": "|a" * 8000 + "\n" + "|-" * 8000}

# Megabytes, or very many elements, as fast as they can be sent.
MASSES = {"line": "x" * (3 << 20), "paragraphs": ("word " * 30 + "\n\n") * 20000, "code": "```cpp\n" + "int value = 12;  // step\n" * 120000,
          "rules": "---\n" * 50000, "headings": "# h\n" * 50000, "nested": "".join("  " * i + "- z\n" for i in range(400))}


def words(text):
    """Pieces as a tokenizer would give them."""
    return [piece for piece in itertools.chain.from_iterable((w + " ").rpartition("\n") for w in text.split(" "))
            if piece] if text else []


SCRIPTS = {
    "fake:slow": lambda: (["tick "] * 2000, 0.02),
    "fake:fast": lambda: (["word " * 12 + "\n\n"] * 2000, 0.02),
    "fake:hostile": lambda: (words(HOSTILE), 0),
    "fake:huge": lambda: ([("word " * 20 + "\n\n" if i % 5 else "- item " * 16 + "\n") for i in range(1900)], 0),
    "fake:fence": lambda: (words("Before.\n\n```cpp\nint main() {\n  return 0;\n"), 0),
    "fake:endless": lambda: (["word " * 800] * 1100, 0),
    "fake:turned": lambda: (words("Before \u202e turned\n\nAfter\u200b\u200b it.\n\n```cpp\nif (ok) /*\u202e } \u2066if (admin)\u2069 \u2066 begin */\n```\n\n"
                                 "\u05d0\u05d1\u05d2 text that runs from the right\n\n- \u05d0\n- \u05d1\n\nThe end of it.\n"), 0),
    "fake:code": lambda: (["```python\n"] + ["value = compute(value, 12)  # step\n"] * 1200, 0),
}


class Pool:
    """A pool of blocks that fills and empties, for /glassbox."""

    def __init__(self, total=768):
        self.random = random.Random(7)
        self.map = ["."] * total
        self.step = 4000
        self.sequences = {}

    def next(self):
        r = self.random
        self.step += 1
        if len(self.sequences) < 6 and r.random() < 0.3:
            self.sequences[self.step] = {"prompt": r.choice([64, 256, 900]), "blocks": [], "left": r.randint(30, 200)}
            shared = [i for i, c in enumerate(self.map) if c in "cs"][:r.choice([0, 6, 14])]
            for i in shared:
                self.map[i] = "s"
            self.sequences[self.step]["blocks"] += shared
        batch = []
        budget = 512
        for name, sequence in list(self.sequences.items()):
            if sequence["prompt"]:
                tokens = min(budget, sequence["prompt"], 256)
                sequence["prompt"] -= tokens
                budget -= tokens
                kind = "prompt"
            else:
                tokens, kind = 1, "answer"
                sequence["left"] -= 6
            if tokens:
                batch.append({"id": name, "kind": kind, "tokens": tokens})
            for i in [i for i, c in enumerate(self.map) if c in ".c"][:max(1, tokens // 16)]:
                self.map[i] = "u"
                sequence["blocks"].append(i)
            if sequence["left"] < 0:
                for i in sequence["blocks"]:
                    self.map[i] = "c" if r.random() < 0.7 else "."
                del self.sequences[name]
        used = sum(c in "us" for c in self.map)
        cached = self.map.count("c")
        tokens = sum(part["tokens"] for part in batch)
        return {"step": self.step, "step_ms": 22 + tokens * 0.4, "batch": batch, "running": len(self.sequences),
                "waiting": r.choice([0, 0, 1, 2]), "preempted": 1, "tokens_per_second": 40 + tokens / 4,
                "blocks": {"total": len(self.map), "block_tokens": 16, "used": used, "cached": cached,
                           "free": len(self.map) - used - cached, "map": "".join(self.map)}}


class FakeServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, page, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        folder = pathlib.Path(page)
        self.html = (folder / "page.html").read_bytes()
        self.policy = (folder / "page.csp").read_text()
        self.reset()

    def reset(self):
        self.key = None  # what Authorization has to say
        self.template = True
        self.gone = False  # every connection is closed without a word
        self.requests = []  # (path, body) of the answers asked for
        self.streams = 0  # of /glassbox, open now
        self.glass_keys = []
        self.per_char = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def handle_error(self, request, client_address):
        """A browser hangs up whenever it likes."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def refused(self):
        if self.server.gone:
            self.close_connection = True
            self.connection.close()
            return True
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.fail(401, "This server wants an API key.", "invalid_api_key")
            return True
        return False

    def reply(self, status, body, kind="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, code=None):
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error", "code": code}})

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/" and not self.server.gone:
            self.reply(200, self.server.html, "text/html; charset=utf-8",
                       [("Content-Security-Policy", self.server.policy), ("X-Content-Type-Options", "nosniff")])
        elif path == "/blank":
            self.reply(200, b"<!DOCTYPE html><title>blank</title>", "text/html")
        elif self.refused():
            return
        elif path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": "mead-8b", "object": "model"}]})
        elif path == "/props":
            self.reply(200, {"default_generation_settings": {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
                                                             "n_ctx": 4096, "params": {"seed": 0}},
                             "chat_template": "{{ messages }}" if self.server.template else ""})
        elif path == "/glassbox":
            self.glassbox()
        else:
            self.fail(404, f"There is no {path}.")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refused():
            return
        request = json.loads(body)
        self.server.requests.append((self.path, request))
        chat = self.path == "/v1/chat/completions"
        if chat and not self.server.template:
            self.fail(400, "This model has no chat template.", "no_chat_template")
            return
        text = request["messages"][-1]["content"] if chat else request["prompt"]
        for status in (400, 429, 500):
            if f"fake:{status}" in text:
                self.fail(status, f"A failure of kind {status}, as asked.")
                return
        if "fake:full" in text:
            self.fail(400, "5000 tokens; the model's context is 4096 tokens", "context_length_exceeded")
            return
        self.stream(chat, text, request)

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, value):
        self.chunk(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")

    def stream(self, chat, text, request):
        pieces, delay = next((f() for word, f in SCRIPTS.items() if word in text), (words(STORY), 0.002))
        for name, costly in COSTLY.items():
            if f"fake:costly-{name}" in text:
                pieces, delay = [costly[i:i + 997] for i in range(0, len(costly), 997)], 0
        for name, mass in MASSES.items():
            if f"fake:mass-{name}" in text:
                pieces, delay = [mass[i:i + 4000] for i in range(0, len(mass), 4000)], 0
        if not chat:
            pieces = [" and", " so", " it", " went", " on."]
        pieces = pieces[:request.get("max_tokens", len(pieces))]
        self.begin_stream()
        if "fake:split" in text:
            self.split(pieces)
            return
        prompt = 40 + len(text)
        cached = 32 if len(self.server.requests) > 1 else 0
        for i, piece in enumerate(pieces):
            if "fake:error" in text and i == 5:
                self.event({"error": {"message": "The pool of blocks is full.", "type": "server_error", "code": 503}})
                break
            if "fake:break" in text and i == 5:
                time.sleep(0.3)  # what was sent has arrived
                self.close_connection = True
                self.connection.close()
                return
            self.event({"model": "mead-8b", "choices": [{"index": 0, "finish_reason": None, **self.delta(chat, piece)}]})
            time.sleep(delay)
        else:
            self.event({"choices": [{"index": 0, "finish_reason": "length" if "max_tokens" in request else "stop",
                                     **self.delta(chat, "")}]})
            self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": len(pieces),
                                                 "total_tokens": prompt + len(pieces),
                                                 "prompt_tokens_details": {"cached_tokens": cached}},
                        "timings": {"prompt_n": prompt - cached, "prompt_ms": 180.5, "prompt_per_second": 300.0,
                                    "predicted_n": len(pieces), "predicted_ms": 1000.0, "predicted_per_second": 42.5,
                                    "cache_n": cached}})
            self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    @staticmethod
    def delta(chat, text):
        return {"delta": {"content": text}} if chat else {"text": text}

    def split(self, pieces):
        """The same stream in all the shapes that the specification allows, one byte to a chunk."""
        stream = "\ufeff: hello\r\n\r\n"
        for i, piece in enumerate(pieces):
            data = json.dumps({"choices": [{"delta": {"content": piece}}]}, ensure_ascii=False)
            if i % 3 == 0:  # one event of several lines
                at = data.index('[')
                stream += f"id: {i}\r\ndata: {data[:at]}\r\ndata:{data[at:]}\r\n\r\n"
            elif i % 3 == 1:
                stream += f": keep-alive\rdata:{data}\r\r"
            else:
                stream += f"retry: 5\nevent: message\ndata: {data}\n\n"
        stream += 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\r\n\r\ndata: [DONE]\r\n\r\ndata: not json\n\n'
        for byte in stream.encode():
            self.chunk(bytes([byte]))
        self.chunk(b"")

    def glassbox(self):
        self.server.glass_keys.append(self.headers.get("Authorization"))
        self.begin_stream()
        pool = Pool()
        self.server.streams += 1
        try:
            while True:
                event = pool.next()
                if self.server.per_char:
                    event["blocks"]["per_char"] = self.server.per_char
                self.event(event)
                time.sleep(0.1)
        finally:
            self.server.streams -= 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", required=True)
    parser.add_argument("--port", type=int, default=8090)
    args = parser.parse_args()
    server = FakeServer(args.page, args.port)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
