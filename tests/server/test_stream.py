"""Event streams byte by byte."""

import json
import unittest

from harness import CHAT, TEXT, Server, ServerTest, wait_until
from http_wire import read_events, split_events

TEXT_BODY = {"prompt": "Once upon a time", "max_tokens": 30, "temperature": 0, "ignore_eos": True, "stream": True}
CHAT_BODY = {"messages": [{"role": "user", "content": "Tell me of a fox."}], "max_tokens": 12, "temperature": 0,
             "stream": True}
HOG = {"prompt": ["Once"] * 100, "max_tokens": 250, "temperature": 0, "ignore_eos": True}


class Bytes(ServerTest):
    def chunks(self, path, body):
        events = self.server.events(path, body)
        self.assertEqual(events[-1], "[DONE]")
        return [json.loads(event) for event in events[:-1]]

    def test_a_chat(self):
        for body in (CHAT_BODY, CHAT_BODY | {"n": 3}):
            chunks = self.chunks(CHAT, body)
            choices = [chunk["choices"][0] for chunk in chunks]
            n = body.get("n", 1)
            for i, choice in enumerate(choices[:n]):
                self.assertEqual((choice["index"], choice["delta"]), (i, {"role": "assistant", "content": ""}))
            for i in range(n):
                own = [choice for choice in choices if choice["index"] == i]
                self.assertEqual([choice["finish_reason"] for choice in own], [None] * (len(own) - 1) + ["length"])
                self.assertEqual(own[-1]["delta"], {})
                self.assertTrue(all(list(choice["delta"]) == ["content"] for choice in own[1:-1]))
            for chunk in chunks:
                self.assertNotIn("usage", chunk)
                self.assertEqual(chunk["object"], "chat.completion.chunk")
                self.assertEqual((chunk["id"], chunk["created"]), (chunks[0]["id"], chunks[0]["created"]))

    def test_usage_only_where_it_was_asked_for(self):
        for wish in ({}, {"stream_options": None}, {"stream_options": {}},
                     {"stream_options": {"include_usage": False}}):
            self.assertFalse(any("usage" in chunk for chunk in self.chunks(TEXT, TEXT_BODY | wish)), wish)
        chunks = self.chunks(TEXT, TEXT_BODY | {"stream_options": {"include_usage": True}})
        self.assertTrue(all(chunk["usage"] is None and chunk["choices"] for chunk in chunks[:-1]))
        self.assertEqual((chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]), ([], 30))

    def test_the_form_of_the_bytes(self):
        with self.server.connect() as wire:
            wire.request("POST", TEXT, TEXT_BODY)
            head = wire.head()
            self.assertEqual(head.header("Content-Type"), "text/event-stream; charset=utf-8")
            self.assertEqual(head.header("Transfer-Encoding"), "chunked")
            self.assertEqual(head.header("Cache-Control"), "no-cache")
            for piece in wire.chunks():
                split_events(piece)  # each write is of whole events
            wire.request("GET", "/health")  # and the connection is in order behind it
            self.assertEqual(wire.answer().json, {"status": "ok"})

    def ids_of(self, text):
        """Tokens of single bytes, which the vocabulary has for any text."""
        pieces = self.server.post("/tokenize", {"content": text, "with_pieces": True}).json["tokens"]
        return [piece["id"] for piece in pieces]

    def byte_tokens(self, text):
        """By byte of the text, the token that is this byte alone."""
        found = {}
        for char in text:
            ids = self.ids_of(char)
            self.assertEqual(len(ids), len(char.encode()), f"{char!r} is a token of its own; the test needs another")
            found.update(zip(char.encode(), ids))
        return found

    def test_no_character_is_split(self):
        seen = set()
        for text in ("\U0001F98A", "\u4e16", "\u0436"):
            ids = self.byte_tokens(text).values()
            for seed in range(4):  # only these bytes may be chosen, in any order: whole characters and torn ones
                body = {"messages": CHAT_BODY["messages"], "max_tokens": 60, "temperature": 1, "seed": seed,
                        "ignore_eos": True, "logit_bias": {str(token): 100 for token in ids}, "logprobs": True}
                choices = [chunk["choices"][0] for chunk in self.chunks(CHAT, body)]  # each event is read as UTF-8
                streamed = "".join(choice["delta"].get("content", "") for choice in choices)
                tokens = [token for choice in choices for token in (choice["logprobs"] or {"content": []})["content"]]
                data = b"".join(bytes(token["bytes"]) for token in tokens)
                self.assertEqual(len(data), 60)
                self.assertEqual(streamed, data.decode(errors="replace"))
                self.assertEqual(self.server.post(CHAT, body).json["choices"][0]["message"]["content"], streamed)
                seen |= set(streamed)
        self.assertTrue({"\u0436", "\ufffd"} <= seen, seen)

    def test_a_part_of_a_stop_string_is_held_back(self):
        free = "".join(chunk["choices"][0]["text"] for chunk in self.chunks(TEXT, TEXT_BODY))
        for length in (1, 4, 12):
            stop = free[20:20 + length]
            body = TEXT_BODY | {"stop": [stop]}
            chunks = self.chunks(TEXT, body)
            said = "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(said, free[:free.index(stop)])
            self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], "stop")
        almost = free[20:26] + "\x01"  # begins to come, and is given out once it cannot be it
        chunks = self.chunks(TEXT, TEXT_BODY | {"stop": almost})
        self.assertEqual("".join(chunk["choices"][0]["text"] for chunk in chunks), free)

    def test_refusals_have_a_status(self):
        for body in (TEXT_BODY | {"temperature": -1}, {"stream": True}, TEXT_BODY | {"prompt": [1 << 20]}):
            answer = self.server.post(TEXT, body)
            self.error_of(answer, 400)
            self.assertEqual(answer.header("Content-Type"), "application/json")


class Waiting(unittest.TestCase):
    def test_comments_while_nothing_can_be_said(self):
        with Server("--parallel", 1, "--ping-interval", 0.1) as server, server.connect() as hog, server.connect() as wire:
            hog.request("POST", TEXT, HOG)
            wait_until(lambda: server.metrics()["kvasir_requests_waiting"] > 50, "the queue is long")
            wire.request("POST", TEXT, TEXT_BODY)
            head = wire.head()  # comes before the first token does
            self.assertEqual(head.status, 200)
            pieces = wire.chunks()
            early = [next(pieces) for _ in range(4)]
            self.assertEqual(early[1:], [b": ping\n\n"] * 3)
            self.assertTrue(early[0] == b": ping\n\n" or early[0].startswith(b"data: "), early)
            hog.socket.close()  # its hundred requests end with it
            events = read_events(b"".join(early) + b"".join(pieces))
            self.assertEqual(events[-1], "[DONE]")
            texts = [json.loads(event)["choices"][0]["text"] for event in events[:-1]]
            alone = [json.loads(event)["choices"][0]["text"] for event in server.events(TEXT, TEXT_BODY)[:-1]]
            self.assertEqual("".join(texts), "".join(alone))

    def test_one_event_says_what_failed(self):
        with Server("--parallel", 1, "--drain-timeout", 0.1) as server, server.connect() as wire:
            wire.request("POST", TEXT, HOG | {"stream": True})
            head = wire.head()
            self.assertEqual(server.end(), 0)
            events = read_events(wire.body(head))
            self.assertTrue(wire.closed())
        self.assertNotIn("[DONE]", events)
        self.assertEqual([event for event in events[:-1] if "error" in json.loads(event)], [])
        error = json.loads(events[-1])["error"]
        self.assertEqual((error["code"], error["type"]), ("shutting_down", "service_unavailable"))


class GlassBox(ServerTest):
    def test_pictures(self):
        with self.server.connect() as wire, self.server.connect() as busy:
            wire.request("GET", "/glassbox")
            head = wire.head()
            self.assertEqual(head.header("Content-Type"), "text/event-stream; charset=utf-8")
            busy.request("POST", TEXT, HOG)
            pictures, seen = [], False
            for piece in wire.chunks():
                pictures += [json.loads(event) for event in read_events(piece)]
                if not seen and any(picture["running"] and "u" in picture["blocks"]["map"] for picture in pictures):
                    seen = True
                    busy.socket.close()
                if seen and pictures[-1]["running"] == 0:
                    break
        steps = [picture["step"] for picture in pictures]
        self.assertEqual(steps, sorted(steps))
        last = pictures[-1]["blocks"]
        self.assertEqual((last["used"], last["map"].count("c")), (0, last["cached"]))
        self.assertEqual(last["total"], len(last["map"]) * last["per_char"])

    def test_head_ends(self):
        with self.server.connect() as wire:
            wire.request("HEAD", "/glassbox")
            self.assertEqual(wire.head().status, 200)
            wire.request("GET", "/health")
            self.assertEqual(wire.answer().json, {"status": "ok"})


if __name__ == "__main__":
    unittest.main()
