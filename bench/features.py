"""What each feature costs through Envoy: ``python -m bench --features``.

One Envoy with a listener for each feature of ``features.h``, one with none of them and one with
all, over the same server. What counts is Envoy's CPU time per request, and the difference to the
listener without features within each round.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from google.protobuf import json_format
from metaprotocol.config.v1 import ClusterPolicy, ProxyConfig
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.descriptors import EnvoyTypes
from rich.table import Table

from bench.measure import Result
from bench.plan import Case, Plan, Proxy, quick_plan
from bench.proxies import INTERFACE, METHOD

Json = dict[str, Any]

NOTHING = "none"
_SERVICES = ("authz", "limiter", "spans")


@dataclass(frozen=True)
class Feature:
    """What is done with each request: members of the objects that they are named after."""

    name: str
    config: Json
    table: Json
    route: Json
    policy: Json

    @property
    def proxy(self) -> Proxy:
        """Its listener."""
        return Proxy(self.name, "dubbo", 1)

    @property
    def cluster(self) -> str:
        """Its cluster, whose name may have no spaces."""
        return "feature-" + re.sub(r"[^a-z]+", "-", self.name.lower())


def features(microbench: Path) -> list[Feature]:
    """None, each by itself, and all, as the benchmark of the engine has them."""
    done = subprocess.run(
        [str(microbench), "--feature-list"], check=True, capture_output=True, text=True
    )
    return features_in(done.stdout)


def features_in(listed: str) -> list[Feature]:
    """Those of a list in JSON."""
    found = []
    for item in json.loads(listed):
        for question in ("external_authorization", "global_rate_limit"):
            if question in item["table"]:  # whose service is slow here
                item["table"][question]["timeout"] = "10s"
        found.append(Feature(**item))
    return found


def feature_plan(found: Sequence[Feature], *, quick: bool, rounds: int) -> Plan:
    """One shape of traffic through all of them."""
    plan = quick_plan()
    proxies = tuple(feature.proxy for feature in found)
    case = Case(16, 1, 100, proxies, longer_replies=True)
    return replace(
        plan,
        cases=(case,),
        targets=(),
        memory=(),
        scale_rounds=0,
        rounds=rounds or (4 if quick else 15),
        open_rounds=0,
        closed_seconds=0.2 if quick else 0.4,
    )


def feature_bootstrap(
    builder: ConfigBuilder, types: EnvoyTypes, found: Sequence[Feature], server: int, services: int
) -> Json:
    """The bootstrap with all of them."""
    plain = Host("127.0.0.1", server)
    clusters: list[Any] = [Cluster("copies", [plain])]
    for name in _SERVICES:
        clusters.append(builder.http2_cluster(Cluster(name, [Host("127.0.0.1", services)])))
    listeners = []
    for feature in found:
        policy = json_format.ParseDict(feature.policy, ClusterPolicy())
        clusters.append(Cluster(feature.cluster, [plain], policy=policy))
        listeners.append(MetaProtocolListener(feature.proxy.listener, _config(feature)))
    return types.to_dict(builder.bootstrap(Bootstrap(listeners=listeners, clusters=clusters)))


def _config(feature: Feature) -> ProxyConfig:
    match = [{"key": "interface", "exact": INTERFACE}, {"key": "method", "exact": METHOD}]
    route = {"match": match, "cluster": feature.cluster, **feature.route}
    table = {"name": "t", "routes": [route], **feature.table}
    content = {
        "name": feature.cluster,
        "protocol": {"codec": "dubbo"},
        "route_tables": [table],
        **feature.config,
    }
    return json_format.ParseDict(content, ProxyConfig())


@contextlib.contextmanager
def running_services() -> Iterator[int]:
    """The services that features ask; their port."""
    command = [sys.executable, "-m", "bench.services"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def differences(result: Result, plain: Result) -> float:
    """Microseconds of CPU more per request than without features: the median of the rounds."""
    key = "cpu_us_per_request"
    pairs = zip(result.samples[key], plain.samples[key], strict=True)
    return median(ours - theirs for ours, theirs in pairs)


def feature_table(results: Sequence[Result]) -> Table:
    """What people are shown, the dearest last."""
    plain = next(result for result in results if result.proxy.name == NOTHING)
    table = Table(title="What each feature costs, through Envoy", title_justify="left")
    table.add_column("feature")
    table.add_column("Envoy CPU us/request", justify="right")
    table.add_column("more", justify="right")
    rows = sorted(
        ((differences(result, plain), result) for result in results if result is not plain),
        key=lambda row: row[0],
    )
    table.add_row(NOTHING, f"{plain.value('cpu_us_per_request'):.2f}", "")
    for more, result in rows:
        cpu = f"{result.value('cpu_us_per_request'):.2f}"
        failed = f", {result.failed} failed" if result.failed else ""
        table.add_row(result.proxy.name + failed, cpu, f"{more:+.2f}")
    return table
