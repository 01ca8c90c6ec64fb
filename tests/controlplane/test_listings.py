"""Every scalar field of what lists show can be filtered and ordered by, or is refused by name."""

import importlib
import pkgutil
import uuid
from datetime import UTC, datetime

import pytest
from pydantic.alias_generators import to_camel

import controlplane.resources
from controlplane.app import create_app
from controlplane.resources.tables import (
    DatasetRow,
    DeployedModelRow,
    DeploymentRow,
    FineTuningJobRow,
    ModelRow,
)
from controlplane.rest.filters.fields import SQL_TYPES, Kind
from controlplane.rest.listing import FieldRefused, Listing, is_scalar, shown_fields
from controlplane.rest.schema import OneOf

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


def all_listings():
    """Every Listing that a collection declares, by its place in the code."""
    found = {}
    for package in pkgutil.iter_modules(controlplane.resources.__path__):
        if not package.ispkg:
            continue
        name = f"controlplane.resources.{package.name}.listing"
        if importlib.util.find_spec(name) is not None:
            for attribute, value in vars(importlib.import_module(name)).items():
                if isinstance(value, Listing):
                    found[f"{package.name}.{attribute}"] = value
    return found


LISTINGS = all_listings()


class _Settings:
    request_body_limit = 1024
    request_body_seconds = 1.0


def test_every_list_of_the_api_has_a_listing():
    document = create_app(settings=_Settings()).openapi()
    listed = {
        name.removeprefix("List").removesuffix("Response")
        for name in document["components"]["schemas"]
        if name.startswith("List") and name.endswith("Response")
    }
    assert {key[0].lower() + key[1:] for key in listed} == {listing.key for listing in LISTINGS.values()}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
def test_every_scalar_field_is_listed_by_or_refused_with_a_reason(listing):
    for path, info in shown_fields(listing.message):
        parts = tuple(path.split("."))
        if path in listing.fields:
            assert listing.fields[path].kind in SQL_TYPES or not is_scalar(info)
            assert listing.find(tuple(map(to_camel, parts))).kind is listing.fields[path].kind
            continue
        with pytest.raises(FieldRefused) as refused:
            listing.find(parts)
        assert "unknown field" not in str(refused.value), f"{path} is neither in the listing nor refused"


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
def test_every_value_that_an_enum_may_have_can_be_filtered_by(listing):
    for path, info in shown_fields(listing.message):
        named = {name for part in info.metadata if isinstance(part, OneOf) for name in part.names}
        field = listing.fields.get(path)
        if named and field is not None and not field.constant:
            assert field.kind is Kind.ENUM, path
            assert not field.values or named <= set(field.values), path


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
def test_a_listing_names_nothing_that_is_not_shown(listing):
    shown = {path for path, _ in shown_fields(listing.message)}
    inner = {path.rpartition(".")[0] for path in shown}
    outer = {whole.partition(".")[0] for whole in inner}
    assert listing.fields.keys() - shown - inner - outer == set()
    assert {
        path for path in listing.refused if not any(s == path or s.startswith(path + ".") for s in shown)
    } == set()
    assert not listing.refused.keys() & listing.fields.keys()
    assert listing.searched


@pytest.fixture
def world(admin_key, db):
    """Rows of every collection whose listing is more than columns."""
    base = ModelRow(uid=uuid.uuid4(), account_id="hearth", id="base", kind="HF_BASE_MODEL", state="READY")
    base.facts = {
        "parameter_count": 7_000_000_000_000,
        "moe": True,
        "model_type": "llama",
        "supports_lora": True,
        "default_precision": "BF16",
    }
    base.conversation_config = {"style": "jinja", "template": "{{ x }}"}
    base.display_name, base.context_length = 'quo"te * \\ and %_', 4096
    bare = ModelRow(account_id="hearth", id="bare", kind="HF_BASE_MODEL", state="UPLOADING", public=True)
    addon = ModelRow(
        uid=uuid.uuid4(), account_id="hearth", id="addon", kind="HF_PEFT_ADDON", state="READY", facts={"r": 8}
    )
    addon.base_model_uid, addon.fine_tuning_job = base.uid, "accounts/hearth/fineTuningJobs/job"
    dataset = DatasetRow(account_id="hearth", id="data", state="READY", example_count=2**40, format="CHAT")
    dataset.average_turn_count, dataset.created_by = 2.1, "admin@localhost"
    empty = DatasetRow(account_id="hearth", id="empty", state="UPLOADING", status_message="no file")
    first = DeploymentRow(
        uid=uuid.uuid4(), account_id="hearth", id="one", state="READY", base_model_uid=base.uid
    )
    first.annotations, first.enable_addons, first.min_replica_count = {"team": "a"}, True, 1
    second = DeploymentRow(uid=uuid.uuid4(), account_id="hearth", id="two", state="DELETING")
    second.base_model_uid, second.delete_time, second.purge_time = base.uid, NEW_YEAR, NEW_YEAR
    loaded = DeployedModelRow(account_id="hearth", id="loaded", state="DEPLOYED", default=True)
    loaded.model_uid, loaded.deployment_uid = addon.uid, first.uid
    with db.session() as session:
        session.add_all([base, bare, dataset, empty])
        session.flush()
        session.add_all([addon, first, second])
        session.flush()
        session.add_all([loaded, *_jobs(base)])


def _jobs(base):
    settings = {
        "dataset": "accounts/hearth/datasets/data",
        "base_model": base.name,
        "warm_start_from": "",
        "evaluation_dataset": "",
        "epochs": 1.5,
        "learning_rate": 0.0001,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 3,
        "lora_alpha": 16,
        "lora_rank": 8,
        "lora_target_modules": ["q_proj"],
        "batch_size": 4,
        "micro_batch_size": 1,
        "cutoff_length": 512,
        "early_stop": False,
        "evaluation": True,
        "evaluation_split": 0.15,
    }
    progress = {
        "phase": "training",
        "step": 4,
        "max_steps": 10,
        "epoch": 0.4,
        "loss": 1.25,
        "tokens_seen": 99,
    }
    chat = {**settings, "templates": {"jinja_template": "{{ messages }}"}}
    text = {**settings, "templates": {"input_template": "{a}", "output_template": "{b}"}}
    return [
        FineTuningJobRow(
            account_id="hearth",
            id="chat",
            kind="conversation",
            state="RE_QUEUEING",
            model_id="m-1",
            settings=chat,
            progress=progress,
            created_by="admin@localhost",
        ),
        FineTuningJobRow(
            account_id="hearth",
            id="text",
            kind="text_completion",
            state="FAILED",
            model_id="m-2",
            settings=text,
        ),
        *_preference_jobs({**chat, "batch_tokens": 0, "batch_rows": 4, "accumulation": 1}),
    ]


def _preference_jobs(settings):
    more = {"epochs": 2, "weight_decay": 0.1, "lora_dropout": 0.5, "estimated_cost": 1_500_000_000}
    losses = ({"method": "dpo", "beta": 0.2}, {"method": "orpo", "odds_weight": 0.3})
    return [
        FineTuningJobRow(
            account_id="hearth",
            id=loss["method"],
            collection="dpoJobs",
            kind="preference",
            state="RUNNING",
            model_id=f"m-{loss['method']}",
            settings={**settings, **more, "preference": loss},
        )
        for loss in losses
    ]


WORLD = {
    "accounts": "/v1/accounts",
    "users": "/v1/accounts/hearth/users",
    "apiKeys": "/v1/accounts/hearth/apiKeys",
    "models": "/v1/accounts/hearth/models",
    "datasets": "/v1/accounts/hearth/datasets",
    "deployments": "/v1/accounts/hearth/deployments",
    "deployedModels": "/v1/accounts/hearth/deployedModels",
    "fineTuningJobs": "/v1/accounts/hearth/fineTuningJobs",
    "secrets": "/v1/accounts/hearth/secrets",
    "auditLogs": "/v1/accounts/hearth/auditLogs",
    "identityProviders": "/v1/accounts/hearth/identityProviders",
    "deploymentShapes": "/v1/accounts/hearth/deploymentShapes",
    "supervisedFineTuningJobs": "/v1/accounts/hearth/supervisedFineTuningJobs",
    "dpoJobs": "/v1/accounts/hearth/dpoJobs",
    "quotas": "/v1/accounts/hearth/quotas",
    "reservations": "/v1/accounts/hearth/reservations",
}


async def test_a_filter_finds_exactly_the_messages_that_show_the_value(api, world):
    """For each field of each collection: what is shown is what is filtered and ordered by."""
    for listing in LISTINGS.values():
        if listing.key not in WORLD:
            continue
        path_of_list = WORLD[listing.key]
        items = await listed(api, path_of_list, listing.key, {})
        for path, field in listing.fields.items():
            if field.kind in SQL_TYPES:
                await check_field(api, path_of_list, listing.key, path, items)
                await listed(api, path_of_list, listing.key, {"orderBy": f"{path} desc"})
            expected = [item for item in items if is_set(value_at(item, path), field.kind)]
            found = await listed(api, path_of_list, listing.key, {"filter": f"{path}:*"})
            assert found == expected, f"{listing.key}: {path}:*"


async def check_field(api, path_of_list, key, path, items):
    for value in {repr(value_at(item, path)): value_at(item, path) for item in items}.values():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"'
        found = await listed(api, path_of_list, key, {"filter": f"{path} = {quoted}"})
        expected = [item for item in items if value_at(item, path) == value]
        assert found == expected, f"{key}: {path} = {quoted}"


async def listed(api, path, key, parameters):
    answer = await api.get(path, params={**parameters, "pageSize": 200})
    assert answer.status_code == 200, (path, parameters, answer.text)
    return answer.json()[key]


def value_at(item, path):
    for part in path.split("."):
        item = item.get(to_camel(part)) if isinstance(item, dict) else None
    return item


def is_set(value, kind):
    if kind is Kind.INT and isinstance(value, str):
        return int(value) != 0
    if kind is Kind.ENUM:
        return bool(value) and not value.endswith("UNSPECIFIED")
    if kind is Kind.MESSAGE:
        return value is not None
    return bool(value)
