"""How a model calls functions, as its chat template tells, and which tool parser of the engine reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# What the template must hold (all of it), the model types it is limited to (any when empty), and the parser.
# The first row that fits decides.
ROWS: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("[TOOL_CALLS]",), (), "mistral"),
    (("<｜tool▁calls▁begin｜>", "```json"), (), "deepseek_v3"),
    (("<｜tool▁calls▁begin｜>",), (), "deepseek_v31"),
    (("<|tool_calls_section_begin|>",), (), "kimi_k2"),
    (("<minimax:tool_call>",), (), "minimax_m2"),
    (("<seed:tool_call>",), (), "seed_oss"),
    (("<|START_ACTION|>",), (), "cohere_command3"),
    (("<start_function_call>",), (), "functiongemma"),
    (("<|action_start|>", "<|plugin|>"), (), "internlm"),
    (("<|channel|>",), ("gpt_oss",), "openai"),
    (("<tool_calls>",), ("jamba",), "jamba"),
    (("<tool_calls>",), ("hunyuan_v1_moe",), "hunyuan_a13b"),
    (("<tool_call>",), ("ernie4_5", "ernie4_5_moe"), "ernie45"),
    (("<function_calls>",), ("olmo3",), "olmo3"),
    (("<arg_key>",), (), "glm45"),
    (("<|start_of_role|>", "<tool_call>"), (), "granite4"),
    (("<|start_of_role|>", "<|tool_call|>"), (), "granite"),
    (("<tool_call>", "<function=", "<parameter="), (), "qwen3_xml"),
    (("<tool_call>",), (), "hermes"),
    (("<|header_start|>",), ("llama4",), "llama4_pythonic"),
    (("<|python_tag|>", '"parameters"'), (), "llama3_json"),
    (("functools[",), (), "phi4_mini_json"),
)
PARSERS = tuple(dict.fromkeys(parser for _, _, parser in ROWS))

REFUSES_SYSTEM = re.compile(r"raise_exception\(\s*['\"][^'\"]*\bsystem\b", re.IGNORECASE)
# Compared with a role, or in a list of roles: other things may be called "functions" as well.
FUNCTIONS_ROLE = re.compile(
    r"""role['"]?\]?(?:\s*\|\s*\w+)?\s*(?:[=!]=\s*|\s(?:not\s+)?in\s*[\[(][^\])]*)['"]functions['"]"""
    r"""|['"]functions['"]\s*[=!]=\s*[\w.\['"]*role\b"""
)
EFFORTS = (("reasoning_effort", ("low", "medium", "high")), ("enable_thinking", ("none", "medium")))
"""What a template may read, and the reasoning efforts that it tells apart by it."""


@dataclass(frozen=True)
class CallForm:
    """How a model is shown functions, and how it writes the calls of them."""

    parser: str | None = None
    """The engine's tool parser, where the template shows tools to the model and the parser is known."""
    arguments: str = "arguments"
    """The member that holds the arguments in a call that is written as JSON."""
    shows_calls: bool = False
    """The template writes the calls that earlier messages hold."""
    functions_role: bool = False
    """The template shows functions in a message of the role `functions`, as FireFunction's does."""
    system_role: bool = True
    """The template takes system messages."""
    efforts: tuple[str, ...] = ()
    """How much the model can be told to think."""


PLAIN_TEMPLATE = CallForm()


@lru_cache(maxsize=1024)
def call_form(template: str, model_type: str, supports_tools: bool) -> CallForm:
    """`supports_tools` is what rendering the template has shown: offered tools appear in its text."""
    return CallForm(
        parser=tool_parser(template, model_type) if supports_tools else None,
        arguments="parameters"
        if '"parameters": ' in template and '"arguments"' not in template
        else "arguments",
        shows_calls="tool_calls" in template,
        functions_role=FUNCTIONS_ROLE.search(template) is not None,
        system_role=REFUSES_SYSTEM.search(template) is None,
        efforts=tuple(dict.fromkeys(each for word, known in EFFORTS if word in template for each in known)),
    )


def tool_parser(template: str, model_type: str) -> str | None:
    for marks, types, parser in ROWS:
        if all(mark in template for mark in marks) and (not types or model_type in types):
            return parser
    return None
