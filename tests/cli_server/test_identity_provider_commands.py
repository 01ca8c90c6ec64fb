"""Sign-in is set up, changed and taken away from the command line, with a real OpenID Connect provider."""

import pytest
import typer

from cli.main import app
from tests.cli_server.conftest import User
from tests.identity.conftest import account, db, hearth_settings, http, provider, sign_in, spare_port, url

__all__ = ["account", "db", "hearth_settings", "http", "provider", "sign_in", "spare_port", "url"]


@pytest.fixture
def firectl(url, account, home):
    """An admin of an account of its own, on the server that trusts the provider."""
    return User(url, account.key, home, typer.main.get_command(app))


@pytest.fixture
def oidc(provider):
    """The flags that name the provider."""
    return (f"--oidc-issuer={provider.issuer}", "--oidc-client-id=hearth")


def test_a_provider_is_set_up_shown_changed_and_deleted(firectl, account, provider, oidc):
    made = firectl.done(
        "identity-provider",
        "create",
        "--display-name=Company OIDC",
        *oidc,
        "--oidc-client-secret=hearth-secret",
        f"--tenant-domains={account.domain},more.{account.domain}",
        "--enable-jit-user-provisioning",
    )
    assert f"Name: accounts/{account.id}/identityProviders/company-oidc\n" in made.out
    assert f"Tenant Domains: {account.domain}, more.{account.domain}\n" in made.out
    assert "hearth-secret" not in made.out + made.err
    table = firectl.done("list", "identity-providers").out
    assert "Company OIDC (company-oidc)" in table and provider.issuer in table and account.domain in table
    changed = firectl.json("update", "identity-provider", "company-oidc", "--jit-default-role=contributor")
    assert (changed["default_role"], changed["oidc_config"]["client_id"]) == ("contributor", "hearth")
    firectl.done("update", "identity-provider", "company-oidc", "--tenant-domains", account.domain)
    assert firectl.json("get", "identity-provider", "company-oidc")["tenant_domains"] == [account.domain]
    firectl.done("delete", "identity-provider", "company-oidc")
    assert firectl("get", "identity-provider", "company-oidc").code == 1


def test_people_sign_in_with_a_secret_from_a_file_that_was_changed_later(
    firectl, account, oidc, home, sign_in
):
    (home / "wrong").write_text("not-the-secret\n")
    (home / "right").write_text("hearth-secret\n")
    firectl.done(
        "create",
        "identity-provider",
        "--identity-provider-id=company",
        *oidc,
        "--oidc-client-secret-file=wrong",
        f"--tenant-domains={account.domain}",
        "--enable-jit-user-provisioning",
    )
    ann = account.person("ann")
    assert sign_in.whole(ann).status_code != 200
    firectl.done("update", "identity-provider", "company", "--oidc-client-secret-file", "right")
    assert sign_in.whole(ann).status_code == 200


def test_the_domain_is_that_of_the_account_unless_one_is_named(firectl, account, oidc):
    made = firectl.done("create", "identity-provider", "--display-name", "Company", *oidc)
    assert f"Tenant Domains: {account.id}.test\n" in made.out
    assert "the domain of the account's address" in made.err


def test_what_cannot_be_is_told_by_name(firectl, account, oidc):
    saml = firectl("create", "identity-provider", "--display-name=X", "--saml-metadata-url=https://x.org")
    assert saml.code == 1 and "--saml-metadata-url is not supported" in saml.err
    assert firectl("create", "identity-provider", "--display-name=X").code == 2
    assert firectl("create", "identity-provider", *oidc).code == 2
    domain = f"--tenant-domains={account.domain}"
    enforced = firectl("create", "identity-provider", "--display-name=X", *oidc, domain, "--enforce-sso")
    assert enforced.code == 1 and "enforceSso" in enforced.err
    nowhere = firectl(
        "create", "identity-provider", "--display-name=X", "--oidc-issuer=http://127.0.0.1:1",
        "--oidc-client-id=hearth", "--oidc-client-secret=geheim", domain,
    )  # fmt: skip
    assert nowhere.code == 1 and "issuer" in nowhere.err and "geheim" not in nowhere.err
