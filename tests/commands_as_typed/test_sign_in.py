"""The lines that sign somebody in, with a real OpenID Connect provider."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Ran
from tests.commands_as_typed.checking import check_output
from tests.commands_as_typed.table import argv, of_tier
from tests.identity.browser import visit
from tests.identity.conftest import db, hearth_settings, home, new_account, provider, spare_port, url
from tests.identity.test_firectl import firectl

__all__ = ["db", "firectl", "hearth_settings", "home", "provider", "spare_port", "url"]


@pytest.fixture
def enterprise(url, db, provider):
    """The account that the documents name, with the provider registered."""
    account = new_account(url, db, provider, "my-enterprise-account")
    account.set_up()
    yield account
    account.admin.close()


def test_a_person_signs_in_first_with_the_account_and_then_without(enterprise, firectl, monkeypatch):
    """With a key of nobody's in the environment; the account is remembered."""
    monkeypatch.setattr("webbrowser.open", lambda address: visit(address, enterprise.person("ann")))
    for entry in of_tier("sign-in"):
        done = firectl(*argv(entry.line), DISPLAY=":0")
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert ran.code == entry.code, ran.err
        check_output(entry, ran, entry.line)
        people = enterprise.admin.get(f"/v1/accounts/{enterprise.id}/users").json()["users"]
        assert enterprise.email("ann") in [user["email"] for user in people]


def test_without_an_account_the_first_time_somebody_is_asked_which(firectl):
    done = firectl("signin")
    assert done.returncode != 0
    assert "Next: firectl signin ACCOUNT" in done.stderr
