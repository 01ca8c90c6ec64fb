"""Signing in in a browser, end to end with a real provider."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from controlplane.db import now
from controlplane.resources.tables import (
    ApiKeyRow,
    AuditLogRow,
    IdentityProviderRow,
    SignInRow,
    UserRow,
    UserSessionRow,
)
from controlplane.signin import discovery
from controlplane.signin.client import Client
from tests.identity import provider_server
from tests.identity.conftest import refusal
from tests.locks import is_anybody_waiting


def test_who_signs_in_for_the_first_time_becomes_a_user(account, sign_in, db):
    account.set_up()
    answer = sign_in.whole(account.person("ann"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert (tokens["accountId"], tokens["userId"]) == (account.id, "ann")
    assert tokens["email"] == account.email("ann")
    ann = account.client(tokens["accessToken"])
    assert ann.get("/verifyApiKey").headers["x-fireworks-account-id"] == account.id
    assert ann.get(f"{account.path}/users/ann").json()["role"] == "user"
    assert ann.get(account.providers).status_code == 403
    with db.session() as session:
        stored = [*session.scalars(select(ApiKeyRow)), *session.scalars(select(UserSessionRow))]
    for secret in (tokens["accessToken"], tokens["refreshToken"]):
        assert all(secret not in str(vars(row)) for row in stored)


def test_an_access_token_is_in_no_list_of_keys(account, sign_in):
    account.set_up()
    ann = account.client(sign_in.tokens(account.person("ann"))["accessToken"])
    made = ann.post(f"{account.path}/apiKeys", json={"apiKey": {"displayName": "mine"}}).json()
    listed = ann.get(f"{account.path}/users/ann/apiKeys").json()
    assert [key["keyId"] for key in listed["apiKeys"]] == [made["keyId"]]
    assert listed["totalSize"] == 1


def test_a_user_is_known_by_the_email_address_whatever_its_case(account, sign_in):
    account.set_up(enableJitUserProvisioning=False)
    account.user("boss", email=f"Jo.Boss@{account.domain.upper()}", role="admin")
    jo = account.person("jo", f"jo.boss@{account.domain}")
    assert sign_in.tokens(jo)["userId"] == "boss"
    assert sign_in.tokens(jo)["userId"] == "boss"


def test_a_person_who_is_no_user_is_told_to_ask_an_admin(account, sign_in):
    account.set_up(enableJitUserProvisioning=False)
    status, text = refusal(sign_in.whole(account.person("ann")))
    assert status == 403
    assert "ask an admin" in text and f"firectl create user --email {account.email('ann')}" in text
    assert account.admin.get(f"{account.path}/users/ann").status_code == 404


def test_an_id_that_is_taken_gets_a_tail_and_the_default_role(account, sign_in):
    account.set_up(defaultRole="inference-user")
    tokens = sign_in.tokens(account.person("admin"))
    assert tokens["userId"].startswith("admin-")
    user = account.admin.get(f"{account.path}/users/{tokens['userId']}").json()
    assert user["role"] == "inference-user"


@pytest.mark.parametrize(
    ("email", "verified", "why"),
    [
        ("eve@DOMAIN", False, "has not verified eve@"),
        ("eve@DOMAIN", None, "has not verified eve@"),
        ("eve@DOMAIN", "yes", "has not verified eve@"),
        ("eve@DOMAIN.evil.org", True, "not a domain of this account"),
        ("eve@sub.DOMAIN", True, "not a domain of this account"),
        ("eve@evil.org", True, "not a domain of this account"),
        ("", True, "no e-mail address"),
        ("eve@evil.org@DOMAIN", True, "no e-mail address"),
        ("eve\x1b[2J@DOMAIN", True, "no e-mail address"),
    ],
)
def test_who_the_provider_does_not_vouch_for_stays_outside(account, sign_in, email, verified, why):
    account.set_up()
    eve = account.person("eve", email.replace("DOMAIN", account.domain), email_verified=verified)
    status, text = refusal(sign_in.whole(eve))
    assert status == 403
    assert why in text


def test_an_address_that_changed_hands_opens_nothing(account, sign_in):
    account.set_up()
    assert sign_in.whole(account.person("ann")).status_code == 200
    status, text = refusal(sign_in.whole(account.person("anna", account.email("ann"))))
    assert status == 403
    assert "somebody else" in text


@pytest.mark.parametrize("letter", ["\u212a", "\u0130"])  # in lower case a plain k, and a plain i
def test_an_address_that_only_looks_the_same_opens_nothing(account, sign_in, letter):
    account.set_up()
    account.user("kiki", role="admin")
    email = account.email({"\u212a": f"{letter}iki", "\u0130": f"k{letter}ki"}[letter])
    status, text = refusal(sign_in.whole(account.person("eve", email)))
    assert status == 403
    assert "no e-mail address" in text


def test_a_person_whose_address_changed_is_the_same_user(account, sign_in):
    account.set_up()
    ann = account.person("ann")
    sign_in.tokens(ann)
    assert account.person("ann", account.email("ann.newname")) == ann
    assert sign_in.tokens(ann)["userId"] == "ann"


def test_a_provider_that_is_another_one_meanwhile_signs_nobody_in(account, sign_in, db, monkeypatch):
    account.set_up(client="public", secret="")
    real = Client.person

    async def and_then_it_changes(self, tokens, **more):
        person = await real(self, tokens, **more)
        changed = await asyncio.to_thread(account.change, oidcConfig=account.config("posting"))
        assert changed.status_code == 200
        return person

    monkeypatch.setattr(Client, "person", and_then_it_changes)
    status, text = refusal(sign_in.whole(account.person("ann")))
    assert (status, "changed meanwhile" in text) == (403, True), text


def test_who_is_deleted_meanwhile_is_not_signed_in(account, sign_in, db):
    account.set_up(enableJitUserProvisioning=False)
    account.user("ann")
    ann = account.person("ann")
    sign_in.tokens(ann)
    returned = sign_in.come_back(ann)
    with ThreadPoolExecutor(1) as pool:
        with db.session() as session:
            session.execute(delete(UserRow).where(UserRow.account_id == account.id, UserRow.id == "ann"))
            finished = pool.submit(sign_in.finish, returned)
            while not finished.done() and not is_anybody_waiting(db):
                time.sleep(0.01)
        status, text = refusal(finished.result())
    assert (status, "ask an admin" in text) == (403, True), text


def test_a_service_account_never_signs_in(account, sign_in):
    account.set_up()
    account.user("bot", serviceAccount=True)
    status, text = refusal(sign_in.whole(account.person("bot")))
    assert status == 403
    assert "cannot sign in" in text


def test_an_account_without_a_provider_is_like_one_that_does_not_exist(http, account):
    begun = {"redirectUri": "http://127.0.0.1:1/", "codeChallenge": "x" * 43}
    for path, body in (("signIn", begun), ("device", {})):
        answers = [
            http.post(f"/v1/auth/{path}:start", json={"account": name, **body})
            for name in (account.id, f"accounts/{account.id}", "nowhere", "'; --")
        ]
        assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}


def test_a_state_and_a_verifier_are_good_for_one_try(account, sign_in):
    account.set_up()
    returned = sign_in.come_back(account.person("ann"))
    assert sign_in.finish(returned, state="s" * 43).status_code == 400
    status, text = refusal(sign_in.finish(returned, codeVerifier="v" * 64))
    assert (status, "codeVerifier" in text) == (400, True)
    status, text = refusal(sign_in.finish(returned))
    assert (status, "begin again" in text) == (400, True)


def test_a_code_is_good_once_and_only_with_its_own_sign_in(account, sign_in):
    account.set_up()
    returned = sign_in.come_back(account.person("ann"))
    assert sign_in.finish(returned).status_code == 200
    assert sign_in.finish(returned).status_code == 400
    status, text = refusal(sign_in.finish(returned, state=sign_in.start().json()["state"]))
    assert status == 400
    assert "invalid_grant" in text
    assert returned["code"] not in text


def test_an_id_token_for_another_sign_in_is_not_taken(account, sign_in, db):
    account.set_up()
    returned = sign_in.come_back(account.person("ann"))
    with db.session() as session:
        session.execute(update(SignInRow).values(nonce="another"))
    status, text = refusal(sign_in.finish(returned))
    assert status == 403
    assert "nonce" in text


def test_a_sign_in_that_took_too_long_is_over_and_forgotten(account, sign_in, db):
    account.set_up()
    returned = sign_in.come_back(account.person("ann"))
    with db.session() as session:
        session.execute(update(SignInRow).values(expire_time=now() - timedelta(seconds=1)))
    assert sign_in.finish(returned).status_code == 400
    sign_in.start()
    of_account = select(SignInRow).join(
        IdentityProviderRow, IdentityProviderRow.uid == SignInRow.provider_uid
    )
    with db.session() as session:
        rows = session.scalars(of_account.where(IdentityProviderRow.account_id == account.id)).all()
    assert len(rows) == 1


@pytest.mark.parametrize("bound", ["MOST_OF_A_PROVIDER", "MOST_OF_AN_ADDRESS"])
def test_sign_ins_under_way_are_bounded(account, sign_in, monkeypatch, bound):
    account.set_up()
    assert sign_in.start().status_code == 200
    monkeypatch.setattr(f"controlplane.signin.pending.{bound}", 1)
    answer = sign_in.start()
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


def test_a_browser_is_sent_back_to_its_own_machine_only(account, sign_in):
    account.set_up()
    for uri in (
        "https://127.0.0.1:5000/callback",
        "http://127.0.0.1/callback",
        "http://evil.org:5000/",
        "http://127.0.0.1:5000@evil.org/",
        "http://user@127.0.0.1:5000/",
        "http://127.0.0.1.evil.org:5000/",
        "http://127.0.0.1:5000/?next=x",
        "http://127.0.0.1:99999/",
        "javascript:alert(1)",
        "",
    ):
        answer = sign_in.start(redirectUri=uri)
        assert (answer.status_code, "redirectUri" in answer.text) == (400, True), uri
    for uri in ("http://[::1]:5000/callback", "http://localhost:5000/", "http://127.0.0.1:5000/callback"):
        assert sign_in.start(redirectUri=uri).status_code == 200, uri


def test_a_sign_in_without_pkce_does_not_begin(account, sign_in):
    account.set_up()
    for challenge in ("", "plain", "x" * 42, "x" * 44, "!" * 43):
        answer = sign_in.start(codeChallenge=challenge)
        assert (answer.status_code, "codeChallenge" in answer.text) == (400, True), challenge


@pytest.mark.parametrize(("client", "secret"), [("posting", None), ("public", ""), ("forgetful", None)])
def test_every_way_of_being_a_client_works(account, sign_in, client, secret):
    account.set_up(client=client, secret=secret)
    assert sign_in.whole(account.person("ann")).status_code == 200


def test_a_wrong_client_secret_is_told_without_the_secret(account, sign_in):
    account.set_up(secret="not-this-one")
    status, text = refusal(sign_in.whole(account.person("ann")))
    assert status == 400
    assert "invalid_client" in text and f"accounts/{account.id}/identityProviders/company" in text
    assert "not-this-one" not in text


def test_what_the_provider_says_beyond_its_code_is_not_repeated(account, sign_in, provider):
    account.set_up()
    returned = sign_in.come_back(account.person("ann"))
    provider.answers_tokens_with("on_strike")
    status, text = refusal(sign_in.finish(returned))
    assert status == 400
    assert "on_strike" in text
    assert "nobody is to see" not in text


def test_a_provider_may_go_away_and_come_back_with_other_keys(account, sign_in, spare_port):
    first = account.provider = provider_server.start(spare_port)
    ann = account.person("ann")
    account.set_up()
    assert sign_in.whole(ann).status_code == 200
    returned = sign_in.come_back(ann)
    first.stop()
    status, text = refusal(sign_in.finish(returned))
    assert status == 503
    assert "the identity provider cannot be used now: no connection" in text
    again = account.provider = provider_server.start(spare_port, CLAIMS_IN_ID_TOKEN="yes")
    account.person("ann")
    assert sign_in.whole(ann).status_code == 200
    again.stop()


def test_an_account_with_several_providers_asks_which(account, sign_in):
    account.set_up()
    partner = account.config("public", secret="")
    answer = account.create_provider(
        "partner", oidcConfig=partner, tenantDomains=[f"partner.{account.domain}"]
    )
    assert answer.status_code == 200, answer.text
    assert sign_in.start().status_code == 400
    pat = account.person("pat", f"pat@partner.{account.domain}")
    assert sign_in.whole(pat, identityProvider="partner").status_code == 200
    assert sign_in.whole(pat, identityProvider="company").status_code == 403


def test_a_provider_that_does_not_answer_is_not_asked_by_everybody_who_comes(
    account, sign_in, http, spare_port, monkeypatch
):
    account.provider = provider_server.start(spare_port)
    account.set_up()
    account.provider.stop()
    monkeypatch.setattr("controlplane.signin.discovery.FRESH_SECONDS", 0.0)
    asked = []
    real = discovery.fetch

    async def counted(url, **how):
        asked.append(url)
        return await real(url, **how)

    monkeypatch.setattr(discovery, "fetch", counted)
    answers = [sign_in.start() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert "no connection" in answers[2].text
    assert len(asked) == 1


def test_signing_in_is_in_the_audit_log_without_its_secrets(account, sign_in, db):
    account.set_up()
    returned = sign_in.come_back(account.person("ann"))
    assert sign_in.finish(returned).status_code == 200
    with db.session() as session:
        line = session.scalars(select(AuditLogRow).where(AuditLogRow.email == account.email("ann"))).one()
    assert line.action == "FinishSignIn"
    assert line.resource == f"accounts/{account.id}/users/ann"
    for secret in (returned["code"], returned["state"], sign_in.verifier):
        assert secret not in str(vars(line))
