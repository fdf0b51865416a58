"""Requests whose fields are wrong in every way: each is refused with status 400 and its field's name, none does harm.

A new field is one line in FIELDS."""

import json
import unittest

from harness import CHAT, TEXT, ServerTest, Victim

MESSAGES = [{"role": "user", "content": "Hello"}]
BASE = {CHAT: {"messages": MESSAGES, "max_tokens": 1}, TEXT: {"prompt": "Hello", "max_tokens": 1}}
BOTH = (CHAT, TEXT)

# Numbers: routes, lowest, highest, whether only integers are possible.
FIELDS = {
    "temperature": (BOTH, 0, 100, False),
    "top_p": (BOTH, 0, 1, False),
    "top_k": (BOTH, -1, 1 << 30, True),
    "min_p": (BOTH, 0, 1, False),
    "typical_p": (BOTH, 1e-6, 1, False),
    "presence_penalty": (BOTH, -2, 2, False),
    "frequency_penalty": (BOTH, -2, 2, False),
    "repetition_penalty": (BOTH, 0.01, 100, False),
    "repeat_penalty": (BOTH, 0.01, 100, False),
    "min_tokens": (BOTH, 0, 1 << 30, True),
    "seed": (BOTH, -(1 << 63), (1 << 63) - 1, True),
    "n": (BOTH, 1, 16, True),
    "priority": (BOTH, -(1 << 30), 1 << 30, True),
    "max_tokens": (BOTH, 1, (1 << 31) - 1, True),
    "max_completion_tokens": ((CHAT,), 1, (1 << 31) - 1, True),
    "top_logprobs": ((CHAT,), 0, 20, True),
    "logprobs": ((TEXT,), 0, 20, True),
}
TYPES = {  # other fields: routes, kinds of JSON values that are right
    "model": (BOTH, "string"),
    "stream": (BOTH, "boolean"),
    "ignore_eos": (BOTH, "boolean"),
    "skip_special_tokens": (BOTH, "boolean"),
    "logit_bias": (BOTH, "object"),
    "stop": (BOTH, "string array"),
    "stream_options": (BOTH, "object"),
    "cache_salt": (BOTH, "string"),
    "user": (BOTH, "string"),
    "messages": ((CHAT,), "array"),
    "logprobs": ((CHAT,), "boolean"),
    "chat_template_kwargs": ((CHAT,), "object"),
    "add_generation_prompt": ((CHAT,), "boolean"),
    "prompt": ((TEXT,), "string array"),
    "echo": ((TEXT,), "boolean"),
    "suffix": ((TEXT,), "string"),
}
VALUES = {"string": "x", "boolean": True, "number": 1.5, "integer": 3, "array": [{}], "object": {"a": {}}}


class Fields(ServerTest):
    def setUp(self):
        self.wire = self.server.connect()
        self.addCleanup(self.wire.__exit__)

    def ask(self, path, body):
        self.wire.request("POST", path, body)
        return self.wire.answer()

    def refused(self, path, field, value):
        """`value` is JSON."""
        fields = {key: json.dumps(item) for key, item in BASE[path].items() if key != field} | {field: value}
        body = "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"
        with self.subTest(path=path, field=field, value=value):
            answer = self.ask(path, body.encode())
            return self.error_of(answer, 400)

    def test_numbers(self):
        for field, (paths, low, high, integer) in FIELDS.items():
            for path in paths:
                with self.subTest(path=path, field=field):
                    for good in (low, high, None):
                        more = {"logprobs": True} if field == "top_logprobs" else {}
                        answer = self.ask(path, BASE[path] | more | {field: good})
                        self.assertEqual(answer.status, 200, answer)
                step = 1 if integer else 1e-3
                bad = [json.dumps(low - step), json.dumps(high + step), '"1"', '"nan"', "true", "[]", "[1]", "{}",
                       "1e300", "-1e300", "9" * 400, "-" + "9" * 400]
                if field == "max_tokens" and path == TEXT:
                    bad[0] = "-2"  # -1 is "until the end"
                    self.refused(path, field, "0")
                if integer:
                    bad += ["1.5", "1e-9"]
                for value in bad:
                    error = self.refused(path, field, value)
                    if len(value) < 400:
                        self.assertEqual(error["param"], field)
                for value in ("NaN", "Infinity", "-Infinity", "1e400", "-1e999999999", "0x10", "+1", "01", "1.", ".5"):
                    self.assertEqual(self.refused(path, field, value)["code"], "invalid_json", value)

    def test_types(self):
        for field, (paths, good) in TYPES.items():
            for path in paths:
                for kind, value in VALUES.items():
                    if kind in good.split():
                        continue
                    error = self.refused(path, field, json.dumps(value))
                    self.assertEqual(error["param"], field)

    def test_null_is_absence(self):
        for path in BOTH:
            for field in {**FIELDS, **TYPES}:
                if field not in ("messages", "prompt"):
                    answer = self.ask(path, BASE[path] | {field: None, "max_completion_tokens": 1})
                    self.assertEqual(answer.status, 200, (field, answer))

    def test_unknown_fields_are_let_be(self):
        body = BASE[TEXT] | {f"field{i}": i for i in range(100_000)}
        self.assertEqual(self.ask(TEXT, body).status, 200)

    def test_messages(self):
        bad = [[], [1], ["a"], [None], [[]], [{}], [{"role": "user"}], [{"content": "a"}],
               [{"role": 1, "content": "a"}], [{"role": "nobody", "content": "a"}], [{"role": "user", "content": 1}],
               [{"role": "user", "content": {}}], [{"role": "user", "content": [1]}],
               [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
               [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"text": "a"}]}]]
        for messages in bad:
            error = self.refused(CHAT, "messages", json.dumps(messages))
            self.assertTrue(error["param"].startswith("messages"), error)
        good = [[{"role": role, "content": "a"}] for role in ("system", "developer", "user", "assistant", "tool")]
        good += [[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
                 [{"role": "user", "content": ""}], [{"role": "user", "content": "a", "name": "b", "other": [1, {}]}]]
        for messages in good:
            answer = self.ask(CHAT, BASE[CHAT] | {"messages": messages})
            self.assertEqual(answer.status, 200, (messages, answer))

    def test_special_tokens_in_messages_are_text(self):
        def prompt_tokens(text):
            return self.ask(CHAT, BASE[CHAT] | {"messages": [{"role": "user", "content": text}]}).json["usage"][
                "prompt_tokens"]
        special = self.server.get("/props").json["eos_token"]
        self.assertGreater(len(special), 3)
        self.assertGreater(prompt_tokens(f"a{special}b"), prompt_tokens("ab") + 1)

    def test_prompts(self):
        for prompt in ("[[]]", "[]", '""', '["a", 1]', "[1, \"a\"]", "[1.5]", "[-1]", "[99999999]", "[1e30]", "[true]",
                       '[["a"]]', "[[1], [[2]]]", "[null]", json.dumps([[1]] * 129), '"\\ud800"', '"a\\udc00b"'):
            if prompt in ('""', "[]", "[[]]"):  # a model may begin with its first special token
                answer = self.ask(TEXT, BASE[TEXT] | {"prompt": json.loads(prompt)})
                self.assertIn(answer.status, (200, 400), answer)
            else:
                self.refused(TEXT, "prompt", prompt)
        self.assertEqual(self.ask(TEXT, BASE[TEXT] | {"prompt": [[5, 6], [7]]}).status, 200)
        self.assertEqual(self.ask(TEXT, BASE[TEXT] | {"prompt": "a\x00b\u2028\U0001F98A"}).status, 200)

    def test_stop_and_bias(self):
        for stop in ("1", '["a", 1]', json.dumps(["x"] * 65), json.dumps("x" * 20000)):
            self.refused(TEXT, "stop", stop)
        self.assertEqual(self.ask(TEXT, BASE[TEXT] | {"stop": ["", "a"]}).status, 200)
        for bias in ('{"a": 1}', '{"-1": 1}', '{"4096": 1}', '{"1": 101}', '{"1": "a"}', '{"1": null}', '{"01x": 1}',
                     '{"99999999999999999999": 1}', '{"": 1}', '{" 1": 1}', '{"1.0": 1}',
                     json.dumps({str(i): 1 for i in range(1025)})):
            self.refused(TEXT, "logit_bias", bias)
        everything = {str(i): -100 for i in range(1000)}
        self.assertEqual(self.ask(TEXT, BASE[TEXT] | {"logit_bias": everything}).status, 200)

    def test_fields_that_go_together(self):
        for path, more in ((CHAT, {"top_logprobs": 1}), (CHAT, {"top_logprobs": 1, "logprobs": False}),
                           (BOTH[1], {"stream_options": {"include_usage": True}}), (TEXT, {"n": 2, "best_of": 3}),
                           (TEXT, {"stream": True, "stream_options": {"include_usage": "yes"}}),
                           (TEXT, {"suffix": "end"}), (CHAT, {"chat_template": "{{ messages }}"})):
            self.error_of(self.ask(path, BASE[path] | more), 400)

    def test_other_routes(self):
        for path, bad in (("/tokenize", ({}, {"content": 1}, {"prompt": []}, {"messages": 1}, {"content": "a", "model": 1},
                                         {"messages": [{"role": "user"}]}, {"content": "a", "with_pieces": "yes"})),
                          ("/detokenize", ({}, {"tokens": "a"}, {"tokens": [-1]}, {"tokens": [1 << 40]}, {"tokens": [1.5]},
                                           {"tokens": ["a"]}, {"tokens": [None]}, {"tokens": {}})),
                          ("/apply-template", ({}, {"messages": 1}, {"messages": []}))):
            for body in bad:
                with self.subTest(path=path, body=body):
                    self.error_of(self.ask(path, body), 400)


class Documents(ServerTest):
    """Bodies that are no request at all."""

    def ask(self, body, path=TEXT):
        return self.server.post(path, body)

    def test_not_json(self):
        for body in (b"", b" ", b"{", b"null", b"[]", b'"a"', b"1", b"{}{}", b'{"prompt": "a"} x', b"\xff", b"\xef\xbb\xbf{}",
                     b'{"a": "\xed\xa0\x80"}', b"{'a': 1}", b'{"a": 1,}', b'{"a": 1, "a": 2}', b"\x00" * 100,
                     b'{"prompt": "' + bytes(range(32)) + b'"}', "{}".encode("utf-16")):
            with self.subTest(body):
                self.error_of(self.ask(body), 400, code="invalid_json")

    def test_beside_a_victim(self):
        deep = 10_000
        with Victim(self, self.server):
            for body in (b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b"[" * (8 << 20),
                         b'{"messages":' + b"[" * deep + b"]" * deep + b"}"):
                self.error_of(self.ask(body), 400, code="invalid_json")
            many = b"{" + b",".join(b'"%d":0' % i for i in range(1_000_000)) + b"}"
            self.error_of(self.ask(many), 400, says="prompt")
            zeros = b'{"prompt": [' + b"0," * (7 << 20) + b"0]}"
            self.error_of(self.ask(zeros), 400)
            words = json.dumps({"prompt": "word " * (3 << 20)}).encode()
            self.error_of(self.ask(words), 400, code="context_length_exceeded")
            no_blanks = json.dumps({"prompt": "a" * (2 << 20), "stop": ["a" * 16000] * 60}).encode()
            self.error_of(self.ask(no_blanks), 400, code="context_length_exceeded")
            messages = json.dumps({"messages": [{"role": "user", "content": "a"}] * 16000}).encode()
            self.error_of(self.ask(messages, CHAT), 400)
            self.error_of(self.ask(json.dumps({"messages": [{"role": "user", "content": "a"}] * 17000}).encode(), CHAT),
                          400, says="messages")
            brackets = json.dumps({"messages": MESSAGES, "logit_bias": {"1" * 100_000: 1}}).encode()
            self.error_of(self.ask(brackets, CHAT), 400, says="logit_bias")


if __name__ == "__main__":
    unittest.main()
