"""`firectl signin` as people run it, with a browser and a home folder."""

import configparser
import io
import os
import re
import stat
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx
import pytest
import typer
from sqlalchemy import delete

from cli.main import app
from controlplane.resources.tables import UserSessionRow
from tests.gateway.serving import serving
from tests.identity.browser import visit

BROWSER = Path(__file__).parent / "browser.py"
FIRECTL = [sys.executable, "-c", "from cli.main import main; main()"]


@pytest.fixture(scope="session")
def command_tree():
    """The command tree, built once."""
    return typer.main.get_command(app)


@pytest.fixture
def firectl(home, url, command_tree, monkeypatch):
    """Runs firectl in the home folder; nothing of the test's own environment says who it is."""

    class Firectl:
        def environment(self, told):
            unset = [name for name in os.environ if name.startswith("FIREWORKS_")]
            unset += ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"]
            return {**dict.fromkeys(unset), "HOME": str(home), "FIREWORKS_BASE_URL": url, **told}

        def start(self, *words, **told):
            """A process of its own."""
            wanted = {**os.environ, **self.environment(told)}
            return subprocess.Popen(
                [*FIRECTL, *words],
                env={name: value for name, value in wanted.items() if value is not None},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        def finish(self, process):
            out, err = process.communicate(timeout=60)
            return subprocess.CompletedProcess(process.args, process.returncode, out, err)

        def __call__(self, *words, **told):
            """The same within this process, which takes a tenth of the time."""
            out, err = io.StringIO(), io.StringIO()
            with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
                for name, value in self.environment(told).items():
                    patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
                with pytest.raises(SystemExit) as ended:
                    command_tree.main(list(words))
            return subprocess.CompletedProcess(words, ended.value.code or 0, out.getvalue(), err.getvalue())

        def sign_in(self, account, person, *words, **told):
            with monkeypatch.context() as patch:
                patch.setattr("webbrowser.open", lambda address: visit(address, person))
                return self("signin", account.id, "--browser", *words, **told)

    return Firectl()


@pytest.fixture
def stored(home):
    """What stands in auth.ini, and a way to change it."""

    class Stored:
        path = home / ".fireworks" / "auth.ini"

        def read(self):
            parser = configparser.ConfigParser(interpolation=None)
            parser.read(self.path)
            return dict(parser["fireworks"])

        def change(self, **values):
            parser = configparser.ConfigParser(interpolation=None)
            parser.read(self.path)
            parser["fireworks"].update(values)
            with self.path.open("w") as stream:
                parser.write(stream)

    return Stored()


def test_a_person_signs_in_in_a_browser_works_and_signs_out(account, firectl, stored):
    account.set_up()
    command = f"{sys.executable} {BROWSER} {account.person('ann')} %s"
    done = firectl.finish(firectl.start("signin", account.id, BROWSER=command))
    assert done.returncode == 0, done.stderr
    assert f"Email: {account.email('ann')}" in done.stdout
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600
    tokens = stored.read()
    assert tokens["access_token"] not in done.stdout + done.stderr

    who = firectl("whoami")
    assert f"Account ID: {account.id}" in who.stdout and account.email("ann") in who.stdout
    users = firectl("list", "users", "-o", "json")
    assert users.returncode == 0, users.stderr

    out = firectl("signout")
    assert out.returncode == 0, out.stderr
    assert account.client(tokens["access_token"]).get("/verifyApiKey").status_code == 401
    assert "access_token" not in stored.read()
    assert "firectl signin ACCOUNT" in firectl("list", "users").stderr
    assert firectl("signout").returncode == 1


def test_without_a_display_a_code_is_shown(account, firectl):
    account.set_up()
    process = firectl.start("signin", account.id)
    shown = ""
    for line in process.stderr:
        shown += line
        if found := re.search(r"go to (http\S+user_code=\S+)", line):
            visit(found[1], account.person("ann"))
            break
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 0, shown + rest
    assert re.search(r"enter the code [A-Z-]{9}", shown)
    assert account.email("ann") in out
    assert firectl("list", "models").returncode == 0


def test_an_access_token_that_ran_out_is_renewed_by_one_of_many(account, firectl, stored):
    account.set_up()
    assert firectl.sign_in(account, account.person("ann")).returncode == 0
    before = stored.read()
    stored.change(expire_time="2020-01-01T00:00:00Z")
    together = [firectl.start("list", "models") for _ in range(3)]
    runs = [firectl.finish(process) for process in together]
    assert [run.returncode for run in runs] == [0, 0, 0], [run.stderr for run in runs]
    after = stored.read()
    assert after["refresh_token"] != before["refresh_token"]
    # The server said no before the time had come: the same.
    stored.change(access_token="fw_access_of_before")
    assert firectl("list", "models").returncode == 0
    assert stored.read()["refresh_token"] != after["refresh_token"]
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600


def test_a_session_that_is_over_is_told_with_the_next_command(account, firectl, stored, db):
    account.set_up()
    assert firectl.sign_in(account, account.person("ann")).returncode == 0
    with db.session() as session:
        session.execute(delete(UserSessionRow).where(UserSessionRow.account_id == account.id))
    done = firectl("list", "models")
    assert done.returncode == 1
    assert f"Next: firectl signin {account.id}" in done.stderr
    assert "access_token" not in stored.read()


def test_a_key_in_the_profile_comes_back_after_signing_out(account, firectl, stored):
    account.set_up()
    assert firectl("set-api-key", account.key).returncode == 0
    assert firectl.sign_in(account, account.person("ann")).returncode == 0
    assert account.email("ann") in firectl("whoami").stdout
    assert firectl("signout").returncode == 0
    assert account.email("ann") not in firectl("whoami").stdout
    assert stored.read()["api_key"] == account.key


def test_tokens_go_to_the_server_that_gave_them_and_to_no_other(account, firectl):
    account.set_up()
    assert firectl.sign_in(account, account.person("ann")).returncode == 0
    heard = []

    async def elsewhere(scope, receive, send):
        heard.append(dict(scope["headers"]).get(b"authorization"))
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b'{"code": 16, "message": "no"}'})

    with serving(elsewhere) as other:
        assert firectl("list", "models", FIREWORKS_BASE_URL=other).returncode == 1
    assert set(heard) == {None}


def test_a_key_in_the_environment_wins_and_that_is_told(account, firectl):
    account.set_up()
    done = firectl.sign_in(account, account.person("ann"), FIREWORKS_API_KEY=account.key)
    assert done.returncode == 0
    assert "FIREWORKS_API_KEY is set and wins" in done.stderr
    assert account.email("ann") not in firectl("whoami", FIREWORKS_API_KEY=account.key).stdout


def test_signing_in_again_ends_the_session_before(account, firectl, stored):
    account.set_up()
    person = account.person("ann")
    assert firectl.sign_in(account, person).returncode == 0
    first = stored.read()["access_token"]
    assert firectl.sign_in(account, person, "--profile", "other").returncode == 0
    assert account.client(first).get("/verifyApiKey").status_code == 200
    assert firectl.sign_in(account, person).returncode == 0
    assert account.client(first).get("/verifyApiKey").status_code == 401


def test_what_goes_wrong_is_told_with_what_to_do(account, firectl):
    nowhere = firectl("signin", "nowhere", "--browser")
    assert nowhere.returncode == 1
    assert "no such account, or no identity provider" in nowhere.stderr
    assert "Next: or use a key: firectl set-api-key KEY" in nowhere.stderr
    assert "Next: firectl signin ACCOUNT" in firectl("signin").stderr
    account.set_up(enableJitUserProvisioning=False)
    stranger = firectl.sign_in(account, account.person("ann"))
    assert stranger.returncode == 1
    assert "ask an admin" in stranger.stderr


def test_a_dry_run_opens_and_keeps_nothing(account, firectl, stored):
    done = firectl("signin", account.id, "--browser", "--dry-run")
    assert done.returncode == 0
    assert "auth/signIn:start" in done.stdout
    assert not stored.path.exists()


def test_nobody_but_the_expected_visitor_ends_the_waiting(account, firectl):
    account.set_up()
    process = firectl.start("signin", account.id, "--browser")
    shown = threading.Event()
    address = []

    def read():
        for line in process.stderr:
            if line.startswith("http"):
                address.append(line.strip())
                shown.set()
                return

    threading.Thread(target=read, daemon=True).start()
    assert shown.wait(30)
    redirect = re.search(r"redirect_uri=http%3A%2F%2F127\.0\.0\.1%3A(\d+)", address[0])
    loopback = f"http://127.0.0.1:{redirect[1]}"
    for path in ("/", "/callback", "/callback?code=x", "/callback?code=x&state=guess", "/callback?state=%ff"):
        assert httpx.get(loopback + path).status_code == 404, path
    state = re.search(r"[?&]state=([\w-]+)", address[0])[1]
    page = httpx.get(f"{loopback}/callback?error=access_denied&state={state}")
    assert "You can close this window" in page.text
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "access_denied" in err
