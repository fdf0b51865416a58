"""OpenAI's own description of its interface, as a judge of answers. Needs the package jsonschema and
KVASIR_TEST_DATA/api/openai-openapi/openapi.json."""

import copy
import functools
import json
import os

import harness  # noqa: F401  pylint: disable=unused-import  (finds the packages)

try:
    import jsonschema
except ImportError:
    jsonschema = None

PATH = os.path.join(os.environ.get("KVASIR_TEST_DATA", ""), "api", "openai-openapi", "openapi.json")
MISSING = ("run tests/server/make_venv" if jsonschema is None else
           "" if os.environ.get("KVASIR_TEST_DATA") and os.path.exists(PATH) else "KVASIR_TEST_DATA has none")


def with_null(schema):
    """OpenAPI 3.0's word `nullable`, which parts of the description still use, as JSON Schema has it."""
    if isinstance(schema, list):
        return [with_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: with_null(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [changed, {"type": "null"}]} if schema.get("nullable") is True else changed


@functools.cache
def components():
    with open(PATH) as file:
        found = with_null(json.load(file)["components"])
    # The description has one schema for whole answers and for chunks of them; OpenAI's chunks have nulls here.
    chunk = copy.deepcopy(found["schemas"]["CreateCompletionResponse"])
    properties = chunk["properties"]["choices"]["items"]["properties"]
    properties["finish_reason"] = {"anyOf": [properties["finish_reason"], {"type": "null"}]}
    chunk["properties"]["usage"] = {"anyOf": [chunk["properties"]["usage"], {"type": "null"}]}
    found["schemas"]["CompletionChunk"] = chunk
    return found


@functools.cache
def validator(name):
    schema = {"$ref": f"#/components/schemas/{name}", "components": components()}
    return jsonschema.Draft202012Validator(schema)


def problems(name, value):
    """What is wrong with a value of this schema, as texts."""
    return [f"{error.json_path}: {error.message[:300]}" for error in validator(name).iter_errors(value)]
