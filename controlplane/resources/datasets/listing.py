from __future__ import annotations

from sqlalchemy.orm import defer

from controlplane.resources.datasets.schemas import FORMATS, SPLITTED, TRANSFORMED, Dataset
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.rest.filters.fields import enum, integer, json_text, message, number, text, when
from controlplane.rest.listing import Listing, resource_fields, state_fields

SOURCE = DatasetRow.source
KIND = json_text(SOURCE, "kind")
IS_COPY, IS_PART = KIND == TRANSFORMED, KIND == SPLITTED

# Large, and no part of a list.
NOT_SHOWN = [defer(column, raiseload=True) for column in (DatasetRow.files, DatasetRow.report)]

LISTING = Listing(
    key="datasets",
    message=Dataset,
    unique=DatasetRow.uid,
    fields={
        **resource_fields(DatasetRow, "datasets"),
        **state_fields(DatasetRow, ("UPLOADING", "READY")),
        "example_count": integer(DatasetRow.example_count),
        "user_uploaded": message(KIND == ""),
        "transformed": message(IS_COPY),
        "transformed.source_dataset_id": text(when(IS_COPY, json_text(SOURCE, "name"))),
        "transformed.original_format": enum(when(IS_COPY, json_text(SOURCE, "format")), FORMATS),
        "splitted": message(IS_PART),
        "splitted.source_dataset_id": text(when(IS_PART, json_text(SOURCE, "name"))),
        "format": enum(DatasetRow.format, FORMATS),
        "created_by": text(DatasetRow.created_by),
        "estimated_token_count": integer(DatasetRow.estimated_token_count),
        "average_turn_count": number(DatasetRow.average_turn_count),
    },
)
