"""Every way to name a model, and who may reach what: a table over the pure resolver."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from gateway.resolver import reachable_models, resolve
from gateway.snapshot import Deployment, Model, Route, Snapshot, Target

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def a_route(
    deployed: str,
    model: str,
    deployment: str,
    *,
    age: int,
    default: bool = False,
    public: bool = False,
    model_public: bool = False,
    is_base: bool = False,
    state: str = "DEPLOYED",
) -> Route:
    """Names are written `account/id`."""
    account_id, deployed_id = deployed.split("/")
    model_account, model_id = model.split("/")
    deployment_account, deployment_id = deployment.split("/")
    return Route(
        account_id=account_id,
        id=deployed_id,
        state=state,
        status_code="OK",
        status_message="",
        default=default,
        public=public,
        is_base=is_base,
        create_time=EPOCH + timedelta(days=age),
        model=Model(model_account, model_id, "HF_BASE_MODEL", model_public, EPOCH, 128, True, False, False),
        deployment=Deployment(uuid.uuid4(), deployment_account, deployment_id, "READY", "", 128, 1),
        targets=(Target(uuid.uuid4(), "http://127.0.0.1:1", deployed),),
    )


SNAPSHOT = Snapshot.of(
    [
        # The platform's public model: served by the platform, and by acme and rival on their own GPUs.
        a_route(
            "fireworks/llama-0", "fireworks/llama", "fireworks/shared", age=0, default=True, is_base=True,
            model_public=True,
        ),
        a_route(
            "acme/llama-1", "fireworks/llama", "acme/12345678", age=1, is_base=True, model_public=True
        ),
        a_route(
            "rival/llama-2", "fireworks/llama", "rival/one", age=2, is_base=True, model_public=True
        ),
        # A public model that the platform does not serve.
        a_route("rival/qwen-1", "fireworks/qwen", "rival/qwen", age=3, default=True, is_base=True,
                model_public=True),
        a_route("acme/qwen-2", "fireworks/qwen", "acme/qwen", age=4, is_base=True, model_public=True),
        # acme's addon on two deployments, the second of them the default.
        a_route("acme/custom-a", "acme/custom", "acme/12345678", age=5),
        a_route("acme/custom-b", "acme/custom", "acme/87654321", age=6, default=True),
        # acme's private model whose serving is public, and one that is only being loaded.
        a_route("acme/shown-1", "acme/shown", "acme/12345678", age=7, default=True, public=True),
        a_route("acme/new-1", "acme/new", "acme/12345678", age=8, default=True, state="DEPLOYING"),
        a_route("acme/old-1", "acme/old", "acme/12345678", age=9, default=True, state="UNDEPLOYING"),
    ]
)  # fmt: skip

FOUND = [
    # A model, by its full name, short, and bare.
    ("acme", "accounts/fireworks/models/llama", "fireworks/llama-0"),
    ("acme", "fireworks/llama", "fireworks/llama-0"),
    ("acme", "accounts/acme/models/custom", "acme/custom-b"),
    ("acme", "acme/custom", "acme/custom-b"),
    ("acme", "custom", "acme/custom-b"),
    # A model on a deployment.
    ("acme", "accounts/fireworks/models/llama#accounts/acme/deployments/12345678", "acme/llama-1"),
    ("acme", "fireworks/llama#acme/12345678", "acme/llama-1"),
    ("acme", "acme/custom#acme/12345678", "acme/custom-a"),
    ("acme", "custom#12345678", "acme/custom-a"),
    ("acme", "accounts/acme/models/custom#acme/87654321", "acme/custom-b"),
    # A deployed model, by itself and with its deployment.
    ("acme", "accounts/acme/deployedModels/custom-a", "acme/custom-a"),
    ("acme", "acme/custom-a", "acme/custom-a"),
    ("acme", "custom-a", "acme/custom-a"),
    ("acme", "accounts/acme/deployedModels/custom-a#accounts/acme/deployments/12345678", "acme/custom-a"),
    # A deployment: its base model.
    ("acme", "accounts/acme/deployments/12345678", "acme/llama-1"),
    ("acme", "acme/12345678", "acme/llama-1"),
    ("acme", "12345678", "acme/llama-1"),
    # The default is another account's own: each caller's own comes next.
    ("acme", "fireworks/qwen", "acme/qwen-2"),
    ("rival", "fireworks/qwen", "rival/qwen-1"),
    # What is public.
    ("rival", "fireworks/llama", "fireworks/llama-0"),
    ("stranger", "fireworks/llama", "fireworks/llama-0"),
    ("rival", "acme/shown", "acme/shown-1"),
    # Being loaded: found, so that the caller can be told to wait.
    ("acme", "new", "acme/new-1"),
]

NOT_FOUND = [
    ("acme", "missing"),
    ("acme", "old"),
    ("acme", "llama"),
    ("acme", "accounts/acme/models/custom-a"),
    ("acme", "accounts/acme/deployedModels/custom"),
    ("acme", "accounts/acme/routers/custom"),
    ("acme", "custom#missing"),
    ("acme", "custom#accounts/acme/models/12345678"),
    ("acme", "custom-a#87654321"),
    ("acme", "12345678#12345678"),
    ("acme", "fireworks/llama#rival/one"),
    ("acme", "rival/llama-2"),
    ("acme", "accounts/rival/deployments/one"),
    ("rival", "acme/custom"),
    ("rival", "accounts/acme/deployedModels/custom-a"),
    ("rival", "acme/12345678"),
    ("rival", "acme/custom#acme/12345678"),
    ("stranger", "fireworks/qwen"),
    ("acme", ""),
    ("acme", "#"),
    ("acme", "#acme/12345678"),
    ("acme", "custom#"),
    ("acme", "/custom"),
    ("acme", "acme/custom/x"),
    ("acme", "accounts/acme/models/custom/x"),
    ("acme", "ACME/custom"),
]


@pytest.mark.parametrize(("account", "identifier", "expected"), FOUND)
def test_an_identifier_leads_to_a_deployed_model(account, identifier, expected):
    route = resolve(SNAPSHOT, account, "fireworks", identifier)
    assert route is not None
    assert f"{route.account_id}/{route.id}" == expected


@pytest.mark.parametrize(("account", "identifier"), NOT_FOUND)
def test_an_identifier_leads_nowhere(account, identifier):
    assert resolve(SNAPSHOT, account, "fireworks", identifier) is None


def test_fireworks_is_the_platforms_account_whatever_it_is_called():
    snapshot = Snapshot.of(
        [a_route("mycloud/llama-0", "mycloud/llama", "mycloud/shared", age=0, public=True, is_base=True)]
    )
    for name in ("accounts/fireworks/models/llama", "fireworks/llama", "mycloud/llama"):
        assert resolve(snapshot, "acme", "mycloud", name) is not None


def test_the_list_has_each_model_once_and_only_what_is_deployed():
    names = [route.model.name for route in reachable_models(SNAPSHOT, "acme")]
    assert names == [
        "accounts/acme/models/custom",
        "accounts/acme/models/shown",
        "accounts/fireworks/models/llama",
        "accounts/fireworks/models/qwen",
    ]
    assert [route.model.name for route in reachable_models(SNAPSHOT, "stranger")] == [
        "accounts/acme/models/shown",
        "accounts/fireworks/models/llama",
    ]
