"""Checks a model's tokenizer files and finds its chat template and special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane.checks.problems import FileSource, InvalidFile, ProblemList
from controlplane.checks.wording import shown
from workers.validation.chat_template import (
    InvalidTemplate,
    TemplateFacts,
    check_chat_template,
    template_text,
)
from workers.validation.json_files import VOCABULARY_BYTES, read_json_object, read_small_file

TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_BYTES = 1024 * 1024
KINDS = frozenset({"BPE", "Unigram", "WordPiece", "WordLevel"})
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
ENOUGH = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt"


@dataclass(frozen=True)
class TokenizerFacts:
    chat_template: str | None
    template: TemplateFacts | None


class _AddedToken(msgspec.Struct):
    id: int
    content: str


class _Vocabulary(msgspec.Struct):
    vocab: dict[str, int] | list[tuple[str, float]]
    type: str | None = None


class _TokenizerFile(msgspec.Struct):
    """Only what is looked at is kept: the merges alone may be a million strings."""

    model: _Vocabulary
    added_tokens: list[_AddedToken] = []


def read_tokenizer(
    source: FileSource,
    prefix: str,
    files: dict[str, int],
    vocabulary: int | None,
    problems: ProblemList,
    warnings: list[str],
) -> TokenizerFacts:
    """What the tokenizer offers. `vocabulary` is the number of embedded tokens, where known."""
    if (
        not {"tokenizer.json", "tokenizer.model"} & files.keys()
        and not {"vocab.json", "merges.txt"} <= files.keys()
    ):
        problems.add("", "", f"there is no tokenizer: expected {ENOUGH}")
    if "tokenizer.json" in files:
        try:
            _check_tokenizer_file(source, prefix + "tokenizer.json", vocabulary, warnings)
        except InvalidFile as error:
            problems.add_invalid("tokenizer.json", error)
    if "tokenizer.model" in files and not source.read_range(prefix + "tokenizer.model", 0, 1).startswith(
        b"\n"
    ):
        problems.add("tokenizer.model", "", "not a SentencePiece model")
    config = _read_config(source, prefix, files, problems)
    if config.get("auto_map"):
        problems.add(TOKENIZER_CONFIG, "auto_map", "names code of the tokenizer's own, which is never run")
    return _check_template(source, prefix, files, config, problems)


def _check_tokenizer_file(source: FileSource, key: str, vocabulary: int | None, warnings: list[str]) -> None:
    data = read_small_file(source, key, VOCABULARY_BYTES)
    try:
        content = msgspec.json.decode(data, type=_TokenizerFile)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidFile(f"not a tokenizer: {error}") from None
    if content.model.type is not None and content.model.type not in KINDS:
        raise InvalidFile(f"model.type {shown(content.model.type)} is none of {', '.join(sorted(KINDS))}")
    if not content.model.vocab:
        raise InvalidFile("model.vocab is empty")
    known = content.model.vocab
    ids = known.values() if isinstance(known, dict) else [len(known) - 1]
    highest = max([*ids, *(token.id for token in content.added_tokens)])
    if vocabulary is not None and highest >= vocabulary:
        warnings.append(
            f"tokenizer.json has a token with id {highest}; the model has vocab_size {vocabulary}"
        )


def _read_config(
    source: FileSource, prefix: str, files: dict[str, int], problems: ProblemList
) -> dict[str, Any]:
    if TOKENIZER_CONFIG not in files:
        return {}
    try:
        return read_json_object(source, prefix + TOKENIZER_CONFIG)
    except InvalidFile as error:
        problems.add_invalid(TOKENIZER_CONFIG, error)
        return {}


def _check_template(
    source: FileSource, prefix: str, files: dict[str, int], config: dict[str, Any], problems: ProblemList
) -> TokenizerFacts:
    """The template of its own file counts for more than the one in the configuration."""
    place = (TEMPLATE_FILE, "") if TEMPLATE_FILE in files else (TOKENIZER_CONFIG, "chat_template")
    try:
        if TEMPLATE_FILE in files:
            text: str | None = _decoded(read_small_file(source, prefix + TEMPLATE_FILE, TEMPLATE_BYTES))
        else:
            text = template_text(config.get("chat_template"))
        if text is None:
            return TokenizerFacts(None, None)
        return TokenizerFacts(text, check_chat_template(text, special_tokens(config)))
    except InvalidFile as error:
        problems.add(*place, error.reason)
    except InvalidTemplate as error:
        problems.add(*place, str(error))
    return TokenizerFacts(None, None)


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token` and the like of a tokenizer_config.json, written there as a string or as an object."""
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKENS:
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            tokens[name] = content
    return tokens


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidFile(f"not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start + 1}") from None
