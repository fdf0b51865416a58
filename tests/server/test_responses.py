"""OpenAI's Responses: every object against its own description, and the official client."""

import json
import unittest

import openapi
from harness import CHAT, MODEL, ServerTest
from http_wire import split_events
from tool_template import TOOL, ToolTest

try:
    import openai
    from test_openai_client import client_of
except ImportError:
    openai = None

RESPONSES = "/v1/responses"
INPUT = [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": "Tell me of a fox."}]
BODY = {"input": INPUT, "max_output_tokens": 24, "temperature": 0}
FUNCTION = {"type": "function"} | TOOL["function"]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 150}},
          "required": ["age"], "additionalProperties": False}
CALLED = [{"role": "user", "content": "Is it warm?"},
          {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"place": "Rome"}'},
          {"type": "function_call_output", "call_id": "call_1", "output": "warm"}]

needs_client = unittest.skipIf(openai is None, "run tests/server/make_venv")
needs_description = unittest.skipIf(openapi.MISSING, openapi.MISSING)


class Responses(ServerTest):
    def create(self, **fields):
        answer = self.server.post(RESPONSES, BODY | fields)
        self.assertEqual(answer.status, 200, answer)
        return answer.json

    def stream(self, **fields):
        """The events of a stream. Each is named as its object says, and they are numbered without a gap."""
        with self.server.connect() as wire:
            wire.request("POST", RESPONSES, BODY | fields | {"stream": True})
            head = wire.head()
            self.assertEqual(head.status, 200)
            blocks = split_events(wire.body(head))
        events = []
        for block in blocks:
            if block.startswith(":"):
                continue
            name, data = block.split("\n")
            events.append(json.loads(data.removeprefix("data: ")))
            self.assertEqual(name, "event: " + events[-1]["type"])
        self.assertEqual([event["sequence_number"] for event in events], list(range(len(events))))
        return events

    def text_of(self, response):
        return "".join(part["text"] for item in response["output"] if item["type"] == "message"
                       for part in item["content"])

    def tokens(self, **fields):
        return self.create(max_output_tokens=1, **fields)["usage"]["input_tokens"]


class Plain(Responses):
    FLAGS = ("--parallel", 4)

    def test_the_same_text_as_chat_has(self):
        sampling = {"temperature": 0.9, "top_p": 0.9, "seed": 5}
        chat = self.server.post(CHAT, dict(sampling, messages=INPUT, max_tokens=40)).json
        mine = self.create(**sampling, max_output_tokens=40)
        self.assertEqual(self.text_of(mine), chat["choices"][0]["message"]["content"])
        self.assertEqual(mine["usage"]["input_tokens"], chat["usage"]["prompt_tokens"])
        self.assertEqual(mine["usage"]["total_tokens"], chat["usage"]["total_tokens"])

    def test_ways_to_say_the_same(self):
        parts = [{"type": "input_text", "text": "Tell me of a fox."}]
        ways = ({}, {"input": INPUT[1:], "instructions": "Tell stories."},
                {"input": "Tell me of a fox.", "instructions": "Tell stories."},
                {"input": [dict(INPUT[0], role="developer", type="message"),
                           {"type": "message", "role": "user", "content": parts}]})
        self.assertEqual(len({self.text_of(self.create(**way)) for way in ways}), 1)
        said = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                "content": [{"type": "output_text", "text": "Of a fox?", "annotations": [], "logprobs": []}]}
        self.assertGreater(self.tokens(input=INPUT + [said] + INPUT[1:]), self.tokens(input=INPUT + INPUT[1:]))

    def test_ends(self):
        cut = self.create()
        self.assertEqual((cut["status"], cut["incomplete_details"], cut["output"][0]["status"]),
                         ("incomplete", {"reason": "max_output_tokens"}, "incomplete"))
        stop = self.text_of(cut).split()[5]
        whole = self.create(stop=stop)
        self.assertEqual((whole["status"], whole["incomplete_details"], whole["output"][0]["status"]),
                         ("completed", None, "completed"))
        self.assertEqual(self.text_of(whole), self.text_of(cut)[:self.text_of(cut).index(stop)])
        self.assertGreaterEqual(whole["completed_at"], whole["created_at"])

    def test_the_sequence_of_events(self):
        for more, end in (({}, "incomplete"), ({"stop": "."}, "completed")):
            with self.subTest(end):
                events = self.stream(**more, max_output_tokens=60)
                kinds = [event["type"] for event in events]
                deltas = kinds.count("response.output_text.delta")
                self.assertGreater(deltas, 5)
                self.assertEqual(kinds, ["response.created", "response.in_progress", "response.output_item.added",
                                         "response.content_part.added"] + ["response.output_text.delta"] * deltas +
                                 ["response.output_text.done", "response.content_part.done",
                                  "response.output_item.done", "response." + end])
                final = events[-1]["response"]
                whole = self.create(**more, max_output_tokens=60)
                text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
                self.assertEqual((text, events[-4]["text"], self.text_of(final)), (self.text_of(whole),) * 3)
                self.assertEqual(final["status"], end)
                self.assertEqual(final["usage"]["output_tokens"], whole["usage"]["output_tokens"])
                self.assertEqual({event["response"]["id"] for event in (events[0], events[1], events[-1])},
                                 {final["id"]})
                self.assertEqual(events[-2]["item"], final["output"][0])
                self.assertEqual({event["item_id"] for event in events if "item_id" in event},
                                 {final["output"][0]["id"]})

    def test_logprobs(self):
        more = {"include": ["message.output_text.logprobs"], "top_logprobs": 3}
        found = self.create(**more)["output"][0]["content"][0]["logprobs"]
        self.assertEqual([len(token["top_logprobs"]) for token in found], [3] * 24)
        streamed = [token for event in self.stream(**more) if event["type"] == "response.output_text.delta"
                    for token in event["logprobs"]]
        self.assertEqual(streamed, found)
        self.assertEqual(self.create()["output"][0]["content"][0]["logprobs"], [])

    def test_what_is_echoed(self):
        given = {"metadata": {"a": "b"}, "user": "somebody", "instructions": "Be kind.", "truncation": "auto",
                 "temperature": 0.7, "top_p": 0.9, "parallel_tool_calls": False}
        response = self.create(**given)
        self.assertEqual({name: response[name] for name in given}, given)
        response = self.create(store=True, reasoning={"effort": "high"}, service_tier="auto")
        self.assertEqual((response["store"], response["reasoning"]["effort"], response["tools"],
                          response["tool_choice"], response["text"], response["metadata"]),
                         (False, None, [], "auto", {"format": {"type": "text"}}, {}))
        self.assertEqual(response["model"], MODEL)

    def test_json(self):
        form = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
        response = self.create(text={"format": form}, temperature=1.3, seed=4, max_output_tokens=60)
        self.assertEqual(list(json.loads(self.text_of(response))), ["age"])
        self.assertEqual((response["status"], response["text"]["format"]), ("completed", form))
        response = self.create(text={"format": {"type": "json_object"}}, temperature=1)
        self.assertTrue(self.text_of(response).lstrip().startswith("{"))

    def test_truncation(self):
        long = [{"role": "user", "content": "word " * 60}, {"role": "assistant", "content": "word " * 60}] * 3
        self.error_of(self.server.post(RESPONSES, BODY | {"input": INPUT + long + INPUT[1:]}), 400,
                      "context_length_exceeded")
        kept = self.create(input=INPUT + long + INPUT[1:], truncation="auto")
        # The fewest messages are left out, the system's is none of them.
        alike = self.create(input=INPUT[:1] + long[-1:] + INPUT[1:])
        two = self.create(input=INPUT[:1] + long[-2:] + INPUT[1:])
        self.assertIn(self.text_of(kept), (self.text_of(alike), self.text_of(two)))
        self.error_of(self.server.post(RESPONSES, BODY | {"input": "word " * 300, "truncation": "auto"}), 400,
                      "context_length_exceeded")

    def test_errors(self):
        cases = (({"previous_response_id": "resp_1"}, "previous_response_id"), ({"background": True}, "background"),
                 ({"conversation": "conv_1"}, "conversation"), ({"prompt": {"id": "p"}}, "prompt"),
                 ({"input": None}, "input"), ({"input": []}, "input"), ({"input": 3}, "input"),
                 ({"input": [3]}, "input[0]"), ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
                 ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].type"),
                 ({"input": [{"role": "cat", "content": "?"}]}, "input[0].role"),
                 ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
                  "input[0].content"),
                 ({"input": CALLED[:1] + CALLED[2:]}, "input[1].call_id"),
                 ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
                 ({"instructions": 3}, "instructions"), ({"max_output_tokens": 0}, "max_output_tokens"),
                 ({"temperature": "hot"}, "temperature"), ({"top_logprobs": 21}, "top_logprobs"), ({"n": 2}, "n"),
                 ({"include": "all"}, "include"), ({"truncation": "some"}, "truncation"),
                 ({"metadata": {"a": 1}}, "metadata"), ({"metadata": {"a" * 65: "b"}}, "metadata"),
                 ({"metadata": {str(i): "b" for i in range(17)}}, "metadata"),
                 ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
                 ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
                 ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "cat"}}}},
                  "text.format.schema"),
                 ({"tools": [{"type": "web_search"}]}, "tools[0]"), ({"tools": [TOOL]}, "tools[0]"),
                 ({"tools": [FUNCTION]}, "tools"), ({"tool_choice": "required"}, "tool_choice"),
                 ({"tool_choice": 3}, "tool_choice"), ({"stream": "yes"}, "stream"))
        for fields, param in cases:
            with self.subTest(fields):
                self.assertEqual(self.error_of(self.server.post(RESPONSES, BODY | fields), 400)["param"], param)
        self.error_of(self.server.post(RESPONSES, BODY | {"model": "other"}), 404, "model_not_found")
        self.error_of(self.server.get(RESPONSES + "/resp_1"), 404)

    def test_a_stream_that_is_left(self):
        with self.server.connect() as wire:
            wire.request("POST", RESPONSES, BODY | {"stream": True, "max_output_tokens": 200})
            wire.head()
        self.server.wait_until_idle()

    @needs_description
    def test_every_object_is_as_described(self):
        self.assertTrue(openapi.problems("Response", dict(self.create(), status="good")))
        for more in ({}, {"stop": "."}, {"top_logprobs": 2}, {"text": {"format": {"type": "json_object"}}},
                     {"instructions": "Be kind.", "metadata": {"a": "b"}, "user": "u"}):
            with self.subTest(more):
                response = self.create(**more)
                self.assertEqual(openapi.problems("Response", response), [], response)
                for event in self.stream(**more):
                    self.assertEqual(problems_of(event), [], event)


def problems_of(event):
    """Against the one description of this type; that of all events finds the same and says less."""
    parts = event["type"].replace("response.", "").replace("output_text", "text").replace(".", "_").split("_")
    return openapi.problems("Response" + "".join(part.title() for part in parts) + "Event", event)


class Tools(ToolTest, Responses):
    CALL = {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "weather"}, "temperature": 1, "seed": 1,
            "max_output_tokens": 60}

    def test_the_template_sees_tools_calls_and_outputs(self):
        counts = [self.tokens(input=CALLED[:1]), self.tokens(input=CALLED[:1], tools=[FUNCTION]),
                  self.tokens(input=CALLED, tools=[FUNCTION])]
        self.assertEqual(counts, sorted(set(counts)))
        two = [CALLED[0], CALLED[1], dict(CALLED[1], call_id="call_2"), CALLED[2], dict(CALLED[2], call_id="call_2")]
        messages = [CALLED[0],
                    {"role": "assistant", "tool_calls": [
                        {"id": f"call_{i}", "type": "function",
                         "function": {"name": "weather", "arguments": '{"place": "Rome"}'}} for i in (1, 2)]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "warm"},
                    {"role": "tool", "tool_call_id": "call_2", "content": "warm"}]
        chat = self.server.post(CHAT, {"messages": messages, "tools": [TOOL], "max_tokens": 1}).json
        self.assertEqual(self.tokens(input=two, tools=[FUNCTION]), chat["usage"]["prompt_tokens"])

    def test_a_call(self):
        for choice in (self.CALL["tool_choice"], "required"):
            response = self.create(**self.CALL | {"tool_choice": choice})
            self.assertEqual((response["status"], response["tool_choice"]), ("completed", choice))
            item, = response["output"]
            self.assertEqual((item["type"], item["name"], item["status"]), ("function_call", "weather", "completed"))
            self.assertIn(json.loads(item["arguments"])["place"], ("Rome", "Oslo"))
            self.assertTrue(item["call_id"])

    def test_events_of_a_call(self):
        events = self.stream(**self.CALL)
        deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
        self.assertGreater(len(deltas), 1)
        self.assertEqual([event["type"].removeprefix("response.") for event in events],
                         ["created", "in_progress", "output_item.added"] +
                         ["function_call_arguments.delta"] * len(deltas) +
                         ["function_call_arguments.done", "output_item.done", "completed"])
        added, done, item = events[2], events[-3], events[-2]
        self.assertEqual((added["item"]["arguments"], added["item"]["status"]), ("", "in_progress"))
        self.assertEqual("".join(deltas), done["arguments"])
        self.assertEqual(self.create(**self.CALL)["output"][0]["arguments"], done["arguments"])
        self.assertEqual(item["item"], dict(added["item"], status="completed", arguments=done["arguments"]))
        self.assertEqual(events[-1]["response"]["output"], [item["item"]])

    @needs_description
    def test_every_object_is_as_described(self):
        for event in self.stream(**self.CALL):
            self.assertEqual(problems_of(event), [], event)
        response = self.create(**self.CALL)
        self.assertEqual(openapi.problems("Response", response), [], response)

    @needs_client
    def test_the_client_puts_arguments_together(self):
        fields = {name: value for name, value in self.CALL.items() if name != "seed"}
        with client_of(self.server) as client:
            with client.responses.stream(model=MODEL, input="Is it warm?", extra_body={"seed": 3}, **fields) as stream:
                pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
                final = stream.get_final_response()
        self.assertEqual("".join(pieces), final.output[0].arguments)
        self.assertIn(json.loads(final.output[0].arguments)["place"], ("Rome", "Oslo"))

    @needs_client
    def test_the_client_goes_on_with_what_it_got(self):
        with client_of(self.server) as client:
            fields = {name: value for name, value in self.CALL.items() if name != "seed"}
            first = client.responses.create(model=MODEL, input="Is it warm?", **fields)
            call = first.output[0]
            items = [{"role": "user", "content": "Is it warm?"}] + first.output + [
                {"type": "function_call_output", "call_id": call.call_id, "output": "warm"}]
            second = client.responses.create(model=MODEL, input=items, tools=[FUNCTION], max_output_tokens=8)
            self.assertGreater(second.usage.input_tokens, first.usage.input_tokens)


@needs_client
class Client(ServerTest):
    FIELDS = {"model": MODEL, "input": "Tell me of a fox.", "max_output_tokens": 24, "temperature": 0}

    def setUp(self):
        self.client = client_of(self.server)
        self.addCleanup(self.client.close)

    def test_create(self):
        response = self.client.responses.create(**self.FIELDS)
        self.assertEqual((response.status, response.usage.output_tokens), ("incomplete", 24))
        self.assertTrue(response.output_text)
        events = list(self.client.responses.create(**self.FIELDS, stream=True))
        self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"),
                         response.output_text)
        self.assertEqual(events[-1].response.output_text, response.output_text)

    def test_the_stream_helper_puts_it_together(self):
        stop = self.client.responses.create(**self.FIELDS).output_text.split()[6]
        fields = self.FIELDS | {"extra_body": {"stop": stop}}
        with self.client.responses.stream(**fields) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        self.assertEqual(final.output_text, self.client.responses.create(**fields).output_text)
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))

    def test_parse(self):
        import pydantic  # pylint: disable=import-outside-toplevel

        class Animal(pydantic.BaseModel):
            legs: int
            tame: bool

        fields = self.FIELDS | {"temperature": 1, "extra_body": {"seed": 2}, "max_output_tokens": 100}
        parsed = self.client.responses.parse(text_format=Animal, **fields)
        self.assertIsInstance(parsed.output_parsed, Animal)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.responses.create(**self.FIELDS, previous_response_id="resp_1")
        self.assertEqual(caught.exception.param, "previous_response_id")


@needs_client
class NoTemplate(ServerTest):
    OPTIONS = {"chat": False}

    def test_a_model_that_was_not_trained_to_chat(self):
        self.error_of(self.server.post(RESPONSES, {"input": "Hello"}), 400, "no_chat_template")


if __name__ == "__main__":
    unittest.main()
