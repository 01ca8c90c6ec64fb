"""The collection identityProviders: who may set up what, and what is checked when they do."""

import pytest
from sqlalchemy import select

from controlplane.encryption import Cipher
from controlplane.resources.tables import AuditLogRow, IdentityProviderRow
from tests.identity.conftest import refusal


def test_a_provider_is_set_up_read_listed_changed_and_deleted(account, provider):
    made = account.set_up()
    name = f"accounts/{account.id}/identityProviders/company"
    assert made.pop("createTime") and made.pop("updateTime")
    assert made == {
        "name": name,
        "displayName": "Company",
        "state": "READY",
        "oidcConfig": {"issuerUrl": provider.issuer, "clientId": "hearth"},
        "tenantDomains": [account.domain],
        "enforceSso": False,
        "enableJitUserProvisioning": True,
        "defaultRole": "user",
        "disabled": False,
    }
    assert account.change(displayName="Firm", defaultRole="contributor").json()["displayName"] == "Firm"
    (listed,) = account.admin.get(account.providers).json()["identityProviders"]
    assert (listed["name"], listed["defaultRole"]) == (name, "contributor")
    found = account.admin.get(account.providers, params={"filter": 'state = "READY" AND disabled = false'})
    assert found.json()["totalSize"] == 1
    assert account.create_provider().status_code == 409
    assert account.admin.delete(f"{account.providers}/company").json() == {}
    assert account.admin.get(f"{account.providers}/company").status_code == 404


def test_the_client_secret_is_encrypted_and_never_told(account, db):
    account.set_up()
    answers = [
        account.admin.get(account.providers).text,
        account.admin.get(f"{account.providers}/company").text,
        account.change(displayName="x").text,
    ]
    with db.session() as session:
        row = session.scalars(
            select(IdentityProviderRow).where(IdentityProviderRow.account_id == account.id)
        ).one()
        lines = session.scalars(select(AuditLogRow).where(AuditLogRow.account_id == account.id)).all()
    assert len(lines) == 2
    assert "hearth-secret" not in " ".join(
        [*answers, row.client_secret, *(str(vars(line)) for line in lines)]
    )


def test_a_change_without_a_secret_keeps_it(account, sign_in, provider):
    account.set_up()
    config = {"issuerUrl": provider.issuer, "clientId": "hearth"}
    assert account.change(oidcConfig=config, displayName="x").status_code == 200
    ann = account.person("ann")
    tokens = sign_in.tokens(ann)
    read = account.admin.get(f"{account.providers}/company").json()
    assert account.change(**read).status_code == 200  # what was read can be written back
    assert sign_in.works(tokens)
    masked = account.admin.patch(
        f"{account.providers}/company?updateMask=oidcConfig.clientSecret",
        json={"oidcConfig": {"clientSecret": "wrong"}},
    )
    assert masked.status_code == 200
    assert "invalid_client" in refusal(sign_in.whole(ann))[1]


def test_another_client_needs_its_secret_and_signs_everybody_out(account, sign_in, provider):
    account.set_up()
    tokens = sign_in.tokens(account.person("ann"))
    config = {"issuerUrl": provider.issuer, "clientId": "posting"}
    status, text = refusal(account.change(oidcConfig=config))
    assert (status, "clientSecret" in text) == (400, True)
    assert sign_in.works(tokens)
    assert account.change(oidcConfig={**config, "clientSecret": "posting-secret"}).status_code == 200
    assert not sign_in.works(tokens)
    assert sign_in.whole(account.person("ann")).status_code == 200


@pytest.mark.parametrize("mask", ["", "?updateMask=oidcConfig"])
def test_a_provider_is_not_left_without_an_issuer(account, sign_in, mask):
    account.set_up(client="public", secret="")
    tokens = sign_in.tokens(account.person("ann"))
    path = f"{account.providers}/company{mask}"
    status, text = refusal(account.admin.patch(path, json={"oidcConfig": None}))
    assert (status, "issuerUrl is required" in text) == (400, True), text
    assert sign_in.works(tokens)


def test_only_admins_see_and_set_up_sign_in_and_only_their_own(account, rival, sign_in):
    account.set_up()
    account.user("joe")
    made = account.admin.post(f"{account.path}/users/joe/apiKeys", json={"apiKey": {}}).json()
    joe = account.client(made["key"])
    path = f"{account.providers}/company"
    for client, status in ((joe, 403), (rival.admin, 404)):
        for answer in (
            client.get(account.providers),
            client.get(path),
            client.patch(path, json={"disabled": True}),
            client.delete(path),
            client.post(f"{account.providers}?identityProviderId=x", json={}),
        ):
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"samlConfig": {"metadataUrl": "https://idp.example/saml"}}, "samlConfig is not supported"),
        ({"oidcConfig": None}, "issuerUrl is required"),
        ({"oidcConfig": {"clientId": "x"}}, "issuerUrl is required"),
        ({"oidcConfig": {"issuerUrl": "ISSUER", "clientId": ""}}, "clientId is required"),
        ({"oidcConfig": {"issuerUrl": "ISSUER/", "clientId": "x"}}, "does not begin with https://"),
        (
            {"oidcConfig": {"issuerUrl": "http://idp.example", "clientId": "x"}},
            "does not begin with https://",
        ),
        ({"oidcConfig": {"issuerUrl": "ftp://idp.example", "clientId": "x"}}, "does not begin with https://"),
        ({"oidcConfig": {"issuerUrl": "https://u:p@idp.example", "clientId": "x"}}, "must name a host"),
        ({"oidcConfig": {"issuerUrl": "https://", "clientId": "x"}}, "must name a host"),
        ({"oidcConfig": {"issuerUrl": "https://127.0.0.1:1", "clientId": "x"}}, "not a public address"),
        ({"oidcConfig": {"issuerUrl": "https://[::1]", "clientId": "x"}}, "not a public address"),
        ({"oidcConfig": {"issuerUrl": "https://10.1.2.3", "clientId": "x"}}, "not a public address"),
        ({"oidcConfig": {"issuerUrl": "https://169.254.169.254", "clientId": "x"}}, "not a public address"),
        ({"oidcConfig": {"issuerUrl": "https://localhost", "clientId": "x"}}, "not a public address"),
        ({"oidcConfig": {"issuerUrl": "https://2130706433", "clientId": "x"}}, "cannot be used"),
        ({"oidcConfig": {"issuerUrl": "https://no.invalid", "clientId": "x"}}, "cannot be used"),
        ({"oidcConfig": {"issuerUrl": "https://a..b", "clientId": "x"}}, "no name that can be resolved"),
        ({"oidcConfig": {"issuerUrl": "https://\uff11\uff12\uff17.0.0.1", "clientId": "x"}}, "plain ASCII"),
        ({"tenantDomains": []}, "must name a domain"),
        ({"tenantDomains": ["localhost"]}, "is not a domain"),
        ({"tenantDomains": ["*.example.com"]}, "is not a domain"),
        ({"tenantDomains": ["a@example.com"]}, "is not a domain"),
        ({"tenantDomains": ["x" * 250 + ".com"]}, "tenantDomains"),
        ({"defaultRole": "admin"}, "is none of user, contributor, inference-user"),
        ({"defaultRole": "king"}, "is none of"),
        ({"enforceSso": True}, "only by an admin who is signed in"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_the_reason(account, provider, changed, why):
    config = changed.get("oidcConfig")
    if config and "ISSUER" in config.get("issuerUrl", ""):
        config["issuerUrl"] = config["issuerUrl"].replace("ISSUER", provider.issuer)
    status, text = refusal(account.create_provider(**changed))
    assert (status, why in text) == (400, True), text
    assert account.admin.get(account.providers).json()["totalSize"] == 0


def test_without_secret_keys_sign_in_cannot_be_set_up(account, monkeypatch):
    monkeypatch.setattr("controlplane.encryption.Cipher.from_settings", lambda settings: Cipher([]))
    status, text = refusal(account.create_provider())
    assert (status, "HEARTH_SECRET_KEYS" in text) == (400, True)


def test_a_domain_belongs_to_one_provider_of_the_platform(account, rival):
    account.set_up(tenantDomains=[account.domain.upper(), account.domain])
    status, text = refusal(rival.create_provider(tenantDomains=[account.domain]))
    assert status == 409
    assert account.domain in text and account.id not in text.replace(account.domain, "")
    assert rival.admin.get(rival.providers).json()["totalSize"] == 0
    assert account.admin.delete(f"{account.providers}/company").status_code == 200
    assert rival.create_provider(tenantDomains=[account.domain]).status_code == 200
