"""Tests in Python, those through a real Envoy among them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import envoys

from sections.builds import Build, clang, has_fuzzer
from sections.results import BIN, BUILD, ROOT, Finished, Result, Run, run, say

# Traffic of both protocols, peers that break every rule, and Envoy's own comings and goings.
UBSAN_TESTS = ("test_dubbo", "test_thrift", "test_hostile_clients", "test_life")

# What an older interface of Envoy's could break: traffic, updates, peers that break rules, metrics,
# Envoy's comings and goings, a control plane; and the module as part of the process. What only
# codecs decide is the same in all: they know no Envoy.
RELEASE_TESTS = (
    "test_dubbo",
    "test_thrift",
    "test_streams",
    "test_config_updates",
    "test_hostile_clients",
    "test_hostile_servers",
    "test_hostile_thrift",
    "test_metrics",
    "test_life",
    "test_xds",
)

LIBFUZZER_TESTS = "tests/python/fuzz/test_libfuzzer.py"
"""These use the fuzz targets of the build with the address sanitizer: they belong to its section,
where there is one in the same run."""

_INTERRUPTED = 2
"""Pytest's own code after Ctrl-C, when it has said what there was until then. One that was killed
has not, and may have found failures."""


def pytest(
    *paths: str,
    jobs: int = 0,
    options: Sequence[str] = (),
    python: Sequence[str | Path] = (BIN / "python",),
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Run pytest, in that many processes. Each takes whole files, whose tests may share what they
    start."""
    command = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    if jobs:
        command += ["--numprocesses", str(jobs), "--dist", "loadfile"]
    return counted(run([*command, *paths], environment))


def counted(finished: Finished) -> Result:
    """What pytest's last line says: "3 failed, 120 passed, 4 skipped in 61.02s (0:01:01)"."""
    result = Result()
    last = finished.output.strip().rpartition("\n")[2]
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)
    }
    result.passed = counts.get("passed", 0)
    result.failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    result.skipped = counts.get("skipped", 0)
    if result.failed:
        named = re.findall(r"^(?:FAILED|ERROR) (\S+)", finished.output, re.MULTILINE)
        result.failures = [f"pytest: {name}" for name in named] or [f"pytest: {last}"]
    elif finished.code != 0 and not (finished.cut and finished.code == _INTERRUPTED):
        result.add(False, f"pytest ended with code {finished.code}")
    return result


def python(asked: Run, _: Build) -> Result:
    if not (ROOT / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so").is_file():
        result = Result()
        result.add(False, "the module is not built (make test ONLY=cpp)")
        return result
    options = ["--durations=10"]
    if "asan" in asked.sections and has_fuzzer():
        options.append(f"--ignore={LIBFUZZER_TESTS}")
    environment = {"PYTHONHASHSEED": "1"}  # random tests choose from sets, too
    return pytest("tests", jobs=asked.jobs, options=options, environment=environment)


def other_envoys(asked: Run, _: Build) -> Result:
    result = Result()
    for release in envoys.VERSIONS:
        try:
            executable = envoys.installed(release)
        except subprocess.CalledProcessError:
            result.add(False, f"Envoy {release} cannot be installed")
            continue
        say(f"Envoy {release}: {executable}")
        paths = [f"tests/envoy/{name}.py" for name in RELEASE_TESTS]
        environment = {"ENVOY": str(executable)}
        result.include(
            pytest(*paths, "tests/static_module", jobs=asked.jobs, environment=environment)
        )
    return result


def envoy_ubsan(asked: Run, made: Build) -> Result:
    """Undefined behaviour ends Envoy, and leaves a report even if the test did not mind."""
    if clang() is None:
        result = Result()
        result.skip("the module under UBSan in Envoy (it needs clang)")
        return result
    if not made.ok:
        return Result()
    build = BUILD / "ubsan-module"
    module = build / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so"
    reports = build / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    result = pytest(
        *(f"tests/envoy/{name}.py" for name in UBSAN_TESTS),
        jobs=asked.jobs,
        environment={
            "METAPROTOCOL_MODULE": str(module),
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/envoy",
        },
    )
    found = sorted(reports.iterdir())
    for report in found:
        say(report.read_text(errors="replace"))
    result.add(not found, f"{len(found)} reports of undefined behaviour")
    return result
