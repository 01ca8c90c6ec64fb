from __future__ import annotations

from controlplane.resources.secrets.schemas import Secret
from controlplane.resources.secrets.tables import SecretRow
from controlplane.rest.filters.fields import resource_name, text
from controlplane.rest.listing import Listing

LISTING = Listing(
    key="secrets",
    message=Secret,
    unique=SecretRow.uid,
    fields={"name": resource_name(SecretRow, "secrets"), "key_name": text(SecretRow.key_name)},
    search=("name", "key_name"),
)
