"""How a model calls functions, told from its chat template and type."""

import ast
import importlib.util
from pathlib import Path

import pytest

from controlplane.checks.tool_calls import PARSERS, CallForm, call_form, tool_parser

HERMES = 'return a json object within <tool_call></tool_call> tags: {"name": <name>, "arguments": <args>}'
LLAMA = '{"name": function name, "parameters": dictionary} <|python_tag|> Environment: ipython'
TEMPLATES = [
    (HERMES, "qwen2", "hermes"),
    ("<tool_call>\\n<function=name>\\n<parameter=x>", "qwen3_moe", "qwen3_xml"),
    (LLAMA, "llama", "llama3_json"),
    ("<|header_start|>assistant", "llama4", "llama4_pythonic"),
    ("[AVAILABLE_TOOLS] {{ tools }} [TOOL_CALLS]", "mistral", "mistral"),
    ("<｜tool▁calls▁begin｜>function\\n```json", "deepseek_v3", "deepseek_v3"),
    ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek_v3", "deepseek_v31"),
    ("<|tool_calls_section_begin|>", "kimi_k2", "kimi_k2"),
    ("<tool_call>{name}<arg_key>", "glm4_moe", "glm45"),
    ("<|start_of_role|> <|tool_call|>", "granite", "granite"),
    ("<|start_of_role|> <tool_call>", "granitemoehybrid", "granite4"),
    ("<|channel|>commentary", "gpt_oss", "openai"),
    ("<|channel|>commentary", "llama", None),
    ("<tool_calls>", "jamba", "jamba"),
    ("{{ messages }}", "llama", None),
    ("", "", None),
]


@pytest.mark.parametrize(("template", "model_type", "parser"), TEMPLATES)
def test_the_parser_is_told_by_the_template_and_the_type(template, model_type, parser):
    assert tool_parser(template, model_type) == parser


def test_the_engine_has_every_parser_that_is_chosen():
    found = importlib.util.find_spec("vllm")
    assert found is not None
    source = Path(found.submodule_search_locations[0], "tool_parsers", "__init__.py").read_text()
    tables = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_TOOL_PARSERS_TO_REGISTER"
    ]
    assert set(PARSERS) <= set(ast.literal_eval(tables[0]))


FORMS = [
    (HERMES, True, CallForm("hermes")),
    (HERMES, False, CallForm(None)),
    (LLAMA, True, CallForm("llama3_json", arguments="parameters")),
    ("{% for call in message.tool_calls %}", False, CallForm(shows_calls=True)),
    ("{% if message['role'] == 'functions' %}", False, CallForm(functions_role=True)),
    ('{% if message.role == "functions" %}', False, CallForm(functions_role=True)),
    ("{% if role in ['tool', 'functions'] %}", False, CallForm(functions_role=True)),
    ("{% if 'functions' == message['role'] %}", False, CallForm(functions_role=True)),
    ("{% if tools['functions'] %}{{ 'functions' }}{% endif %}", False, CallForm()),
    ("{% if message.role == 'user' and 'functions' in tools %}", False, CallForm()),
    ("{{ reasoning_effort }}", False, CallForm(efforts=("low", "medium", "high"))),
    ("{% if enable_thinking is false %}", False, CallForm(efforts=("none", "medium"))),
    ("{{ raise_exception('System role not supported') }}", False, CallForm(system_role=False)),
    ("{{ raise_exception('Roles must alternate') }}", False, CallForm()),
]


@pytest.mark.parametrize(("template", "supports_tools", "form"), FORMS)
def test_the_form_of_a_call_is_told_by_the_template(template, supports_tools, form):
    assert call_form(template, "qwen2", supports_tools) == form
