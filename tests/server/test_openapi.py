"""Every kind of answer against OpenAI's own description."""

import json
import unittest

import openapi
from harness import CHAT, TEXT, ServerTest
from tool_template import TOOL, ToolTest

CHAT_BODY = {"messages": [{"role": "user", "content": "Tell me of a fox."}], "max_tokens": 8, "temperature": 0}
TEXT_BODY = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}


@unittest.skipIf(openapi.MISSING, openapi.MISSING)
class Described(ServerTest):
    def conforms(self, name, value):
        self.assertEqual(openapi.problems(name, value), [], value)

    def test_the_judge_judges(self):
        answer = self.server.post(CHAT, CHAT_BODY).json
        for wrong in ({"object": "chat"}, {"choices": [{"index": 0}]}, {"created": "now"}, {"usage": {}}):
            self.assertTrue(openapi.problems("CreateChatCompletionResponse", dict(answer, **wrong)), wrong)

    def test_whole_answers(self):
        for more in ({}, {"n": 3, "temperature": 1, "seed": 1}, {"logprobs": True, "top_logprobs": 5}, {"stop": "."}):
            with self.subTest(more):
                self.conforms("CreateChatCompletionResponse", self.server.post(CHAT, CHAT_BODY | more).json)
        for more in ({}, {"n": 2}, {"logprobs": 3}, {"echo": True}, {"prompt": ["a", "b"]}, {"prompt": [5, 6, 7]}):
            with self.subTest(more):
                self.conforms("CreateCompletionResponse", self.server.post(TEXT, TEXT_BODY | more).json)

    def test_every_chunk(self):
        usage = {"stream_options": {"include_usage": True}}
        for more in ({}, usage, {"n": 2} | usage, {"logprobs": True, "top_logprobs": 2}):
            with self.subTest(chat=more):
                for event in self.server.events(CHAT, CHAT_BODY | more)[:-1]:
                    self.conforms("CreateChatCompletionStreamResponse", json.loads(event))
        for more in ({}, usage, {"logprobs": 2}, {"echo": True}):
            with self.subTest(text=more):
                for event in self.server.events(TEXT, TEXT_BODY | more)[:-1]:
                    self.conforms("CompletionChunk", json.loads(event))

    def test_models(self):
        models = self.server.get("/v1/models").json
        self.conforms("ListModelsResponse", models)
        self.conforms("Model", self.server.get("/v1/models/" + models["data"][0]["id"]).json)

    def test_errors(self):
        for answer in (self.server.post(CHAT, {}), self.server.post(CHAT, b"{"), self.server.get("/nothing"),
                       self.server.get(CHAT), self.server.post(CHAT, CHAT_BODY | {"model": "other"}),
                       self.server.post(TEXT, TEXT_BODY, Content_Type="text/plain"),
                       self.server.get("/v1/models", Host="evil.example"), self.server.raw(b"bad\r\n\r\n")):
            self.assertGreaterEqual(answer.status, 400, answer)
            self.conforms("ErrorResponse", answer.json)


@unittest.skipIf(openapi.MISSING, openapi.MISSING)
class Tools(ToolTest):
    def test_calls(self):
        for more in ({}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}, {"max_tokens": 40}):
            body = CHAT_BODY | {"tools": [TOOL], "tool_choice": "required", "max_tokens": 100, "temperature": 1, "seed": 2} | more
            with self.subTest(more):
                whole = self.server.post(CHAT, body).json
                self.assertEqual(openapi.problems("CreateChatCompletionResponse", whole), [], whole)
                chunks = [json.loads(event) for event in self.server.events(CHAT, body)[:-1]]
                self.assertTrue(any("tool_calls" in chunk["choices"][0]["delta"] for chunk in chunks))
                for chunk in chunks:
                    self.assertEqual(openapi.problems("CreateChatCompletionStreamResponse", chunk), [], chunk)


if __name__ == "__main__":
    unittest.main()
