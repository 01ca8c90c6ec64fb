"""Checks a chat template by rendering it, in a process of its own with bounds on time, memory and output.

Both kinds pass through here: a model's own template (Hugging Face conventions) and the template of a
Fireworks conversation config, which is also given `mode` and an `unk_token` that marks the spans to train on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controlplane.checks.wording import shown

MAX_TEMPLATE_CHARACTERS = 256 * 1024
CHILD = Path(__file__).with_name("template_child.py")

USER_TEXT = "hearth-probe-user-text"
ASSISTANT_TEXT = "hearth-probe-assistant-text"
TOOL_NAME = "hearth_probe_tool"
TRAIN_MARK = "<hearth-probe-mark>"
DEFAULT_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


@dataclass(frozen=True)
class RenderLimits:
    seconds: float = 3.0
    """Time on the processor until rendering is interrupted, and its line blamed."""
    cpu_seconds: int = 5
    """Time on the processor until the process is killed."""
    wall_seconds: float = 60.0
    memory_bytes: int = 512 * 1024 * 1024
    output_characters: int = 1024 * 1024


@dataclass(frozen=True)
class TemplateFacts:
    supports_tools: bool
    """Tools that are offered appear in the text."""
    supports_system: bool
    marks_training: bool
    """In mode `train` the assistant's words lie between two `unk_token`."""


class InvalidTemplate(Exception):
    """A template that cannot be used; `line` is None where no line is to blame."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line


def check_chat_template(
    template: str, special_tokens: Mapping[str, str] | None = None, limits: RenderLimits | None = None
) -> TemplateFacts:
    """Render a question, a longer conversation, and what is optional; raises `InvalidTemplate`.

    `special_tokens` are the tokenizer's `bos_token` and the like. A template may refuse system messages,
    tools or mode `train` with an error; it may not hang, grow without bound or reach out of its sandbox.
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise InvalidTemplate(f"longer than {MAX_TEMPLATE_CHARACTERS} characters")
    tokens = {**DEFAULT_TOKENS, **(special_tokens or {})}
    question, conversation, system, tools, training = _render(
        template, _cases(tokens), limits or RenderLimits()
    )
    for result in (question, conversation):
        if "error" in result:
            raise InvalidTemplate(result["error"], result["line"])
        if USER_TEXT not in result["text"]:
            raise InvalidTemplate("the rendered text does not hold what the user said")
    if ASSISTANT_TEXT not in conversation["text"]:
        raise InvalidTemplate("the rendered text does not hold what the assistant said")
    return TemplateFacts(
        supports_tools=TOOL_NAME in tools.get("text", ""),
        supports_system="text" in system,
        marks_training=_marks_training(training.get("text", "")),
    )


def _cases(tokens: Mapping[str, str]) -> list[dict[str, Any]]:
    question = [{"role": "user", "content": USER_TEXT}]
    answered = [*question, {"role": "assistant", "content": ASSISTANT_TEXT}]
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {"name": TOOL_NAME, "description": "A probe.", "parameters": parameters}
    given = {**tokens, "mode": "generate", "add_generation_prompt": True, "tools": None, "documents": None}
    return [
        {**given, "messages": question},
        {**given, "messages": [*answered, *question]},
        {**given, "messages": [{"role": "system", "content": "Be brief."}, *question]},
        {**given, "messages": question, "tools": [{"type": "function", "function": function}]},
        {
            **given,
            "messages": answered,
            "mode": "train",
            "unk_token": TRAIN_MARK,
            "add_generation_prompt": False,
        },
    ]


def _marks_training(text: str) -> bool:
    spans = text.split(TRAIN_MARK)
    return len(spans) % 2 == 1 and any(ASSISTANT_TEXT in span for span in spans[1::2])


def _render(template: str, cases: list[dict[str, Any]], limits: RenderLimits) -> list[dict[str, Any]]:
    request = json.dumps({"template": template, "cases": cases, "limits": asdict(limits)}).encode()
    # Isolated (-I) and without environment: the template's process knows no paths, keys or settings of ours.
    command = [sys.executable, "-I", "-X", "utf8", str(CHILD)]
    try:
        done = subprocess.run(
            command,
            input=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limits.wall_seconds,
            env={},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidTemplate("rendering takes too long") from None
    if done.returncode != 0:
        raise InvalidTemplate("rendering takes too much time or memory")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "results" not in answer:
        raise InvalidTemplate(answer["error"], answer["line"])
    results: list[dict[str, Any]] = answer["results"]
    return results


def template_text(value: Any) -> str | None:
    """The default template in a `chat_template` entry: a string, or a list of named ones."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or any(not isinstance(entry, dict) for entry in value):
        raise InvalidTemplate(
            f"chat_template must be a string or a list of named templates, found {shown(value)}"
        )
    named = {
        entry.get("name"): entry.get("template") for entry in value if isinstance(entry.get("name"), str)
    }
    chosen = named.get("default")
    if not isinstance(chosen, str):
        raise InvalidTemplate('chat_template is a list without a template named "default"')
    return chosen
