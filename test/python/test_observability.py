"""Dashboard and alerts against a real Prometheus that scrapes a real server."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from serving import ROOT, Server, serve

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import write_bundle

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "mblm-server.json"
COMPOSE = ROOT / "deploy" / "docker-compose.yaml"
SUFFIX = re.compile(r"_(bucket|sum|count)$")

if shutil.which("promtool") is None:
    assert not os.environ.get("REQUIRE_PROMETHEUS"), "no Prometheus is installed"
    pytest.skip("no Prometheus is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bundle = tmp_path_factory.mktemp("observed") / "tiny"
    write_bundle(
        random_model(config([32, 32], [512, 4], [mamba2(), transformer()]), seed=5), bundle, "tiny", "fp32", None
    )
    with serve(bundle, "--slots", "2", "--max-waiting", "1") as server:
        yield server


def panels() -> dict[str, list[dict]]:
    """Panels by the title of their row."""
    rows: dict[str, list[dict]] = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            rows[panel["title"]] = []
        else:
            rows[list(rows)[-1]].append(panel)
    return rows


def expressions(without: str | None = None) -> list[tuple[str, str]]:
    """What the panels ask, for every model and server over a short time."""
    found = []
    for panel in [panel for row, inside in panels().items() if row != without for panel in inside]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "10s")
            found.append((panel["title"], re.sub(r"\$(model|instance)", ".*", expression)))
    return found


def alerts() -> list[dict]:
    return [
        rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, input=given, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_metrics_follow_the_rules_of_prometheus(server: Server) -> None:
    assert promtool("check", "metrics", given=requests.get(f"{server.url}/metrics", timeout=10).text).strip() == ""


def test_alert_rules_fire_when_they_should() -> None:
    promtool("check", "rules", PROMETHEUS / "alerts.yaml")
    promtool("test", "rules", PROMETHEUS / "alerts.test.yaml")
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yaml")


def test_dashboard_and_alerts_name_what_there_is(server: Server) -> None:
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) | {"up"}
    asked = [expression for _, expression in expressions()] + [rule["expr"] for rule in alerts()]
    names = {name for expression in asked for name in re.findall(r"\b(?:mblm|process|nodejs)_[a-z0-9_]+", expression)}
    assert len(names) > 25
    assert {name for name in names if name not in known and SUFFIX.sub("", name) not in known} == set()


def test_compose_mounts_what_there_is() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    mounts = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(paths) == 4
    assert all((COMPOSE.parent / path).exists() for path in paths)


def load(server: Server) -> None:
    """A little of everything that the panels show."""
    url = server.url

    def complete(n: int) -> int:
        body = {"prompt": "a prompt that begins alike " + "x" * n, "max_tokens": 60}
        return requests.post(f"{url}/v1/completions", json=body, timeout=60).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(complete, range(24)))
    assert statuses <= {200, 429}
    requests.post(f"{url}/v1/score", data=b"bytes to score" * 20, timeout=60)
    requests.post(f"{url}/v1/sessions", json={}, timeout=60)


def test_every_panel_shows_something(server: Server, tmp_path: Path) -> None:
    address = server.url.removeprefix("http://")
    scrape = {"job_name": "mblm-server", "scrape_interval": "1s", "static_configs": [{"targets": [address]}]}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    listen = "127.0.0.1:19090"
    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data"]
    with subprocess.Popen([*command, f"--web.listen-address={listen}"], stderr=subprocess.DEVNULL) as prometheus:
        try:
            missing = expressions(without="GPU")  # on a CPU that row is empty
            assert len(expressions()) - len(missing) == 3
            deadline = time.monotonic() + 60
            while missing and time.monotonic() < deadline:
                load(server)
                time.sleep(1)
                missing = [(title, expression) for title, expression in missing if not query(listen, expression)]
            assert missing == []
        finally:
            prometheus.terminate()


def query(address: str, expression: str) -> list:
    try:
        answer = requests.get(f"http://{address}/api/v1/query", params={"query": expression}, timeout=10).json()
    except requests.ConnectionError:
        return []
    assert answer["status"] == "success", answer
    return [one for one in answer["data"]["result"] if one["value"][1] != "NaN"]
