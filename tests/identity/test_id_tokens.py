"""ID tokens and discovery documents that somebody has tampered with."""

import base64
import hmac
import json
import time
from types import SimpleNamespace

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from controlplane.signin.client import read_device_start
from controlplane.signin.discovery import read_keys, read_metadata
from controlplane.signin.id_tokens import Untrusted, verify
from controlplane.signin.outbound import NoAnswer

ISSUER = "https://idp.example"
OURS = RSAKey.generate_key(2048, {"kid": "ours", "use": "sig"})
THEIRS = RSAKey.generate_key(2048, {"kid": "ours", "use": "sig"})
NEW = ECKey.generate_key("P-256", {"kid": "new"})


class Issuers:
    """What an issuer publishes: first, and when it is asked anew."""

    def __init__(self, *sets):
        self._sets = sets
        self.asked = 0

    async def keys(self, metadata, *, fresh=False):
        self.asked += fresh
        return self._sets[-1 if fresh else 0]


def claims(**changed):
    moment = int(time.time())
    made = {
        "iss": ISSUER,
        "aud": "hearth",
        "sub": "ann",
        "nonce": "n",
        "iat": moment,
        "exp": moment + 60,
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(key=OURS, algorithm="RS256", kid="ours", **changed):
    return jwt.encode({"alg": algorithm, "kid": kid}, claims(**changed), key, algorithms=[algorithm])


async def check(token, issuers=None):
    issuers = issuers or Issuers(KeySet([OURS]))
    metadata = SimpleNamespace(issuer=ISSUER)
    return await verify(issuers, metadata, "hearth", token, nonce="n")


async def test_a_token_of_the_issuer_for_this_sign_in_is_taken():
    assert (await check(signed()))["sub"] == "ann"
    several = signed(aud=["hearth", "other"], azp="hearth")
    assert (await check(several))["sub"] == "ann"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": ["hearth", "other"]},
        {"azp": "other"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"nonce": "m"},
        {"nonce": None},
        {"exp": None},
        {"exp": 1},
        {"exp": "tomorrow"},
        {"iat": None},
        {"iat": 32503680000},  # the year 3000
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_claim_is_not(changed):
    with pytest.raises(Untrusted, match="claim"):
        await check(signed(**changed))


def unsigned():
    return jwt.encode({"alg": "none"}, claims(), OctKey.generate_key(256), algorithms=["none"])


def signed_with_the_public_key():
    """As if what everybody knows were a secret; by hand, since the library does not sign so."""
    head, body, _ = signed().split(".")
    head = encoded(json.dumps({"alg": "HS256", "kid": "ours"}).encode())
    seal = hmac.digest(OURS.as_pem(private=False), f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{encoded(seal)}"


def encoded(content):
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@pytest.mark.parametrize(
    "forged",
    [
        unsigned,
        signed_with_the_public_key,
        lambda: signed(THEIRS),
        lambda: signed()[:-8] + "AAAAAAAA",
        lambda: signed().rpartition(".")[0] + ".",
        lambda: "not.a.token",
        lambda: "",
    ],
)
async def test_a_forged_token_is_not(forged):
    with pytest.raises(Untrusted) as refused:
        await check(forged())
    assert "eyJ" not in str(refused.value)


async def test_an_unknown_key_is_looked_for_once():
    token = signed(NEW, "ES256", "new")
    issuers = Issuers(KeySet([OURS]), KeySet([OURS, NEW]))
    assert (await check(token, issuers))["sub"] == "ann"
    assert issuers.asked == 1
    with pytest.raises(Untrusted, match="does not publish"):
        await check(token, Issuers(KeySet([OURS]), KeySet([OURS])))


def test_keys_that_cannot_be_used_are_passed_over():
    secret = OctKey.generate_key(256, {"kid": "secret"}).as_dict()
    broken = {"kty": "RSA", "kid": "broken", "n": "!"}
    found = read_keys({"keys": [secret, broken, {"kty": "ML-DSA"}, "x", OURS.as_dict(private=False)]})
    assert [key.kid for key in found] == ["ours"]
    for document in ({}, {"keys": []}, {"keys": "x"}, {"keys": [secret]}):
        with pytest.raises(NoAnswer):
            read_keys(document)


DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/keys",
}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"issuer": "https://evil.example"}, "is for the issuer 'https://evil.example'"),
        ({"issuer": None}, "is for the issuer"),
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"jwks_uri": 7}, "has no jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "does not begin with https://"),
        ({"token_endpoint": "http://idp.example/token"}, "does not begin with https://"),
        ({"jwks_uri": "https://192.168.0.1/keys"}, "not a public address"),
        ({"userinfo_endpoint": "https://[::1]/"}, "not a public address"),
        ({"device_authorization_endpoint": "file:///x"}, "does not begin with https://"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "signs ID tokens with none of"),
        ({"response_types_supported": ["id_token"]}, "authorization code flow"),
    ],
    ids=str,
)
def test_a_discovery_document_is_checked(changed, why):
    assert read_metadata(DOCUMENT, ISSUER, trusted=False).issuer == ISSUER
    with pytest.raises(NoAnswer, match="(?i)" + why.replace("(", r"\(")):
        read_metadata({**DOCUMENT, **changed}, ISSUER, trusted=False)


def test_what_a_person_is_shown_of_a_device_code_is_checked():
    body = {"device_code": "d", "user_code": "AB-12", "verification_url": f"{ISSUER}/device"}
    read = read_device_start(body, trusted=False)
    assert (read.verification_uri, read.expires_in, read.interval) == (f"{ISSUER}/device", 600, 5)
    assert read_device_start({**body, "expires_in": 10**9}, trusted=False).expires_in == 1800
    for wrong in (
        {"user_code": "\x1b[31m"},
        {"device_code": ""},
        {"verification_url": "javascript:alert(1)"},
        {"verification_url": ""},
    ):
        with pytest.raises(NoAnswer):
            read_device_start({**body, **wrong}, trusted=False)
