"""Deployments that nobody has asked for anything for a long time: deleted, as a user would do it."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.resources.deployed_models import states as deployed
from controlplane.resources.deployments.states import DELETING, mark
from controlplane.resources.tables import DeployedModelRow, DeploymentRow

log = logging.getLogger(__name__)


def is_unused(row: DeploymentRow, last_request: datetime | None, kept: timedelta, moment: datetime) -> bool:
    """Whether it was at zero, unchanged and unasked all that time. One that is shut was shut on purpose."""
    if not kept or row.desired_replica_count or row.min_replica_count or not row.max_replica_count:
        return False
    return moment - max(row.update_time, last_request or row.update_time) > kept


def delete_unused(session: Session, row: DeploymentRow, kept: timedelta) -> None:
    """Its addons are taken off with it. Until it is purged it can be undeleted."""
    days = f"unused for {kept.days} days"
    mark(row, DELETING, message=f"{days}; it can be undeleted")
    row.next_reconcile_at = func.now()
    models = select(DeployedModelRow).where(
        DeployedModelRow.deployment_uid == row.uid, DeployedModelRow.state != deployed.UNDEPLOYING
    )
    for model in session.scalars(models.with_for_update()):
        deployed.mark(model, deployed.UNDEPLOYING, message=f"{row.name} is being deleted")
    log.info("%s is deleted: %s", row.name, days)
