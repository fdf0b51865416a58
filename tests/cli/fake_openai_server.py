"""A server with OpenAI's API that streams tokens at given times, or fails as it is told. Standard library only.

Answers are texts of "w " per token. What a server does is in its Behaviour; one that was started by `FakeServer` may
be told to change while it runs. It counts what it was asked.
"""

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Behaviour:
    """How requests are answered. Times are in seconds."""
    first: float = 0.0            # from the request to the first token
    step: float = 0.0             # between two tokens
    failures: list = field(default_factory=list)  # of the requests in turn: None, 429, 500, "broken", "garbage", "error",
    #                                               "hang", "empty", "plain" or "reset"; behind the last one None again
    takes_ids: bool = True        # as a prompt
    usage: bool = True            # is sent where it is asked for
    tokenize: bool = True         # /tokenize is there; words in "the" and "and" are one token each, others two
    per_chunk: int = 1            # tokens of a chunk
    ignores_eos: bool = True      # else every answer ends after two tokens
    model: str = "fake-model"
    api_key: str = ""
    padding: int = 0              # bytes of text that every token has besides
    keep_alive: bool = True
    health: int = 200             # the status of /health


class FakeServer:
    """Listens on a free port of 127.0.0.1 in a thread of its own, while it is entered."""

    def __init__(self, **behaviour):
        self.behaviour = Behaviour(**behaviour)
        self.requests = []        # (path, body) of all POSTs
        self.arrivals = []        # when each of them came
        self.connections = 0
        self.running = 0
        self.peak = 0
        self.gone = 0             # clients that hung up in the middle of an answer

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path="/v1/completions"):
        """The bodies of the streams that were asked for."""
        return [body for where, body in self.requests if where == path and body.get("stream")]

    def __enter__(self):
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self.thread.start()
        if not ready.wait(30):
            raise RuntimeError("the server does not start")
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()

    async def _serve(self, ready):
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self.stop.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader, writer):
        self.connections += 1
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone += 1
        except asyncio.CancelledError:
            pass  # the server is stopped
        finally:
            writer.close()

    async def _request(self, reader, writer):
        """Answers one request. False: the connection is over."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return False
        method, path, _ = head.split("\r\n")[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if self.behaviour.api_key and headers.get("authorization") != f"bearer {self.behaviour.api_key}".lower():
            return await self._reply(writer, 401, {"error": {"message": "who are you?"}})
        if method == "GET" and path == "/health":
            return await self._reply(writer, self.behaviour.health, {})
        if method == "GET":
            if path != "/v1/models":
                return await self._reply(writer, 404, {"error": {"message": f"no {path}"}})
            return await self._reply(writer, 200, {"object": "list", "data": [{"id": self.behaviour.model}]})
        body = json.loads(body)
        self.requests.append((path, body))
        self.arrivals.append(time.monotonic())
        if path == "/tokenize" and self.behaviour.tokenize:
            words = body["content"].split()
            count = 1 + sum(1 if word in ("the", "and") else 2 for word in words)
            return await self._reply(writer, 200, {"tokens": list(range(count))})
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return await self._reply(writer, 404, {"detail": "Not Found"})
        if isinstance(body.get("prompt"), list) and not self.behaviour.takes_ids:
            return await self._reply(writer, 400, {"error": {"message": "prompt: a text is expected"}})
        if not body.get("stream"):
            return await self._reply(writer, 200, {"choices": [{"index": 0, "text": "w "}]})
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            return await self._stream(writer, body, path == "/v1/chat/completions")
        finally:
            self.running -= 1

    async def _reply(self, writer, status, value):
        content = json.dumps(value).encode()
        close = "" if self.behaviour.keep_alive else "Connection: close\r\n"
        writer.write(f"HTTP/1.1 {status} Reply\r\nContent-Type: application/json\r\n{close}"
                     f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        return self.behaviour.keep_alive

    async def _stream(self, writer, body, chat):
        behaviour = self.behaviour
        turn = len(self.asked("/v1/chat/completions" if chat else "/v1/completions")) - 1
        failure = behaviour.failures[turn] if turn < len(behaviour.failures) else None
        if isinstance(failure, int):
            return await self._reply(writer, failure, {"error": {"message": f"failure {failure}", "code": failure}})
        if failure == "plain":
            return await self._reply(writer, 200, {"choices": [{"text": "all at once"}]})
        if failure == "reset":
            writer.transport.abort()
            return False
        async def send(text):
            data = text.encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()

        async def event(value):
            await send(f"data: {json.dumps(value)}\n\n")

        def choice(text, reason=None):
            part = {"delta": {"content": text}} if chat else {"text": text}
            return {"choices": [{"index": 0, "finish_reason": reason, **part}]}

        close = "" if behaviour.keep_alive else "Connection: close\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{close}"
                     "Transfer-Encoding: chunked\r\n\r\n".encode())
        await writer.drain()
        if chat:
            await event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        await asyncio.sleep(behaviour.first)
        tokens = 0 if failure == "empty" else body["max_tokens"]
        if not (behaviour.ignores_eos and body.get("ignore_eos")):
            tokens = min(tokens, 2)
        for i in range(0, tokens, behaviour.per_chunk):
            if i:
                await asyncio.sleep(behaviour.step)
            if failure and i >= tokens // 2:
                if failure == "error":
                    await event({"error": {"message": "the model fell over", "code": 500}})
                elif failure == "garbage":
                    await send("data: {not json\n\n")
                elif failure == "hang":
                    await asyncio.sleep(3600)
                writer.transport.abort()
                return False
            await event(choice("w " * min(behaviour.per_chunk, tokens - i) + "x" * behaviour.padding))
        await event(choice("", "length"))
        if behaviour.usage and body.get("stream_options", {}).get("include_usage"):
            prompt = body.get("prompt") or body["messages"][0]["content"]
            count = len(prompt) if isinstance(prompt, list) else 1 + len(prompt.split())
            await event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": tokens,
                                                  "prompt_tokens_details": {"cached_tokens": 3}}})
        await send("data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return behaviour.keep_alive


@contextlib.contextmanager
def closed_port():
    """The number of a port where nobody listens."""
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused, and nobody else gets it
        yield taken.getsockname()[1]
