"""The benchmark itself: every proxy answers every request, and rows have the promised form."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from metaprotocol.envoy import EnvoyProcess
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder

from bench import report
from bench.measure import (
    LoadError,
    LoadTool,
    Process,
    Relay,
    Result,
    Servers,
    memory_per_connection,
    ratio,
    run_case,
    verdicts,
)
from bench.placement import Placement, cores_for, placed
from bench.plan import (
    ALL_PROXIES,
    DUBBO,
    FEW_ROUTES,
    FLOOR,
    META_DUBBO,
    META_THRIFT,
    TCP_DUBBO,
    Case,
    Home,
    Plan,
    Proxy,
    Target,
    beside,
    full_plan,
    key_of,
    quick_plan,
)
from bench.proxies import bootstrap
from bench.scale import CHANGING, STATISTICS, Crowd, TurnClock, longest_turn

ROOT = Path(__file__).resolve().parents[2]

ROW_KEYS = [
    "proxy",
    "protocol",
    "connections",
    "in_flight",
    "bytes",
    "one_way",
    "routes",
    "build",
    "cpu_us_per_request",
    "requests_per_second",
    "p50_us",
    "p99_us",
    "failed",
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++") or shutil.which("clang++-14")
    assert compiler, "no C++ compiler"
    folder = tmp_path_factory.mktemp("bench")
    for name in ("load", "relay"):
        source = ROOT / "bench" / f"{name}.cc"
        subprocess.run(
            [compiler, "-std=c++20", "-O1", "-I", ROOT, "-o", folder / name, source], check=True
        )
    source = ROOT / "bench/preload/turn_clock.cc"
    library = folder / "turn_clock.so"
    subprocess.run(
        [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-o", library, source], check=True
    )
    return folder


@pytest.fixture(scope="module")
def tool(programs: Path) -> LoadTool:
    return LoadTool(programs / "load")


@pytest.fixture(scope="module")
def servers(tool: LoadTool) -> Iterator[Servers]:
    with Servers(tool) as servers:
        yield servers


@pytest.fixture(scope="module")
def envoy(builder: ConfigBuilder, servers: Servers) -> Iterator[EnvoyProcess]:
    config = bootstrap(builder.types, find_module(), servers.ports, ALL_PROXIES)
    with EnvoyProcess(config, log_level="warning") as envoy:
        yield envoy


@pytest.fixture(scope="module")
def homes(
    envoy: EnvoyProcess, programs: Path, servers: Servers
) -> Iterator[Mapping[Home, Process]]:
    with Relay(programs / "relay", servers.ports) as relay:
        yield {Home.ENVOY: envoy, Home.RELAY: relay}


BRIEF = replace(full_plan(), rounds=1, closed_seconds=0.4, open_seconds=0.4, warmup_seconds=0.05)


@pytest.mark.parametrize("proxy", [*ALL_PROXIES, FLOOR], ids=lambda proxy: proxy.listener)
@pytest.mark.parametrize("size", [100, 64 << 10])
def test_every_proxy_of_the_plan_answers_every_request(
    tool: LoadTool, homes: Mapping[Home, Process], servers: Servers, proxy: Proxy, size: int
) -> None:
    case = Case(2, 2, size, (proxy,))
    (result,) = run_case(case, BRIEF, tool, homes, servers, lambda _: None)
    assert result.failed == 0
    row = result.row()
    assert list(row) == ROW_KEYS
    assert row["requests_per_second"] > 0
    assert row["cpu_us_per_request"] > 0
    assert 0 < row["p50_us"] <= row["p99_us"]


@pytest.mark.parametrize(
    "proxy", [META_DUBBO, META_THRIFT, TCP_DUBBO, FLOOR], ids=lambda proxy: proxy.listener
)
def test_every_message_without_reply_reaches_the_server(
    tool: LoadTool, programs: Path, builder: ConfigBuilder, proxy: Proxy
) -> None:
    with (
        Servers(tool) as servers,
        EnvoyProcess(
            bootstrap(builder.types, find_module(), servers.ports, ALL_PROXIES), log_level="error"
        ) as own,
        Relay(programs / "relay", servers.ports) as relay,
    ):
        home: Process = relay if proxy is FLOOR else own
        case = Case(8, 1, 100, (proxy,), one_way=7)
        ended = tool.client(
            proxy, home.listener_port(proxy.listener), case, seconds=0.2, warmup=0.05
        )
        assert ended["failed"] == 0
        assert ended["one_way"] >= ended["requests"] / 8 * 7
        assert servers.close()["one_way"] == ended["one_way"]


def test_a_proxy_of_another_build_runs_in_an_envoy_of_its_own(
    tool: LoadTool, homes: Mapping[Home, Process], servers: Servers, envoy: EnvoyProcess
) -> None:
    plan = beside(replace(BRIEF, cases=(Case(2, 2, 100, (META_DUBBO, TCP_DUBBO)),)))
    (case,) = plan.cases
    # Envoy's own filters have no part in it, and would make one of the two Envoys another one.
    assert [proxy.home for proxy in case.proxies] == [Home.ENVOY, Home.BESIDE]
    results = run_case(case, plan, tool, {**homes, Home.BESIDE: envoy}, servers, lambda _: None)
    assert [result.row()["build"] for result in results] == ["this", "other"]


def test_the_longest_turn_of_a_worker_is_known(
    tool: LoadTool, servers: Servers, builder: ConfigBuilder, tmp_path: Path
) -> None:
    crowd = Crowd(builder, tmp_path)
    config = bootstrap(
        builder.types,
        find_module(),
        servers.ports,
        [META_DUBBO],
        clusters=crowd.clusters()[: CHANGING + 5],
        extra=STATISTICS,
    )
    clock = TurnClock(tool.path.with_name("turn_clock.so"), tmp_path)
    with EnvoyProcess(config, environment=clock.environment, log_level="error") as envoy:
        clock.reset()
        before = envoy.stats(r"cluster\.crowd-0\.update_success")["cluster.crowd-0.update_success"]
        with crowd.changing():
            port = envoy.listener_port(META_DUBBO.listener)
            ended = tool.client(META_DUBBO, port, Case(4, 1, 100, ()), seconds=1.5, warmup=0)
        assert ended["failed"] == 0
        after = envoy.stats(r"cluster\.crowd-0\.update_success")["cluster.crowd-0.update_success"]
        assert after > before
        for turns in (longest_turn(envoy), clock.turns()):
            assert 0 < turns.p99 <= turns.longest


@pytest.mark.parametrize("available", [[0], [0, 1], [2, 3, 5, 7]])
def test_both_sides_of_a_ratio_meet_the_same_cores(available: list[int]) -> None:
    everything = set(available)
    turns = [cores_for(Placement.ONE, number, available) for number in range(8)]
    assert all(cores.envoy == cores.load for cores in turns)
    assert [cores.envoy for cores in turns[0::2]] == [cores.envoy for cores in turns[1::2]]
    assert set().union(*(cores.envoy for cores in turns)) == everything
    free = cores_for(Placement.FREE, 0, available)
    assert free.envoy == free.load == everything
    split = cores_for(Placement.SPLIT, 0, available)
    assert split.envoy | split.load == everything
    assert len(available) == 1 or (len(split.envoy) == 1 and not split.envoy & split.load)


def test_processes_are_given_back_all_cores(envoy: EnvoyProcess, servers: Servers) -> None:
    before = os.sched_getaffinity(0)
    cores = cores_for(Placement.ONE, 0, sorted(before))
    with placed(cores, [envoy.pid], servers.pid):
        for pid in (envoy.pid, servers.pid, 0):
            assert os.sched_getaffinity(pid) == cores.envoy
        child = subprocess.run(["nproc"], capture_output=True, text=True, check=True)
        assert int(child.stdout) == len(cores.load)
    for pid in (envoy.pid, servers.pid, 0):
        assert os.sched_getaffinity(pid) == before


def test_a_connection_that_is_refused_is_reported_not_measured(tool: LoadTool) -> None:
    with Servers(tool) as gone:
        port = gone.ports.dubbo
    with pytest.raises(LoadError, match="cannot connect"):
        tool.client(META_DUBBO, port, Case(1, 1, 100, (META_DUBBO,)), seconds=0.1, warmup=0)


def test_requests_that_get_no_proper_reply_count_as_failed(
    tool: LoadTool, servers: Servers
) -> None:
    # Dubbo clients at a Thrift server: no reply makes sense to them.
    case = Case(1, 1, 100, (META_DUBBO,))
    ended = tool.client(META_DUBBO, servers.ports.thrift, case, seconds=0.2, warmup=0)
    assert ended["requests"] == 0
    assert ended["failed"] > 0


def test_memory_is_measured_over_connections_that_work(
    builder: ConfigBuilder, tool: LoadTool, servers: Servers
) -> None:
    config = bootstrap(builder.types, find_module(), servers.ports, [META_DUBBO])
    with EnvoyProcess(config, log_level="warning") as envoy:
        assert memory_per_connection(META_DUBBO, 200, tool, envoy, 1000) > 0


def _result(case: Case, proxy: Proxy, cpu: list[float]) -> Result:
    result = Result(case, proxy)
    for value in cpu:
        result.add(cpu_us_per_request=value, requests_per_second=1.0, p50_us=2.0, p99_us=3.0)
    return result


def test_ratios_are_medians_of_what_was_measured_side_by_side() -> None:
    case = Case(16, 1, 100, (META_DUBBO, TCP_DUBBO))
    ours = _result(case, META_DUBBO, [1.0, 30.0, 3.0])
    theirs = _result(case, TCP_DUBBO, [2.0, 50.0, 4.0])
    assert ratio(ours, theirs, "cpu_us_per_request") == 0.6


def test_a_target_is_met_at_its_bound_and_open_if_it_was_not_measured() -> None:
    case = Case(16, 1, 100, (META_DUBBO, TCP_DUBBO))
    results = [_result(case, META_DUBBO, [9.0]), _result(case, TCP_DUBBO, [10.0])]
    met, missed, unknown = verdicts(
        [
            Target("", key_of(case), META_DUBBO, TCP_DUBBO, 0.9),
            Target("", key_of(case), META_DUBBO, TCP_DUBBO, 0.89),
            Target("", key_of(case), META_DUBBO, DUBBO, 1.0),
        ],
        results,
    )
    assert met.met
    assert not missed.met
    assert unknown.ratio is None


@pytest.mark.parametrize("plan", [full_plan(), quick_plan()], ids=["full", "quick"])
def test_every_target_is_measured_by_both_plans(plan: Plan) -> None:
    cases = {key_of(case): case for case in plan.cases}
    assert plan.targets
    for target in plan.targets:
        assert {target.proxy, target.reference} <= set(cases[target.case].proxies)


def test_rows_are_written_as_a_list(tmp_path: Path) -> None:
    case = Case(16, 1, 100, (META_DUBBO,))
    path = tmp_path / "folder" / "bench.json"
    report.write_rows(path, [_result(case, META_DUBBO, [9.0]), _result(case, META_DUBBO, [8.0])])
    first, second = json.loads(path.read_text())
    assert list(first) == ROW_KEYS
    assert first["cpu_us_per_request"] == 9.0
    assert first["routes"] == FEW_ROUTES
    assert second["cpu_us_per_request"] == 8.0
