"""The chart's values: each does what it says, and the schema and the page on installing know all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cli import __version__
from controlplane.config import Settings
from controlplane.node_pools import Cache, NodePool, NodePools
from tests.docs.shown import table_rows
from tests.kubernetes.chart import CHART, Helm
from tests.kubernetes.install import ROOT, Built, Document

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
PAGE = ROOT / "docs" / "install-on-kubernetes.md"
EVERYTHING = {
    "image": {"tag": f"sha256:{'0' * 64}"},
    "imagePullPolicy": "Always",
    "imagePullSecrets": ["registry"],
    "secrets": ["stores", "keys"],
    "secretSettings": {
        "HEARTH_DATABASE_URL": {"name": "postgres-app", "key": "uri"},
        "HEARTH_SECRET_KEYS": {"name": "vault", "key": "current"},
    },
    "settings": {"HEARTH_QUOTAS": '{"a": 1}', "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
    "nodeSelector": {"pool": "platform"},
    "tolerations": [{"key": "platform", "operator": "Exists"}],
    "priorityClassName": "platform",
    "podAnnotations": {"team": "models"},
    "gateway": {
        "replicas": 5,
        "autoscaling": {"enabled": False},
        "disruptionBudget": {"enabled": False},
        "drainSeconds": 900,
        "service": {"type": "LoadBalancer", "annotations": {"internal": "true"}},
    },
    "api": {"disruptionBudget": {"maxUnavailable": "50%"}, "resources": {"limits": {"memory": "3Gi"}}},
    "worker": {"replicas": 7, "inspectionMemoryGib": 8, "dataSize": "1Ti"},
    "ingress": {"className": "", "tls": {"enabled": False}},
    "networkPolicies": {"stores": {"to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}], "ports": [5433]}},
    "monitoring": {"enabled": True, "namespace": "observability", "labels": {"release": "prometheus"}},
}


@pytest.fixture
def changed(helm: Helm, tmp_path: Path) -> Built:
    """With every value that is not just a number of the same kind set to another one."""
    (file := tmp_path / "values.yaml").write_text(yaml.safe_dump(EVERYTHING))
    return helm.made("--values", str(file), namespace="models")


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_with_every_value_changed_the_objects_are_valid_by_the_published_schemas(
    changed: Built, version: str
) -> None:
    for document in changed.documents:
        if not document["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(document, version, strict=True)


def test_what_holds_for_all_pods_holds_for_each(changed: Built) -> None:
    for name, pod in changed.pods():
        spec = pod["spec"]
        assert spec["nodeSelector"] == EVERYTHING["nodeSelector"], name
        assert spec["tolerations"] == EVERYTHING["tolerations"], name
        assert spec["priorityClassName"] == "platform", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert pod["metadata"]["annotations"]["team"] == "models", name
    for name, container in changed.containers():
        assert container["imagePullPolicy"] == "Always", name
        engine = name == "hearth-worker/worker"
        image = f"hearth-engine:{__version__}" if engine else f"hearth@sha256:{'0' * 64}"
        assert container["image"] == f"registry.example/{image}", name


def test_settings_out_of_several_secrets_reach_each_part_that_may_have_them(changed: Built) -> None:
    for name, container in changed.containers():
        secrets = [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each]
        assert secrets == ["stores", "keys"], name
        variables = {each["name"]: each for each in container["env"]}
        assert len(variables) == len(container["env"]), name
        assert variables["HEARTH_DATABASE_URL"]["valueFrom"] == {
            "secretKeyRef": {"name": "postgres-app", "key": "uri"}
        }
        keys = variables["HEARTH_SECRET_KEYS"]
        if name.rpartition("/")[2] in ("gateway", "beat", "migrate"):
            assert keys.get("value") == ""
        else:
            assert keys["valueFrom"]["secretKeyRef"]["name"] == "vault"


def test_how_many_there_are_is_the_autoscalers_or_the_values(changed: Built) -> None:
    assert changed.one("Deployment", "hearth-gateway")["spec"]["replicas"] == 5
    assert "replicas" not in changed.one("Deployment", "hearth-api")["spec"]
    assert changed.one("Deployment", "hearth-worker")["spec"]["replicas"] == 7
    assert [each["metadata"]["name"] for each in changed.all("HorizontalPodAutoscaler")] == ["hearth-api"]
    budgets = {each["metadata"]["name"]: each["spec"] for each in changed.all("PodDisruptionBudget")}
    assert budgets.keys() == {"hearth-api", "hearth-worker"}
    assert budgets["hearth-api"]["maxUnavailable"] == "50%"


def test_longer_answers_get_more_time_before_their_pod_ends(changed: Built) -> None:
    pod = changed.pod("hearth-gateway")["spec"]
    (container,) = pod["containers"]
    assert {"name": "HEARTH_DRAIN_SECONDS", "value": "900"} in container["env"]
    (_, waits) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > 900 + int(waits)


def test_the_ways_in_and_out_are_those_of_the_values(helm: Helm, changed: Built) -> None:
    assert changed.one("Service", "hearth-gateway")["spec"]["type"] == "LoadBalancer"
    ingress = changed.one("Ingress", "hearth")["spec"]
    assert "tls" not in ingress and "ingressClassName" not in ingress
    (rule,) = changed.one("NetworkPolicy", "stores")["spec"]["egress"]
    assert rule == {
        "to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}],
        "ports": [{"protocol": "TCP", "port": 5433}],
    }
    (watched,) = changed.one("NetworkPolicy", "metrics")["spec"]["ingress"]
    assert "observability" in str(watched["from"])
    for kind in ("PodMonitor", "PrometheusRule"):
        assert changed.one(kind, "hearth")["metadata"]["labels"]["release"] == "prometheus"
    assert helm.made("--set", "networkPolicies.enabled=false").all("NetworkPolicy") == []


def test_another_namespace_has_rights_of_its_own_name_and_its_engines_let_it_in(changed: Built) -> None:
    binding = changed.one("ClusterRoleBinding", "hearth-worker-models")
    assert (
        binding["roleRef"]["name"] == changed.one("ClusterRole", "hearth-worker-models")["metadata"]["name"]
    )
    assert [each["namespace"] for each in binding["subjects"]] == ["models"]
    text = changed.one("ConfigMap", "hearth-node-pools")["data"]["node-pools.yaml"]
    pools = NodePools.model_validate(yaml.safe_load(text))
    assert pools.platform_namespace == "models"
    assert pools.image == f"registry.example/hearth-engine:{__version__}"


def test_the_schema_knows_every_value_and_no_other() -> None:
    """An unknown one in values.yaml is refused by the schema itself, whenever helm reads it."""
    for path in PATHS:
        default_of(path)


def test_the_page_has_every_value_with_its_default_and_what_it_is() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table_rows(PAGE, r"`[a-z]\w*(\.\w+)*`")}
    assert rows.keys() == set(PATHS)
    for path, (default, meaning) in rows.items():
        assert default == shown(default_of(path)), path
        assert meaning, path


def shown(value: Any) -> str:
    if isinstance(value, dict | list) and value:
        return "in the file"
    return "" if value == "" else f"`{value if isinstance(value, str) else json.dumps(value)}`"


WHOLE = {"settings", "secretSettings", "nodePools", "resources"}
"""What is shown as one value, whatever is in it."""


def paths(schema: Document, before: str = "") -> Iterator[str]:
    """`gateway.service.type`: as deep as the schema names what there is."""
    for name, each in schema["properties"].items():
        inner = resolved(each)
        if "properties" in inner and name not in WHOLE:
            yield from paths(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def default_of(path: str) -> Any:
    found = VALUES
    for name in path.split("."):
        found = found[name]
    return found


def resolved(schema: Document) -> Document:
    name = schema.get("$ref", "").rpartition("/")[2]
    return dict(SCHEMA["$defs"][name]) if name else schema


PATHS = [path for path in paths(SCHEMA) if path != "global"]  # helm's own, in a chart of charts


OTHERS = {"FORWARDED_ALLOW_IPS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
SECRET = {
    f"HEARTH_{name}"
    for name in (
        "DATABASE_URL",
        "REDIS_URL",
        "S3_ACCESS_KEY",
        "S3_SECRET_KEY",
        "SECRET_KEYS",
        "PAGE_TOKEN_KEY",
    )
}
"""What a release's values would show to whoever reads them."""
OF_ONE_MACHINE = {"HEARTH_CACHE_GIB", "HEARTH_REPLICA_HOST"}


def test_every_setting_of_hearth_that_the_chart_does_not_make_itself_can_be_set(helm: Helm) -> None:
    made = {
        each["name"]
        for _, container in helm.made().containers()
        for each in container["env"]
        if container["name"] != "migrate"
    }
    known = {f"HEARTH_{name.upper()}" for name in Settings.model_fields}
    taken = known - made - OF_ONE_MACHINE
    properties = SCHEMA["properties"]
    assert properties["settings"]["properties"].keys() == taken - SECRET | OTHERS
    assert properties["secretSettings"]["properties"].keys() == taken | SECRET


@pytest.mark.parametrize(
    ("of", "model"),
    [
        (lambda pools: pools, NodePools),
        (lambda pools: pools["properties"]["cache"], Cache),
        (lambda pools: pools["properties"]["pools"]["items"], NodePool),
    ],
    ids=["pools", "cache", "pool"],
)
def test_the_schema_has_what_node_pools_have(of: Callable[[Document], Document], model: Any) -> None:
    named = {field.alias or name for name, field in model.model_fields.items()}
    assert of(SCHEMA["properties"]["nodePools"])["properties"].keys() == named - {"platformNamespace"}
