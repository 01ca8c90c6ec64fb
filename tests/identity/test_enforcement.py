"""enforceSso: people of the domain sign in, and their API keys do not work."""

from dataclasses import replace

import pytest

from gateway.app import create_app as create_gateway
from gateway.limits import Limits
from tests.gateway.serving import serving, wait_until
from tests.identity.conftest import refusal

QUICK = replace(Limits(), snapshot_seconds=0.1, key_fresh_seconds=0.1, unknown_key_seconds=0.1)


@pytest.fixture
def boss(account, sign_in):
    """An admin of the domain, signed in."""
    account.set_up()
    account.user("boss", role="admin")
    return account.client(sign_in.tokens(account.person("boss"))["accessToken"])


def key_of(account, user):
    answer = account.admin.post(f"{account.path}/users/{user}/apiKeys", json={"apiKey": {}})
    assert answer.status_code == 200, answer.text
    return account.client(answer.json()["key"])


def works(client):
    return client.get("/verifyApiKey").status_code == 200


def test_an_admin_with_a_key_cannot_enforce_what_nobody_tried(account, boss):
    status, text = refusal(account.change(enforceSso=True))
    assert (status, "signed in with this very provider" in text) == (400, True)


def test_keys_of_people_stop_and_those_of_programs_and_other_domains_go_on(account, boss):
    account.user("ann")
    account.user("bot", serviceAccount=True)
    ann, bot, old = key_of(account, "ann"), key_of(account, "bot"), key_of(account, "boss")
    assert boss.patch(f"{account.providers}/company", json={"enforceSso": True}).json()["enforceSso"]
    assert not works(old)
    status, text = refusal(ann.get("/verifyApiKey"))
    assert (status, f"firectl signin {account.id}" in text) == (401, True)
    assert works(bot) and works(boss) and works(account.admin)
    status, text = refusal(boss.post(f"{account.path}/users/ann/apiKeys", json={"apiKey": {}}))
    assert (status, "enforceSso" in text) == (400, True)
    assert boss.post(f"{account.path}/users/bot/apiKeys", json={"apiKey": {}}).status_code == 200
    assert account.change(disabled=True).status_code == 200
    assert works(ann)


def test_the_gateway_takes_access_tokens_and_refuses_keys_as_the_control_plane_does(
    account, boss, sign_in, http, url, hearth_settings
):
    settings = hearth_settings.model_copy(update={"api_url": url})
    account.user("ann")
    key = key_of(account, "ann").headers["Authorization"]
    tokens = sign_in.tokens(account.person("ann"))
    with serving(create_gateway(settings, QUICK), lifespan="on") as gateway:
        models = f"{gateway}/inference/v1/models"

        def status(credential):
            return account.admin.get(models, headers={"Authorization": credential}).status_code

        wait_until(lambda: http.get(f"{gateway}/readyz").status_code == 200)
        access = f"Bearer {tokens['accessToken']}"
        assert (status(access), status(key)) == (200, 200)
        boss.patch(f"{account.providers}/company", json={"enforceSso": True})
        wait_until(lambda: status(key) == 401, 5)
        assert status(access) == 200
        # The paths of sign-in pass through the gateway.
        out = http.post(f"{gateway}/v1/auth/signOut", json={"refreshToken": tokens["refreshToken"]})
        assert out.status_code == 200
        wait_until(lambda: status(access) == 401, 5)
        assert http.get(f"{gateway}{account.providers}").status_code == 401
