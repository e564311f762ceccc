"""The Helm chart and the KServe manifests: rendered by Helm, and valid for the API servers that will read them."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "mblm-server"
CUSTOM = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())
KUBERNETES = ["1.29", "1.33", "1.37"]
Manifest = dict[str, Any]

needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None and os.environ.get("REQUIRE_HELM") != "1", reason="helm is not installed"
)

EVERYTHING = {
    "replicas": 3,
    "config": {"slots": 32, "shutdown_seconds": 100.5, "session_bytes": 1073741824},
    "model": {"existingClaim": "bundles", "paths": ["books", "scenes/small"]},
    "apiKeys": {"existingSecret": "keys"},
    "sessions": {"valkey": {"enabled": True}},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"team": "reading"}}}],
        "egress": [{"ports": [{"protocol": "TCP", "port": 4318}]}],
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "existingSecret": "metrics-key", "labels": {"release": "prometheus"}},
        "rules": "groups:\n  - name: mblm\n    rules:\n      - alert: Waiting\n        expr: mblm_requests_waiting > 9\n",
    },
    "otlpEndpoint": "http://collector:4318",
    "gateway": {
        "enabled": True,
        "parentRefs": [{"name": "front"}],
        "hostnames": ["bytes.example.com"],
        "inferencePool": {"enabled": True, "endpointPicker": "picker"},
    },
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "extraEnv": [{"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"}],
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "service": {"annotations": {"e": "f"}},
    "serviceAccount": {"annotations": {"g": "h"}},
}
CASES: dict[str, Manifest] = {
    "defaults": {},
    "everything": EVERYTHING | {"autoscaling": {"kind": "keda"}},
    "hpa": {"autoscaling": {"kind": "hpa"}, "sessions": {"existingSecret": "valkey"}, "gateway": {}},
    "gpu": {
        "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    },
    "route": {"gateway": {"enabled": True, "parentRefs": [{"name": "front", "namespace": "edge"}]}},
}


def helm(*arguments: str, values: Manifest | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["helm", *arguments, "--values", "-"], input=yaml.safe_dump(values or {}), capture_output=True, text=True
    )


def render(values: Manifest, release: str = "books") -> list[Manifest]:
    done = helm("template", release, str(CHART), "--namespace", "reading", values=values)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def validate(manifest: Manifest, version: str) -> None:
    """Raises for whatever the API server of that version would not take, unknown fields included."""
    custom = CUSTOM.get(f"{manifest['apiVersion']} {manifest['kind']}")
    if custom is None:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(manifest["spec"], custom)
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}, version)
    if containers := manifest["spec"].get("containers"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": containers}}
        kubernetes_validate.validate(pod, version, strict=True)


@needs_helm
def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", str(CHART), "--strict")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_valid(case: str, version: str) -> None:
    manifests = render(CASES[case])
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names) >= 5
    for manifest in manifests:
        validate(manifest, version)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kserve_manifests_are_valid(version: str) -> None:
    paths = sorted((ROOT / "deploy" / "kserve").glob("*.yaml"))
    manifests = [yaml.safe_load(path.read_text()) for path in paths]
    assert [manifest["kind"] for manifest in manifests] == ["InferenceService", "ServingRuntime", "ServingRuntime"]
    for manifest in manifests:
        validate(manifest, version)
    model = manifests[0]["spec"]["predictor"]["model"]
    runtimes = {runtime["metadata"]["name"]: runtime["spec"] for runtime in manifests[1:]}
    assert set(runtimes) == {"mblm-server", "mblm-server-cuda"}
    assert model["modelFormat"]["name"] == runtimes[model["runtime"]]["supportedModelFormats"][0]["name"]
    # Only one is chosen where none is named, and only the other has a GPU.
    assert [spec["supportedModelFormats"][0]["autoSelect"] for spec in runtimes.values()].count(True) == 1
    gpus = {name: spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for name, spec in runtimes.items()}
    assert gpus == {"mblm-server": None, "mblm-server-cuda": "1"}


@needs_helm
def test_validation_notices_what_is_wrong() -> None:
    for manifest in render(CASES["everything"]):
        spec = manifest.get("spec")
        if spec is None:
            continue
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            validate(manifest | {"spec": spec | {"notAField": 1}}, KUBERNETES[-1])


@needs_helm
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replica": 2}, "replica"),
        ({"config": {"api_key": "secret"}}, "api_key"),
        ({"config": {"tls_cert": "/tls/tls.crt"}}, "tls_cert"),
        ({"config": {"tls_key": "/tls/tls.key"}}, "tls_key"),
        ({"autoscaling": {"kind": "magic"}}, "autoscaling"),
        ({"gpu": {"count": 2}}, "count"),
        ({"gpu": {"resource": "gpu"}}, "resource"),
        ({"rollingUpdate": {"maxSurge": "some"}}, "maxSurge"),
        ({"gateway": {"enabled": True}}, "parentRefs"),
        ({"gateway": {"enabled": True, "parentRefs": [{}], "inferencePool": {"enabled": True}}}, "endpointPicker"),
        ({"sessions": {"existingSecret": "a", "valkey": {"enabled": True}}}, "sessions"),
        ({"otlpEndpoint": "collector:4317"}, "otlpEndpoint"),
        ({"model": {"existingClaim": "bundles", "paths": ["a,b"]}}, "model"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: Manifest, complaint: str) -> None:
    done = helm("template", "books", str(CHART), values=values)
    assert done.returncode != 0
    assert complaint in done.stderr


@needs_helm
@pytest.mark.parametrize("case", CASES)
def test_every_container_is_locked_down(case: str) -> None:
    pods = [m["spec"]["template"]["spec"] for m in render(CASES[case]) if m["kind"] in ("Deployment", "StatefulSet")]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


@needs_helm
@pytest.mark.parametrize("seconds", [0, 30, 100.5, 3600])
def test_a_pod_may_take_longer_than_its_server_drains(seconds: float) -> None:
    pod = one(render({"config": {"shutdown_seconds": seconds}}), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= seconds + 10


@needs_helm
def test_a_gpu_changes_what_it_must_and_nothing_else() -> None:
    plain, gpu = (one(render(CASES[case]), "Deployment")["spec"] for case in ("defaults", "gpu"))
    pod, container = gpu["template"]["spec"], gpu["template"]["spec"]["containers"][0]
    before = plain["template"]["spec"]["containers"][0]
    assert container["image"] == f"{before['image']}-cuda"
    assert container["resources"]["limits"] == before["resources"]["limits"] | {"nvidia.com/gpu": 1}
    assert container["resources"]["requests"] == before["resources"]["requests"]
    assert {"name": "MBLM_DEVICE", "value": "cuda"} in container["env"]
    assert pod["runtimeClassName"] == "nvidia"
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["dedicated", "nvidia.com/gpu"]
    assert gpu["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert "nvidia" not in yaml.safe_dump(plain).lower()
    assert "MBLM_DEVICE" not in yaml.safe_dump(plain)
    chosen = one(render({"gpu": {"enabled": True}, "config": {"device": "auto"}}), "Deployment")
    assert "MBLM_DEVICE" not in yaml.safe_dump(chosen)


@needs_helm
def test_selectors_find_the_servers_and_nothing_else() -> None:
    manifests = render(CASES["everything"])
    server = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    store = one(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    services = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "Service"}
    own = services["books-mblm-server"]
    of_servers = [
        one(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(manifests, "InferencePool")["spec"]["selector"]["matchLabels"],
        own["spec"]["selector"],
    ]
    for selector in of_servers:
        assert selector.items() <= server.items()
        assert not selector.items() <= store.items()
    assert services["books-mblm-server-valkey"]["spec"]["selector"].items() <= store.items()
    # The monitor finds the one service that has metrics, and the port that it names.
    monitor = one(manifests, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    assert [n for n, s in services.items() if wanted <= s["metadata"]["labels"].items()] == ["books-mblm-server"]
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in own["spec"]["ports"]]


@needs_helm
def test_the_server_knows_its_settings(tmp_path: Path) -> None:
    """What the chart gives the server, `mblm-server config` understands."""
    manifests = render(CASES["everything"])
    config = tmp_path / "server.yaml"
    config.write_text(one(manifests, "ConfigMap")["data"]["server.yaml"])
    container = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    done = subprocess.run(
        ["node", str(ROOT / "dist" / "cli" / "main.js"), "config", "--config", str(config)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    expected = {
        "host": "0.0.0.0",
        "port": 8000,
        "slots": 32,
        "shutdown_seconds": 100.5,
        "session_bytes": 1073741824,
        "model": "/models/books,/models/scenes/small",
        "api_key_file": "/etc/mblm-server/keys/keys.yaml",
        "session_url": "redis://books-mblm-server-valkey:6379",
        "otlp_endpoint": "http://collector:4318",
    }
    assert {key: effective[key] for key in expected} == expected


@needs_helm
def test_probes_need_no_key() -> None:
    """Every path that is probed is one that the server opens to all; the probes differ."""
    routes = (ROOT / "src" / "http" / "access" / "route-scopes.ts").read_text()
    runtime = yaml.safe_load((ROOT / "deploy" / "kserve" / "serving-runtime.yaml").read_text())
    deployed = one(render({}), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    for container in [deployed, runtime["spec"]["containers"][0]]:
        paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")]
        assert len(set(paths)) == 3
        for path in paths:
            assert f'"{path}": "open"' in routes


@needs_helm
def test_scaling_asks_for_a_metric_that_the_server_has() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "metrics").rglob("*.ts"))
    by_pods = one(render(CASES["hpa"]), "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    query = one(render(CASES["everything"]), "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    for metric in [by_pods, *re.findall(r"mblm_\w+", query)]:
        assert f'"{metric}"' in source
    assert 'namespace="reading",service="books-mblm-server"' in query
    assert "replicas" not in one(render(CASES["hpa"]), "Deployment")["spec"]
