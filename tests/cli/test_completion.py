"""Completion: real shells source the script and ask what may follow."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import cli
from cli.commands.completion import Shell
from cli.language import completion

HOME = "/v1/accounts/acme"
MODELS = {
    "models": [
        {"name": "accounts/acme/models/my-llama", "displayName": "A llama: mine"},
        {"name": "accounts/acme/models/my-qwen"},
        {"name": "accounts/acme/models/other"},
    ]
}
# Each asks its shell, in the way of that shell, for what may follow the command line in $LINE.
ASK = {
    "bash": r"""
eval "$(firectl completion bash)"
COMP_LINE="$LINE" COMP_POINT=${#LINE}
# Words as bash splits them: at spaces, and at each `=`.
COMP_WORDS=($(sed 's/=/ = /g' <<< "$LINE")); [[ "$LINE" == *[\ =] ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_firectl firectl "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\n' "${COMPREPLY[@]}"
""",
    "zsh": r"""
compdef() { :; }
_describe() { printf '%s\n' "${(@P)2}"; }
_files() { print FILES; }
eval "$(firectl completion zsh)"
words=(${(z)LINE}); [[ "$LINE" == *' ' ]] && words+=("")
CURRENT=${#words}
_firectl
""",
    "fish": r"""
firectl completion fish | source
complete -C "$LINE"
""",
}
SHELLS = [shell for shell in ASK if shutil.which(shell)]
"""Those that this machine has; bash is one of them."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine may take its time."""
    monkeypatch.setattr(completion, "WAIT_SECONDS", 60)


@pytest.fixture
def typed(api, tmp_path):
    """What a shell offers for a command line, without the explanations."""
    program = tmp_path / "bin" / "firectl"
    program.parent.mkdir()
    root = Path(cli.__file__).parents[1]
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        "from cli import main\nfrom cli.language import completion\n"
        "completion.WAIT_SECONDS = 60\n"  # here it is not the time that is tested
        "main.main()\n"
    )
    program.chmod(0o755)

    def ask(shell, line, **env):
        settings = {
            "HOME": str(tmp_path),
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "FIREWORKS_BASE_URL": api.url,
            "FIREWORKS_API_KEY": "fw_test",
            "FIREWORKS_ACCOUNT_ID": "acme",
            "LINE": line,
            **env,
        }
        options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        ran = subprocess.run(
            [shell, *options, "-c", ASK[shell]],
            env={**os.environ, **settings},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stderr == ""
        separator = {"zsh": ":", "fish": "\t"}.get(shell, "\n")
        return [offer.partition(separator)[0] for offer in ran.stdout.splitlines() if offer]

    return ask


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_verbs_nouns_flags_and_values(typed, shell):
    assert typed(shell, "firectl who") == ["whoami"]
    assert "models" in typed(shell, "firectl list ")
    assert "create" in typed(shell, "firectl model ")
    assert "--filter" in typed(shell, "firectl ls models --fi")
    assert typed(shell, "firectl list models -o y") == ["yaml"]
    assert typed(shell, "firectl completion z") == ["zsh"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("words", ["get model", "model get", "rm models"])
def test_a_shell_completes_the_ids_of_the_server_in_both_orders(typed, api, shell, words):
    api.on("GET", f"{HOME}/models", MODELS)
    assert typed(shell, f"firectl {words} my-") == ["my-llama", "my-qwen"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_value_behind_an_equals_sign_is_completed_too(typed, api, shell):
    api.on("GET", f"{HOME}/models", MODELS)
    before = "" if shell == "bash" else "--base-model="  # bash puts its answer behind the sign
    assert typed(shell, "firectl create model x . --base-model=my-q") == [f"{before}my-qwen"]


@pytest.mark.parametrize("shell", SHELLS)
def test_another_account_is_asked_when_it_is_named(typed, api, shell):
    api.on("GET", "/v1/accounts/other/models", MODELS)
    assert typed(shell, "firectl -a other get model oth") == ["other"]
    assert [request.path for request in api.requests] == ["/v1/accounts/other/models"]


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_server_nothing_is_offered_and_nothing_said(typed, api, shell):
    offered = typed(shell, "firectl get model my-", FIREWORKS_BASE_URL="http://127.0.0.1:9")
    assert offered in ([], ["FILES"])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_path_is_left_to_the_shell(typed, api, shell, tmp_path):
    (tmp_path / "weights").mkdir()
    offered = typed(shell, "firectl create model new wei")
    # bash asks for files itself when there is no answer.
    assert offered == {"bash": [], "zsh": ["FILES"], "fish": ["weights/"]}[shell]
    assert api.requests == []


def offers(*words):
    *before, last = words
    return [each.value for each in completion.candidates(before, last) if each.value.startswith(last)]


def test_a_server_that_hangs_is_not_waited_for(api, monkeypatch, home):
    monkeypatch.setattr(completion, "WAIT_SECONDS", 0.05)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FIREWORKS_BASE_URL", api.url)
    monkeypatch.setenv("FIREWORKS_ACCOUNT_ID", "acme")
    asked, release = threading.Event(), threading.Event()

    def hang(_request):
        asked.set()
        release.wait(30)
        return api.ok(MODELS)

    api.on("GET", f"{HOME}/models", hang)
    started = time.monotonic()
    assert offers("get", "model", "") == []
    assert time.monotonic() - started < 10
    release.set()


def test_an_error_of_the_server_is_not_told(firectl, api):
    api.on("GET", f"{HOME}/models", api.refusal(401, 16, "the API key is not valid"))
    ran = firectl("__complete", "bash", "get", "model", "m")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_new_id_is_not_completed_with_those_that_exist(firectl, api):
    api.on("GET", f"{HOME}/models", MODELS)
    assert firectl("__complete", "bash", "create", "model", "m").out == ""
    assert api.requests == []


def test_flags_that_name_a_resource_are_completed_with_its_ids(firectl, api):
    api.on("GET", f"{HOME}/deployments", {"deployments": [{"name": "accounts/acme/deployments/d-1"}]})
    assert firectl("__complete", "bash", "deploy", "m", "--deployment", "d").out == "d-1\n"
    assert firectl("__complete", "bash", "create", "deployment", "m", "--deployment-id", "d").out == ""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("create user --role con", "contributor"),
        ("create fine-tuning-job --kind conv", "conversation"),
        ("chat m --response-format j", "json"),
        ("-o y", "yaml"),
    ],
)
def test_values_that_firectl_knows_are_completed(firectl, words, offered):
    assert firectl("__complete", "bash", *words.split()).out == f"{offered}\n"


def test_profiles_come_from_the_settings_files(firectl, home):
    (home / ".fireworks").mkdir()
    (home / ".fireworks" / "auth.ini").write_text("[staging]\napi_key = fw_x\n[spare]\n")
    assert firectl("__complete", "bash", "-p", "st").out == "staging\n"


def test_explanations_go_to_the_shells_that_show_them(firectl, api):
    api.on("GET", f"{HOME}/models", MODELS)
    assert firectl("__complete", "zsh", "get", "model", "my-l").out == "my-llama:A llama: mine\n"
    assert firectl("__complete", "fish", "get", "model", "my-l").out == "my-llama\tA llama: mine\n"


def test_a_flag_is_offered_once_and_words_after_two_dashes_are_no_flags(firectl):
    offered = firectl("__complete", "bash", "list", "models", "--filter", "x", "--").out.split()
    assert "--order-by" in offered
    assert "--filter" not in offered
    assert firectl("__complete", "bash", "list", "models", "--", "--").out == ""


@pytest.mark.parametrize("words", [[], ["bash"], ["tcsh", "x"], ["bash", "no", "such", "command", ""]])
def test_questions_that_make_no_sense_are_answered_with_nothing(firectl, words):
    ran = firectl("__complete", *words)
    assert ran.err == ""


@pytest.mark.parametrize("shell", [shell.value for shell in Shell])
def test_the_script_is_printed(firectl, shell):
    ran = firectl("completion", shell)
    assert (ran.code, ran.out) == (0, completion.script(shell))


def test_a_shell_that_is_not_known_is_told(firectl):
    ran = firectl("completion", "zhs")
    assert ran.code == 2
    assert "did you mean zsh?" in ran.err
