"""Addons with a chat template of their own: chats with them are written by it, whatever their base's is."""

import json

import pytest

from tests.gateway.world import CONVERSATION

OWN = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
QUESTION = [{"role": "user", "content": "count"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
HERMES, LLAMA = "{{ tools }}<tool_call>", '{{ tools }}<|python_tag|>{"name", "parameters"}'


@pytest.fixture
def load(served):
    """Loads an addon beside `tuned`; its name, once it is routed."""

    def do(template: str, of_base: str = "", *, chat: bool = True, tools: bool = True) -> str:
        world = served.world
        base = world.add_base("acme", "other", tool_template=of_base, chat=chat)
        deployment = world.add_deployment("acme", "other", base)
        replica = world.add_replica(deployment, served.engine_url, "base-uid")
        world.load("acme", "other-1", base, deployment)
        model = world.add_addon("acme", "own", base, template=template, tools=tools)
        world.prove(replica, world.load("acme", "own-1", model, deployment), "addon-uid")
        served.running.until_routed(
            lambda gateway: any(route.targets for route in gateway.snapshot.by_model.get(("acme", "own"), ()))
        )
        return "accounts/acme/models/own"

    return do


def ask(served, model: str, path: str = "chat/completions", **asked) -> dict:
    """What the engine is sent for it, last."""
    sent = {
        "model": model,
        **({} if "input" in asked or "prompt" in asked else {"messages": QUESTION}),
        **asked,
    }
    answer = served.http.post(f"/v1/{path}", json=sent)
    assert answer.status_code == 200, answer.text
    return served.engine.bodies[-1]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("chat/completions", {}),
        ("chat/completions", {"stream": True}),
        ("messages", {"max_tokens": 5}),
        ("responses", {"input": "count"}),
    ],
)
def test_a_chat_with_an_addon_is_written_by_the_addons_template(served, load, path, asked):
    sent = ask(served, load(OWN), path, **asked)
    assert (sent["model"], sent["chat_template"]) == ("addon-uid", OWN)
    assert sent["chat_template_kwargs"] == {"mode": "generate"}


def test_engines_have_the_template_of_a_base_and_of_addons_that_speak_as_it_does(served, load):
    alike = load(CONVERSATION["template"])
    for model in (served.base, served.addon, "accounts/acme/models/other", alike):
        assert not {"chat_template", "chat_template_kwargs"} & ask(served, model).keys()


def test_a_completion_is_written_by_nobody(served, load):
    assert "chat_template" not in ask(served, load(OWN), "completions", prompt="count")


def test_an_addon_chats_though_its_base_cannot(served, load):
    assert ask(served, load(OWN, chat=False))["chat_template"] == OWN
    answer = served.http.post("/v1/chat/completions", json={"model": "other", "messages": QUESTION})
    assert answer.status_code == 404


def test_nobody_else_says_how_a_chat_is_written(served, load):
    for field, value in (("chat_template", "{{ mine }}"), ("chat_template_kwargs", {"chat_template": "x"})):
        sent = {"model": load(OWN) if field == "chat_template" else "own", "messages": QUESTION, field: value}
        answer = served.http.post("/v1/chat/completions", json=sent)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert served.engine.bodies == []


def test_the_tokens_of_a_chat_are_counted_as_it_is_written(served, load):
    ask(served, load(OWN), max_tokens=50, context_length_exceeded_behavior="error")
    (path, counted), (_, asked) = served.engine.requests
    assert path == "/tokenize"
    parts = ("messages", "chat_template", "chat_template_kwargs")
    assert [counted[name] for name in parts] == [asked[name] for name in parts]


@pytest.mark.parametrize(("template", "tools"), [(HERMES, True), (LLAMA, True), (OWN, False)])
def test_tools_are_shown_by_a_template_whose_calls_the_engine_reads_and_else_in_words(
    served, load, template, tools
):
    """The engine has the reader that its base model's template asks for."""
    sent = ask(served, load(template, HERMES + " of the base", tools=tools), tools=[TOOL])
    assert sent["chat_template"] == template
    if template == HERMES:
        assert (sent["tools"], sent["tool_choice"]) == ([TOOL], "auto")
    else:
        assert "tools" not in sent
        assert json.dumps(TOOL["function"]) in sent["messages"][0]["content"]
        assert sent["structured_outputs"]["grammar"]


def test_how_much_a_model_thinks_is_told_to_the_template_that_reads_it(served, load):
    sent = ask(served, load(OWN + "{{ enable_thinking }}"), reasoning_effort="none")
    assert sent["chat_template_kwargs"] == {"enable_thinking": False, "mode": "generate"}
