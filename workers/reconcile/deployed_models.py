"""Loading addons on engines, proving that they answer, and letting deployed models go."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.resources.deployed_models.states import UNDEPLOYING
from controlplane.resources.tables import DeployedModelRow, ModelRow, ReplicaAdapterRow
from workers.runtimes.base import AdapterRefused, AdapterSource, Engines, EngineUnreachable, ModelSource
from workers.runtimes.node_cache import StagingError

RETRY_SOON = timedelta(seconds=10)
RETRY_LATER = timedelta(seconds=60)
"""What is wrong with the addon itself stays wrong until it is changed; now and then is often enough."""

NO_EFFECT = (
    "the addon changes nothing: the engine answers for it exactly as for the base model, "
    "so its weights are zero or do not fit"
)


@dataclass(frozen=True)
class Outcome:
    """What came of loading an addon: proven, or why not and when to try again."""

    code: str = "OK"
    message: str = ""
    retry_after: timedelta | None = None

    @property
    def proven(self) -> bool:
        return self.code == "OK"


def engine_name(model: ModelRow) -> str:
    """The name under which engines answer for an addon."""
    return model.uid.hex


def model_source(model: ModelRow) -> ModelSource:
    return ModelSource.from_registered(str(model.uid), model.prefix, model.files)


def load_addon(engines: Engines, replica_uid: uuid.UUID, model: ModelRow) -> Outcome:
    """Bring an addon to the node, have the engine load it, and see that it answers as itself."""
    name, replica = engine_name(model), str(replica_uid)
    try:
        engines.load_adapter(replica, AdapterSource(name, model_source(model)))
        if engines.prove_adapter(replica, name):
            return Outcome()
        engines.unload_adapter(replica, name)
    except StagingError as error:
        return Outcome(error.code, error.message, RETRY_SOON if error.retryable else RETRY_LATER)
    except AdapterRefused as error:
        return Outcome("FAILED_PRECONDITION", f"the engine refused the addon: {error}", RETRY_LATER)
    except EngineUnreachable as error:
        return Outcome("UNAVAILABLE", f"the addon could not be loaded: {error}", RETRY_SOON)
    return Outcome("FAILED_PRECONDITION", NO_EFFECT, RETRY_LATER)


def unload_addon(engines: Engines, replica_uid: uuid.UUID, model: ModelRow) -> bool:
    """Whether the engine holds the addon no longer."""
    try:
        engines.unload_adapter(str(replica_uid), engine_name(model))
    except EngineUnreachable:
        return False
    return True


def write_outcome(row: ReplicaAdapterRow, outcome: Outcome, now: datetime) -> None:
    row.proven_at = now if outcome.proven else None
    row.status_code, row.message = outcome.code, outcome.message
    row.retry_at = now + outcome.retry_after if outcome.retry_after else None


def drop_models(session: Session, rows: Iterable[DeployedModelRow]) -> None:
    """Delete deployed models. Where one was the default of its model, the oldest that is left becomes it."""
    leaving = list(rows)
    if not leaving:
        return
    # In this order always: whoever changes defaults holds the models' locks before those of their rows.
    models = sorted({row.model_uid for row in leaving})
    session.execute(
        select(ModelRow.uid)
        .where(ModelRow.uid.in_(models))
        .order_by(ModelRow.uid)
        .with_for_update(key_share=True)
    )
    for row in leaving:
        session.refresh(row)
        session.delete(row)
    session.flush()
    for row in leaving:
        if row.default:
            _promote(session, row.account_id, row.model_uid)


def _promote(session: Session, account_id: str, model_uid: uuid.UUID) -> None:
    left = session.scalars(
        select(DeployedModelRow)
        .where(DeployedModelRow.account_id == account_id, DeployedModelRow.model_uid == model_uid)
        .order_by(
            DeployedModelRow.default.desc(),
            (DeployedModelRow.state == UNDEPLOYING).asc(),
            DeployedModelRow.create_time,
        )
        .limit(1)
        .with_for_update()
    ).first()
    if left is not None and not left.default:
        left.default = True
        session.flush()
