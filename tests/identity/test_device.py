"""Signing in by a code that is typed into a browser elsewhere."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from controlplane.auth import hash_key
from controlplane.db import now
from controlplane.resources.tables import SignInRow
from tests.gateway.serving import wait_until
from tests.identity import provider_server
from tests.identity.browser import visit
from tests.identity.conftest import refusal


@pytest.fixture
def device(http, account):
    class Device:
        def start(self):
            answer = http.post("/v1/auth/device:start", json={"account": account.id})
            assert answer.status_code == 200, answer.text
            return answer.json()

        def poll(self, started):
            return http.post("/v1/auth/device:poll", json={"deviceCode": started["deviceCode"]})

        def until_signed_in(self, started):
            def done():
                answer = self.poll(started)
                return answer if answer.json().get("state") != "PENDING" else None

            return wait_until(done)

    return Device()


def test_a_person_signs_in_elsewhere(account, device, sign_in):
    account.set_up()
    started = device.start()
    assert started["userCode"] and started["interval"] == 1
    waiting = device.poll(started).json()
    assert waiting == {"interval": 1, "state": "PENDING"}
    visit(started["verificationUriComplete"], account.person("ann"))
    tokens = device.until_signed_in(started).json()["tokens"]
    assert tokens["userId"] == "ann"
    assert sign_in.works(tokens)
    assert sign_in.refresh(tokens).status_code == 200


def test_a_device_code_is_good_for_one_session(account, device):
    account.set_up()
    started = device.start()
    visit(started["verificationUriComplete"], account.person("ann"))
    assert device.until_signed_in(started).status_code == 200
    status, text = refusal(device.poll(started))
    assert (status, "begin again" in text) == (400, True)


def test_who_polls_too_often_hears_the_last_answer(account, device, provider):
    account.set_up()
    started = device.start()
    assert device.poll(started).json()["state"] == "PENDING"
    provider.answers_tokens_with("on_strike")
    assert device.poll(started).json()["state"] == "PENDING"


def test_a_provider_that_wants_to_be_asked_less_often_is(account, device, provider, db):
    account.set_up()
    started = device.start()
    provider.answers_tokens_with("slow_down")
    assert device.poll(started).json() == {"interval": 6, "state": "PENDING"}
    with db.session() as session:
        row = session.scalars(
            select(SignInRow).where(SignInRow.handle_hash == hash_key(started["deviceCode"]))
        ).one()
    assert row.interval == 6
    assert row.next_poll_time - now() > timedelta(seconds=4)


def test_a_refused_or_expired_device_code_ends_the_sign_in(account, device, provider):
    account.set_up()
    for error, wanted in (("access_denied", 403), ("expired_token", 400)):
        started = device.start()
        provider.answers_tokens_with(error)
        status, text = refusal(device.poll(started))
        assert (status, error in text) == (wanted, True)
        assert "begin again" in refusal(device.poll(started))[1]
        provider.answers_tokens_with("")


def test_an_unknown_or_old_device_code_is_refused(account, device, db):
    account.set_up()
    assert device.poll({"deviceCode": "d" * 43}).status_code == 400
    started = device.start()
    with db.session() as session:
        session.execute(update(SignInRow).values(expire_time=now() - timedelta(seconds=1)))
    assert device.poll(started).status_code == 400


def test_a_device_code_is_no_state_and_a_state_is_no_device_code(account, device, sign_in):
    account.set_up()
    started = device.start()
    returned = {"state": started["deviceCode"], "code": "x"}
    assert sign_in.finish({**returned}, codeVerifier="v" * 64).status_code == 400
    begun = sign_in.start().json()
    assert device.poll({"deviceCode": begun["state"]}).status_code == 400
    assert device.poll(started).json()["state"] == "PENDING"


def test_a_provider_without_device_codes_is_refused_by_name(account, http, spare_port):
    account.provider = provider_server.start(spare_port, NO_DEVICE_FLOW="yes")
    account.set_up()
    status, text = refusal(http.post("/v1/auth/device:start", json={"account": account.id}))
    account.provider.stop()
    assert status == 400
    assert "device_authorization_endpoint" in text
