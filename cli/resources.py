"""The table of resources: their nouns, their place in the API, and how a list of them looks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cli.errors import UsageError
from cli.show.readable import local_time
from cli.show.tables import Column
from cli.show.terminal import cell_width, shortened

Row = Mapping[str, Any]
# What may stand in a path; whether it is a proper id is for the server to say.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Resource:
    """A kind of resource. `collection` is its place under an account, and the key of its list."""

    noun: str
    collection: str  # empty for a noun that only groups commands
    columns: tuple[Column, ...]
    verbs: tuple[str, ...] = ("get", "list", "delete")
    aliases: tuple[str, ...] = ()
    plural_noun: str = ""  # where it is not the noun with an s
    within: str = ""  # the collection whose members hold it, as `deploymentShapes` hold `versions`
    list_key: str = ""  # where it is not the collection

    @property
    def plural(self) -> str:
        return self.plural_noun or f"{self.noun}s"

    @property
    def place(self) -> tuple[str, ...]:
        """The collections of its name: `accounts/a/deploymentShapes/s/versions/v`."""
        return (self.within, self.collection) if self.within else (self.collection,)

    @property
    def key(self) -> str:
        """Under which key the answer to a list holds them."""
        return self.list_key or self.collection

    def parent(self, account_id: str, holder: str = "-") -> str:
        """The name under which the collection lives; of one that others hold, those of all holders."""
        if self.noun == "account":
            return self.collection
        held = f"{self.within}/{holder}/" if self.within else ""
        return f"accounts/{account_id}/{held}{self.collection}"

    def name(self, account_id: str, given: str) -> str:
        """The full resource name of a bare id or a full name."""
        if not given:
            raise UsageError(
                "invalid id: id must be at least 1 character long", advice=[f"firectl list {self.plural}"]
            )
        if given.startswith("accounts/"):
            return self._checked(given)
        holder, id = self._split(given)
        if not _ID.fullmatch(id) or (self.within and not _ID.fullmatch(holder)):
            form = f"of the form ID/{self.collection}/ID" if self.within else "an id"
            raise UsageError(
                f'"{given}" is not {form} or a full name of {self.with_article}',
                advice=[f"firectl list {self.plural}"],
            )
        return f"{self.parent(account_id, holder)}/{id}"

    def _split(self, given: str) -> tuple[str, str]:
        """(the holder's id, its own): of `fast/versions/v1` or `fast/v1`; most have no holder."""
        if not self.within:
            return "", given
        holder, _, id = given.partition("/")
        return holder, id.removeprefix(f"{self.collection}/")

    def _checked(self, name: str) -> str:
        parts = name.split("/")
        pattern = self.parent("ACCOUNT", "ID") + "/ID"
        fixed = pattern.split("/")
        if (
            len(parts) != len(fixed)
            or not all(map(_ID.fullmatch, parts))
            or any(part != form for part, form in zip(parts[2::2], fixed[2::2], strict=True))
        ):
            raise UsageError(f'"{name}" is not the name of {self.with_article}: those look like {pattern}')
        return name

    @property
    def words(self) -> str:
        """The noun in running text: `fine-tuning job`."""
        return _in_words(self.noun)

    @property
    def plural_words(self) -> str:
        return _in_words(self.plural)

    @property
    def with_article(self) -> str:
        article = "an" if self.noun[0] in "aeio" else "a"
        return f"{article} {self.words}"


def _in_words(noun: str) -> str:
    return noun.replace("-", " ").replace("api ", "API ").replace("fine tuning", "fine-tuning")


def short_id(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def _title(row: Row, account_id: str) -> str:
    """`Display Name (id)`; the full name when the resource is another account's."""
    name = str(row.get("name", ""))
    shown = short_id(name) if name.startswith(f"accounts/{account_id}/") or name.count("/") == 1 else name
    display = str(row.get("displayName") or "")
    return f"{display} ({shown})" if display else shown


def _short_title(text: str, width: int) -> str:
    """Gives up the display name, never the id."""
    display, _, id = text.removesuffix(")").rpartition(" (")
    if not display or not text.endswith(")") or cell_width(text) <= width:
        return text
    room = width - cell_width(id) - 3
    return f"{shortened(display, room)} ({id})" if room >= 3 else id


def _short_reference(text: str, width: int) -> str:
    """Gives up the account first: the end of a name says most."""
    return shortened(text[::-1], width)[::-1]


def _field(title: str, key: str) -> Column:
    def pick(row: Row, _account_id: str) -> str:
        value = row.get(key)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None or str(value).endswith("_UNSPECIFIED") else str(value)

    return Column(title, pick, key)


def _id_of(title: str, key: str) -> Column:
    """A reference to another resource: its id when it is the account's own, else its full name."""

    def pick(row: Row, account_id: str) -> str:
        value = str(row.get(key) or "")
        return short_id(value) if value.startswith(f"accounts/{account_id}/") else value

    return Column(title, pick, key, shorten=_short_reference)


def _time(title: str, key: str) -> Column:
    return Column(title, lambda row, _account_id: local_time(str(row.get(key) or "")), key, is_time=True)


def _state(row: Row, _account_id: str) -> str:
    """The state, and the code of the failure where there is one."""
    state = str(row.get("state") or "").removeprefix("JOB_STATE_")
    code = str((row.get("status") or {}).get("code") or "OK")
    return state if code == "OK" else f"{state} ({code})"


def _replicas(row: Row, _account_id: str) -> str:
    return f"{row.get('replicaCount') or 0}/{row.get('desiredReplicaCount') or 0}"


def _accelerators(shape: Row, _account_id: str) -> str:
    """`2 × NVIDIA_H100_80GB`; empty when the shape leaves it open."""
    count, kind = shape.get("acceleratorCount") or 0, str(shape.get("acceleratorType") or "")
    shown = "" if kind.endswith("_UNSPECIFIED") else kind
    return f"{count} × {shown}" if count and shown else shown or (str(count) if count else "")


def _version(row: Row, account_id: str) -> str:
    """`shape/versions/id`; the full name when it is another account's."""
    name = str(row.get("name", ""))
    return name.removeprefix(f"accounts/{account_id}/deploymentShapes/")


def _of(key: str, column: Column) -> Column:
    """A column of a message that the row holds."""
    return Column(column.title, lambda row, account_id: column.pick(row.get(key) or {}, account_id))


def _issuer(row: Row, _account_id: str) -> str:
    return str((row.get("oidcConfig") or {}).get("issuerUrl") or "")


def _outcome(row: Row, _account_id: str) -> str:
    return str((row.get("status") or {}).get("code") or "")


def _usage(quota: Row, _account_id: str) -> str:
    return f"{float(quota.get('usage') or 0):.2f}".rstrip("0").rstrip(".")


def _quantity(item: Row, _account_id: str) -> str:
    return f"{float(item.get('quantity') or 0):,.0f}"


def _cost(item: Row, _account_id: str) -> str:
    from cli.show.money import dollars

    return dollars(item.get("totalCost"))


def _words(title: str, key: str) -> Column:
    return Column(title, lambda row, _account_id: ", ".join(map(str, row.get(key) or ())))


_NAME = Column("NAME", _title, rank=0, shorten=_short_title)
_CREATED = _time("CREATE TIME", "createTime")
_STATE = Column("STATE", _state, "state", rank=1)
_BASE_MODEL = _id_of("BASE MODEL", "baseModel")
_ACCELERATORS = Column("ACCELERATORS", _accelerators)
_PRECISION = _field("PRECISION", "precision")

RESOURCES = {
    kind.noun: kind
    for kind in (
        Resource(
            "account",
            "accounts",
            (_NAME, _CREATED, _field("EMAIL", "email"), _STATE),
            verbs=("list",),
        ),
        Resource(
            "user",
            "users",
            (
                _NAME,
                _CREATED,
                _field("EMAIL", "email"),
                _field("ROLE", "role"),
                _field("SERVICE ACCOUNT", "serviceAccount"),
            ),
        ),
        Resource(
            "api-key",
            "apiKeys",
            (
                _field("KEY ID", "keyId"),
                _field("DISPLAY NAME", "displayName"),
                _field("PREFIX", "prefix"),
                _CREATED,
                _time("EXPIRE TIME", "expireTime"),
                _time("LAST USED", "lastUsed"),
                _field("EMAIL", "email"),
            ),
            verbs=(),
        ),
        Resource("model", "models", (_NAME, _CREATED, _field("KIND", "kind"), _STATE)),
        Resource("dataset", "datasets", (_NAME, _CREATED, _field("EXAMPLES", "exampleCount"), _STATE)),
        Resource(
            "deployment",
            "deployments",
            (_NAME, _CREATED, _id_of("BASE MODEL", "baseModel"), Column("REPLICAS", _replicas), _STATE),
            verbs=("get", "list"),
        ),
        Resource(
            "deployed-model",
            "deployedModels",
            (
                _NAME,
                _CREATED,
                _id_of("MODEL", "model"),
                _id_of("DEPLOYMENT", "deployment"),
                _field("DEFAULT", "default"),
                _STATE,
            ),
            verbs=("get", "list", "delete"),
        ),
        Resource(
            "fine-tuning-job",
            "fineTuningJobs",
            (_NAME, _CREATED, _id_of("BASE MODEL", "baseModel"), _id_of("MODEL", "modelId"), _STATE),
            aliases=("ftj",),
        ),
        Resource(
            "supervised-fine-tuning-job",
            "supervisedFineTuningJobs",
            (_NAME, _CREATED, _id_of("BASE MODEL", "baseModel"), _id_of("MODEL", "outputModel"), _STATE),
            aliases=("sftj",),
        ),
        Resource(
            "dpo-job",
            "dpoJobs",
            (
                _NAME,
                _CREATED,
                _of("trainingConfig", _BASE_MODEL),
                _of("trainingConfig", _id_of("MODEL", "outputModel")),
                _STATE,
            ),
            aliases=("dpoj",),
        ),
        Resource(
            "checkpoint",
            "checkpoints",
            (
                Column("NAME", lambda row, _account: short_id(str(row.get("name", "")))),
                _CREATED,
                _field("STEP", "step"),
                _field("TYPE", "checkpointType"),
                _field("PROMOTABLE", "promotable"),
            ),
            verbs=(),
        ),
        Resource("secret", "secrets", (_NAME, _field("KEY NAME", "keyName")), verbs=("list",)),
        Resource(
            "identity-provider",
            "identityProviders",
            (_NAME, _CREATED, Column("ISSUER", _issuer), _words("DOMAINS", "tenantDomains"), _STATE),
        ),
        Resource(
            "quota",
            "quotas",
            (_NAME, _field("VALUE", "value"), _field("MAX VALUE", "maxValue"), Column("USAGE", _usage)),
            verbs=("get", "list"),
        ),
        Resource(
            "reservation",
            "reservations",
            (
                _NAME,
                _field("ACCELERATOR TYPE", "acceleratorType"),
                _field("COUNT", "reservedCount"),
                _time("START TIME", "startTime"),
                _time("END TIME", "endTime"),
                _STATE,
            ),
            verbs=("get",),
        ),
        Resource(
            "deployment-shape",
            "deploymentShapes",
            (_NAME, _CREATED, _BASE_MODEL, _ACCELERATORS, _PRECISION),
            verbs=("get", "delete"),
            aliases=("ds",),
        ),
        Resource(
            "deployment-shape-version",
            "versions",
            (
                Column("NAME", _version),
                _CREATED,
                _of("snapshot", _BASE_MODEL),
                _of("snapshot", _ACCELERATORS),
                _of("snapshot", _PRECISION),
                _field("VALIDATED", "validated"),
                _field("PUBLIC", "public"),
                _field("LATEST", "latestValidated"),
            ),
            verbs=("get",),
            within="deploymentShapes",
            list_key="deploymentShapeVersions",
        ),
        Resource(
            "audit-log",
            "auditLogs",
            (
                _time("TIME", "timestamp"),
                _field("EMAIL", "email"),
                _field("METHOD", "message"),
                _field("RESOURCE", "resource"),
                Column("OUTCOME", _outcome),
            ),
            verbs=(),
        ),
        Resource(
            "billing",
            "",
            (
                _id_of("NAME", "groupingValue"),
                _field("USAGE", "series"),
                Column("QUANTITY", _quantity),
                _field("UNIT", "category"),
                Column("COST", _cost),
            ),
            verbs=(),
            plural_noun="billing",
        ),
        Resource(
            "deployment-metrics",
            "",
            (_id_of("DEPLOYMENT", "deployment"), _field("METRIC", "metric"), _field("VALUE", "value")),
            verbs=(),
            plural_noun="deployment-metrics",
        ),
    )
}

JOBS = tuple(noun for noun in RESOURCES if noun.endswith("-job"))
"""The nouns of fine-tuning jobs, which can be cancelled, paused and resumed, and keep logs."""
