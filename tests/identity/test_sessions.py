"""Sessions: renewed, stolen, ended."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import select, update

from controlplane.db import now
from controlplane.encryption import Cipher, generate_secret_key, rotate
from controlplane.resources.tables import ApiKeyRow, IdentityProviderRow, UserRow, UserSessionRow
from controlplane.signin.discovery import Issuers
from controlplane.signin.outbound import NoAnswer
from tests.identity.conftest import refusal
from tests.locks import is_anybody_waiting


def stored(db, account):
    with db.session() as session:
        return session.scalars(select(UserSessionRow).where(UserSessionRow.account_id == account.id)).all()


def test_a_refresh_gives_new_tokens_and_the_old_access_token_soon_ends(account, sign_in, db):
    account.set_up()
    first = sign_in.tokens(account.person("ann"))
    answer = sign_in.refresh(first)
    assert answer.headers["cache-control"] == "no-store"
    second = answer.json()
    assert second["accessToken"] != first["accessToken"]
    assert second["refreshToken"] != first["refreshToken"]
    assert second["email"] == account.email("ann")
    assert sign_in.works(first) and sign_in.works(second)
    with db.session() as session:
        keys = session.scalars(select(ApiKeyRow).where(ApiKeyRow.session_uid.is_not(None)))
        left = sorted(key.expire_time - now() for key in keys if key.account_id == account.id)
    assert left[0] <= timedelta(minutes=1) < timedelta(minutes=58) < left[1] <= timedelta(hours=1)


def test_a_refresh_token_that_comes_twice_ends_the_session(account, sign_in, db):
    account.set_up()
    first = sign_in.tokens(account.person("ann"))
    second = sign_in.refresh(first).json()
    status, text = refusal(sign_in.refresh(first))
    assert status == 401
    assert "used before" in text
    assert not sign_in.works(second)
    assert refusal(sign_in.refresh(second))[0] == 401
    assert stored(db, account) == []


def test_of_two_that_refresh_at_once_one_at_most_goes_on(account, sign_in, db):
    account.set_up(client="forgetful")
    first = sign_in.tokens(account.person("ann"))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(sign_in.refresh, [first, first]))
    assert sorted(answer.status_code for answer in answers) == [200, 401]
    assert stored(db, account) == []


def test_what_is_no_refresh_token_is_refused(account, sign_in):
    account.set_up()
    tokens = sign_in.tokens(account.person("ann"))
    for wrong in ("", "x", tokens["accessToken"], "fw_refresh_", "fw_refresh_" + "x" * 64, "\u20ac"):
        assert refusal(sign_in.refresh({"refreshToken": wrong}))[0] == 401, wrong
    assert sign_in.works(tokens)


def test_who_left_the_company_is_out_at_the_next_refresh(account, sign_in, provider, db):
    account.set_up()
    ann = account.person("ann")
    tokens = sign_in.tokens(ann)
    provider.forgets(ann)
    status, text = refusal(sign_in.refresh(tokens))
    assert status == 401
    assert "no longer lets you in" in text
    assert not sign_in.works(tokens)
    assert stored(db, account) == []


def test_a_provider_in_trouble_ends_no_session(account, sign_in, provider):
    account.set_up()
    tokens = sign_in.tokens(account.person("ann"))
    provider.answers_tokens_with("invalid_client")
    assert refusal(sign_in.refresh(tokens))[0] == 400
    assert sign_in.works(tokens)
    provider.answers_tokens_with("")
    assert sign_in.refresh(tokens).status_code == 200


def test_a_provider_whose_keys_cannot_be_read_spends_no_token(account, sign_in, monkeypatch):
    account.set_up(client="public", secret="")  # the provider gives such clients a new token each time
    tokens = sign_in.tokens(account.person("ann"))

    async def no_keys(*_, **__):
        raise NoAnswer("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(Issuers, "keys", no_keys)
        assert refusal(sign_in.refresh(tokens))[0] == 503
    assert sign_in.refresh(tokens).status_code == 200


def test_a_session_that_the_provider_does_not_renew_ends_after_twelve_hours(account, sign_in, provider, db):
    account.set_up(client="forgetful")
    tokens = sign_in.tokens(account.person("ann"))
    (row,) = stored(db, account)
    assert row.provider_refresh_token == ""
    assert timedelta(hours=11) < row.expire_time - now() <= timedelta(hours=12)
    provider.answers_tokens_with("on_strike")  # nobody asks it
    renewed = sign_in.refresh(tokens)
    assert renewed.status_code == 200
    with db.session() as session:
        ends = now() + timedelta(minutes=10)
        session.execute(update(UserSessionRow).where(UserSessionRow.uid == row.uid).values(expire_time=ends))
    last = sign_in.refresh(renewed.json()).json()
    assert last["expireTime"][:19] == ends.isoformat()[:19]
    with db.session() as session:
        ended = now() - timedelta(seconds=1)
        session.execute(update(UserSessionRow).where(UserSessionRow.uid == row.uid).values(expire_time=ended))
    assert refusal(sign_in.refresh(last))[0] == 401


def test_an_access_token_lives_an_hour(account, sign_in, db):
    account.set_up()
    tokens = sign_in.tokens(account.person("ann"))
    with db.session() as session:
        session.execute(
            update(ApiKeyRow)
            .where(ApiKeyRow.account_id == account.id, ApiKeyRow.session_uid.is_not(None))
            .values(expire_time=now() - timedelta(seconds=1))
        )
    answer = account.client(tokens["accessToken"]).get("/verifyApiKey")
    assert refusal(answer) == (401, "the API key has expired")


def test_signing_out_ends_the_session_for_old_tokens_too(account, sign_in, http, db):
    account.set_up()
    first = sign_in.tokens(account.person("ann"))
    second = sign_in.refresh(first).json()
    for token in (first["refreshToken"], first["refreshToken"], "fw_refresh_" + "x" * 64, ""):
        answer = http.post("/v1/auth/signOut", json={"refreshToken": token})
        assert (answer.status_code, answer.json()) == (200, {})
    assert not sign_in.works(second)
    assert stored(db, account) == []


def test_a_deleted_user_is_out_at_once(account, sign_in):
    account.set_up(enableJitUserProvisioning=False)
    account.user("ann")
    tokens = sign_in.tokens(account.person("ann"))
    assert account.admin.delete(f"{account.path}/users/ann").status_code == 200
    assert not sign_in.works(tokens)
    assert refusal(sign_in.refresh(tokens))[0] == 401
    assert refusal(sign_in.whole(account.person("ann")))[0] == 403


def test_a_refresh_and_a_delete_of_its_user_do_not_block_each_other(account, sign_in, db):
    account.set_up(client="forgetful")
    tokens = sign_in.tokens(account.person("ann"))
    of_ann = select(UserRow).where(UserRow.account_id == account.id, UserRow.id == "ann")
    with ThreadPoolExecutor(1) as pool:
        with db.session() as session:
            ann = session.scalars(of_ann.with_for_update()).one()
            refreshed = pool.submit(sign_in.refresh, tokens)
            while not refreshed.done() and not is_anybody_waiting(db):
                time.sleep(0.01)
            session.delete(ann)
        assert refusal(refreshed.result())[0] == 401
    assert stored(db, account) == []


def test_a_disabled_provider_signs_everybody_out_and_nobody_in(account, sign_in):
    account.set_up()
    ann = account.person("ann")
    tokens = sign_in.tokens(ann)
    returned = sign_in.come_back(ann)
    assert account.change(disabled=True).json()["state"] == "DISABLED"
    assert not sign_in.works(tokens)
    assert refusal(sign_in.refresh(tokens))[0] == 401
    assert refusal(sign_in.finish(returned))[0] == 403
    assert sign_in.start().status_code == 404
    account.change(disabled=False)
    assert sign_in.whole(ann).status_code == 200


def test_a_deleted_provider_signs_everybody_out(account, sign_in, db):
    account.set_up()
    tokens = sign_in.tokens(account.person("ann"))
    assert account.admin.delete(f"{account.providers}/company").status_code == 200
    assert not sign_in.works(tokens)
    assert stored(db, account) == []


def test_a_domain_that_is_taken_away_signs_out_and_a_new_name_does_not(account, sign_in):
    account.set_up(tenantDomains=[account.domain, f"old.{account.domain}"])
    tokens = sign_in.tokens(account.person("ann"))
    account.change(
        displayName="Other", tenantDomains=[account.domain, f"old.{account.domain}", "x" + account.domain]
    )
    assert sign_in.works(tokens)
    account.change(tenantDomains=[account.domain])
    assert not sign_in.works(tokens)


def test_a_new_secret_key_takes_over_what_sign_in_stored(account, sign_in, hearth_settings, db):
    account.set_up()
    sign_in.tokens(account.person("ann"))
    old = hearth_settings.secret_keys.get_secret_value()
    fresh = generate_secret_key()
    done = rotate(db, Cipher([fresh, old]))
    assert done.failed == [] and done.changed >= 2
    (row,) = stored(db, account)
    only_fresh = Cipher([fresh])
    assert only_fresh.decrypt(row.provider_refresh_token)
    with db.session() as session:
        kept = session.scalars(
            select(IdentityProviderRow).where(IdentityProviderRow.account_id == account.id)
        ).one()
    assert only_fresh.decrypt(kept.client_secret) == "hearth-secret"
    assert rotate(db, Cipher([old, fresh])).failed == []
