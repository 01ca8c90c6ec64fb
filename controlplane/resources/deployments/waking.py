"""Waking a deployment that is scaled to zero: a request is there, and has no time for the autoscaler."""

from __future__ import annotations

import uuid

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.resources.deployments.states import CREATING, READY, UPDATING
from controlplane.resources.tables import DeploymentRow


async def wake(session: AsyncSession, uid: uuid.UUID) -> bool:
    """Ask for one replica where there are none and may be some; False when there is nothing to wake."""
    change = (
        update(DeploymentRow)
        .where(
            DeploymentRow.uid == uid,
            DeploymentRow.desired_replica_count == 0,
            DeploymentRow.max_replica_count > 0,
            DeploymentRow.state.in_((CREATING, READY, UPDATING)),
        )
        .values(desired_replica_count=1, next_reconcile_at=func.now())
        .returning(DeploymentRow.uid)
    )
    return await session.scalar(change) is not None
