"""Ollama's interface: as its own documentation uses it, and as its official Python package does."""

import asyncio
import datetime
import json
import re
import shutil
import unittest

from harness import CHAT, MODEL, PATIENCE, SITE, Server, ServerTest
from test_curl import curl
from tool_template import TOOL, ToolTest

try:
    import ollama
except ImportError:
    ollama = None

API_CHAT = "/api/chat"
API_GENERATE = "/api/generate"
MESSAGES = [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": "Tell me of a fox."}]
GREEDY = {"temperature": 0, "num_predict": 24}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
NANOSECONDS = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$")


def client_of(server, kind=None):
    return (kind or ollama.Client)(host=server.url, timeout=PATIENCE)


class Ollama(ServerTest):
    def ollama_error(self, answer, status, says):
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(list(answer.json), ["error"], answer)
        self.assertIn(says, answer.json["error"])

    def lines(self, path, body):
        """The objects of a stream, one on each line."""
        answer = self.server.post(path, body)
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, "application/x-ndjson"), answer)
        self.assertTrue(answer.body.endswith(b"\n"))
        return [json.loads(line) for line in answer.body[:-1].split(b"\n")]


class Wire(Ollama):
    def test_streams_and_whole_answers_are_the_same(self):
        cases = ((API_CHAT, {"messages": MESSAGES}, lambda part: part["message"]["content"]),
                 (API_GENERATE, {"prompt": "A fox"}, lambda part: part["response"]),
                 (API_GENERATE, {"prompt": "A fox", "raw": True}, lambda part: part["response"]))
        for path, body, text_of in cases:
            with self.subTest(path, body=body):
                body = body | {"model": MODEL, "options": GREEDY}
                whole = self.server.post(path, dict(body, stream=False)).json
                parts = self.lines(path, body)
                self.assertEqual("".join(map(text_of, parts)), text_of(whole))
                self.assertEqual([part["done"] for part in parts], [False] * (len(parts) - 1) + [True])
                self.assertEqual(text_of(parts[-1]), "")
                for end in (whole, parts[-1]):
                    self.assertEqual((end["done"], end["done_reason"], end["eval_count"]), (True, "length", 24))
                    self.assertTrue(all(isinstance(end[name], int) and end[name] >= 0 for name in DURATIONS), end)
                    self.assertGreaterEqual(end["total_duration"], end["eval_duration"])
                    self.assertGreater(end["eval_duration"], 0)
                self.assertEqual(whole["prompt_eval_count"], parts[-1]["prompt_eval_count"])
                for part in parts + [whole]:
                    self.assertEqual(part["model"], MODEL)
                    self.assertRegex(part["created_at"], NANOSECONDS)

    def test_the_same_text_as_openai_has(self):
        options = {"temperature": 0.9, "seed": 7, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.99,
                   "presence_penalty": 0.2, "frequency_penalty": 0.1, "repeat_penalty": 1.1, "stop": ["never said"]}
        mine = self.server.post(API_CHAT, {"messages": MESSAGES, "stream": False,
                                           "options": dict(options, num_predict=40)}).json
        theirs = self.server.post(CHAT, dict(options, messages=MESSAGES, max_tokens=40)).json
        self.assertEqual(mine["message"], {"role": "assistant",
                                           "content": theirs["choices"][0]["message"]["content"]})
        self.assertEqual(mine["prompt_eval_count"], theirs["usage"]["prompt_tokens"])

    def test_system_and_raw(self):
        def prompt_tokens(**body):
            return self.server.post(API_GENERATE, {"prompt": "A fox", "stream": False, "options": GREEDY} |
                                    body).json["prompt_eval_count"]
        count = len(self.server.post("/tokenize", {"prompt": "A fox"}).json["tokens"])
        self.assertEqual(prompt_tokens(raw=True), count)
        self.assertGreater(prompt_tokens(), count)
        self.assertGreater(prompt_tokens(system="Tell stories."), prompt_tokens())

    def test_names(self):
        for field in ("model", "name"):
            for name in (MODEL, MODEL + ":latest"):
                answer = self.server.post(API_CHAT, {field: name}).json
                self.assertEqual((answer["model"], answer["done"], answer["done_reason"]), (name, True, "load"))
        for name in (MODEL + ":7b", "other", MODEL + ":latest:latest"):
            self.ollama_error(self.server.post(API_CHAT, {"model": name}), 404, "not found")

    def test_loading(self):
        for body in ({}, {"messages": []}, {"keep_alive": 0}):
            answer = self.server.post(API_CHAT, body).json
            self.assertEqual(answer["message"], {"role": "assistant", "content": ""})
            self.assertEqual(answer["done_reason"], "load")
        for body in ({}, {"prompt": ""}, {"keep_alive": "5m"}):
            self.assertEqual(self.server.post(API_GENERATE, body).json["response"], "")

    def test_what_is_ignored(self):
        body = {"messages": MESSAGES, "stream": False, "options": GREEDY}
        plain = self.server.post(API_CHAT, body).json["message"]
        for more in ({"keep_alive": "10m"}, {"keep_alive": -1}, {"think": True}, {"context": [1, 2]}, {"format": ""},
                     {"format": None}, {"tools": []}):
            self.assertEqual(self.server.post(API_CHAT, body | more).json["message"], plain, more)
        for more in ({"num_ctx": 64}, {"num_gpu": 99}, {"num_thread": 2}, {"repeat_last_n": 64}, {"mirostat": 0},
                     {"use_mmap": True}, {"an_option_of_tomorrow": [1]}):
            answer = self.server.post(API_CHAT, dict(body, options=GREEDY | more))
            self.assertEqual(answer.json["message"], plain, more)

    def test_lengths(self):
        for most in (-1, -2, 0):
            answer = self.server.post(API_GENERATE, {"prompt": "A", "stream": False, "raw": True,
                                                     "options": {"num_predict": most, "temperature": 0}}).json
            self.assertGreater(answer["eval_count"], 40)

    def test_errors(self):
        user = {"messages": MESSAGES[1:]}
        cases = (({"messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}, "messages[0].images"),
                 ({"messages": [{"role": "cat", "content": "?"}]}, "messages[0].role"),
                 ({"messages": "?"}, "messages"), ({"messages": [3]}, "messages[0]"),
                 (user | {"options": {"temperature": "hot"}}, "options.temperature"),
                 (user | {"options": {"num_ctx": 1 << 20}}, "options.num_ctx"),
                 (user | {"options": {"num_predict": -3}}, "options.num_predict"),
                 (user | {"options": {"mirostat": 2}}, "options.mirostat"),
                 (user | {"options": {"repeat_penalty": 1.2, "repeat_last_n": 64}}, "options.repeat_last_n"),
                 (user | {"options": []}, "options"), (user | {"format": "xml"}, "format"),
                 (user | {"format": {"type": "cat"}}, "format"), (user | {"stream": 1}, "stream"),
                 (user | {"tools": [TOOL]}, "tools"), (user | {"top_logprobs": 2}, "top_logprobs"),
                 ({"messages": [{"role": "user", "content": "word " * 300}]}, "context is"))
        for body, says in cases:
            with self.subTest(says):
                self.ollama_error(self.server.post(API_CHAT, body), 400, says)
        for more, says in (({"template": "{{ .Prompt }}"}, "template"), ({"suffix": "end"}, "suffix"),
                           ({"images": ["aGk="]}, "images"), ({"prompt": 3}, "prompt")):
            self.ollama_error(self.server.post(API_GENERATE, {"prompt": "A"} | more), 400, says)
        self.ollama_error(self.server.post(API_CHAT, b"{"), 400, "request body")
        self.ollama_error(self.server.post("/api/pull", {"model": "x"}), 404, "/api/pull")
        self.ollama_error(self.server.get(API_CHAT), 405, "POST")
        self.ollama_error(self.server.get("/api/tags", Host="evil.example"), 403, "Host")

    def test_bodies_need_not_say_that_they_are_json(self):
        body = json.dumps({"prompt": "A fox", "stream": False, "options": GREEDY}).encode()
        for content_type in (None, "text/plain", "application/x-www-form-urlencoded"):
            self.assertEqual(self.server.post(API_GENERATE, body, Content_Type=content_type).status, 200, content_type)
        # A page of another origin could send such a body without being asked; the gate does not let it in.
        for origin in ("http://evil.example", "null", f"http://localhost:{self.server.port + 1}"):
            answer = self.server.post(API_GENERATE, body, Content_Type="text/plain", Origin=origin)
            self.ollama_error(answer, 403, "Origin")

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl_as_documented(self):
        run = curl(self.server.url + API_GENERATE, "-d",
                   json.dumps({"model": MODEL, "prompt": "Why is the sky blue?", "options": GREEDY}))
        self.assertGreater(len(run.stdout.splitlines()), 10)

    def test_json(self):
        schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 150},
                                                   "here": {"type": "boolean"}}, "required": ["age", "here"],
                  "additionalProperties": False}
        for path, more in ((API_CHAT, {"messages": MESSAGES}), (API_GENERATE, {"prompt": "A fox"})):
            body = more | {"stream": False, "options": {"temperature": 1.5, "seed": 3}}
            answer = self.server.post(path, dict(body, format=schema)).json
            found = json.loads(answer["message"]["content"] if path == API_CHAT else answer["response"])
            self.assertEqual((type(found["age"]), type(found["here"]), answer["done_reason"]), (int, bool, "stop"))
            answer = self.server.post(path, dict(body, format="json")).json
            text = answer["message"]["content"] if path == API_CHAT else answer["response"]
            self.assertTrue(text.lstrip().startswith("{"), text)
            if answer["done_reason"] == "stop":
                self.assertIsInstance(json.loads(text), dict)

    def test_a_stream_that_is_left(self):
        with self.server.connect() as wire:
            wire.request("POST", API_CHAT, {"messages": MESSAGES, "options": {"num_predict": 200}})
            wire.head()
        self.server.wait_until_idle()

    def test_what_there_is(self):
        tags = self.server.get("/api/tags").json["models"]
        running = self.server.get("/api/ps").json["models"]
        for entry in (tags[0], running[0]):
            self.assertEqual((entry["name"], entry["model"]), (MODEL + ":latest",) * 2)
            self.assertGreater(entry["size"], 1 << 20)
            self.assertEqual(entry["details"]["format"], "safetensors")
        self.assertRegex(tags[0]["modified_at"], NANOSECONDS)
        self.assertRegex(running[0]["expires_at"], NANOSECONDS)
        shown = self.server.post("/api/show", {"model": MODEL}).json
        self.assertEqual(shown["capabilities"], ["completion"])
        self.assertEqual(shown["template"], self.server.get("/props").json["chat_template"])
        info = shown["model_info"]
        self.assertEqual(info[info["general.architecture"] + ".context_length"], 256)
        self.assertEqual(self.server.get("/api/version").json, self.server.get("/version").json)
        self.ollama_error(self.server.post("/api/show", {"model": "other"}), 404, "not found")

    def test_vectors(self):
        texts = ["A fox", "A hare", "word " * 300]
        answer = self.server.post("/api/embed", {"model": MODEL, "input": texts}).json
        alone = self.server.post("/api/embed", {"input": texts[1]}).json
        old = self.server.post("/api/embeddings", {"prompt": texts[1]}).json
        openai = self.server.post("/v1/embeddings", {"input": texts[1]}).json
        self.assertEqual(len(answer["embeddings"]), 3)
        self.assertEqual(answer["embeddings"][1], alone["embeddings"][0])
        self.assertEqual(old, {"embedding": alone["embeddings"][0]})
        self.assertEqual(openai["data"][0]["embedding"], alone["embeddings"][0])
        self.assertAlmostEqual(sum(x * x for x in old["embedding"]), 1, places=5)
        self.assertEqual(alone["prompt_eval_count"], openai["usage"]["prompt_tokens"])
        self.assertEqual(self.server.post("/api/embed", {"input": []}).json["embeddings"], [])
        for body, says in (({"input": texts[2], "truncate": False}, "context"), ({"input": [1]}, "input"),
                           ({"input": "a", "dimensions": 7}, "dimensions"), ({"input": {"a": 1}}, "input")):
            self.ollama_error(self.server.post("/api/embed", body), 400, says)


class Tools(ToolTest, Ollama):
    def test_the_template_sees_tools_and_their_answers(self):
        def prompt_tokens(messages, **more):
            body = {"messages": messages, "stream": False, "options": {"num_predict": 1}} | more
            answer = self.server.post(API_CHAT, body)
            self.assertEqual(answer.status, 200, answer)
            return answer.json["prompt_eval_count"]
        asked = [{"role": "user", "content": "Is it warm?"}]
        called = [{"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"in": "Rome"}}}]},
                  {"role": "tool", "tool_name": "weather", "content": "warm"}]
        self.assertGreater(prompt_tokens(asked, tools=[TOOL]), prompt_tokens(asked) + 10)
        self.assertGreater(prompt_tokens(asked + called, tools=[TOOL]), prompt_tokens(asked, tools=[TOOL]) + 10)
        self.assertEqual(self.server.post("/api/show", {}).json["capabilities"], ["completion", "tools"])

    @unittest.skipIf(ollama is None, "run tests/server/make_venv")
    def test_the_client_sends_tools(self):
        def weather(place: str) -> str:
            """The weather.

            Args:
              place: where
            """
            return place
        answer = client_of(self.server).chat(MODEL, [{"role": "user", "content": "?"}], tools=[weather],
                                             options={"num_predict": 4})
        self.assertEqual(answer.message.role, "assistant")


@unittest.skipIf(ollama is None, "run tests/server/make_venv")
class Client(ServerTest):
    def setUp(self):
        self.client = client_of(self.server)

    def test_chat(self):
        whole = self.client.chat(MODEL, MESSAGES, options=GREEDY)
        self.assertEqual((whole.message.role, whole.done_reason, whole.eval_count), ("assistant", "length", 24))
        parts = list(self.client.chat(MODEL + ":latest", MESSAGES, options=GREEDY, stream=True))
        self.assertEqual("".join(part.message.content for part in parts), whole.message.content)
        self.assertTrue(parts[-1].done)

    def test_generate(self):
        whole = self.client.generate(MODEL, "Once upon a time", raw=True, options=ollama.Options(**GREEDY))
        parts = list(self.client.generate(MODEL, "Once upon a time", raw=True, options=GREEDY, stream=True))
        self.assertEqual("".join(part.response for part in parts), whole.response)
        self.assertEqual(self.client.generate(MODEL).done_reason, "load")

    def test_logprobs(self):
        whole = self.client.generate(MODEL, "Once", options=GREEDY, logprobs=True, top_logprobs=3)
        self.assertEqual([len(token.top_logprobs) for token in whole.logprobs], [3] * 24)
        parts = self.client.generate(MODEL, "Once", options=GREEDY, logprobs=True, top_logprobs=3, stream=True)
        self.assertEqual([token for part in parts for token in part.logprobs or []], whole.logprobs)

    def test_a_schema(self):
        schema = {"type": "object", "properties": {"name": {"enum": ["fox", "hare"]}}, "required": ["name"]}
        answer = self.client.chat(MODEL, MESSAGES, format=schema, options={"temperature": 1.2})
        self.assertIn(json.loads(answer.message.content)["name"], ("fox", "hare"))

    def test_models(self):
        self.assertEqual([model.model for model in self.client.list().models], [MODEL + ":latest"])
        self.assertEqual(self.client.ps().models[0].context_length, 256)
        self.assertGreater(self.client.ps().models[0].expires_at, datetime.datetime.now(datetime.timezone.utc))
        self.assertIn("general.architecture", self.client.show(MODEL).modelinfo)

    def test_embed(self):
        both = self.client.embed(MODEL, ["A fox", "A hare"])
        self.assertEqual(both.embeddings[0], self.client.embeddings(MODEL, "A fox").embedding)

    def test_errors(self):
        for ask in (lambda: self.client.chat("other", MESSAGES), lambda: list(self.client.chat("other", stream=True))):
            with self.assertRaises(ollama.ResponseError) as caught:
                ask()
            self.assertEqual(caught.exception.status_code, 404)
            self.assertIn("model 'other' not found", caught.exception.error)
        with self.assertRaises(ollama.ResponseError) as caught:
            self.client.chat(MODEL, MESSAGES, options={"num_ctx": 100000})
        self.assertIn("options.num_ctx", caught.exception.error)

    def test_many_at_once(self):
        prompts = [f"Once upon a time there were {i} foxes" for i in range(12)]
        alone = [self.client.generate(MODEL, prompt, options=GREEDY).response for prompt in prompts]

        async def stream(client, prompt):
            parts = await client.generate(MODEL, prompt, options=GREEDY, stream=True)
            return "".join([part.response async for part in parts])

        async def all_of_them():
            client = client_of(self.server, ollama.AsyncClient)
            return await asyncio.gather(*(stream(client, prompt) for prompt in prompts))

        self.assertEqual(asyncio.run(all_of_them()), alone)


class NoTemplate(Ollama):
    OPTIONS = {"chat": False}

    def test_a_model_that_was_not_trained_to_chat(self):
        body = {"prompt": "A fox", "stream": False, "options": GREEDY}
        answer = self.server.post(API_GENERATE, body).json
        self.assertIn("response", answer)
        self.assertEqual(answer["response"], self.server.post(API_GENERATE, dict(body, raw=True)).json["response"])
        self.ollama_error(self.server.post(API_GENERATE, dict(body, system="Tell.")), 400, "system")
        self.ollama_error(self.server.post(API_CHAT, {"messages": MESSAGES}), 400, "no chat template")


class Keys(unittest.TestCase):
    def test_keys(self):
        with Server("--api-key", "one-key") as server:
            answer = server.get("/api/tags")
            self.assertEqual((answer.status, list(answer.json)), (401, ["error"]))
            self.assertIsInstance(answer.json["error"], str)
            self.assertEqual(server.get("/api/tags", Authorization="Bearer one-key").status, 200)


if __name__ == "__main__":
    unittest.main()
