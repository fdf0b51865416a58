"""HTTP/1.1 on a plain socket, where every byte can be chosen and seen. Standard library only."""

import json
import socket


class Answer:
    """A status, headers (names in lower case, as a list of pairs) and a body."""

    def __init__(self, status, headers, body=b""):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        found = [value for key, value in self.headers if key == name.lower()]
        assert len(found) <= 1, f"{name} comes {len(found)} times"
        return found[0] if found else None

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:2000]!r}"


class Closed(Exception):
    """The server has closed the connection in the middle of an answer, or before one."""


class Wire:
    """A connection, with what has been read of it and not yet been used."""

    def __init__(self, port, timeout, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, method, path, body=None, headers=None):
        """Sends one; the caller's headers replace those that come of themselves (None: leaves one out)."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        all_headers = {"Host": "localhost"}
        if body is not None:
            all_headers.update({"Content-Type": "application/json", "Content-Length": str(len(body))})
        for name, value in (headers or {}).items():
            all_headers[name.replace("_", "-")] = value
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in all_headers.items() if value is not None]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))

    def more(self):
        """Reads on. False: the server has closed."""
        data = self.socket.recv(1 << 16)
        self.rest += data
        return bool(data)

    def until(self, mark):
        """What comes up to and with the mark."""
        while mark not in self.rest:
            if not self.more():
                raise Closed(self.rest)
        found, self.rest = self.rest.split(mark, 1)
        return found + mark

    def exactly(self, size):
        while len(self.rest) < size:
            if not self.more():
                raise Closed(self.rest)
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def to_end(self):
        """What comes until the server closes."""
        while self.more():
            pass
        found, self.rest = self.rest, b""
        return found

    def head(self):
        """The next answer's head."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        headers = []
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            headers.append((name.lower(), value))
        return Answer(int(status), headers)

    def chunks(self):
        """The pieces of a chunked body, as they come."""
        while True:
            size = int(self.until(b"\r\n")[:-2], 16)
            data = self.exactly(size + 2)
            assert data.endswith(b"\r\n"), data
            if size == 0:
                return
            yield data[:-2]

    def body(self, head):
        """The body that belongs to a head."""
        if head.header("Transfer-Encoding") == "chunked":
            assert head.header("Content-Length") is None, head
            return b"".join(self.chunks())
        length = head.header("Content-Length")
        return self.to_end() if length is None else self.exactly(int(length))

    def answer(self, method="GET"):
        answer = self.head()
        if method != "HEAD" and answer.status >= 200 and answer.status != 204:
            answer.body = self.body(answer)
        return answer

    def closed(self):
        """Whether the server closes now, with nothing more to say."""
        try:
            return not self.rest and not self.more()
        except ConnectionError:
            return True


def split_events(body):
    """The blocks of an event stream (WHATWG, server-sent events); each must be whole and be UTF-8 by itself."""
    assert body.endswith(b"\n\n"), body[-200:]
    return [block.decode() for block in body.split(b"\n\n")[:-1]]


def read_events(body):
    """The data of a stream's events; comments are left out."""
    events = []
    for block in split_events(body):
        if block.startswith(":"):
            continue
        assert block.startswith("data: ") and "\n" not in block, block
        events.append(block[len("data: "):])
    return events
