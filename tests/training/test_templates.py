"""Chat templates: the three ways to mark what is trained, and templates that mean harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.training.examples.renderer import TemplateRenderer
from workers.training.examples.templates import ChatTemplate, Row, TemplateProblem

MARK = "\ufdd0"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

BY_UNK_TOKEN = """\
{%- set _mode = mode | default('generate', true) -%}
{%- if _mode == 'generate' -%}{{ bos_token }}{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{%- if _mode == 'train' -%}
{{ '[A]' + unk_token + message['content'] + '[E]' + unk_token }}
{%- else -%}
{{ '[A]' + message['content'] + ('' if loop.last else '[E]') }}
{%- endif -%}
{%- else -%}
{{ '[' + message['role'][0] | upper + ']' + message['content'] + '[E]' }}
{%- endif -%}
{%- endfor -%}
{%- if _mode == 'generate' and messages[-1]['role'] != 'assistant' -%}{{ '[A]' }}{%- endif -%}
"""
BY_GENERATION = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '[A]' }}{% generation %}{{ message.content + '[E]' }}{% endgeneration %}
{%- else %}
{{- '[' + message.role[0] | upper + ']' + message.content + '[E]' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[A]' }}{% endif %}"""
BY_PREFIX = BY_GENERATION.replace("{% generation %}", "").replace("{% endgeneration %}", "")

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2"},
]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
MARKED_TALK = "[S]Be brief.[E][U]One?[E][A]<1[E]>[U]Two?[E][A]<2[E]>"


def row(messages: list[dict[str, Any]] = TALK, weights: list[int] | None = None) -> Row:
    return Row(messages, None, weights or [1] * len(messages))


def shown(marked: str) -> str:
    """The marks as < and >."""
    pieces = marked.split(MARK)
    return pieces[0] + "".join(f"{'>' if i % 2 else '<'}{piece}" for i, piece in enumerate(pieces[1:]))


@pytest.mark.parametrize(
    ("source", "way"),
    [(BY_UNK_TOKEN, "unk_token"), (BY_GENERATION, "generation"), (BY_PREFIX, "prefix")],
)
def test_the_three_ways_mark_the_same_answers(source: str, way: str) -> None:
    template = ChatTemplate(source, TOKENS)

    assert template.way == way
    assert [shown(text) for text in template.render_marked(row(), MARK)] == [MARKED_TALK]


@pytest.mark.parametrize("source", [BY_UNK_TOKEN, BY_GENERATION, BY_PREFIX])
def test_an_answer_of_weight_zero_is_context_only(source: str) -> None:
    texts = ChatTemplate(source, TOKENS).render_marked(row(weights=[1, 1, 0, 1, 1]), MARK)

    assert [shown(text) for text in texts] == ["[S]Be brief.[E][U]One?[E][A]1[E][U]Two?[E][A]<2[E]>"]


def test_the_serving_prompt_is_what_stands_before_the_last_answer() -> None:
    prompts = [ChatTemplate(source, TOKENS).render_prompt(row()) for source in (BY_UNK_TOKEN, BY_PREFIX)]

    assert prompts == ["<s>" + (plain := "[S]Be brief.[E][U]One?[E][A]1[E][U]Two?[E][A]"), plain]


def test_a_template_that_rewrites_earlier_answers_gives_each_answer_a_text_of_its_own() -> None:
    only_last_thinks = (
        "{% for m in messages %}[{{ m.role[0] }}]"
        "{% if m.role == 'assistant' and loop.last %}(thought){% endif %}{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}"
    )

    texts = ChatTemplate(only_last_thinks, TOKENS).render_marked(row(TALK[1:]), MARK)

    assert [shown(text) for text in texts] == [
        "[u]One?;[a]<(thought)1;>",
        "[u]One?;[a]1;[u]Two?;[a]<(thought)2;>",
    ]


def test_an_answer_that_does_not_follow_its_prompt_is_refused() -> None:
    template = ChatTemplate(BY_PREFIX.replace("%}{{ '[A]' }}", "%}{{ '[B]' }}"), TOKENS)

    with pytest.raises(TemplateProblem, match="message 2 does not start with the prompt"):
        template.render_marked(row(), MARK)


def test_a_span_that_is_never_closed_is_refused() -> None:
    template = ChatTemplate("{% if mode == 'train' %}{{ unk_token }}{{ messages[1].content }}{% endif %}", {})

    with pytest.raises(TemplateProblem, match="does not close"):
        template.render_marked(row(), MARK)


def test_a_syntax_error_is_placed() -> None:
    with pytest.raises(TemplateProblem, match="line 2"):
        ChatTemplate("\n{% if %}", TOKENS)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(999999999) %}{% endfor %}",
    ],
)
def test_the_sandbox_holds(attack: str) -> None:
    with pytest.raises(TemplateProblem):
        ChatTemplate(attack + BY_PREFIX, TOKENS).render_marked(row(), MARK)


def test_a_template_that_never_ends_is_ended() -> None:
    endless = "{% if 9 ** (9 ** 9) %}{% endif %}"  # One operation, which Python cannot interrupt.

    with pytest.raises(TemplateProblem, match="does not come to an end"):
        render_elsewhere(endless + BY_PREFIX, seconds=1)


@pytest.mark.parametrize(
    "greedy",
    ["{% set x = 'x' * 9999999999 %}", "{% set x = '%09999999999d' % 1 %}", "{{ 'x' | center(9999999999) }}"],
)
def test_a_template_that_takes_all_memory_is_refused(greedy: str) -> None:
    with pytest.raises(TemplateProblem, match="too much memory"):
        render_elsewhere(greedy + BY_PREFIX)


def test_the_rendering_process_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_S3_SECRET_KEY", "hush")
    with TemplateRenderer(BY_PREFIX, TOKENS) as renderer:
        environment = Path(f"/proc/{renderer.pid}/environ").read_text()

    assert "hush" not in environment


def test_rendering_elsewhere_gives_what_rendering_here_gives(renderer: TemplateRenderer) -> None:
    here = ChatTemplate(BY_GENERATION, TOKENS)

    assert renderer.way == here.way
    assert renderer.render_marked(row(), MARK) == here.render_marked(row(), MARK)
    assert renderer.render_prompt(row()) == here.render_prompt(row())


@pytest.fixture
def renderer() -> Iterator[TemplateRenderer]:
    with TemplateRenderer(BY_GENERATION, TOKENS) as renderer:
        yield renderer


def render_elsewhere(source: str, seconds: int = 10) -> list[str]:
    with TemplateRenderer(source, TOKENS, row_cpu_seconds=seconds) as renderer:
        return renderer.render_marked(row(), MARK)


def test_many_rows_are_rendered_in_their_order_and_a_bad_one_fails_alone() -> None:
    source = BY_GENERATION.replace(
        "{%- for message in messages %}",
        "{% if 'boom' in messages[0].content %}{{ raise_exception('no booms') }}{% endif %}"
        "{%- for message in messages %}",
        1,
    )
    rows = [talk(question, answer) for question, answer in (("a", "1"), ("boom", "2"), ("c", "3"))]
    with TemplateRenderer(source, TOKENS) as renderer:
        first, second, third = renderer.render_many([(one, MARK) for one in rows])

    assert isinstance(first, list) and isinstance(third, list)
    assert shown(first[0]) == "[U]a[E][A]<1[E]>"
    assert shown(third[0]) == "[U]c[E][A]<3[E]>"
    assert str(second) == "no booms"


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (ENDLESS, "does not come to an end: it ran for 1 seconds"),
        ("{{ 'x' * 3000000000 }}", "too much memory"),
        ("{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "writes more than 64000000 characters"),
    ],
)
def test_rows_that_do_harm_are_named_and_the_others_are_rendered(harm: str, cause: str) -> None:
    source = "{% if messages[0].content == 'harm' %}" + harm + "{% endif %}" + BY_GENERATION
    rows = [talk(question, "1") for question in ("a", "harm", "b")]
    with TemplateRenderer(source, TOKENS, row_cpu_seconds=1) as renderer:
        first, second, third = renderer.render_many([(one, MARK) for one in rows])

    assert isinstance(first, list) and isinstance(third, list)
    assert cause in str(second)


def test_a_template_that_hangs_on_every_row_is_given_up() -> None:
    source = "{% if messages[0].content == 'harm' %}" + ENDLESS + "{% endif %}" + BY_GENERATION
    with TemplateRenderer(source, TOKENS, row_cpu_seconds=1) as renderer:
        found = renderer.render_many([(talk("harm", "1"), MARK)] * 100)

        assert [str(problem) for problem in found[:3]] == [
            "it does not come to an end: it ran for 1 seconds"
        ] * 3
        assert len(found) == 100
        assert str(found[-1]).endswith("on 3 rows; it was not asked again")
        with pytest.raises(TemplateProblem, match="not asked again"):
            renderer.render_prompt(talk("a", "1"))


def talk(question: str, answer: str) -> Row:
    return row([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
