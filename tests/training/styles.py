"""Chat templates in the shapes that public families of models use, each in the three ways to mark answers.

Written for these tests: short, and with what makes each family its own. OPEN and CLOSE stand around answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = "the colour of sky is blue and what does it cost to send a letter now I think so"


@dataclass(frozen=True)
class Style:
    text: str
    stop: str
    specials: tuple[str, ...]
    before: str = ""
    """What an answer begins with, behind the prompt that asks for it."""
    bos: str = ""
    takes_tools: bool = False

    def written(self, way: str) -> str:
        opening, closing = MARKS[way]
        return self.text.replace("OPEN", opening).replace("CLOSE", closing)


MARKS = {
    "prefix": ("", ""),
    "generation": ("{%- generation %}", "{%- endgeneration %}"),
    "unk_token": (
        "{{- unk_token if mode == 'train' else '' }}",
        "{{- unk_token if mode == 'train' else '' }}",
    ),
}

STYLES = {
    "llama 3": Style(
        """\
{{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}
{%- if m.role == 'assistant' %}
{%- if m.tool_calls %}
OPEN{{- '{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' }}
{{- m.tool_calls[0].function.arguments | tojson }}{{- '}' + '<|eot_id|>' }}CLOSE
{%- else %}OPEN{{- m.content | trim + '<|eot_id|>' }}CLOSE
{%- endif %}
{%- else %}
{%- if loop.first and tools %}{{- 'Tools: ' + tools | tojson + '\\n\\n' }}{% endif %}
{{- m.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
        stop="<|eot_id|>",
        specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|begin_of_text|>",
        takes_tools=True,
    ),
    "qwen": Style(
        """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}{{- messages[0].content + '\\n' if messages[0].role == 'system' else '' }}
{{- '# Tools' }}{%- for tool in tools %}{{- '\\n' + tool | tojson }}{% endfor %}{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
OPEN{{- m.content or '' }}
{%- for call in m.tool_calls or [] %}
{{- '\\n' if m.content else '' }}{{- '<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>' }}CLOSE{{- '\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}""",
        stop="<|im_end|>",
        specials=("<|im_start|>", "<|im_end|>"),
        takes_tools=True,
    ),
    "mistral": Style(
        """\
{{- bos_token }}
{%- set start = 1 if messages[0].role == 'system' else 0 %}
{%- for m in messages[start:] %}
{%- if m.role == 'user' %}
{{- '[INST] ' + (messages[0].content + '\\n\\n' if loop.first and start else '') + m.content + ' [/INST]' }}
{%- else %}OPEN{{- ' ' + m.content + eos_token }}CLOSE
{%- endif %}
{%- endfor %}""",
        stop="</s>",
        specials=("<s>", "</s>", "[INST]", "[/INST]"),
        before=" ",
        bos="<s>",
    ),
    "gemma": Style(
        """\
{{- bos_token }}
{%- set start = 1 if messages[0].role == 'system' else 0 %}
{%- for m in messages[start:] %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}
{%- if loop.first and start %}{{- messages[0].content + '\\n\\n' }}{% endif %}
{%- if m.role == 'assistant' %}OPEN{{- m.content | trim + '<end_of_turn>' }}CLOSE
{%- else %}{{- m.content | trim + '<end_of_turn>' }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}""",
        stop="<end_of_turn>",
        specials=("<bos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
    ),
    "phi": Style(
        """\
{%- for m in messages %}
{{- '<|' + m.role + '|>\\n' }}
{%- if m.role == 'assistant' %}OPEN{{- m.content + '<|end|>' }}CLOSE
{%- else %}{{- m.content + '<|end|>' }}{% endif %}{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{% endif %}""",
        stop="<|end|>",
        specials=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "chatml": Style(
        """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}OPEN{{- m.content + '<|im_end|>' }}CLOSE
{%- else %}{{- m.content + '<|im_end|>' }}{% endif %}{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}""",
        stop="<|im_end|>",
        specials=("<|im_start|>", "<|im_end|>"),
    ),
}


def backend(specials: tuple[str, ...]) -> Tokenizer:
    """Byte pairs over any text, with a family's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    return tokenizer


def tokenizer_of(specials: tuple[str, ...], stop: str, bos: str = "") -> Any:
    from transformers import PreTrainedTokenizerFast

    named = {"eos_token": stop, **({"bos_token": bos} if bos else {})}
    return PreTrainedTokenizerFast(tokenizer_object=backend(specials), **named)


def spec_of(template: str) -> Any:
    """As much of a job's specification as reading needs."""
    return SimpleNamespace(
        kind="conversation", jinja_template=template, input_template=None, output_template=None, day=None
    )
