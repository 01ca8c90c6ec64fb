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

WATCH_SECONDS = 240
"""Each watch is a request, of every worker for every kind."""
FIRST_LIST_SECONDS = 3.0
WAITS = (0.5, 1, 2, 5, 10)
SHORTEST_SECONDS = 1.0
"""A watch that ends sooner is not begun anew at once: the server may say the same again."""
STALE_SECONDS = 20.0
"""A view whose watches have been broken for so long is nothing to act upon."""

Key = tuple[str, str]
"""(namespace, name); the namespace of what has none is empty."""
Labelled = tuple[str, str]
"""(label, value)"""
ACTING = ("Pod", "Deployment", "Job")
"""Kinds whose status is looked at. That of others, as a quota's, follows them and is no news."""


class View:
    """The objects of some kinds that carry a label, found by their names or by that label's value."""

    def __init__(
        self, cluster: Cluster, kinds: tuple[str, ...], selector: str, label: str, outer_label: str = ""
    ) -> None:
        """`outer_label` tells whose that is which does not carry `label`."""
        self._cluster, self._selector, self._label = cluster, selector, label
        self._labels = (label, outer_label)
        self._lock = threading.Lock()
        self._objects: dict[str, dict[Key, Document]] = {kind: {} for kind in kinds}
        self._groups: dict[str, dict[str, dict[Key, Document]]] = {kind: {} for kind in kinds}
        self._broken: dict[str, tuple[float, str]] = dict.fromkeys(kinds, (0.0, "not listed yet"))
        self._changed: set[Labelled] = set()
        self._returned = False
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

    def take_changed(self) -> frozenset[Labelled]:
        """Whose objects have changed since this was last asked: by the label, else by the outer one."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return frozenset(changed)

    def take_return(self) -> bool:
        """Whether something is seen again that could not be, since this was last asked."""
        with self._lock:
            returned, self._returned = self._returned, False
        return returned

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
            began = time.monotonic()
            try:
                kind = self._cluster.kind(name)
                version = version or self._list(kind)
                version = self._watch(kind, version)
                lasted = time.monotonic() - began >= SHORTEST_SECONDS
            except (RuntimeUnavailable, Refused) as error:
                lasted, version = False, self._resume(name, version, error)
            except Exception as error:
                log.exception("the watch of %s failed", name)
                self._break(name, str(error))
                lasted, version, failures = False, "", len(WAITS)
            failures = 0 if lasted else failures + 1
            if failures:
                self._closed.wait(WAITS[min(failures, len(WAITS)) - 1])

    def _resume(self, name: str, version: str, error: Exception) -> str:
        """The version to go on from after an error; none where that past is forgotten."""
        if isinstance(error, Gone) and error.status == 410 and version:
            return ""
        self._break(name, str(error))
        with self._lock:
            return str(self._told[name]) if version else ""

    def _list(self, kind: Kind) -> str:
        found = self._cluster.list(kind, {"labelSelector": self._selector})
        listed = [_whole(each, kind) for each in found.get("items") or []]
        with self._lock:
            before = self._objects[kind.name]
            self._objects[kind.name], self._groups[kind.name] = {}, {}
            for each in listed:
                self._note(before.pop(_key(each), None), each)
                self._put(kind.name, each)
            for gone in before.values():
                self._note(gone, None)
            self._mend(kind.name)
            self._told[kind.name] = int(found["metadata"]["resourceVersion"])
        self._listed[kind.name].set()
        return str(found["metadata"]["resourceVersion"])

    def _watch(self, kind: Kind, version: str) -> str:
        query = {"labelSelector": self._selector, "resourceVersion": version}
        events = self._cluster.watch(kind, query, WATCH_SECONDS)
        with self._lock:
            self._mend(kind.name)
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
                    self._take(kind.name, _whole(found, kind), gone=event["type"] == "DELETED")
            if self._closed.is_set():
                break
        return version

    def _take(self, kind: str, found: Document, *, gone: bool) -> None:
        before = self._objects[kind].get(_key(found))
        self._note(before, None if gone else found)
        (self._drop if gone else self._put)(kind, found)

    def _note(self, before: Document | None, found: Document | None) -> None:
        if is_news(before, found):
            self._changed |= {whose for each in (before, found) if each and (whose := self._whose(each))}

    def _whose(self, found: Document) -> Labelled | None:
        labels = found["metadata"].get("labels") or {}
        return next(((label, str(labels[label])) for label in self._labels if labels.get(label)), None)

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

    def _mend(self, kind: str) -> None:
        since, _ = self._broken.pop(kind, (0.0, ""))
        self._returned |= since > 0

    def _break(self, kind: str, why: str) -> None:
        with self._lock:
            since, before = self._broken.get(kind, (0.0, ""))
            self._broken[kind] = (since if before and since else time.monotonic(), why)


def is_news(before: Document | None, found: Document | None) -> bool:
    """Whether anybody should look at what has become of an object. What we did ourselves we have learnt."""
    if before is None or found is None:
        return before is not found
    if before["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]:
        return False
    return found["kind"] in ACTING or _declared(before) != _declared(found)


def _declared(found: Document) -> Document:
    kept = {
        key: value
        for key, value in found["metadata"].items()
        if key not in ("resourceVersion", "managedFields")
    }
    return {**found, "metadata": kept, "status": None}


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
