"""Whether an object is as it was declared: what is missing, and what is left of an earlier declaration."""

from __future__ import annotations

from typing import Any

import pytest

from workers.runtimes.kubernetes.difference import holds, is_left_over, owned_fields

DECLARED: dict[str, Any] = {
    "metadata": {"labels": {"app": "one"}},
    "spec": {
        "containers": [{"name": "engine", "ports": [{"containerPort": 80}], "resources": {"cpu": "1"}}],
        "policyTypes": ["Ingress"],
        "finalizers": ["a"],
    },
}
ENGINE: dict[str, Any] = {
    ".": {},
    "f:name": {},
    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
    "f:resources": {"f:cpu": {}},
}
OWNED: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:app": {}}},
    "f:spec": {
        "f:containers": {'k:{"name":"engine"}': ENGINE},
        "f:policyTypes": {},
        "f:finalizers": {'v:"a"': {}},
    },
}


def test_what_is_owned_as_it_is_declared_leaves_nothing_over() -> None:
    assert not is_left_over(DECLARED, OWNED)
    assert not is_left_over(DECLARED, {})


@pytest.mark.parametrize(
    ("where", "owned"),
    [
        ("f:metadata", {"f:labels": {"f:app": {}, "f:tier": {}}}),
        ("f:metadata", {"f:annotations": {"f:mark": {}}}),
        ("f:spec", {"f:nodeSelector": {"f:gpu": {}}}),
        ("f:spec", {"f:containers": {'k:{"name":"addons"}': {"f:name": {}}}}),
        ("f:spec", {"f:containers": {'k:{"name":"engine"}': {"f:lifecycle": {}}}}),
        ("f:spec", {"f:finalizers": {'v:"b"': {}}}),
    ],
)
def test_what_is_declared_no_more_is_left_over_wherever_it_is(where: str, owned: dict[str, Any]) -> None:
    assert is_left_over(DECLARED, {**OWNED, where: owned})


def test_only_what_we_applied_is_ours() -> None:
    entries = [
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:nodeName": {}}}},
        {"manager": "hearth", "operation": "Apply", "fieldsV1": OWNED},
    ]
    assert owned_fields({"metadata": {"managedFields": entries}}, "hearth") == OWNED
    assert owned_fields({"metadata": {}}, "hearth") == {}


def test_quantities_are_compared_by_their_worth_and_additions_do_not_matter() -> None:
    assert holds({"cpu": "1000m"}, {"cpu": "1", "memory": "1Gi"})
    assert not holds({"cpu": "2"}, {"cpu": "1"})
    assert not holds(DECLARED, {"metadata": {}, "spec": DECLARED["spec"]})
