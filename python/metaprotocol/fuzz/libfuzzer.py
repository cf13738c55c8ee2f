"""libFuzzer at work: a process for each side of a connection, watched; what it finds made small."""

from __future__ import annotations

import hashlib
import math
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from metaprotocol.fuzz.campaign import MOST_FINDINGS, Campaign, Finding, Progress, saved, shortened
from metaprotocol.fuzz.messages import MOST_BYTES, seeds
from metaprotocol.fuzz.programs import Program
from metaprotocol.fuzz.worker import DIRECTIONS

__all__ = ["fuzz"]

_STATUS = re.compile(r"#(\d+)\t.*?cov: (\d+) ft: \d+ corp: (\d+)/")
_MESSAGES = re.compile(r"MESSAGES: (\d+)")
_RULES = (
    re.compile(r"BROKEN: (.*)"),
    re.compile(r"(?:\S*/)?(\S+: runtime error: .*)"),
    re.compile(r"SUMMARY: (AddressSanitizer: \S+(?: \S+)?)"),
    re.compile(r"ERROR: (libFuzzer: .*?)(?: \(|$)"),
)
_BROKEN = "BROKEN: "
_LIMITS = ("-timeout=10", "-rss_limit_mb=2048")
_MINIMIZE_SECONDS = 3
# Of a process that should have ended before.
_MOST_SECONDS = 120


@dataclass
class _Side:
    """What one process does, and has done."""

    name: str
    command: list[str]
    """Without what changes from one start to the next."""
    sources: list[str]
    """Of inputs: folders, the first of which takes what is found, and a dictionary."""
    artifacts: Path
    told: list[str] = field(default_factory=list)
    executions: int = 0
    before: int = 0
    """Executions of the processes before this one."""
    coverage: int = 0
    corpus: int = 0
    messages: int = 0
    stopped: bool = False
    process: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """No process from now on."""
        self.stopped = True
        if self.process is not None:
            self.process.kill()


def fuzz(
    campaign: Campaign, program: Program, show: Callable[[Progress], None] = lambda _: None
) -> Progress:
    """Runs the program to the end of the time; what was found is saved, and made small."""
    progress = Progress(coverage=0)
    begin = time.monotonic()
    changed = threading.Lock()
    with tempfile.TemporaryDirectory() as scratch:
        sides = [
            _side(campaign, program, name, Path(scratch))
            for name in DIRECTIONS
            if campaign.side in ("", name)
        ]

        def count() -> None:
            with changed:
                progress.executions = sum(side.before + side.executions for side in sides)
                progress.messages = sum(side.messages for side in sides)
                progress.coverage = sum(side.coverage for side in sides)
                progress.corpus = sum(side.corpus for side in sides)
                progress.seconds = time.monotonic() - begin
                show(progress)

        def run(side: _Side) -> None:
            for finding in _findings(side, campaign, begin + campaign.seconds, count):
                with changed:
                    progress.findings.append(finding)
            count()

        threads = [threading.Thread(target=run, args=(side,), daemon=True) for side in sides]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            for side in sides:
                side.stop()
            raise
        progress.seconds = time.monotonic() - begin
        commands = {side.name: side.command for side in sides}
        progress.findings = [
            saved(
                _minimized(found, commands[found.side], Path(scratch)),
                campaign,
                commands[found.side],
            )
            for found in progress.findings
        ]
    return progress


def _side(campaign: Campaign, program: Program, name: str, scratch: Path) -> _Side:
    begin = scratch / "begin" / name
    begin.mkdir(parents=True)
    for data in _beginning(campaign, name):
        (begin / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)
    kept = (campaign.corpus or scratch / "corpus") / name
    kept.mkdir(parents=True, exist_ok=True)
    artifacts = scratch / "artifacts" / name
    artifacts.mkdir(parents=True)
    command = [str(program.path), *program.options, f"--side={name}"]
    sources = [str(kept), str(begin)]
    if program.dictionary is not None:
        sources.insert(0, f"-dict={program.dictionary}")
    return _Side(name, command, sources, artifacts)


def _beginning(campaign: Campaign, side: str) -> Iterator[bytes]:
    yield from seeds(campaign.target, DIRECTIONS[side])
    if campaign.corpus is None or not campaign.corpus.is_dir():
        return
    for file in campaign.corpus.rglob("*"):
        # What is in the side's own folder is read there.
        if file.is_file() and file.parent.name not in DIRECTIONS:
            yield file.read_bytes()[:MOST_BYTES]


def _findings(
    side: _Side, campaign: Campaign, end: float, count: Callable[[], None]
) -> Iterator[Finding]:
    """Starts the process again after each rule that broke, which then ends it no more."""
    seed = campaign.seed
    while (left := end - time.monotonic()) > 0 and len(side.told) < MOST_FINDINGS:
        rule = _run(side, seed, left, count)
        if rule is None or side.stopped:
            return
        artifact = next((file for file in side.artifacts.iterdir()), None)
        data = b"" if artifact is None else artifact.read_bytes()
        yield Finding(rule.removeprefix(_BROKEN), side.name, data)
        if not rule.startswith(_BROKEN):
            return  # it would end by the same fault again
        side.told.append(rule.removeprefix(_BROKEN))
        for file in side.artifacts.iterdir():
            file.unlink()
        seed += 1


def _run(side: _Side, seed: int, seconds: float, count: Callable[[], None]) -> str | None:
    """Why the process ended: what ``_RULES`` find, None if the time was over."""
    command = [*side.command, *(f"--told={rule}" for rule in side.told)]
    command += [f"-seed={seed or 1}", f"-max_total_time={math.ceil(seconds)}"]
    command += [f"-max_len={MOST_BYTES}", "-print_final_stats=1", *_LIMITS]
    command += [f"-artifact_prefix={side.artifacts}/", *side.sources]
    lines: list[str] = []
    messages = side.messages
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        side.process = process
        assert process.stderr is not None
        for line in process.stderr:
            if found := _STATUS.match(line):
                side.executions = int(found[1])
                side.coverage = max(side.coverage, int(found[2]))
                side.corpus = int(found[3])
                count()
            elif found := _MESSAGES.match(line):
                side.messages = messages + int(found[1])
            else:
                lines.append(line)
                del lines[:-400]
        code = process.wait()
    side.before += side.executions
    side.executions = 0
    return _rule(lines, code) if code else None


def _rule(lines: list[str], code: int) -> str:
    for pattern in _RULES:
        for line in lines:
            if found := pattern.search(line):
                return f"{_BROKEN}{found[1]}" if pattern is _RULES[0] else found[1].strip()
    return f"libFuzzer ends with {code}: {lines[-1].strip() if lines else ''}"


def _minimized(finding: Finding, command: list[str], scratch: Path) -> Finding:
    """The same with as few bytes as libFuzzer finds, and then without each that is not needed."""
    # A rule of another name is another finding. Sanitizers heed no such option.
    command = [*command, f"--only={finding.rule}", *_LIMITS]
    before, after = scratch / "found", scratch / "smaller"
    before.write_bytes(finding.data)
    after.unlink(missing_ok=True)
    options = ["-minimize_crash=1", f"-max_total_time={_MINIMIZE_SECONDS}"]
    options.append(f"-exact_artifact_path={after}")
    _ends_well([*command, *options, str(before)], scratch)

    def breaks(data: bytes) -> bool:
        before.write_bytes(data)
        return not _ends_well([*command, str(before)], scratch)

    found = after.read_bytes() if after.exists() else finding.data
    if breaks(found):
        found = shortened(found, breaks, _MINIMIZE_SECONDS)
    return Finding(finding.rule, finding.side, found)


def _ends_well(command: list[str], scratch: Path) -> bool:
    # Places in the source take longest to tell.
    options = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS", ""), "symbolize=0"]))
    try:
        done = subprocess.run(
            command, cwd=scratch, env={**os.environ, "ASAN_OPTIONS": options}, capture_output=True,
            timeout=_MOST_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
