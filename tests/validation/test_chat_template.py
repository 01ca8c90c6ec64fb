"""Templates from strangers: rendered where they can do no harm, and blamed by line."""

from __future__ import annotations

import pytest

from workers.validation.chat_template import (
    InvalidTemplate,
    RenderLimits,
    TemplateFacts,
    check_chat_template,
    template_text,
)

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
FIREWORKS = (
    "{% set mode = mode | default('generate') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{% if m.role == 'assistant' %}<a>{{ unk_token if mode == 'train' }}{{ m.content }}</s>"
    "{{ unk_token if mode == 'train' }}{% else %}<u>{{ m.content }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "facts"),
    [
        (PLAIN, TemplateFacts(supports_tools=False, supports_system=True, marks_training=False)),
        (PLAIN + "{{ tools | tojson(indent=2) }}", TemplateFacts(True, True, False)),
        (FIREWORKS, TemplateFacts(False, False, True)),
        (PLAIN + "{% generation %}x{% endgeneration %}", TemplateFacts(False, True, False)),
        (
            PLAIN + "{{ strftime_now('%Y') }}{% for i in [1, 2] %}{% break %}{% endfor %}",
            TemplateFacts(False, True, False),
        ),
    ],
    ids=["plain", "with tools", "Fireworks", "generation marks", "dates and loop controls"],
)
def test_a_template_is_known_by_what_it_renders(template: str, facts: TemplateFacts) -> None:
    assert check_chat_template(template) == facts


def test_special_tokens_reach_the_template() -> None:
    check_chat_template("{{ raise_exception('no') if bos_token != '<bos>' }}" + PLAIN, {"bos_token": "<bos>"})


UNUSABLE = [
    ("a\n{{ x", "line 2: unexpected end of template"),
    ("{% for m in messages %}\n{% endfoo %}", "line 2: Encountered unknown tag 'endfoo'"),
    ("{{ 1 | nonsense }}", "line 1: No filter named 'nonsense'"),
    ("\n{{ raise_exception('only odd days') }}", "line 2: only odd days"),
    ("\n\n{{ messages[9].foo.bar }}", "line 3: list object has no element 9"),
    ("{{ 1 / 0 }}", "line 1: ZeroDivisionError: division by zero"),
    ("{% include '/etc/passwd' %}", "line 1: TypeError: no loader for this environment specified"),
    ("Hello", "the rendered text does not hold what the user said"),
    ("", "the rendered text does not hold what the user said"),
    ("{{ messages[0].content }}", "the rendered text does not hold what the assistant said"),
    ("x" * 300_000, "longer than 262144 characters"),
]
HOSTILE = [
    ("\n{% for i in range(10**9) %}{% endfor %}", "line 2: OverflowError: Range too big"),
    (
        "{% for i in range(99999) %}\n{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "rendering takes too long",
    ),
    ("{{ 'a' * 10**10 }}", "line 1: rendering takes too much memory"),
    (
        "{% set n = namespace(x='aaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "memory",
    ),
    ("{{ '%1000000000d' % 1 }}", "line 1: rendering takes too much memory"),
    ("{{ 'a' * 10**7 }}", "the rendered text is too long"),
    ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "the rendered text is too long"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "line 1: the template recurses too deeply"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "the template recurses too deeply"),
    ("{{ ''.__class__ }}", "line 1: unsafe: access to attribute '__class__' of a str is not allowed"),
    ("{{ ''['__class__'] }}", "line 1: unsafe: access to attribute '__class__'"),
    ("{{ '' | attr('__class__') }}", "line 1: unsafe: access to attribute '__class__'"),
    ("{{ messages | map(attribute='__class__') | list }}", "line 1: unsafe: access to attribute '__class__'"),
    ("{{ '{0.__class__}'.format(1) }}", "line 1: unsafe: access to attribute '__class__'"),
    ("{{ cycler.__init__.__globals__ }}", "line 1: unsafe: access to attribute '__init__'"),
    ("{{ raise_exception.__globals__ }}", "line 1: unsafe: access to attribute '__globals__'"),
    ("{{ self._TemplateReference__context }}", "line 1: unsafe: access to attribute"),
    (
        "\n{% set x = messages[1:] %}{% set messages = x | list %}",
        "line 2: too many names for the messages, or too many macros",
    ),
    (
        "{% set a = messages %}" + "{% set b = a %}" * 9 + "{% set c = b %}" * 12,
        "too many names for the messages",
    ),
    ("{% macro f() %}{% endmacro %}" * 101, "too many macros"),
    ("{{ messages.append(1) }}", "line 1: unsafe: access to attribute 'append' of a list is not allowed"),
]


@pytest.mark.parametrize(("template", "reason"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_an_unusable_template_is_blamed_by_line(template: str, reason: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        check_chat_template(template)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(("template", "reason"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_template_is_stopped(template: str, reason: str) -> None:
    limits = RenderLimits(seconds=1.5, memory_bytes=256 * 1024 * 1024)
    with pytest.raises(InvalidTemplate) as caught:
        check_chat_template(template + PLAIN, limits=limits)
    assert reason in str(caught.value)


def test_what_runs_too_long_is_blamed_by_line() -> None:
    template = "a\n{% for i in range(99999) %}\n{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InvalidTemplate) as caught:
        check_chat_template(template, limits=RenderLimits(seconds=0.5))
    assert caught.value.line == 3


def test_a_template_that_never_returns_to_python_is_killed() -> None:
    with pytest.raises(InvalidTemplate, match=r"too much time or memory|too long"):
        check_chat_template("{{ 10 ** (10 ** 9) }}" + PLAIN, limits=RenderLimits(seconds=1, cpu_seconds=1))


def test_the_template_sees_nothing_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_S3_SECRET_KEY", "hush")
    check_chat_template("{{ raise_exception('leak') if HEARTH_S3_SECRET_KEY }}" + PLAIN)


def test_the_default_of_several_templates_is_taken() -> None:
    assert template_text(None) is None
    assert template_text("x") == "x"
    both = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert template_text(both) == "d"
    for wrong in (3, {"default": "d"}, ["d"], [{"name": "tool_use", "template": "t"}], [{"name": ["x"]}]):
        with pytest.raises(InvalidTemplate, match="chat_template"):
            template_text(wrong)
