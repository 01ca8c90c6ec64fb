"""The table of resources: their nouns, their place in the API, and how a list of them looks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cli.errors import CliError
from cli.output import local_time

Row = Mapping[str, Any]
# What may stand in a path; whether it is a proper id is for the server to say.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Column:
    """A column of a list: its title, and its text for a row as a user of an account sees it."""

    title: str
    pick: Callable[[Row, str], str]


@dataclass(frozen=True)
class Resource:
    """A kind of resource. `collection` is both its place under an account and the key of its list."""

    noun: str
    collection: str
    columns: tuple[Column, ...]
    verbs: tuple[str, ...] = ("get", "list", "delete")
    aliases: tuple[str, ...] = ()

    @property
    def plural(self) -> str:
        return f"{self.noun}s"

    def parent(self, account_id: str) -> str:
        """The name under which the collection lives."""
        return self.collection if self.noun == "account" else f"accounts/{account_id}/{self.collection}"

    def name(self, account_id: str, given: str) -> str:
        """The full resource name of a bare id or a full name."""
        if not given:
            raise CliError(
                "invalid id: id must be at least 1 character long", advice=[f"firectl list {self.plural}"]
            )
        if given.startswith("accounts/"):
            return self._checked(given)
        if not _ID.fullmatch(given):
            raise CliError(
                f'"{given}" is not an id or a full name of {self.with_article}',
                advice=[f"firectl list {self.plural}"],
            )
        return f"{self.parent(account_id)}/{given}"

    def _checked(self, name: str) -> str:
        parts = name.split("/")
        depth = 2 if self.noun == "account" else 4
        if (
            len(parts) != depth
            or not all(map(_ID.fullmatch, parts))
            or (depth == 4 and parts[2] != self.collection)
        ):
            pattern = self.parent("ACCOUNT") + "/ID"
            raise CliError(f'"{name}" is not the name of {self.with_article}: those look like {pattern}')
        return name

    @property
    def words(self) -> str:
        """The noun in running text: `fine-tuning job`."""
        head, _, last = self.noun.rpartition("-")
        return f"{head.replace('api', 'API')} {last}" if head else last

    @property
    def plural_words(self) -> str:
        return f"{self.words}s"

    @property
    def with_article(self) -> str:
        article = "an" if self.noun[0] in "aeio" else "a"
        return f"{article} {self.words}"


def short_id(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def _title(row: Row, account_id: str) -> str:
    """`Display Name (id)`; the full name when the resource is another account's."""
    name = str(row.get("name", ""))
    shown = short_id(name) if name.startswith(f"accounts/{account_id}/") or name.count("/") == 1 else name
    display = str(row.get("displayName") or "")
    return f"{display} ({shown})" if display else shown


def _field(title: str, key: str) -> Column:
    def pick(row: Row, _account_id: str) -> str:
        value = row.get(key)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None or str(value).endswith("_UNSPECIFIED") else str(value)

    return Column(title, pick)


def _id_of(title: str, key: str) -> Column:
    """A reference to another resource: its id when it is the account's own, else its full name."""

    def pick(row: Row, account_id: str) -> str:
        value = str(row.get(key) or "")
        return short_id(value) if value.startswith(f"accounts/{account_id}/") else value

    return Column(title, pick)


def _time(title: str, key: str) -> Column:
    return Column(title, lambda row, _account_id: local_time(str(row.get(key) or "")))


def _state(row: Row, _account_id: str) -> str:
    """The state, and the code of the failure where there is one."""
    state = str(row.get("state") or "").removeprefix("JOB_STATE_")
    code = str((row.get("status") or {}).get("code") or "OK")
    return state if code == "OK" else f"{state} ({code})"


def _replicas(row: Row, _account_id: str) -> str:
    return f"{row.get('replicaCount') or 0}/{row.get('desiredReplicaCount') or 0}"


_NAME = Column("NAME", _title)
_CREATED = _time("CREATE TIME", "createTime")
_STATE = Column("STATE", _state)

RESOURCES = {
    kind.noun: kind
    for kind in (
        Resource(
            "account",
            "accounts",
            (_NAME, _CREATED, _field("EMAIL", "email"), _STATE),
            verbs=("list",),
        ),
        Resource("user", "users", (_NAME, _CREATED, _field("EMAIL", "email"), _field("ROLE", "role"))),
        Resource(
            "api-key",
            "apiKeys",
            (
                _field("KEY ID", "keyId"),
                _field("DISPLAY NAME", "displayName"),
                _field("PREFIX", "prefix"),
                _CREATED,
                _time("EXPIRE TIME", "expireTime"),
                _field("EMAIL", "email"),
            ),
            verbs=("list",),
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
            verbs=("get", "list"),
        ),
        Resource(
            "fine-tuning-job",
            "fineTuningJobs",
            (_NAME, _CREATED, _id_of("BASE MODEL", "baseModel"), _id_of("MODEL", "modelId"), _STATE),
            aliases=("ftj",),
        ),
    )
}
