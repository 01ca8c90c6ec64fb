from __future__ import annotations

from controlplane.resources.fine_tuning_jobs.newer_fields import (
    NOT_HELD,
    REFUSED,
    job_fields,
    training_fields,
)
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS, FineTuningJobRow
from controlplane.resources.supervised_fine_tuning_jobs.schemas import SupervisedFineTuningJob
from controlplane.rest.filters.fields import constant
from controlplane.rest.listing import Listing

LISTING = Listing(
    key=SUPERVISED_FINE_TUNING_JOBS,
    message=SupervisedFineTuningJob,
    unique=FineTuningJobRow.uid,
    fields={
        **job_fields(SUPERVISED_FINE_TUNING_JOBS),
        **training_fields(),
        "nodes": constant(1),
    },
    refused={**REFUSED, "metrics_file_signed_url": NOT_HELD},
)
