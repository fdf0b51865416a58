"""The official openai client as its users have it."""

import asyncio
import json
import unittest

from harness import MODEL, PATIENCE, Server, ServerTest
from tool_template import TOOL, ToolTest

try:
    import openai
except ImportError:
    openai = None

needs_client = unittest.skipIf(openai is None, "run tests/server/make_venv")
MESSAGES = [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": "Tell me of a fox."}]


def client_of(server, key="none", kind=None, **options):
    kind = kind or openai.OpenAI
    return kind(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=PATIENCE, **options)


@needs_client
class Client(ServerTest):
    FLAGS = ("--parallel", 8)

    def setUp(self):
        self.client = client_of(self.server)
        self.addCleanup(self.client.close)

    def chat(self, **fields):
        return self.client.chat.completions.create(model=MODEL, messages=MESSAGES,
                                                   **{"max_tokens": 24, "temperature": 0} | fields)

    def text(self, **fields):
        return self.client.completions.create(model=MODEL, **{"prompt": "Once upon a time", "max_tokens": 24,
                                                              "temperature": 0} | fields)

    def test_chat_whole_and_streamed_are_the_same(self):
        whole = self.chat()
        choice = whole.choices[0]
        self.assertEqual((whole.object, whole.model, choice.finish_reason), ("chat.completion", MODEL, "length"))
        self.assertEqual((choice.message.role, whole.usage.completion_tokens), ("assistant", 24))
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + 24)
        chunks = list(self.chat(stream=True))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks), choice.message.content)
        self.assertEqual([c.choices[0].finish_reason for c in chunks[-2:]], [None, "length"])
        self.assertEqual(len({c.id for c in chunks}), 1)
        self.assertTrue(all(c.usage is None for c in chunks))

    def test_usage_of_a_stream(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertTrue(all(c.usage is None and len(c.choices) == 1 for c in chunks[:-1]))
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 24))

    def test_the_stream_helper_puts_it_together(self):
        stop = self.chat().choices[0].message.content.split()[8]  # the helper wants an answer that was not cut off
        fields = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 0, "stop": stop}
        with self.client.chat.completions.stream(**fields) as stream:
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, self.chat(stop=stop).choices[0].message.content)

    def test_logprobs(self):
        tokens = self.chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
        self.assertEqual(len(tokens), 24)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.token, token.top_logprobs[0].token)  # greedy
            self.assertEqual(token.logprob, max(other.logprob for other in token.top_logprobs))
            self.assertLessEqual(token.logprob, 0)
        chat = self.chat(logprobs=True)
        said = b"".join(bytes(token.bytes) for token in chat.choices[0].logprobs.content)
        self.assertEqual(said.decode(), chat.choices[0].message.content)
        streamed = [token for chunk in self.chat(stream=True, logprobs=True, top_logprobs=3)
                    for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])]
        self.assertEqual([t.model_dump() for t in streamed], [t.model_dump() for t in tokens])

    def test_logprobs_of_completions(self):
        choice = self.text(logprobs=2).choices[0]
        logprobs = choice.logprobs
        self.assertEqual([len(part) for part in (logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs,
                                                 logprobs.text_offset)], [24] * 4)
        self.assertEqual("".join(logprobs.tokens), choice.text)
        self.assertEqual(logprobs.text_offset, [len("".join(logprobs.tokens[:i])) for i in range(24)])

    def test_n_and_seed(self):
        def texts(seed):
            choices = self.chat(n=4, temperature=1, seed=seed).choices
            self.assertEqual([choice.index for choice in choices], [0, 1, 2, 3])
            return [choice.message.content for choice in choices]
        first = texts(11)
        self.assertEqual(len(set(first)), 4)
        self.assertEqual(texts(11), first)
        self.assertNotEqual(texts(12), first)
        streamed = [""] * 4
        for chunk in self.chat(n=4, temperature=1, seed=11, stream=True):
            streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        self.assertEqual(streamed, first)

    def test_stop(self):
        free = self.text().choices[0].text
        stop = free.split()[6]
        choice = self.text(stop=["never said", stop]).choices[0]
        self.assertEqual((choice.text, choice.finish_reason), (free[:free.index(stop)], "stop"))
        streamed = "".join(chunk.choices[0].text for chunk in self.text(stop=stop, stream=True))
        self.assertEqual(streamed, choice.text)

    def test_echo_and_many_prompts(self):
        alone = [self.text(prompt=prompt).choices[0].text for prompt in ("A fox", "A hare")]
        both = self.text(prompt=["A fox", "A hare"], echo=True)
        self.assertEqual([choice.text for choice in both.choices], ["A fox" + alone[0], "A hare" + alone[1]])
        self.assertEqual(both.usage.completion_tokens, 48)

    def test_models(self):
        models = self.client.models.list().data
        self.assertEqual([model.id for model in models], [MODEL])
        self.assertEqual(self.client.models.retrieve(MODEL).owned_by, "kvasir")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.models.retrieve("other")
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_errors_are_the_clients_own(self):
        cases = ((openai.BadRequestError, {"temperature": -1}, "temperature"),
                 (openai.BadRequestError, {"messages": []}, "messages"),
                 (openai.BadRequestError, {"top_logprobs": 2}, "top_logprobs"),
                 (openai.NotFoundError, {"model": "other"}, "model"))
        for kind, fields, param in cases:
            for stream in (False, True):
                with self.subTest(fields, stream=stream), self.assertRaises(kind) as caught:
                    self.client.chat.completions.create(
                        **{"model": MODEL, "messages": MESSAGES, "stream": stream} | fields)
                self.assertEqual(caught.exception.param, param)
                self.assertTrue(caught.exception.request_id)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.text(prompt="word " * 300)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_thirty_two_streams_at_once(self):
        prompts = [f"Once upon a time there were {i} foxes" for i in range(32)]
        alone = [self.text(prompt=prompt).choices[0].text for prompt in prompts]

        async def stream(client, prompt):
            chunks = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=24, temperature=0,
                                                     stream=True)
            return "".join([chunk.choices[0].text async for chunk in chunks])

        async def all_of_them():
            async with client_of(self.server, kind=openai.AsyncOpenAI) as client:
                return await asyncio.gather(*(stream(client, prompt) for prompt in prompts))

        self.assertEqual(asyncio.run(all_of_them()), alone)

    def test_a_stream_that_is_left(self):
        with self.chat(stream=True, max_tokens=200) as stream:
            next(iter(stream))
        self.server.wait_until_idle()


@needs_client
class Tools(ToolTest):
    def setUp(self):
        self.client = client_of(self.server)
        self.addCleanup(self.client.close)
        self.fields = {"model": MODEL, "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required",
                       "temperature": 1, "seed": 5, "max_tokens": 100}

    def test_calls_come_as_they_are_written(self):
        for n in (1, 3):
            whole = self.client.chat.completions.create(**self.fields, n=n)
            calls = [None] * n
            pieces = [0] * n
            finish = [None] * n
            for chunk in self.client.chat.completions.create(**self.fields, n=n, stream=True):
                choice, = chunk.choices
                finish[choice.index] = choice.finish_reason
                for delta in choice.delta.tool_calls or ():
                    self.assertEqual(delta.index, 0)
                    if calls[choice.index] is None:
                        calls[choice.index] = delta
                        self.assertEqual((delta.type, delta.function.name, delta.function.arguments),
                                         ("function", "weather", ""))
                        self.assertTrue(delta.id)
                    else:
                        self.assertEqual((delta.id, delta.type, delta.function.name), (None, None, None))
                        calls[choice.index].function.arguments += delta.function.arguments
                        pieces[choice.index] += 1
            self.assertEqual(finish, ["tool_calls"] * n)
            self.assertGreater(min(pieces), 1)
            for choice in whole.choices:
                call, = choice.message.tool_calls
                self.assertEqual(choice.finish_reason, "tool_calls")
                self.assertEqual(call.function.arguments, calls[choice.index].function.arguments)
                self.assertIn(json.loads(call.function.arguments)["place"], ("Rome", "Oslo"))

    def test_the_stream_helper_puts_it_together(self):
        whole = self.client.chat.completions.create(**self.fields)
        with self.client.chat.completions.stream(**self.fields) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.tool_calls[0].function.arguments,
                         whole.choices[0].message.tool_calls[0].function.arguments)
        self.assertGreater(kinds.count("tool_calls.function.arguments.delta"), 1)
        self.assertEqual(kinds.count("tool_calls.function.arguments.done"), 1)

    def test_a_call_that_is_cut_off(self):
        fields = self.fields | {"tools": [dict(TOOL, function=dict(TOOL["function"], parameters={
            "type": "object", "properties": {"place": {"type": "string", "minLength": 500}}, "required": ["place"]}))]}
        whole = self.client.chat.completions.create(**fields).choices[0]
        self.assertEqual(whole.finish_reason, "length")
        said = whole.message.tool_calls[0].function.arguments
        self.assertTrue(said.startswith("{"))
        deltas = [call.function.arguments for chunk in self.client.chat.completions.create(**fields, stream=True)
                  for call in chunk.choices[0].delta.tool_calls or ()]
        self.assertEqual("".join(deltas), said)

    def test_no_call(self):
        fields = self.fields | {"tool_choice": "auto", "max_tokens": 20}
        whole = self.client.chat.completions.create(**fields).choices[0].message
        self.assertIsNone(whole.tool_calls)
        chunks = list(self.client.chat.completions.create(**fields, stream=True))
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks), whole.content)


@needs_client
class Keys(ServerTest):
    FLAGS = ("--api-key", "one-key", "--api-key", "another-key", "-a", "group/model-name")

    def test_keys(self):
        for key in ("one-key", "another-key"):
            with client_of(self.server, key) as client:
                self.assertEqual(client.models.list().data[0].id, "group/model-name")
        for key in ("one", "one-key2", "no"):
            with client_of(self.server, key) as client, self.assertRaises(openai.AuthenticationError) as caught:
                client.models.list()
            self.assertEqual(caught.exception.code, "invalid_api_key")

    def test_a_name_with_a_slash(self):
        with client_of(self.server, "one-key") as client:
            self.assertEqual(client.models.retrieve("group/model-name").id, "group/model-name")

    def tearDown(self):
        self.assertEqual(self.server.get("/health").status, 200)


@needs_client
class NoTemplate(ServerTest):
    OPTIONS = {"chat": False}

    def test_a_model_that_was_not_trained_to_chat(self):
        with client_of(self.server) as client, self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=MESSAGES)
        self.assertEqual(caught.exception.code, "no_chat_template")
        self.assertIn("/v1/completions", str(caught.exception))


@needs_client
class Full(unittest.TestCase):
    def test_too_many_waiting(self):
        async def ask(client):
            return await client.completions.create(model=MODEL, prompt="Once", max_tokens=200, temperature=0,
                                                   extra_body={"ignore_eos": True})

        async def ask_many(server):
            async with client_of(server, kind=openai.AsyncOpenAI) as client:
                return await asyncio.gather(*(ask(client) for _ in range(24)), return_exceptions=True)

        with Server("--parallel", 1, "--max-waiting", 1) as server:
            answers = asyncio.run(ask_many(server))
            server.wait_until_idle()
        refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
        good = [answer for answer in answers if not isinstance(answer, Exception)]
        self.assertEqual(len(refused) + len(good), 24, answers)
        self.assertTrue(refused and good, answers)
        self.assertTrue(all(int(error.response.headers["Retry-After"]) >= 1 for error in refused))
        self.assertEqual(len({answer.choices[0].text for answer in good}), 1)


if __name__ == "__main__":
    unittest.main()
