"""Keys, accounts, profiles, and how fast firectl starts."""

import stat
import subprocess
import sys

HOME = "/v1/accounts/acme"
LATER = "2999-01-01T00:00:00Z"


def knows(api, account="acme"):
    from_key = api.ok({})
    from_key.headers["x-fireworks-account-id"] = account
    api.on("GET", "/verifyApiKey", from_key)


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


def test_a_broken_auth_ini_is_told(firectl, home):
    (home / ".fireworks").mkdir()
    (home / ".fireworks" / "auth.ini").write_text("no equals sign here\n")
    ran = firectl("list", "models")
    assert ran.code == 1
    assert "auth.ini" in ran.err


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


def test_whoami_shows_the_account_of_the_key(firectl, api):
    knows(api)
    ran = firectl("whoami")
    assert ran.out.splitlines() == ["Account ID: acme", f"Base URL: {api.url}"]


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
        "def broken(client): raise ZeroDivisionError('surprise')\n"
        "cli.commands.setup.account_of_key = broken\n"
        "cli.main.main()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "ZeroDivisionError: surprise" in ran.stderr
