from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr

from controlplane.resources.users.tables import UserRow
from controlplane.rest.schema import ApiModel, OneOf, Timestamp, output_only, write_only
from controlplane.signin.sessions import Issued

LONGEST = 4096
ACCOUNT = "The account to sign in to."
PROVIDER = "The id of the account's identity provider; needed only where there are several."


class StartSignInRequest(ApiModel):
    account: Annotated[str, Field(max_length=100, description=ACCOUNT)]
    identity_provider: Annotated[str, Field(max_length=200, description=PROVIDER)] = ""
    redirect_uri: Annotated[
        str,
        Field(
            max_length=200, description="Where the browser comes back to: http, a loopback address, a port."
        ),
    ]
    code_challenge: Annotated[
        str, Field(max_length=200, description="Of PKCE, by S256; the verifier is sent to `signIn:finish`.")
    ]


class StartSignInResponse(ApiModel):
    authorization_url: str = output_only("", description="What to open in a browser.")
    state: str = output_only("", description="What must come back with the code.")
    expire_time: Timestamp | None = output_only()


class FinishSignInRequest(ApiModel):
    state: SecretStr = write_only(max_length=LONGEST)
    code: SecretStr = write_only(max_length=LONGEST)
    code_verifier: SecretStr = write_only(max_length=LONGEST)


class SignedIn(ApiModel):
    """Tokens. The access token works wherever an API key does, until `expireTime`."""

    access_token: str = output_only("")
    refresh_token: str = output_only("", description="Good for one use: each refresh answers with a new one.")
    expire_time: Timestamp | None = output_only()
    account_id: str = output_only("")
    user_id: str = output_only("")
    email: str = output_only("")

    @classmethod
    def of(cls, issued: Issued, user: UserRow) -> Self:
        return cls(
            access_token=issued.access_token,
            refresh_token=issued.refresh_token,
            expire_time=issued.expire_time,
            account_id=user.account_id,
            user_id=user.id,
            email=user.email,
        )


class StartDeviceRequest(ApiModel):
    account: Annotated[str, Field(max_length=100, description=ACCOUNT)]
    identity_provider: Annotated[str, Field(max_length=200, description=PROVIDER)] = ""


class StartDeviceResponse(ApiModel):
    device_code: str = output_only("", description="For `device:poll`.")
    user_code: str = output_only("", description="What the person types at `verificationUri`.")
    verification_uri: str = output_only("")
    verification_uri_complete: str = output_only("")
    expires_in: int = output_only(0, description="Seconds.")
    interval: int = output_only(0, description="Seconds to wait between two polls.")


class PollDeviceRequest(ApiModel):
    device_code: SecretStr = write_only(max_length=LONGEST)


class PollDeviceResponse(ApiModel):
    state: Annotated[str, OneOf("PENDING", "SIGNED_IN")] = output_only("PENDING")
    interval: int = output_only(0, description="Seconds to wait before the next poll; it may have grown.")
    tokens: SignedIn | None = output_only()


class RefreshRequest(ApiModel):
    refresh_token: SecretStr = write_only(max_length=LONGEST)


class SignOutRequest(ApiModel):
    refresh_token: SecretStr = write_only(max_length=LONGEST)
