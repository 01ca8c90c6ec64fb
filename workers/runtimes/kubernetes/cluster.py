"""One cluster's API server: requests on plain documents, and its refusals as errors of ours."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from workers.runtimes.base import RuntimeUnavailable

FIELD_MANAGER = "hearth"
REQUEST_SECONDS = (3.0, 10.0)
"""To connect, and to wait for an answer."""
SILENT_SECONDS = 90.0
"""A watch is told once a minute how far it is, so that one that hears nothing for longer is dead."""
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 8, socket.TCP_KEEPINTVL: 4, socket.TCP_KEEPCNT: 2}
"""Seconds of silence, seconds between probes, probes: a machine that is gone is noticed after 16 s."""
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"

Document = dict[str, Any]


class Refused(Exception):
    """The API server understood and said no: a quota, a rule, a mistake in the document."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class Gone(Refused):
    """What was asked for is not there, or a watch asked for a past that is forgotten."""


class Conflict(Refused):
    """Somebody else changed it in the meantime: look again."""


@dataclass(frozen=True)
class Kind:
    version: str
    name: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        root = f"/api/{self.version}" if "/" not in self.version else f"/apis/{self.version}"
        middle = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{root}{middle}/{self.plural}" + (f"/{name}" if name else "")


NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
EVENT = Kind("v1", "Event", "events")
POD = Kind("v1", "Pod", "pods")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
KINDS = {
    kind.name: kind
    for kind in (
        NAMESPACE,
        EVENT,
        POD,
        DEPLOYMENT,
        JOB,
        Kind("v1", "ResourceQuota", "resourcequotas"),
        Kind("v1", "Secret", "secrets"),
        Kind("v1", "ServiceAccount", "serviceaccounts"),
        Kind("v1", "Service", "services"),
        Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    )
}


class Cluster:
    """Raises RuntimeUnavailable, Gone, Conflict and Refused. Safe to use from several threads."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._budget_version: str | None = None

    @classmethod
    def of_context(cls, context: str, user_agent: str = FIELD_MANAGER) -> Cluster:
        """A context of the kubeconfig; without a name the cluster that this runs in, or the current one.

        `user_agent` is whom the cluster's audit log names.
        """
        settings = type.__call__(Configuration)
        try:
            if not context and SERVICE_HOST_ENV_NAME in os.environ:
                load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            else:
                load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=os.environ.get("KUBECONFIG"),
                    context=context or None,
                    client_configuration=settings,
                    persist_config=False,
                )
        except (ConfigException, OSError) as error:
            named = f"the cluster {context}" if context else "the workers' own cluster"
            raise RuntimeUnavailable(f"{named} is not known: {error}") from error
        settings.retries = False
        settings.connection_pool_maxsize = 32
        settings.socket_options = socket_options()
        client = ApiClient(settings)
        client.user_agent = user_agent
        return cls(client)

    @property
    def budget_version(self) -> str:
        """Of PodDisruptionBudgets: clusters before 1.21 have no policy/v1."""
        if self._budget_version is None:
            versions = self.get_path("/apis/policy").get("versions", [])
            offered = {version["groupVersion"] for version in versions}
            self._budget_version = "policy/v1" if "policy/v1" in offered else "policy/v1beta1"
        return self._budget_version

    def kind(self, name: str) -> Kind:
        kind = KINDS[name]
        if name == "PodDisruptionBudget":
            return Kind(self.budget_version, kind.name, kind.plural)
        return kind

    def apply(self, document: Document, kind: Kind | None = None, *, dry_run: bool = False) -> Document:
        """Server-side apply: the fields of `document` are ours, whoever else has set them."""
        metadata = document["metadata"]
        path = (kind or self.kind(document["kind"])).path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return self._request("PATCH", path, query, document, APPLY)

    def create(self, document: Document, kind: Kind | None = None) -> Document:
        path = (kind or self.kind(document["kind"])).path(document["metadata"].get("namespace"))
        return self._request("POST", path, {"fieldManager": FIELD_MANAGER}, document)

    def patch_status(self, kind: Kind, namespace: str, name: str, status: Document) -> None:
        path = kind.path(namespace, name) + "/status"
        self._request("PATCH", path, {}, {"status": status}, "application/strategic-merge-patch+json")

    def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """What is not there, or is another one of that name, counts as deleted.

        A pod gets its own grace unless `grace_seconds` is given: of several the shortest counts, and 0 takes
        it away unasked.
        """
        options: Document = {"propagationPolicy": "Foreground"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            self._request("DELETE", kind.path(namespace, name), {}, options)
        except (Gone, Conflict):
            pass

    def find(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """One object, whether or not it carries our labels."""
        try:
            return self._request("GET", kind.path(namespace, name), {})
        except Gone:
            return None

    def list(self, kind: Kind, query: Mapping[str, str]) -> Document:
        return self._request("GET", kind.path(), query)

    def get_path(self, path: str) -> Document:
        return self._request("GET", path, {})

    def watch(self, kind: Kind, query: Mapping[str, str], seconds: int) -> Iterator[Document]:
        """Opens a watch, and returns its events until the server ends it, as it does after `seconds`."""
        asked = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        silence = min(seconds + 5, SILENT_SECONDS)
        answer = self._send("GET", kind.path(), asked, None, None, (REQUEST_SECONDS[0], silence))
        if answer.status != 200:
            _raise_refusal(answer.status, answer.read())
        return _events(answer.response, kind)

    @contextmanager
    def open_log(self, namespace: str, pod: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """What a container of the pod has printed, as it comes."""
        answer = self._send("GET", POD.path(namespace, pod) + "/log", query, None, None, REQUEST_SECONDS)
        if answer.status != 200:
            _raise_refusal(answer.status, answer.read())
        try:
            yield _chunks(answer.response)
        finally:
            answer.response.close()

    def close(self) -> None:
        self._client.rest_client.close()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | None = None,
        content_type: str | None = None,
    ) -> Document:
        response = self._send(method, path, query, body, content_type, REQUEST_SECONDS)
        try:
            said = response.read()
        except (HTTPError, OSError) as error:
            raise RuntimeUnavailable(f"the API server broke off: {error}") from error
        if response.status >= 300:
            _raise_refusal(response.status, said)
        found: Document = json.loads(said)
        return found

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | None,
        content_type: str | None,
        timeout: tuple[float, float],
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        where = f"{path}?{urlencode(query)}" if query else path
        request = self._client.param_serialize(
            method, where, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            return self._client.call_api(*request, _request_timeout=timeout)
        except (HTTPError, OSError, ApiException) as error:  # the last for a handshake that breaks off
            raise RuntimeUnavailable(f"the API server does not answer: {_short(error)}") from error


def socket_options() -> list[tuple[int, int, int]]:
    """Those of any HTTP connection, and what has the kernel notice that the other side is gone."""
    probes = [(socket.IPPROTO_TCP, option, value) for option, value in KEEP_ALIVE.items()]
    return [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *probes]


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read1():
            yield chunk
    except (HTTPError, OSError) as error:
        raise RuntimeUnavailable(f"a log broke off: {error}") from error


def _events(response: Any, kind: Kind) -> Iterator[Document]:
    rest = b""
    try:
        while chunk := response.read1():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line)
    except (HTTPError, OSError) as error:
        raise RuntimeUnavailable(f"a watch of {kind.plural} broke off: {error}") from error
    finally:
        response.close()


def _raise_refusal(status: int, said: bytes) -> None:
    """429 and what the server itself failed at pass; the rest is about what was asked."""
    try:
        told = json.loads(said)
    except ValueError:
        told = {}
    message = str(told.get("message") or said.decode(errors="replace")[:400])
    if status == 429 or status >= 500:
        raise RuntimeUnavailable(f"the API server answered {status}: {message}")
    kind = {404: Gone, 410: Gone, 409: Conflict}.get(status, Refused)
    raise kind(status, str(told.get("reason") or ""), message)


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error)[:300]
