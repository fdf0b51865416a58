"""A chat template that knows tools, for models whose own does not, a tool, and cases with such a server. The template
has the model's calls in marks of their own, as many have."""

import os
import shutil
import tempfile

from harness import ServerTest

TOOL_TEMPLATE = """{%- if tools %}Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}
{% endif %}
{%- for message in messages %}{{ message.role }}: {{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{"name": "{{ call.function.name }}", "arguments": \
{{ call.function.arguments | tojson }}}</tool_call>{% endfor %}
{% endfor %}
{%- if add_generation_prompt %}assistant: {% endif %}"""

TOOL = {"type": "function",
        "function": {"name": "weather", "description": "The weather of a place.",
                     "parameters": {"type": "object", "properties": {"place": {"enum": ["Rome", "Oslo"]}},
                                    "required": ["place"], "additionalProperties": False}}}


class ToolTest(ServerTest):
    """Cases with a server whose model's template knows tools."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="kvasir-template-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        template = os.path.join(cls.folder, "tools.jinja")
        with open(template, "w") as file:
            file.write(TOOL_TEMPLATE)
        cls.OPTIONS = {"chat": False}
        cls.FLAGS = ("--chat-template", template)
        super().setUpClass()
