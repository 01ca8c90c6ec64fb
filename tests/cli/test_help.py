"""Help: what each command is, laid out for any width, with an example that parses and commands that exist."""

import re
import shlex

import pytest

from cli.language import help, tree
from cli.language.help_topics import TOPICS
from cli.language.registry import all_commands, find_by_words, index, places, understood
from controlplane.resources.datasets.listing import LISTING as DATASETS
from controlplane.resources.deployments.listing import LISTING as DEPLOYMENTS
from controlplane.resources.models.listing import LISTING as MODELS
from controlplane.rest.filters.conditions import read_filter
from controlplane.rest.ordering import read_order

LISTINGS = {"models": MODELS, "datasets": DATASETS, "deployments": DEPLOYMENTS}
COMMANDS = all_commands()
NAMES = [" ".join(command.words) for command in COMMANDS]


def shown(command, columns=80):
    return help.of_command(command, tree.leaf(command, command.verb).params, "firectl x", columns)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_example_of_a_command_is_a_command_line_of_that_command(command):
    words = shlex.split(command.example)
    assert words[0] == "firectl", "the example starts with firectl"
    line = understood(words[1:])
    assert find_by_words(line.command).run is command.run
    inner = tree.leaf(command, command.verb)
    if "--help" not in words:
        inner.make_context(command.verb, list(line.rest))


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_a_command_leads_to_others_that_exist(command):
    assert 1 <= len(command.see_also) <= 3
    for other in command.see_also:
        line = understood(other.split())
        found = find_by_words(line.command)
        assert found is not None, other
        assert found is not command


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_argument_and_flag_of_a_command_says_what_it_is(command):
    params = tree.leaf(command, command.verb).params
    assert [p.name for p in params if not p.hidden and not (p.help or "").strip()] == []
    assert command.help.strip()


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_help_keeps_to_the_width_of_the_terminal(columns):
    for command in COMMANDS:
        for line in shown(command, columns).splitlines():
            is_typed = line.startswith(("  firectl", "  eval"))
            one_word = len(line.split()) == 1
            assert len(line) <= columns or is_typed or one_word, line


@pytest.mark.parametrize("columns", [40, 80])
def test_no_explanation_is_squeezed_into_a_narrow_column(columns):
    for command in COMMANDS:
        for line in shown(command, columns).splitlines():
            indent = len(line) - len(line.lstrip())
            assert indent <= columns / 2, line


def test_help_shows_usage_then_flags_under_headings_then_an_example(firectl):
    text = firectl("create", "fine-tuning-job", "--help").out
    parts = [
        "Usage: firectl create fine-tuning-job [flags]",
        "Flags:",
        "Training:",
        "Global flags",
        "Example:",
    ]
    places_ = [text.index(part) for part in [*parts, "See also: "]]
    assert places_ == sorted(places_)


def test_help_in_noun_first_order_shows_what_was_typed(firectl):
    assert firectl("model", "get", "-h").out.startswith("Usage: firectl model get ID")


@pytest.mark.parametrize("argv", [["help"], ["--help"], ["-h"], []])
def test_the_help_of_firectl_names_every_verb_noun_and_word(firectl, argv):
    ran = firectl(*argv)
    assert (ran.code, ran.err) == (0, "")
    for place in places():
        assert re.search(rf"^  {place.verb}\b", ran.out, re.MULTILINE), place
        assert place.noun in ran.out


def test_every_command_of_one_word_is_summed_up_in_the_help_of_firectl():
    alone = {place.verb for place in index().values() if place.alone or not place.noun}
    assert help.ONE_WORD.keys() == alone


@pytest.mark.parametrize("word", ["list", "create", "model", "models", "ftj"])
def test_a_verb_or_a_noun_alone_shows_what_may_follow(firectl, word):
    ran = firectl(word)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: firectl ")
    assert firectl("help", word).out == ran.out


def test_help_on_a_command_is_the_help_that_the_command_shows(firectl):
    assert firectl("help", "ls", "model").out == firectl("list", "models", "--help").out
    assert firectl("help", "deploy").out == firectl("deploy", "-h").out


def test_topics_are_listed_and_printed(firectl):
    listed = firectl("help", "topics").out
    assert firectl("help", "topic").out == listed
    for name, topic in TOPICS.items():
        assert name in listed
        assert firectl("help", name).out.startswith(f"{name}: {topic.title}")
    assert firectl("help", "topic", "filter").out == firectl("help", "filters").out


def test_help_on_what_does_not_exist_suggests_the_near(firectl):
    ran = firectl("help", "filtres")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean filters?" in ran.err


def command_lines():
    """Every command line that a topic shows."""
    lines = [line for topic in TOPICS.values() for line in topic.text.splitlines()]
    return [line.strip() for line in lines if line.startswith("  firectl ")]


@pytest.mark.parametrize("line", command_lines())
def test_the_command_lines_of_topics_parse(line):
    named = understood(shlex.split(line)[1:])
    assert find_by_words(named.command) is not None
    assert not named.dangling


@pytest.mark.parametrize("line", [line for line in command_lines() if "--filter" in line])
def test_the_filters_of_the_topic_are_understood_by_the_server(line):
    _, _, collection, _, text = shlex.split(line)
    assert read_filter(text, LISTINGS[collection]) is not None


@pytest.mark.parametrize("line", [line for line in command_lines() if "--order-by" in line])
def test_the_orders_of_the_topic_are_understood_by_the_server(line):
    _, _, collection, _, text = shlex.split(line)
    assert read_order(text, LISTINGS[collection])
