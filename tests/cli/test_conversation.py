"""A conversation at the terminal: what is sent each time, and what the lines that begin with / do."""

import io

import pytest

from tests.cli.conftest import Answer
from tests.cli.test_chat import CHAT, UNKNOWN, said, whole

CARD = {"id": "accounts/acme/models/ember", "object": "model"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def talk(firectl, api, monkeypatch):
    """Holds a conversation with these lines typed; an exception is raised at its place."""

    def run(*lines, **answers):
        typed = iter(lines)

        def read():
            line = next(typed, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("cli.commands.chat.terminal_reader", lambda: read)
        monkeypatch.setattr("cli.commands.chat.is_terminal", lambda stream: True)
        return firectl("chat", "ember", *answers.get("more", ()))

    api.on("GET", "/v1/models/acme/ember", CARD)
    return run


def messages(api):
    return [
        [(message["role"], message["content"]) for message in request.body["messages"]]
        for request in api.sent("POST", CHAT)
    ]


def test_what_was_said_before_is_sent_again(talk, api):
    api.on("POST", CHAT, said("Hello."), said("Blue."))
    ran = talk("hi\nthere", "", "and the sky?")
    assert ran.code == 0 and "accounts/acme/models/ember listens" in ran.err
    assert messages(api) == [
        [("user", "hi\nthere")],
        [("user", "hi\nthere"), ("assistant", "Hello."), ("user", "and the sky?")],
    ]
    assert ran.out.replace("\n", " ") == "Hello. Blue. "


def test_reset_forgets_and_system_instructs(talk, api):
    api.on("POST", CHAT, said("x"))
    ran = talk("a", "/system Be brief.", "/reset", "b", "/system", "c", more=["--system", "Be kind."])
    assert messages(api)[0] == [("system", "Be kind."), ("user", "a")]
    assert messages(api)[1] == [("system", "Be brief."), ("user", "b")]
    assert messages(api)[2] == [("user", "b"), ("assistant", "x"), ("user", "c")]
    assert "System: Be brief." in ran.err and "Forgotten." in ran.err


def test_exit_ends_and_what_is_no_command_is_said_to_the_model(talk, api):
    api.on("POST", CHAT, said("x"))
    ran = talk("/exti", "/help", "/etc/hosts is what?", "/exit", "never")
    assert "There is no /exti." in ran.err and "/reset" in ran.err
    assert messages(api) == [[("user", "/etc/hosts is what?")]]
    assert ran.code == 0


def test_ctrl_c_at_the_prompt_throws_away_what_was_typed(talk, api):
    api.on("POST", CHAT, said("x"))
    assert talk(KeyboardInterrupt(), "hi").code == 0
    assert messages(api) == [[("user", "hi")]]


def test_ctrl_c_stops_the_answer_and_what_came_is_remembered(talk, api, monkeypatch):
    api.on("POST", CHAT, said("One ", "two ", "three"), said("x"))
    shown = []

    def writer(stream, dim=False):
        def write(text):
            shown.append(text)
            if shown == ["One ", "two "]:
                raise KeyboardInterrupt

        return write

    monkeypatch.setattr("cli.commands.chat._writer", writer)
    ran = talk("count", "go on")
    assert ran.code == 0 and "(stopped)" in ran.err
    assert messages(api)[1] == [("user", "count"), ("assistant", "One two "), ("user", "go on")]


def test_a_question_that_failed_is_not_part_of_the_conversation(talk, api):
    busy = Answer(429, {"error": {"message": "over the rate limit", "code": "RATE_LIMITED"}})
    api.on("POST", CHAT, busy, said("x"))
    ran = talk("one", "two")
    assert ran.code == 0
    assert "Error: over the rate limit" in ran.err
    assert messages(api)[1] == [("user", "two")]


def test_a_model_that_is_not_there_is_told_before_anything_is_typed(talk, api):
    api.on("GET", "/v1/models/acme/ember", Answer(404, UNKNOWN))
    ran = talk("hi")
    assert ran.code == 1
    assert "there is no model acme/ember that you can ask" in ran.err
    assert not api.sent("POST")


def test_a_refused_key_ends_the_conversation(talk, api):
    api.on("POST", CHAT, api.refusal(401, 16, "the API key is not valid"))
    ran = talk("one", "two")
    assert ran.code == 1 and len(api.sent("POST")) == 1
    assert "firectl set-api-key KEY" in ran.err


def test_a_conversation_is_no_document(talk, api):
    assert talk("hi", more=["-o", "json"]).code == 2


def test_one_message_is_answered_and_nobody_is_asked_for_more(talk, api):
    api.on("POST", CHAT, whole("Blue."))
    ran = talk("never", more=["-m", "hi", "-o", "json"])
    assert ran.json == whole("Blue.")
    assert len(api.sent("POST")) == 1


def test_what_a_model_says_never_moves_the_cursor(talk, api):
    api.on("POST", CHAT, said("\x1b[2J\x9b", "a\tb\r\n\U0001f469\u200d\U0001f4bb"))
    ran = talk("hi")
    assert "[2Ja\tb\n\U0001f469\u200d\U0001f4bb" in ran.out
    assert "\x1b[2J" not in ran.out and "\x9b" not in ran.out
