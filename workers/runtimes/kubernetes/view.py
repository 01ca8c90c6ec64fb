"""What a cluster holds of ours, kept current by watches: looking costs no request.

One thread for each kind lists and then follows. A watch that breaks off is taken up where it was, and listed
anew where the server has forgotten that past; between tries the waits grow.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes.cluster import Cluster, Document, Gone, Kind, Refused

log = logging.getLogger(__name__)

WATCH_SECONDS = 30
"""Short, because a connection that died without a word shows only when its watch does not end in time."""
FIRST_LIST_SECONDS = 3.0
WAITS = (0.5, 1, 2, 5, 10)
STALE_SECONDS = 20.0
"""A view whose watches have been broken for so long is nothing to act upon."""

Key = tuple[str, str]
"""(namespace, name); the namespace of what has none is empty."""


class View:
    """The objects of some kinds that carry a label, found by their names or by that label's value."""

    def __init__(self, cluster: Cluster, kinds: tuple[str, ...], selector: str, label: str) -> None:
        self._cluster, self._selector, self._label = cluster, selector, label
        self._lock = threading.Lock()
        self._objects: dict[str, dict[Key, Document]] = {kind: {} for kind in kinds}
        self._groups: dict[str, dict[str, dict[Key, Document]]] = {kind: {} for kind in kinds}
        self._broken: dict[str, tuple[float, str]] = dict.fromkeys(kinds, (0.0, "not listed yet"))
        self._changed: set[str] = set()
        self._told = dict.fromkeys(kinds, 0)
        """Up to which version of the cluster all changes are known."""
        self._listed = {kind: threading.Event() for kind in kinds}
        self._closed = threading.Event()
        self._began = time.monotonic()
        for kind in kinds:
            threading.Thread(target=self._follow, args=(kind,), name=f"watch {kind}", daemon=True).start()

    def get(self, kind: str, key: Key) -> Document | None:
        self._require(kind)
        with self._lock:
            return self._objects[kind].get(key)

    def group(self, kind: str, value: str) -> list[Document]:
        """Those whose label has this value."""
        self._require(kind)
        with self._lock:
            return list(self._groups[kind].get(value, {}).values())

    def groups(self, kind: str) -> frozenset[str]:
        """The values that the label has."""
        self._require(kind)
        with self._lock:
            return frozenset(self._groups[kind])

    def take_changed(self) -> frozenset[str]:
        """The label's values whose objects have changed since this was last asked."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return frozenset(changed)

    def _require(self, kind: str) -> None:
        """Raises RuntimeUnavailable while the objects are not known, or not any more."""
        waited = time.monotonic() - self._began  # the first lists are waited for once, and not at every look
        if not self._listed[kind].wait(max(FIRST_LIST_SECONDS - waited, 0)):
            raise RuntimeUnavailable(f"the API server cannot be asked: {self._broken[kind][1]}")
        with self._lock:
            since, why = self._broken.get(kind, (0.0, ""))
        if why and time.monotonic() - since > STALE_SECONDS:
            raise RuntimeUnavailable(f"the API server cannot be asked: {why}")

    def learn(self, document: Document) -> None:
        """What the server has just answered, before the watch tells it."""
        kind, version = document["kind"], int(document["metadata"]["resourceVersion"])
        with self._lock:
            if version > self._told[kind]:  # else the watch has told it, or even that it is gone again
                self._put(kind, document)

    def close(self) -> None:
        self._closed.set()

    def _follow(self, name: str) -> None:
        failures, version = 0, ""
        while not self._closed.is_set():
            try:
                kind = self._cluster.kind(name)
                version = version or self._list(kind)
                version = self._watch(kind, version)
                failures = 0
            except (RuntimeUnavailable, Refused) as error:
                if isinstance(error, Gone) and error.status == 410 and version:
                    version = ""
                    continue
                self._break(name, str(error))
                self._closed.wait(WAITS[min(failures, len(WAITS) - 1)])
                failures += 1
            except Exception as error:
                log.exception("the watch of %s failed", name)
                self._break(name, str(error))
                version = ""
                self._closed.wait(WAITS[-1])

    def _list(self, kind: Kind) -> str:
        found = self._cluster.list(kind, {"labelSelector": self._selector})
        listed = [_whole(each, kind) for each in found.get("items") or []]
        with self._lock:
            self._objects[kind.name], self._groups[kind.name] = {}, {}
            for each in listed:
                self._put(kind.name, each)
            self._broken.pop(kind.name, None)
            self._told[kind.name] = int(found["metadata"]["resourceVersion"])
        self._listed[kind.name].set()
        return str(found["metadata"]["resourceVersion"])

    def _watch(self, kind: Kind, version: str) -> str:
        query = {"labelSelector": self._selector, "resourceVersion": version}
        events = self._cluster.watch(kind, query, WATCH_SECONDS)
        with self._lock:
            self._broken.pop(kind.name, None)
        for event in events:
            found = event["object"]
            if event["type"] == "ERROR":
                if found.get("code") == 410:
                    return ""
                raise RuntimeUnavailable(str(found.get("message") or "the watch failed"))
            version = str(found["metadata"]["resourceVersion"])
            with self._lock:
                self._told[kind.name] = int(version)
                if event["type"] != "BOOKMARK":
                    change = self._drop if event["type"] == "DELETED" else self._put
                    change(kind.name, _whole(found, kind))
                    self._changed.add(self._value(found))
            if self._closed.is_set():
                break
        return version

    def _put(self, kind: str, found: Document) -> None:
        self._drop(kind, found)
        self._objects[kind][_key(found)] = found
        if value := self._value(found):
            self._groups[kind].setdefault(value, {})[_key(found)] = found

    def _drop(self, kind: str, found: Document) -> None:
        known = self._objects[kind].pop(_key(found), None)
        value = self._value(known or found)
        group = self._groups[kind].get(value, {})
        group.pop(_key(found), None)
        if not group:
            self._groups[kind].pop(value, None)

    def _value(self, found: Document) -> str:
        return str((found["metadata"].get("labels") or {}).get(self._label) or "")

    def _break(self, kind: str, why: str) -> None:
        with self._lock:
            since, before = self._broken.get(kind, (0.0, ""))
            self._broken[kind] = (since if before and since else time.monotonic(), why)


def is_uid(text: str) -> bool:
    """Whether a label has what is written there: somebody may have changed it by hand."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _key(document: Mapping[str, Any]) -> Key:
    metadata = document["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _whole(document: Document, kind: Kind) -> Document:
    """Items of a list do not say what they are."""
    return {**document, "kind": kind.name, "apiVersion": kind.version}
