"""What stands on a model: why it cannot be deleted, or taken back from the accounts that use it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import failed_precondition
from controlplane.resources.fine_tuning_jobs.states import ACTIVE
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, FineTuningJobRow, ModelRow

SHOWN_NAMES = 3
DEPLOYED = "cannot delete model with active deployments"


def users_of(row: ModelRow) -> tuple[tuple[str, Any, ColumnElement[bool]], ...]:
    """(words, table, condition) of everything that may use a model; what serves it comes first."""
    return (
        ("it is deployed as", DeployedModelRow, DeployedModelRow.model_uid == row.uid),
        (
            "deployments serve it:",
            DeploymentRow,
            (DeploymentRow.base_model_uid == row.uid) & (DeploymentRow.state != "DELETED"),
        ),
        (
            "it guesses ahead for deployments:",
            DeploymentRow,
            (DeploymentRow.draft_model_uid == row.uid) & (DeploymentRow.state != "DELETED"),
        ),
        ("addons are based on it:", ModelRow, ModelRow.base_model_uid == row.uid),
        (
            "fine-tuning jobs read it:",
            FineTuningJobRow,
            or_(FineTuningJobRow.base_model_uid == row.uid, FineTuningJobRow.warm_start_uid == row.uid)
            & FineTuningJobRow.state.in_(ACTIVE),
        ),
    )


async def refuse_delete_in_use(session: AsyncSession, row: ModelRow) -> None:
    """400 with what uses the model, by name."""
    for words, table, condition in users_of(row):
        found = (await session.scalars(select(table).where(condition).limit(SHOWN_NAMES + 1))).all()
        if found:
            serving = table in (DeployedModelRow, DeploymentRow)
            start = DEPLOYED if serving else f"cannot delete {row.name}"
            raise failed_precondition(f"{start}: {_named(words, found, row.account_id)}")


async def refuse_private_in_use(session: AsyncSession, row: ModelRow) -> None:
    """400 when other accounts use a public model: it is not taken from under them."""
    for _, table, condition in users_of(row):
        others = select(table.uid).where(condition, table.account_id != row.account_id).limit(1)
        if await session.scalar(others) is not None:
            raise failed_precondition(
                f"cannot make {row.name} private: other accounts use it in deployments, addons or jobs"
            )


def _named(words: str, found: Any, account_id: str) -> str:
    # Another account's use of a public model counts, but its names are nobody else's business.
    own = [user.name for user in found[:SHOWN_NAMES] if user.account_id == account_id]
    more = " and others" if len(found) > len(own) else ""
    return f"{words} {', '.join(own)}{more}" if own else "other accounts use it"
