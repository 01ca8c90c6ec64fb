"""What was made before a migration is all there after it, and can be worked with as if it were made today."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from controlplane.db import PROJECT_ROOT, Database
from controlplane.resources.tables import FineTuningJobRow

HEARTH = "/v1/accounts/hearth"
EARLIER = "0002"
"""The schema that platforms are upgraded from."""
SETTINGS = {
    "base_model": "accounts/hearth/models/base",
    "warm_start_from": "",
    "dataset": "accounts/hearth/datasets/chats",
    "evaluation_dataset": "",
    "epochs": 1.5,
    "learning_rate": 0.0001,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_target_modules": [],
    "batch_size": 16,
    "micro_batch_size": 0,
    "cutoff_length": 512,
    "early_stop": False,
    "evaluation": False,
    "evaluation_split": 0.15,
    "templates": {"jinja_template": ""},
}
STATES_OF_JOBS = {
    "training": ("RUNNING", ""),
    "checked": ("RUNNING", "REGISTERED"),
    "done": ("COMPLETED", ""),
    "waiting": ("PENDING", ""),
}
OPTIONS = {"deployments": {"showDeleted": True}}
COLLECTIONS = ("users", "models", "datasets", "deployments", "deployedModels", "fineTuningJobs")


@pytest.fixture
def migrate_to(settings) -> Callable[[str], None]:
    """Brings the test's database to a schema, up or down."""
    config = Config(toml_file=str(PROJECT_ROOT / "pyproject.toml"))
    config.attributes["database_url"] = settings.database_url

    def go(revision: str) -> None:
        here = current(settings.database_url)
        (command.downgrade if revision < here else command.upgrade)(config, revision)

    return go


def current(address: str) -> str:
    database = Database(address, pool_size=1)
    try:
        with database.session() as session:
            return str(session.scalar(sa.text("SELECT version_num FROM alembic_version")))
    finally:
        database.close()


class Earlier:
    """Writes rows as they were then: to the tables that the database has, with nothing but what they hold."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.tables = sa.MetaData()
        with db.session() as session:
            self.tables.reflect(session.connection())

    def add(self, name: str, **values: Any) -> Any:
        table = self.tables.tables[name]
        filled = {column.name: self.blank(column) for column in table.columns if self.is_needed(column)}
        row = {**filled, **values}
        with self.db.session() as session:
            session.execute(table.insert().values(**row))
        return row.get("uid")

    def is_needed(self, column: Any) -> bool:
        return not column.nullable and column.server_default is None

    def blank(self, column: Any) -> Any:
        if isinstance(column.type, sa.Uuid):
            return uuid.uuid4()
        if isinstance(column.type, sa.DateTime):
            return datetime.now(UTC)
        if isinstance(column.type, sa.JSON):
            return {}
        blanks: dict[type, Any] = {str: "", int: 0, bool: False, float: 0.0}
        return blanks[column.type.python_type]


@pytest.fixture
def earlier(db, admin_key, migrate_to) -> Earlier:
    """A platform of that time, with everything that there was then."""
    migrate_to(EARLIER)
    earlier = Earlier(db)
    own = {"account_id": "hearth", "status_code": "OK"}
    facts = {"supports_lora": True, "context_length": 512, "model_type": "llama", "parameter_count": 7}
    ready = {**own, "state": "READY"}
    base = earlier.add(
        "models", **ready, id="base", kind="HF_BASE_MODEL", facts=facts, context_length=512, problems=[]
    )
    addon = earlier.add(
        "models", **ready, id="addon", kind="HF_PEFT_ADDON", facts={"r": 8}, base_model_uid=base, problems=[]
    )
    chats = earlier.add("datasets", **ready, id="chats", format="CHAT", example_count=3)
    earlier.add("datasets", **own, id="coming", state="UPLOADING", format="FORMAT_UNSPECIFIED")
    limits = {"base_model_uid": base, "max_replica_count": 2, "generation": 1}
    limits |= {"precision": "PRECISION_UNSPECIFIED", "accelerator_type": "ACCELERATOR_TYPE_UNSPECIFIED"}
    serving = earlier.add(
        "deployments", **ready, **limits, id="serving", desired_replica_count=1, enable_addons=True
    )
    times = {"delete_time": datetime.now(UTC), "purge_time": datetime(2100, 1, 1, tzinfo=UTC)}
    gone = {**own, **limits, **times, "state": "DELETED", "desired_replica_count": 0}
    earlier.add("deployments", **gone, id="gone", min_replica_count=2)
    earlier.add("deployments", **{**gone, "max_replica_count": 0}, id="shut")
    for model, name in ((base, "base-1"), (addon, "addon-1")):
        state = {**own, "state": "DEPLOYED", "default": True}
        earlier.add("deployed_models", **state, id=name, model_uid=model, deployment_uid=serving)
    for job, (state, reason) in STATES_OF_JOBS.items():
        inputs = {"base_model_uid": base, "dataset_uid": chats, "settings": SETTINGS, "kind": "conversation"}
        earlier.add("fine_tuning_jobs", **own, **inputs, id=job, state=state, reason=reason, model_id=job)
    for number, email in enumerate(("Ann@x.org", "ann@x.org", "ANN@x.org")):
        values = {"create_time": datetime(2026, 1, 1 + number, tzinfo=UTC), "role": "user", "email": email}
        earlier.add("users", **ready, **values, id=f"ann-{number}")
    return earlier


async def everything(api: Any) -> dict[str, Any]:
    found = {}
    for key in COLLECTIONS:
        answer = await api.get(f"{HEARTH}/{key}", params=OPTIONS.get(key))
        assert answer.status_code == 200, answer.text
        for message in answer.json()[key]:
            assert (await api.get(f"/v1/{message['name']}")).status_code == 200, message
            found[message["name"].removeprefix("accounts/hearth/")] = message
    return found


async def test_what_was_there_is_there_after_an_upgrade_and_after_one_that_was_taken_back(
    api, earlier, migrate_to
):
    migrate_to("head")
    first = await everything(api)
    states = {name: message["state"] for name, message in first.items() if name.startswith("fine")}
    assert states == {f"fineTuningJobs/{job}": state for job, (state, _) in STATES_OF_JOBS.items()}
    assert first["datasets/chats"]["userUploaded"] == {}
    assert first["fineTuningJobs/done"]["epochs"] == 1.5
    migrate_to(EARLIER)
    migrate_to("head")
    assert await everything(api) == first


def test_jobs_that_an_earlier_platform_does_not_know_leave_nothing_behind(db, earlier, migrate_to):
    migrate_to("head")
    with db.session() as session:
        values = {"collection": "supervisedFineTuningJobs", "state": "CANCELLED"}
        session.execute(sa.update(FineTuningJobRow).where(FineTuningJobRow.id == "done").values(values))
        prefix = (
            session.scalars(sa.select(FineTuningJobRow).where(FineTuningJobRow.id == "done")).one().prefix
        )
    migrate_to(EARLIER)
    with db.session() as session:
        assert session.scalars(sa.text("SELECT prefix FROM garbage")).all() == [prefix]
        kept = set(session.scalars(sa.text("SELECT id FROM fine_tuning_jobs")))
        assert kept == STATES_OF_JOBS.keys() - {"done"}


async def test_users_whose_addresses_differ_in_their_case_only_stay_and_are_told_apart(
    api, earlier, migrate_to
):
    migrate_to("head")
    found = [(await api.get(f"{HEARTH}/users/ann-{number}")).json()["email"] for number in range(3)]
    assert found == ["Ann@x.org", "ann+ann-1@x.org", "ANN+ann-2@x.org"]


async def test_what_was_deleted_before_comes_back_with_as_many_replicas_as_its_limits_say(
    api, earlier, migrate_to
):
    migrate_to("head")
    for deployment, wanted in (("gone", 2), ("shut", 0)):
        back = await api.post(f"{HEARTH}/deployments/{deployment}:undelete", json={})
        assert back.status_code == 200, back.text
        assert back.json()["desiredReplicaCount"] == wanted
