"""Keys, accounts, profiles, and how fast firectl starts."""

import io
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli.connection import profile

HOME = "/v1/accounts/acme"
LATER = "2999-01-01T00:00:00Z"
NOTHING_SET = dict.fromkeys(("FIREWORKS_API_KEY", "FIREWORKS_ACCOUNT_ID", "FIREWORKS_BASE_URL"))


def knows(api, account="acme", **more):
    from_key = api.ok({})
    for name, value in {"account_id": account, **more}.items():
        from_key.headers[f"x-fireworks-{name.replace('_', '-')}"] = value
    api.on("GET", "/verifyApiKey", from_key)


def keep(home, **files):
    """Writes files of the user's settings, for the user only."""
    (home / ".fireworks").mkdir(mode=0o700, exist_ok=True)
    for name, text in files.items():
        path = home / ".fireworks" / f"{name}.ini"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o600)


def test_set_api_key_checks_the_key_and_keeps_it_for_the_user_only(firectl, api, home):
    knows(api)
    bare = {"FIREWORKS_API_KEY": None, "FIREWORKS_ACCOUNT_ID": None}
    assert firectl("set-api-key", "fw_new", env=bare).code == 0

    stored = home / ".fireworks" / "auth.ini"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700

    api.on("GET", f"{HOME}/models", {"models": []})
    assert firectl("list", "models", env={**bare, "FIREWORKS_BASE_URL": None}).code == 0
    assert api.sent("GET", f"{HOME}/models")[0].headers["authorization"] == "Bearer fw_new"


def test_a_home_that_is_no_folder_is_a_home_without_settings(firectl, api, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    api.on("GET", f"{HOME}/models", {"models": []})
    assert firectl("list", "models").code == 0


def test_an_empty_home_is_not_the_root_folder(monkeypatch):
    monkeypatch.setenv("HOME", "")
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert profile.directory() == Path(home) / ".fireworks"


def test_set_api_key_keeps_nothing_that_the_server_refuses(firectl, api, home):
    api.on("GET", "/verifyApiKey", api.refusal(401, 16, "the API key is not valid"))
    ran = firectl("set-api-key", "fw_wrong")
    assert ran.code == 1
    assert "nothing was saved" in ran.err
    assert not (home / ".fireworks" / "auth.ini").exists()


def test_a_key_is_not_left_beside_tokens_of_another_server(firectl, api, home):
    knows(api)
    bare = {"FIREWORKS_API_KEY": None, "FIREWORKS_ACCOUNT_ID": None}
    firectl("set-api-key", "fw_new", env=bare)
    stored = (home / ".fireworks" / "auth.ini").read_text()
    elsewhere = {**bare, "FIREWORKS_BASE_URL": "http://127.0.0.1:1"}
    ran = firectl("signin", "acme", "--no-browser", env=elsewhere)
    assert ran.code == 1
    assert f"a key of {api.url}" in ran.err and "--profile NAME" in ran.err
    assert (home / ".fireworks" / "auth.ini").read_text() == stored


def test_an_access_token_that_the_server_never_takes_is_renewed_once(firectl, api, home):
    tokens = {"access_token": "fw_access_1", "refresh_token": "fw_refresh_1", "token_server": api.url}
    lines = [f"{name} = {value}" for name, value in {**tokens, "email": "", "expire_time": LATER}.items()]
    (home / ".fireworks").mkdir()
    (home / ".fireworks" / "auth.ini").write_text("\n".join(["[fireworks]", *lines]))
    renewed = [
        {"accessToken": f"fw_access_{n}", "refreshToken": f"fw_refresh_{n}", "expireTime": LATER}
        for n in range(2, 9)
    ]
    api.on("POST", "/v1/auth/refresh", *renewed, api.refusal(401, 16, "it is over"))
    api.on("GET", f"{HOME}/models", api.refusal(401, 16, "not here"))
    assert firectl("list", "models", env={"FIREWORKS_API_KEY": None}).code == 1
    asked = [request.headers["authorization"] for request in api.sent("GET", f"{HOME}/models")]
    assert asked == ["Bearer fw_access_1", "Bearer fw_access_2"]


def test_profiles_stand_beside_each_other_and_win_over_the_environment(firectl, api, home):
    knows(api, "acme")
    firectl("set-api-key", "fw_default")
    knows(api, "other")
    assert firectl("set-api-key", "fw_other", "-p", "work").code == 0

    api.on("GET", "/v1/accounts/other/models", {"models": []})
    assert firectl("--profile", "work", "list", "models").code == 0
    assert api.requests[-1].headers["authorization"] == "Bearer fw_other"
    assert "fw_default" in (home / ".fireworks" / "auth.ini").read_text()


def test_an_unknown_profile_is_told(firectl):
    ran = firectl("list", "models", "-p", "nowhere")
    assert ran.code == 1
    assert "firectl set-api-key KEY --profile nowhere" in ran.err


def test_an_auth_ini_without_a_section_is_read(firectl, api, home):
    folder = home / ".fireworks"
    folder.mkdir()
    (folder / "auth.ini").write_text(f"api_key = fw_100%_mine\naccount_id = acme\nbase_url = {api.url}/\n")
    api.on("GET", f"{HOME}/models", {"models": []})
    names = ("FIREWORKS_API_KEY", "FIREWORKS_ACCOUNT_ID", "FIREWORKS_BASE_URL")
    assert firectl("list", "models", env=dict.fromkeys(names)).code == 0
    assert api.requests[0].headers["authorization"] == "Bearer fw_100%_mine"


@pytest.mark.parametrize("content", ["\nfw_thekeyalone\n", b"api_key = \xff\xfe\n", "\n[half\n"])
def test_a_broken_auth_ini_is_told_without_quoting_it(firectl, home, content):
    keep(home, auth=content)
    ran = firectl("list", "models")
    assert ran.code == 1
    assert f"cannot read {home}/.fireworks/auth.ini: " in ran.err
    assert "line 2" in ran.err or isinstance(content, bytes)
    assert "fw_thekeyalone" not in ran.err and "Traceback" not in ran.err


def test_files_that_others_can_read_are_warned_of_and_used(firectl, api, home):
    keep(home, auth=f"api_key = fw_1\naccount_id = acme\nbase_url = {api.url}\n", settings="")
    stored = home / ".fireworks" / "auth.ini"
    api.on("GET", f"{HOME}/models", {"models": []})
    assert "Warning" not in firectl("list", "models", env=NOTHING_SET).err
    stored.chmod(0o644)
    ran = firectl("list", "models", "-o", "json", env=NOTHING_SET)
    assert (ran.code, ran.json) == (0, [])
    assert ran.err.count(f"Warning: {stored} is open to others (mode 644): chmod 600 {stored}") == 1


def test_flags_win_over_the_environment_which_wins_over_auth_ini_and_that_over_settings_ini(
    firectl, api, home
):
    keep(
        home,
        settings=f"[fireworks]\napi_key = fw_settings\naccount_id = acme\nbase_url = {api.url}\n",
        auth="[fireworks]\napi_key = fw_auth\n",
    )
    api.on("GET", f"{HOME}/models", {"models": []})
    for env, flags in (
        (NOTHING_SET, []),
        ({**NOTHING_SET, "FIREWORKS_API_KEY": "fw_environment"}, []),
        ({**NOTHING_SET, "FIREWORKS_API_KEY": "fw_environment"}, ["--api-key", "fw_flag"]),
    ):
        assert firectl("list", "models", *flags, env=env).code == 0
    keys = [request.headers["authorization"].removeprefix("Bearer ") for request in api.requests]
    assert keys == ["fw_auth", "fw_environment", "fw_flag"]


def test_the_account_comes_from_the_key_when_none_is_named(firectl, api):
    knows(api, "found")
    api.on("GET", "/v1/accounts/found/models", {"models": []})
    assert firectl("list", "models", env={"FIREWORKS_ACCOUNT_ID": None}).code == 0


def test_flags_win_over_the_environment(firectl, api):
    api.on("GET", "/v1/accounts/fireworks/models/m", {"name": "accounts/fireworks/models/m"})
    assert firectl("get", "model", "m", "--account-id", "fireworks", "--api-key", "fw_flag").code == 0
    assert api.requests[0].headers["authorization"] == "Bearer fw_flag"


def test_a_full_name_reaches_another_account(firectl, api):
    api.on("GET", "/v1/accounts/fireworks/models/m", {"name": "accounts/fireworks/models/m"})
    assert firectl("get", "model", "accounts/fireworks/models/m").code == 0


def test_whoami_shows_who_asks_and_where_each_part_came_from(firectl, api):
    knows(api, user_id="alice", role="contributor", api_key_id="k1")
    key = "fw_abcdefghijklmnopqrstuvwxyz"
    ran = firectl("whoami", "--api-key", key)
    assert ran.out.splitlines() == [
        "Account ID: acme",
        "Account ID Source: FIREWORKS_ACCOUNT_ID",
        "User ID: alice",
        "Role: contributor",
        "API Key ID: k1",
        "API Key Prefix: fw_abcde",
        "API Key Source: --api-key",
        f"Base URL: {api.url}",
        "Base URL Source: FIREWORKS_BASE_URL",
    ]
    assert key not in ran.err
    document = firectl("whoami", "-o", "json").json
    assert (document["user_id"], document["role"]) == ("alice", "contributor")
    assert document["api_key_source"] == "FIREWORKS_API_KEY"


def test_whoami_names_the_files_and_the_account_that_another_name_leads_to(firectl, api, home):
    knows(api)
    keep(
        home,
        settings=f"[work]\nbase_url = {api.url}\n",
        auth="[work]\napi_key = fw_ofwork_and_longer\naccount_id = public\n",
    )
    ran = firectl("whoami", "-p", "work")
    assert "Account ID: acme\nAccount ID Source: asked from the server\n" in ran.out
    assert "Target Account ID: public\nTarget Account ID Source: auth.ini [work]\n" in ran.out
    assert "API Key Source: auth.ini [work]" in ran.out
    assert "Base URL Source: settings.ini [work]" in ran.out


def test_whoami_without_a_key_says_how_to_get_one(firectl, api):
    ran = firectl("whoami", env={"FIREWORKS_API_KEY": None})
    assert (ran.code, ran.out) == (1, "")
    assert "Error: there is no API key, and nobody is signed in" in ran.err
    assert "firectl set-api-key KEY" in ran.err and "firectl signin ACCOUNT" in ran.err
    assert not api.requests


def test_whoami_without_a_server_says_how_to_start_or_name_one(firectl):
    ran = firectl("whoami", env={"FIREWORKS_BASE_URL": "http://127.0.0.1:1"})
    assert ran.code == 1
    assert "cannot reach http://127.0.0.1:1" in ran.err
    assert "hearth up --data-dir DIR" in ran.err and "export FIREWORKS_BASE_URL" in ran.err


@pytest.mark.parametrize("argv", [["whoami"], ["list", "models"], ["chat", "m", "-m", "hi"]])
def test_the_key_is_never_shown(firectl, api, argv):
    knows(api)
    api.on("GET", f"{HOME}/models", {"models": []})
    api.on("POST", "/v1/chat/completions", api.refusal(401, 16, "no"))
    key = "fw_thisisthekeyandnoneshallseeit"
    for more in ((), ("--debug",), ("--dry-run",), ("--debug", "-o", "json")):
        ran = firectl(*argv, *more, "--api-key", key)
        assert key[9:] not in ran.out + ran.err, more


def test_users_and_keys_are_managed(firectl, api):
    api.on("POST", f"{HOME}/users", {"name": "accounts/acme/users/alice"})
    firectl("create", "user", "--email=alice@example.com", "--user-id", "alice")
    created = api.sent("POST", f"{HOME}/users")[0]
    assert created.query == {"userId": "alice"}
    assert created.body == {"email": "alice@example.com", "role": "user"}

    api.on("PATCH", f"{HOME}/users/alice", {"name": "accounts/acme/users/alice"})
    firectl("update", "user", "alice", "--user", "admin")
    assert api.sent("PATCH")[0].body == {"role": "admin"}

    api.on("POST", f"{HOME}/apiKeys", {"keyId": "k1", "key": "fw_secret"})
    ran = firectl("api-key", "create", "--key-name", "ci")
    assert api.sent("POST", f"{HOME}/apiKeys")[0].body == {"apiKey": {"displayName": "ci"}}
    assert "Key: fw_secret" in ran.out

    api.on("POST", f"{HOME}/users/alice/apiKeys:delete", {})
    assert firectl("delete", "api-key", "k1", "--of-user", "alice").code == 0
    assert api.sent("POST", f"{HOME}/users/alice/apiKeys:delete")[0].body == {"keyId": "k1"}


def test_a_server_that_cannot_delete_users_is_quoted(firectl, api):
    api.on("DELETE", f"{HOME}/users/bob", api.refusal(405, 12, "users cannot be deleted"))
    ran = firectl("delete", "user", "bob")
    assert ran.code == 1
    assert "Error: users cannot be deleted" in ran.err


def test_set_api_key_reads_the_key_from_a_pipe_and_tells_when_another_wins(firectl, api, home, monkeypatch):
    knows(api)
    monkeypatch.setattr("sys.stdin", io.StringIO("fw_piped\n"))
    ran = firectl("set-api-key")
    assert ran.code == 0
    assert "api_key = fw_piped" in (home / ".fireworks" / "auth.ini").read_text()
    assert "FIREWORKS_API_KEY is set and wins over the file" in ran.err
    assert "fw_piped" not in ran.out + ran.err


def test_set_api_key_wants_a_key(firectl, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert firectl("set-api-key").code == 2


def test_a_dry_run_of_set_api_key_and_signout_keeps_and_forgets_nothing(firectl, api, home):
    shown = firectl("set-api-key", "fw_thenewkey", "--dry-run")
    assert (shown.code, shown.json["url"]) == (0, f"{api.url}/verifyApiKey")
    assert not (home / ".fireworks").exists() and "fw_thenewkey" not in shown.out + shown.err
    keep(home, auth="[fireworks]\napi_key = fw_1\n")
    assert firectl("signout", "--all", "--dry-run").json == {"forget": ["fireworks"], "keys": True}
    assert "fw_1" in (home / ".fireworks" / "auth.ini").read_text()
    assert not api.requests


def test_signout_all_ends_every_session_and_forgets_every_key(firectl, api, home):
    tokens = f"access_token = fw_a\nrefresh_token = fw_r\ntoken_server = {api.url}\nemail = a@b.c\n"
    keep(home, auth=f"[fireworks]\napi_key = fw_1\n{tokens}[work]\napi_key = fw_2\naccount_id = w\n")
    api.on("POST", "/v1/auth/signOut", {})
    ran = firectl("signout", "--all", env=NOTHING_SET)
    assert ran.code == 0, ran.err
    assert [request.body for request in api.sent("POST")] == [{"refreshToken": "fw_r"}]
    left = (home / ".fireworks" / "auth.ini").read_text()
    assert "fw_" not in left and "account_id = w" in left
    assert firectl("signout", "--all", env=NOTHING_SET).code == 1


def test_version_tells_both_ends_when_a_server_is_configured(firectl, api):
    api.on("GET", "/version", {"version": "9.8.7"})
    ran = firectl("version")
    assert ran.out.splitlines()[1:] == [f"server 9.8.7 ({api.url})"]
    assert "authorization" not in api.requests[0].headers
    assert firectl("version", "-o", "json").json.items() >= {"server_version": "9.8.7"}.items()


def test_version_asks_no_server_when_told_so_or_when_none_is_configured(firectl, api, home):
    for ran in (
        firectl("version", "--client"),
        firectl("version", "--dry-run"),
        firectl("version", env=NOTHING_SET),
    ):
        assert (ran.code, ran.out.count("\n"), ran.err) == (0, 1, "")
    assert not api.requests


@pytest.mark.parametrize(
    "answer",
    [(404, b"{}"), (200, b"<html>"), (200, b"[1]"), (200, b'{"version": ""}')],
    ids=["no such path", "a page", "a list", "nothing"],
)
def test_version_says_nothing_of_a_server_that_says_nothing(firectl, api, answer):
    api.on("GET", "/version", api.raw(*answer))
    ran = firectl("version")
    assert (ran.code, ran.out.count("\n"), ran.err) == (0, 1, "")


def test_version_waits_for_no_silent_server_and_no_broken_file(firectl, home):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for url in (address, "http://127.0.0.1:1", "https://127.0.0.1:1", "ftp://x", "http://[::"):
            ran = firectl("version", env={"FIREWORKS_BASE_URL": url})
            assert (ran.code, ran.out.count("\n"), ran.err) == (0, 1, ""), url
    keep(home, auth="broken")
    assert firectl("version").code == 0


def test_upgrade_says_how(firectl):
    assert "pip install --upgrade hearth" in firectl("upgrade").out


def test_version_needs_neither_settings_nor_the_slow_libraries():
    program = (
        "import sys; sys.argv = ['firectl', 'version']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'httpx', 'rich', 'yaml'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("firectl ")
    assert ran.stderr.strip() == "[]"


def test_an_unforeseen_failure_is_one_line_for_the_user():
    program = (
        "import sys; sys.argv = ['firectl', 'whoami']\n"
        "import cli.main, cli.commands.setup\n"
        "def broken(session): raise ZeroDivisionError('surprise')\n"
        "cli.commands.setup.key_advice = broken\n"
        "cli.main.main()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "ZeroDivisionError: surprise" in ran.stderr
