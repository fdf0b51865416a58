"""A chat template that knows tools, for models whose own does not, and a tool. The template has the model's calls in
marks of their own, as many have."""

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
