"""Chat and complete: what is asked, what is shown of an answer, and what goes wrong on the way."""

import io
import json

import pytest

from cli.chat.sse import event_data
from cli.errors import CliError
from tests.cli.conftest import Answer

HOME = "/v1/accounts/acme"
CHAT = "/v1/chat/completions"
COMPLETE = "/v1/completions"
UNKNOWN = {"error": {"message": "Model not found, inaccessible, and/or not deployed", "code": "NOT_FOUND"}}


def said(*pieces, end="data: [DONE]\n\n", **headers):
    """A stream of these texts, or events, with usage on the last."""
    events = [
        piece if isinstance(piece, dict) else {"choices": [{"delta": {"content": piece}, "text": piece}]}
        for piece in pieces
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": len(pieces), "total_tokens": 7 + len(pieces)}
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Answer(200, (text + end).encode(), headers)


def whole(text):
    message = {"role": "assistant", "content": text}
    choice = {"message": message, "text": text, "finish_reason": "stop"}
    return {"id": "c1", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def piped(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def asked(api, path=CHAT):
    return [request.body for request in api.sent("POST", path)]


def test_what_comes_through_a_pipe_is_one_message_and_only_the_answer_is_on_stdout(firectl, api, monkeypatch):
    api.on("POST", CHAT, said("Blue, ", "I\u2028think."))
    piped(monkeypatch, "Which colour\nhas the sky?\n")
    ran = firectl("chat", "ember", "--system", "Be brief.")
    assert (ran.code, ran.out, ran.err) == (0, "Blue, I\u2028think.\n", "")
    (body,) = asked(api)
    assert body == {
        "model": "acme/ember",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Which colour\nhas the sky?"},
        ],
        "stream": True,
    }


def test_settings_of_the_answer_are_sent(firectl, api):
    api.on("POST", CHAT, said("x"))
    ran = firectl(
        *("chat", "ember", "-m", "hi", "--temperature", "0", "--top-p=0.5", "--max-tokens", "9"),
        *("--seed", "1", "--stop", "a, b", "--stop", "\n", "--response-format", "json"),
    )
    assert ran.code == 0
    (body,) = asked(api)
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (0, 0.5, 9, 1)
    assert body["stop"] == ["a, b", "\n"]
    assert body["response_format"] == {"type": "json_object"}


def test_a_json_schema_is_read_from_its_file(firectl, api, tmp_path):
    api.on("POST", CHAT, said("{}"))
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object"}')
    assert firectl("chat", "ember", "-m", "hi", "--json-schema", str(file)).code == 0
    wanted = asked(api)[0]["response_format"]
    assert (wanted["type"], wanted["json_schema"]["schema"]) == ("json_schema", {"type": "object"})
    file.write_text("{")
    broken = firectl("chat", "ember", "-m", "hi", "--json-schema", str(file))
    assert broken.code == 1 and "holds no JSON" in broken.err
    missing = firectl("chat", "ember", "-m", "hi", "--json-schema", str(tmp_path / "none"))
    assert missing.code == 1 and "none" in missing.err
    assert len(asked(api)) == 1


@pytest.mark.parametrize(
    ("argv", "model"),
    [
        (["ember"], "acme/ember"),
        (["accounts/acme/models/ember"], "accounts/acme/models/ember"),
        (["fireworks/ember"], "fireworks/ember"),
        (["acme/ember#acme/d"], "acme/ember#acme/d"),
        (["ember", "--deployment", "d"], "acme/ember#accounts/acme/deployments/d"),
        (["ember", "-a", "fireworks"], "fireworks/ember"),
    ],
)
def test_a_model_is_named_by_id_by_name_or_on_a_deployment(firectl, api, argv, model):
    api.on("POST", CHAT, said("x"))
    assert firectl("chat", *argv, "-m", "hi").code == 0
    assert asked(api)[0]["model"] == model


def test_without_an_account_a_bare_name_is_the_key_s_own(firectl, api):
    api.on("POST", CHAT, said("x"))
    assert firectl("chat", "ember", "-m", "hi", env={"FIREWORKS_ACCOUNT_ID": None}).code == 0
    assert asked(api)[0]["model"] == "ember"


def test_json_is_the_whole_response_and_nothing_is_streamed(firectl, api):
    api.on("POST", CHAT, whole("Blue."))
    ran = firectl("chat", "ember", "-m", "hi", "-o", "json")
    assert ran.json == whole("Blue.")
    assert asked(api)[0]["stream"] is False


def test_an_answer_can_be_asked_for_in_one_piece(firectl, api):
    api.on("POST", CHAT, whole("Blue."))
    ran = firectl("chat", "ember", "-m", "hi", "--no-stream", "--verbose")
    assert (ran.out, ran.err) == ("Blue.\n", "(7 tokens asked, 3 answered)\n")


def test_verbose_tells_tokens_and_speed_on_stderr(firectl, api):
    api.on("POST", CHAT, said("a", "b", "c\n"))
    ran = firectl("chat", "ember", "-m", "hi", "--verbose")
    assert ran.out == "abc\n"
    assert ran.err.startswith("(7 tokens asked, 3 answered, first after 0.")
    assert ran.err.endswith(" tokens/s)\n")


def test_complete_goes_on_with_the_text_of_the_command_line_or_a_pipe(firectl, api, monkeypatch):
    api.on("POST", COMPLETE, said(" there was"))
    ran = firectl("complete", "ember", "Once upon a time", "--max-tokens", "5", "--echo")
    assert ran.out == " there was\n"
    piped(monkeypatch, "Once\n")
    assert firectl("complete", "ember").code == 0
    first, second = asked(api, COMPLETE)
    assert first["prompt"] == "Once upon a time" and first["echo"] is True and first["max_tokens"] == 5
    assert second["prompt"] == "Once" and "echo" not in second


@pytest.mark.parametrize("command", ["chat", "complete"])
def test_nothing_to_ask_is_a_wrong_command_line(firectl, api, command, monkeypatch):
    piped(monkeypatch, " \n")
    assert firectl(command, "ember").code == 2
    monkeypatch.setattr("sys.stdin", None)  # as with `<&-`
    assert firectl(command, "ember").code == 2
    assert not api.requests


@pytest.mark.parametrize(
    "more",
    [
        ["acme/e#acme/d", "--deployment", "d"],
        [""],
        ["e", "--response-format", "xml"],
        ["e", "--response-format", "text", "--json-schema", "x"],
    ],
)
def test_settings_that_contradict_each_other_are_refused(firectl, api, more):
    assert firectl("chat", *more, "-m", "hi").code == 2
    assert not api.requests


def test_a_pipe_of_bytes_that_are_no_text_is_told(firectl, api, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8"))
    ran = firectl("chat", "ember")
    assert ran.code == 1 and "is no text" in ran.err


def test_a_dry_run_shows_the_question(firectl, api):
    ran = firectl("chat", "ember", "-m", "hi", "--dry-run")
    assert ran.json["url"] == f"{api.url}{CHAT}"
    assert ran.json["body"]["messages"] == [{"role": "user", "content": "hi"}]
    assert not api.requests


def test_a_model_that_nobody_knows_gets_the_near_names(firectl, api):
    api.on("POST", CHAT, Answer(404, UNKNOWN))
    api.on("GET", "/v1/models", {"data": [{"id": "accounts/fireworks/models/embers"}]})
    api.on("GET", f"{HOME}/models", {"models": [{"name": "accounts/acme/models/ember"}]})
    ran = firectl("chat", "embr", "-m", "hi")
    assert ran.code == 1
    assert "Error: there is no model acme/embr that you can ask" in ran.err
    assert "Next: did you mean ember, accounts/fireworks/models/embers?" in ran.err
    assert "Next: firectl list models" in ran.err


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        ({"kind": "HF_BASE_MODEL"}, "firectl create deployment accounts/acme/models/ember --wait"),
        ({"kind": "HF_PEFT_ADDON"}, "firectl deploy accounts/acme/models/ember --deployment DEPLOYMENT"),
    ],
)
def test_a_model_that_is_not_deployed_gets_the_command_that_deploys_it(firectl, api, model, advice):
    api.on("POST", CHAT, Answer(404, UNKNOWN))
    api.on("GET", f"{HOME}/models/ember", {"name": "accounts/acme/models/ember", **model})
    ran = firectl("chat", "ember", "-m", "hi")
    assert ran.code == 1
    assert "Error: accounts/acme/models/ember exists, but it is not deployed" in ran.err
    assert f"Next: {advice}" in ran.err


def test_a_model_on_another_deployment_is_told_where_it_is(firectl, api):
    api.on("POST", CHAT, Answer(404, UNKNOWN))
    ref = {"deployment": "accounts/acme/deployments/real"}
    api.on("GET", f"{HOME}/models/ember", {"kind": "HF_BASE_MODEL", "deployedModelRefs": [ref]})
    ran = firectl("chat", "ember", "--deployment", "other", "-m", "hi")
    assert "cannot be asked on accounts/acme/deployments/other" in ran.err
    assert "it is on accounts/acme/deployments/real" in ran.err


def test_no_near_names_are_told_when_the_control_plane_is_away(firectl, api):
    api.on("POST", CHAT, Answer(404, UNKNOWN))
    for path in ("/verifyApiKey", "/v1/models"):
        api.on("GET", path, api.refusal(500, 13, "broken"))
    ran = firectl("chat", "embr", "-m", "hi", env={"FIREWORKS_ACCOUNT_ID": None})
    assert "Error: there is no model embr that you can ask" in ran.err


def test_a_model_without_a_chat_template_is_for_complete(firectl, api):
    text = "model is missing conversation_config, please use /completions API instead"
    api.on("POST", CHAT, Answer(404, {"error": {"message": text, "code": "NOT_FOUND"}}))
    assert 'Next: firectl complete acme/ember "TEXT"' in firectl("chat", "ember", "-m", "hi").err


def test_a_deployment_that_wakes_up_and_a_limit_are_told_with_the_time_to_wait(firectl, api):
    text = "deployment accounts/acme/deployments/d has no ready replica for the model: starting"
    waking = {"error": {"message": text, "code": "DEPLOYMENT_SCALING_UP"}}
    busy = {"error": {"message": "over the rate limit", "code": "RATE_LIMITED"}}
    api.on("POST", CHAT, Answer(503, waking, {"Retry-After": "5"}), Answer(429, busy, {"Retry-After": "7"}))
    ran = firectl("chat", "ember", "-m", "hi")
    assert ran.code == 1 and f"Error: {text}" in ran.err
    assert "Next: firectl get deployment accounts/acme/deployments/d" in ran.err
    assert "try again in 5 s" in ran.err
    limited = firectl("chat", "ember", "-m", "hi")
    assert limited.code == 1 and "Error: over the rate limit" in limited.err
    assert "try again in 7 s" in limited.err
    assert len(asked(api)) == 2


def test_an_error_in_the_stream_is_told_and_what_came_stays(firectl, api):
    broken = {"error": {"message": "the model's engine stopped", "code": "BAD_GATEWAY"}}
    api.on("POST", CHAT, said("One ", "two", broken))
    ran = firectl("chat", "ember", "-m", "count")
    assert (ran.code, ran.out) == (1, "One two\n")
    assert "Error: the model's engine stopped" in ran.err


@pytest.mark.parametrize(
    "cut",
    [
        said("One ", "two", end=""),
        said("One ", "two", end="", **{"Content-Length": "99999", "Connection": "close"}),
        said("One ", "two", end="data: not json\n\n"),
    ],
    ids=["no end", "cut", "garbage"],
)
def test_a_stream_that_is_cut_off_is_told_and_what_came_stays(firectl, api, cut):
    api.on("POST", CHAT, cut)
    ran = firectl("chat", "ember", "-m", "count")
    assert (ran.code, ran.out) == (1, "One two\n")
    assert "Error: the answer was cut off" in ran.err


def test_a_lost_connection_and_a_page_that_is_no_answer_are_told(firectl, api):
    api.on("POST", CHAT, api.lost(), api.raw(502, b"<html>"))
    assert "cannot reach" in firectl("chat", "ember", "-m", "hi").err
    assert "the server answered 502" in firectl("chat", "ember", "-m", "hi").err
    api.on("POST", CHAT, api.raw(200, b"<html>"))
    ran = firectl("chat", "ember", "-m", "hi", "--no-stream")
    assert ran.code == 1 and "is not JSON" in ran.err


def test_an_expired_access_token_is_renewed_before_the_question_is_asked_again(firectl, api, home):
    later = "2999-01-01T00:00:00Z"
    (home / ".fireworks").mkdir(mode=0o700)
    (home / ".fireworks" / "auth.ini").write_text(
        f"access_token = fw_1\nrefresh_token = fw_r\ntoken_server = {api.url}\nexpire_time = {later}\n"
    )
    fresh = {"accessToken": "fw_2", "refreshToken": "fw_r2", "expireTime": later}
    api.on("POST", "/v1/auth/refresh", fresh)
    api.on("POST", CHAT, api.refusal(401, 16, "no more"), said("Hello."))
    ran = firectl("chat", "ember", "-m", "hi", env={"FIREWORKS_API_KEY": None})
    assert ran.out == "Hello.\n", ran.err
    sent = [request.headers["authorization"] for request in api.sent("POST", CHAT)]
    assert sent == ["Bearer fw_1", "Bearer fw_2"]


def test_events_are_read_however_the_network_cuts_them():
    text = ': hi\n\ndata: {"a":\ndata:1}\n\nevent: x\r\ndata: \u2028ü\r\n\r\ndata: unfinished'.encode()
    for size in (1, 2, 7, len(text)):
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        assert list(event_data(chunks)) == ['{"a":\n1}', "\u2028ü"]


def test_a_line_that_does_not_end_is_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr("cli.chat.sse._LONGEST", 100)
    with pytest.raises(CliError):
        list(event_data([b"data: "] + [b"x" * 50] * 3))
