"""The chat template of base models that have none, for jobs that give none.

It needs no special tokens but the end-of-text token, which every model has. It goes with the adapter, so that
the engine asks as the training answered. What it cannot say (reasoning) it refuses.
"""

from __future__ import annotations

GENERIC_TEMPLATE = """\
{{- bos_token }}
{%- if tools %}
{{- 'Tools:\\n' }}
{%- for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}
{{- 'Answer with one line of JSON for each call: {"name": …, "arguments": …}\\n\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.reasoning_content %}
{{- raise_exception('the generic chat template has no place for reasoning_content; give a template') }}
{%- endif %}
{{- {'system': 'System', 'user': 'User', 'assistant': 'Assistant', 'tool': 'Tool'}[message.role] + ':\\n' }}
{{- message.content or '' }}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{{- '\\n' if message.content or not loop.first }}
{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
{%- endfor %}
{%- endif %}
{{- eos_token if message.role == 'assistant' }}
{{- '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"""
