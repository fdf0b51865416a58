"""kvasir generate --json-schema and --json-object: whatever the model would rather write, the answer is what was asked."""

import json
import unittest

from kvasir_cli import CliTest

PROMPT = "Once upon a time there was a little"
SCHEMA = {
    "$defs": {"pet": {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]},
                                                       "legs": {"type": "integer", "minimum": 0, "maximum": 4}},
                      "required": ["kind", "legs"], "additionalProperties": False}},
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 10},
                   "born": {"type": "string", "format": "date"},
                   "pets": {"type": "array", "items": {"$ref": "#/$defs/pet"}, "maxItems": 2},
                   "score": {"type": ["number", "null"]}},
    "required": ["name", "born", "pets", "score"],
    "additionalProperties": False,
}


def strict(text):
    """The value of a JSON text without NaN and twins."""
    def once(pairs):
        assert len({key for key, _ in pairs}) == len(pairs), text
        return dict(pairs)

    def refuse(name):
        raise ValueError(name)
    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


class Schema(CliTest):
    def answer(self, *args):
        return self.ok("generate", "-p", PROMPT, "--json", "-n", "200", *args).json

    def check(self, value):
        self.assertEqual(list(value), ["name", "born", "pets", "score"])
        self.assertTrue(1 <= len(value["name"]) <= 10)
        self.assertRegex(value["born"], r"^\d{4}-\d\d-\d\d$")
        self.assertLessEqual(len(value["pets"]), 2)
        for pet in value["pets"]:
            self.assertEqual(list(pet), ["kind", "legs"])
            self.assertIn(pet["kind"], ("cat", "dog"))
            self.assertTrue(type(pet["legs"]) is int and 0 <= pet["legs"] <= 4)
        self.assertIn(type(value["score"]), (int, float, type(None)))

    def test_answers_satisfy_the_schema_at_any_temperature(self):
        file = self.write("schema.json", json.dumps(SCHEMA))
        for temperature in ("0", "0.8", "3", "100"):
            for seed in ("1", "2"):
                with self.subTest(temperature=temperature, seed=seed):
                    run = self.answer("--json-schema", file, "--temp", temperature, "--seed", seed)
                    self.assertEqual(run["finish_reason"], "stop")
                    self.check(strict(run["text"]))

    def test_the_schema_itself_may_be_the_argument_and_samples_share_it(self):
        run = self.answer("--json-schema", json.dumps(SCHEMA), "--temp", "2", "-N", "4", "--cache", "paged:16")
        self.assertEqual(len(run["samples"]), 4)
        for sample in run["samples"]:
            self.check(strict(sample["text"]))
        self.assertGreater(len({sample["text"] for sample in run["samples"]}), 1)
        self.assertEqual(run, run | {"samples": self.answer("--json-schema", json.dumps(SCHEMA), "--temp", "2", "-N", "4",
                                                            "-t", "1")["samples"]})

    def test_any_object(self):
        ended = 0
        for seed in range(8):
            run = self.answer("--json-object", "--temp", "0.7", "--seed", str(seed))
            if run["finish_reason"] == "stop":
                self.assertIs(type(strict(run["text"])), dict)
                ended += 1
            else:
                self.assertEqual(run["finish_reason"], "length")
                self.assertTrue(run["text"].lstrip().startswith("{"))
        self.assertGreater(ended, 0)

    def test_the_stream_is_the_same_text(self):
        args = ["-p", PROMPT, "-n", "200", "--json-schema", json.dumps(SCHEMA), "--temp", "1", "--seed", "4"]
        self.assertEqual(self.ok("generate", *args).text, self.ok("generate", *args, "--json").json["text"] + "\n")

    def test_what_is_refused(self):
        bad = json.dumps({"type": "object", "properties": {"a": {"not": {}}}})
        self.fails("generate", "-p", PROMPT, "--json-schema", bad, says=["--json-schema", "#/properties/a", '"not"'])
        self.fails("generate", "-p", PROMPT, "--json-schema", "{", says=["--json-schema", "truncated"])
        self.fails("generate", "-p", PROMPT, "--json-schema", self.path("nowhere"), says="nowhere")
        file = self.write("schema.json", '{"type": "strin"}')
        self.fails("generate", "-p", PROMPT, "--json-schema", file, says=["schema.json", '"type"'])
        self.fails("generate", "-p", PROMPT, "--json-schema", "{}", "--json-object", says="choose one")
        self.fails("generate", "-p", PROMPT, "--json-object", "--num-beams", "2", says="beam search")


if __name__ == "__main__":
    unittest.main()
