"""The dashboards and rules in deploy/monitoring: all that they ask for is there under traffic, and
a real Prometheus answers each question with data."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from metaprotocol.envoy.config import ConfigBuilder

from tests.envoy.test_metrics import documented
from tests.testkit.monitored import Monitored, monitored
from tests.testkit.prometheus import Exposed, program, running_prometheus, used

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
WINDOW = "5m"
needs_prometheus = pytest.mark.skipif(
    program("prometheus") is None, reason="Prometheus is not here: tools/system_packages.sh peers"
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def questions() -> Iterator[tuple[str, str]]:
    """The place and the expression of each of the panels'."""
    for path in DASHBOARDS:
        page = json.loads(path.read_text())
        for panel in page["panels"]:
            for target in panel.get("targets", ()):
                yield f"{page['title']}, {panel['title']} ({target['refId']})", target["expr"]


def asked(expression: str) -> str:
    """As Grafana asks it, with "all" chosen everywhere, of a Prometheus that has just begun."""
    for variable in ("reporter", "service", "protocol", "cluster"):
        expression = expression.replace(f"${variable}", ".*")
    return expression.replace("$__rate_interval", WINDOW).replace(":15s]", ":1s]")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    builder: ConfigBuilder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Monitored]:
    async with monitored(builder, tmp_path_factory.mktemp("monitored") / "mesh") as made:
        yield made


async def test_every_name_and_label_is_one_that_there_is(stage: Monitored) -> None:
    await stage.traffic()
    rare = {f"metaprotocol_{name}" for name in documented()}
    recorded = {rule["record"]: rule for rule in rules() if "record" in rule}
    expressions = dict(questions()) | {str(rule): rule["expr"] for rule in rules()}
    assert len(expressions) > 90

    async def missing() -> list[str]:
        there = Exposed()
        for page in await asyncio.to_thread(stage.pages):
            there.add(page, {"instance", "job"})
        found = []
        for place, expression in expressions.items():
            needs = used(expression)
            for name, labels in needs.metrics.items():
                if name in recorded or (name in rare and name not in there.labels):
                    continue
                if name not in there.labels:
                    found.append(f"{place}: {name}")
                elif there.labels[name]:  # there is a series
                    unknown = (labels | needs.grouped - {"why"}) - there.labels[name]
                    found += [f"{place}: {name} has no {label}" for label in unknown]
        return found

    deadline = time.monotonic() + 60
    while found := await missing():  # metrics are handed to Envoy once a second
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)


@needs_prometheus
async def test_prometheus_has_an_answer_to_everything(stage: Monitored, tmp_path: Path) -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(FOLDER / "rules.yaml")]
    envoy, plane = config["scrape_configs"]
    envoy["static_configs"] = [{"targets": [f"127.0.0.1:{stage.envoy.admin_port}"]}]
    plane["static_configs"] = [{"targets": [f"127.0.0.1:{stage.plane.http_port}"]}]
    with running_prometheus(tmp_path, config) as prometheus:
        left = dict(questions()) | {
            rule["record"]: rule["record"] for rule in rules() if "record" in rule
        }
        deadline = time.monotonic() + 120
        while left:
            assert time.monotonic() < deadline, f"no data: {left}"
            await stage.traffic()
            left = {
                place: expression
                for place, expression in left.items()
                if not prometheus.values(asked(expression))
            }

        def calls() -> list[float]:
            shop = 'istio_requests_total{request_service="org.example.Service"}'
            return [value for _, value in prometheus.values(f"rate({shop}[{WINDOW}])")]

        assert max(calls()) > 0
        loaded = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert len(loaded) == len(rules())
        assert [rule["lastError"] for rule in loaded if rule["health"] != "ok"] == []
        # The rule is evaluated a moment after the samples have come, and is pending at first.
        deadline = time.monotonic() + 60
        while not prometheus.values('ALERTS{alertname="MetaProtocolNoHost"}'):
            assert time.monotonic() < deadline, "no alarm at requests without a host"
            await stage.traffic()


@needs_prometheus
async def test_rules_are_right_by_prometheus_own_tool() -> None:
    tool = program("promtool")
    assert tool is not None
    for arguments in (
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ):
        done = subprocess.run(
            [tool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


async def test_the_dashboards_are_what_the_generator_writes() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    import generate_dashboards

    assert {path.name: path.read_text() for path in DASHBOARDS} == generate_dashboards.files(), (
        "run tools/generate_dashboards.py"
    )
    for path in DASHBOARDS:
        page = json.loads(path.read_text())
        identities = [panel["id"] for panel in page["panels"]]
        assert len(set(identities)) == len(identities)


async def test_an_unknown_name_is_seen() -> None:
    """The reading of expressions finds what this guard is for."""
    needs = used('sum by (a) (rate(x_total{b=~"c{d}", e!="f"}[5m])) / on (g) y or vector(0)')
    assert needs.metrics == {"x_total": {"b", "e"}, "y": set()}
    assert needs.grouped == {"a", "g"}
